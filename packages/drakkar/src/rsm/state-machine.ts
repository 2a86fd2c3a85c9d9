/**
 * What users write: the state machine that Drakkar replicates. Three kinds, told apart by `kind`: regular (in memory), concurrent (in
 * memory, saved while it goes on) and on-disk (keeps its state itself). docs/state-machines.md is the guide.
 */

/** What a command answers: a number or bytes. The caller of `propose` gets it. */
export type Result = number | Uint8Array;

const EMPTY = new Uint8Array(0);

/**
 * A committed command. Entries are reused: one is valid only inside the `update` call it was given to (on-disk: until its promise
 * resolves), and so are the bytes behind `bytes`, `offset` and `lengthBytes`. `command` is a copy that may be kept.
 */
export class Entry {
  index = 0;
  /** The command is `bytes[offset, offset + lengthBytes)`, read in place: the fast way. */
  bytes: Uint8Array = EMPTY;
  offset = 0;
  lengthBytes = 0;
  /** Set by `update`; 0 when it is not. Bytes are kept by reference: give ones that nobody changes. */
  result: Result = 0;

  /** A copy of the command: the friendly way. */
  get command(): Uint8Array {
    return this.bytes.slice(this.offset, this.offset + this.lengthBytes);
  }
}

/** Walks the committed commands of a block without an object for each; the fastest form. */
export interface EntryCursor {
  readonly count: number;
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Moves to the next command; false behind the last. */
  next(): boolean;
  /** Answers the current command. */
  setResult(result: Result): void;
}

/** A file that belongs to a snapshot beside what `saveSnapshot` gives. */
export interface SnapshotFile {
  /** Unique in its snapshot; 0 or more. */
  readonly id: number;
  /** Where its bytes are. They must not change until the snapshot is released. */
  readonly path: string;
  /** Given back at recovery as it is; at most 64 KiB. */
  readonly metadata?: Uint8Array;
}

export interface SnapshotContext {
  /** Aborted when the snapshot is no longer wanted: the replica stops, or its receiver is gone. */
  readonly signal: AbortSignal;
}

export interface RecoveryContext extends SnapshotContext {
  /** The files of the snapshot, copied out and verified. They are removed when the call ends: move or copy what is to stay. */
  readonly files: readonly SnapshotFile[];
}

/** A row of the session table: see `OnDiskStateMachine`. */
export interface SessionChange {
  /** 16 hexadecimal digits. */
  readonly key: string;
  /** At most some KiB, opaque. Undefined: the row goes. */
  readonly value: Uint8Array | undefined;
}

/** What every kind has. */
interface CommonStateMachine<Query, Value> {
  /** Reads. Must not change anything. A promise is fine: `read` waits for it; what it rejects with reaches its caller alone. */
  lookup(query: Query): Value;
  /** A digest of the state, equal on replicas that applied the same commands; for consistency checks. */
  hash?(): number;
  /** Nothing is called any more. Gives back what the state machine holds. */
  close?(): void | Promise<void>;
}

/**
 * A regular state machine: lives in memory, starts empty, is rebuilt from a snapshot and the log behind it.
 *
 * `update` must be deterministic: the same commands in the same order give the same state and the same results on every
 * replica. No clock, no randomness, no I/O. If it throws, the replica fails and its host goes on (`ERR_STATE_MACHINE`).
 */
export interface StateMachine<Query = unknown, Value = unknown> extends CommonStateMachine<Query, Value> {
  readonly kind?: 'regular';
  /** Applies committed commands in order and answers each through `entry.result`. Synchronous. */
  update(entries: readonly Entry[]): void;
  /** When given, used in place of `update`. */
  updateCursor?(cursor: EntryCursor): void;
  /**
   * The whole state in pieces of any size. No update runs until the iteration ends. Throwing an `AbortError` gives the snapshot up
   * without harm; anything else fails the replica.
   */
  saveSnapshot(context: SnapshotContext): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** Files that go with the snapshot; asked for right before `saveSnapshot`. */
  snapshotFiles?(): readonly SnapshotFile[];
  /** Replaces the whole state by an image that `saveSnapshot` gave, cut into other pieces. */
  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: RecoveryContext): Promise<void>;
}

/** What a state machine does that can be saved while updates go on. */
interface PreparedSnapshots<Prepared> {
  /**
   * Captures the state as it is between two updates: a persistent map's root, a store's snapshot, a copy. Synchronous and short, no
   * update runs meanwhile. What it gives is handed to `saveSnapshot`.
   */
  prepareSnapshot(): Prepared;
  /** The prepared state in pieces of any size, while updates and look-ups go on. `AbortError` as above. */
  saveSnapshot(prepared: Prepared, context: SnapshotContext): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** Files that go with the snapshot; asked for right after `prepareSnapshot`. */
  snapshotFiles?(prepared: Prepared): readonly SnapshotFile[];
  /** Called exactly once for everything prepared, also when it was never saved. */
  releaseSnapshot?(prepared: Prepared): void | Promise<void>;
}

/** As a regular one, but a snapshot does not hold updates up. */
export interface ConcurrentStateMachine<Query = unknown, Value = unknown, Prepared = unknown>
  extends CommonStateMachine<Query, Value>,
    PreparedSnapshots<Prepared> {
  readonly kind: 'concurrent';
  update(entries: readonly Entry[]): void;
  updateCursor?(cursor: EntryCursor): void;
  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: RecoveryContext): Promise<void>;
}

/** What belongs into the one atomic write of an `update`. */
export interface DiskBatch {
  /** Everything up to here is applied once the batch is stored. At least the index of the last entry. */
  readonly index: number;
  /**
   * Changes of the session table, with the answers in them: ask when every `entry.result` is set, and store them in the same atomic
   * write. Empty when nothing changed. Asking again gives the same.
   */
  sessionChanges(): readonly SessionChange[];
}

/** What `open` finds. */
export interface OpenedState {
  /** `index` of the last batch that is stored; 0 for a new store. */
  readonly appliedIndex: number;
  /** The rows of the session table, empty at first. Left out: this state machine keeps none, and its shard refuses sessions. */
  readonly sessions?: Iterable<readonly [key: string, value: Uint8Array]>;
}

export interface DiskRecoveryContext extends RecoveryContext {
  /** What `open` must give as `appliedIndex` from now on. */
  readonly index: number;
  /** The whole session table, in place of the one that is stored. */
  readonly sessions: readonly SessionChange[];
}

/**
 * A state machine that keeps its state itself, in files or in an embedded database. The log is replayed only from `appliedIndex` on, and
 * snapshots hold no state; a replica that needs an image gets it streamed from another one's store.
 *
 * Each `update` must be stored atomically together with `batch.index`, so that a crash leaves all of it or nothing, and never a later
 * batch without an earlier one. It need not be durable at once: that is what `sync` is for.
 */
export interface OnDiskStateMachine<Query = unknown, Value = unknown, Prepared = unknown>
  extends CommonStateMachine<Query, Value>,
    PreparedSnapshots<Prepared> {
  readonly kind: 'on-disk';
  /** Called once, before anything else. */
  open(context: SnapshotContext): OpenedState | Promise<OpenedState>;
  /**
   * Applies committed commands in order, answers each through `entry.result`, and stores the changes with `batch`. May have no
   * entries: then only the batch is stored. One at a time; the next comes when the promise has resolved.
   */
  update(entries: readonly Entry[], batch: DiskBatch): void | Promise<void>;
  /** Makes all that was stored durable, also against loss of power. Left out: `update` does already. Never while an update runs. */
  sync?(): void | Promise<void>;
  /**
   * Replaces the whole state, index and session table. Durable when it resolves. A crash before that may leave anything, but then
   * `open` must give an index below `context.index`: the image is handed over again.
   */
  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: DiskRecoveryContext): Promise<void>;
}

export type AnyStateMachine<Query = any, Value = any> =
  | StateMachine<Query, Value>
  | ConcurrentStateMachine<Query, Value, any>
  | OnDiskStateMachine<Query, Value, any>;

export type StateMachineKind = 'regular' | 'concurrent' | 'on-disk';

export type StateMachineFactory = (shardId: number, replicaId: number) => AnyStateMachine;
