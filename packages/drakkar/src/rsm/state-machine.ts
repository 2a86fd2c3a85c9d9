/** What users write: the state machine that Drakkar replicates. */

/** What a command answers: a number or bytes. The caller of `propose` gets it. */
export type Result = number | Uint8Array;

const EMPTY = new Uint8Array(0);

/**
 * A committed command. Entries are reused: one is valid only inside the `update` call it was given to, and so are the bytes
 * behind `bytes`, `offset` and `lengthBytes`. `command` is a copy that may be kept.
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

export interface SnapshotContext {
  /** Aborted when the snapshot is no longer wanted: the replica stops. */
  readonly signal: AbortSignal;
}

/**
 * A regular state machine: lives in memory, starts empty, is rebuilt from a snapshot and the log behind it.
 *
 * `update` must be deterministic: the same commands in the same order give the same state and the same results on every
 * replica. No clock, no randomness, no I/O. If it throws, the replica fails and its host goes on (`ERR_STATE_MACHINE`).
 */
export interface StateMachine<Query = unknown, Value = unknown> {
  readonly kind?: 'regular';
  /** Applies committed commands in order and answers each through `entry.result`. Synchronous. */
  update(entries: readonly Entry[]): void;
  /** When given, used in place of `update`. */
  updateCursor?(cursor: EntryCursor): void;
  /** Reads. Must not change anything. Synchronous. */
  lookup(query: Query): Value;
  /** The whole state in pieces of any size. No update runs until the iteration ends. */
  saveSnapshot(context: SnapshotContext): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** Replaces the whole state by an image that `saveSnapshot` gave, cut into other pieces. */
  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: SnapshotContext): Promise<void>;
  /** A digest of the state, equal on replicas that applied the same commands; for consistency checks. */
  hash?(): number;
  close?(): void | Promise<void>;
}

export type StateMachineFactory = (shardId: number, replicaId: number) => StateMachine<any, any>;
