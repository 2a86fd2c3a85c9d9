/**
 * The replicated state machine of one replica: applies committed entries to the user's state machine and to the sessions.
 * Deterministic: the same entries give the same state everywhere. Regular and concurrent state machines are given entries through
 * `apply`, on-disk ones through `gather` and `store`; images of all of them are made and read by `captures.ts`. What entries do that are no
 * plain commands stands in `special-entries.ts`.
 *
 * `apply` is on the hot path: nothing is allocated there per entry.
 */
import { DrakkarError, invariant } from '../errors.ts';
import type { FileSystem } from '../env/env.ts';
import { EntryType, entryType, entryWords, keyNonce, keySequence, payloadLengthBytes } from '../wire/entry.ts';
import { checksum } from '../wire/checksum.ts';
import type { Membership } from '../wire/membership.ts';
import { ApplyStatus, type ApplySink } from './apply-sink.ts';
import { capture, readImage } from './captures.ts';
import { BUILT_IN_CODECS, type Codecs } from './codec.ts';
import { BATCH_MAX, BatchCursor, EntryBatch } from './entries.ts';
import { Gate } from './gate.ts';
import { PLAIN, type Packing } from './image.ts';
import { SESSIONS_MAX, Sessions } from './sessions.ts';
import { takeSpecial, type BatchedSession } from './special-entries.ts';
import type { AnyStateMachine, DiskBatch, Result, SessionChange, StateMachineKind } from './state-machine.ts';

export interface RsmOptions {
  readonly shardId: number;
  readonly replicaId: number;
  readonly stateMachine: AnyStateMachine;
  readonly membership: Membership;
  /** Default 4096. Equal on all replicas. */
  readonly maxSessions?: number;
  /** Where the files of snapshots are, and a directory for those that are copied out of images. */
  readonly files?: { readonly fs: FileSystem; readonly dir: string };
  /** How its images are written. */
  readonly packing?: Packing;
  /** What images may be compressed with that it reads. Default: what is built in. */
  readonly codecs?: Codecs;
}

/** One for all shards of the thread with state machines in memory: `apply` is synchronous, and leaves nothing in them. */
const BATCH = new EntryBatch();
const CURSOR = new BatchCursor();
const BATCHED_SESSIONS: BatchedSession[] = [];

export class Rsm {
  readonly shardId: number;
  readonly replicaId: number;
  readonly kind: StateMachineKind;
  readonly stateMachine: AnyStateMachine;
  readonly maxSessions: number;
  readonly files: RsmOptions['files'];
  readonly packing: Packing;
  readonly codecs: Codecs;
  sessions: Sessions;
  appliedIndex = 0;
  appliedTerm = 0;
  membership: Membership;
  /** A snapshot of a regular state machine streams: nothing may be applied. */
  busy = false;
  private updateGate: Gate | undefined;
  private callGate: Gate | undefined;
  /** On-disk: everything up to here was stored before the start. */
  openIndex = 0;
  /** On-disk: what it was told last to store; at least what it can be relied on to have. */
  storedIndex = 0;
  /** Config changes up to here are in `membership`. */
  membershipIndex = 0;
  /** On-disk: whether it keeps a session table; without one sessions are refused. */
  keepsSessions = true;
  /** Commands that wait for `update`, and whose sessions want the answers. Filled here and in `special-entries.ts`. */
  readonly batch: EntryBatch;
  readonly batchedSessions: BatchedSession[];
  private gatheredIndex = 0;
  private gatheredTerm = 0;

  constructor(options: RsmOptions) {
    this.shardId = options.shardId;
    this.replicaId = options.replicaId;
    this.stateMachine = options.stateMachine;
    this.kind = options.stateMachine.kind ?? 'regular';
    this.membership = options.membership;
    this.maxSessions = options.maxSessions ?? SESSIONS_MAX;
    this.files = options.files;
    this.packing = options.packing ?? PLAIN;
    this.codecs = options.codecs ?? BUILT_IN_CODECS;
    this.sessions = new Sessions(this.maxSessions);
    // An update that takes its time keeps its batch to itself.
    this.batch = this.isOnDisk ? new EntryBatch() : BATCH;
    this.batchedSessions = this.isOnDisk ? [] : BATCHED_SESSIONS;
  }

  /** The update of an on-disk state machine that is under way. Made when it is first asked for, which few of many idle shards do. */
  get gate(): Gate {
    return (this.updateGate ??= new Gate());
  }

  /** Other calls that take their time: open, sync, save, recover. */
  get calls(): Gate {
    return (this.callGate ??= new Gate());
  }

  /** Whether the state machine keeps its state over a restart. */
  get isOnDisk(): boolean {
    return this.kind === 'on-disk';
  }

  /** On-disk: entries that it has already are gone through; its state is ahead of sessions and membership. */
  get isReplaying(): boolean {
    return this.appliedIndex < this.openIndex;
  }

  get sessionCount(): number {
    return this.sessions.count;
  }

  /**
   * Applies `count` entries from `fromIndex` on, the first at `word`. Throws `ERR_STATE_MACHINE` when the user's code throws:
   * then this replica's state is not to be trusted any more.
   */
  apply(
    u8: Uint8Array,
    u32: Uint32Array,
    word: number,
    fromIndex: number,
    count: number,
    term: number,
    sink: ApplySink,
  ): void {
    invariant(!this.busy, 'entries were applied while a snapshot streams');
    invariant(fromIndex === this.appliedIndex + 1, `entry ${fromIndex} was applied behind ${this.appliedIndex}`);
    const { batch } = this;
    // A state machine that threw left its entries there.
    batch.clear();
    this.forgetBatched();
    for (let i = 0; i < count; i++) {
      const type = entryType(u32, word);
      if (type === EntryType.Command) {
        if (batch.count === BATCH_MAX) this.runBatch(sink);
        const length = payloadLengthBytes(u32, word);
        batch.add(fromIndex + i, u8, (word + 3) << 2, length, keySequence(u32, word), keyNonce(u32, word));
        word += 3 + ((length + 3) >>> 2);
      } else {
        if (!takeSpecial(this, u8, u32, word, type, fromIndex + i, sink)) {
          this.runBatch(sink);
          takeSpecial(this, u8, u32, word, type, fromIndex + i, sink);
        }
        word += entryWords(u32, word);
      }
    }
    if (batch.count > 0) this.runBatch(sink);
    this.appliedIndex = fromIndex + count - 1;
    this.appliedTerm = term;
  }

  /** Entries up to `index` whose contents this replica does not get (a witness). */
  skip(index: number, term: number): void {
    this.appliedIndex = index;
    this.appliedTerm = term;
  }

  private runBatch(sink: ApplySink): void {
    const { batch, stateMachine } = this;
    if (batch.count === 0) return;
    invariant(stateMachine.kind !== 'on-disk', 'an on-disk state machine was applied to as one in memory');
    try {
      if (stateMachine.updateCursor !== undefined) {
        CURSOR.start(batch);
        stateMachine.updateCursor(CURSOR);
      } else stateMachine.update(batch.expose());
    } catch (cause) {
      throw this.updateFailed(cause);
    }
    if (this.batchedSessions.length > 0) this.keepAnswers();
    this.answer(sink);
  }

  private updateFailed(cause: unknown): DrakkarError {
    return new DrakkarError('ERR_STATE_MACHINE', `update failed in the state machine of shard ${this.shardId}`, {
      cause,
    });
  }

  /** Tells the callers that wait on this host, and empties the batch. */
  private answer(sink: ApplySink): void {
    const { batch } = this;
    const { entries, sequences, nonces, count } = batch;
    const { nonce } = sink;
    batch.clear();
    for (let i = 0; i < count; i++) {
      if (nonces[i] !== nonce) continue;
      const entry = entries[i];
      sink.applied(sequences[i], entry.index, ApplyStatus.Ok, ownResult(entry.result, entry.bytes));
    }
  }

  private keepAnswers(): void {
    for (const { at, session, series } of this.batchedSessions) {
      const entry = this.batch.entries[at];
      entry.result = ownResult(entry.result, entry.bytes);
      session.keep(series, entry.result);
    }
    this.forgetBatched();
  }

  private forgetBatched(): void {
    for (const { session } of this.batchedSessions) session.isBatched = false;
    this.batchedSessions.length = 0;
  }

  lookup(query: unknown): unknown {
    return this.stateMachine.lookup(query);
  }

  hash(): number | undefined {
    return this.stateMachine.hash?.();
  }

  /** A digest of the sessions, their order included. */
  sessionHash(): number {
    return checksum(this.sessions.encode());
  }

  // On-disk state machines.

  /** What `open` found. */
  opened(appliedIndex: number, sessions: Sessions | undefined): void {
    this.openIndex = this.storedIndex = appliedIndex;
    this.keepsSessions = sessions !== undefined;
    this.sessions = sessions ?? new Sessions(this.maxSessions);
    if (this.keepsSessions) this.sessions.trackChanges();
  }

  /**
   * On-disk: takes entries into the batch that `store` is called for; gives how many, fewer than `count` when the batch must end before
   * the next. The bytes must stay until the batch is stored.
   */
  gather(
    u8: Uint8Array,
    u32: Uint32Array,
    word: number,
    fromIndex: number,
    count: number,
    term: number,
    sink: ApplySink,
  ): number {
    const { batch } = this;
    let taken = 0;
    for (; taken < count; taken++) {
      const index = fromIndex + taken;
      const type = entryType(u32, word);
      // It has them already, and the session table that goes with them (fault F15).
      const isStored = index <= this.openIndex;
      if (type === EntryType.ConfigChange) {
        // It takes effect with its index: nothing before it is stored behind it.
        if (batch.count > 0) break;
        if (index > this.membershipIndex) takeSpecial(this, u8, u32, word, type, index, sink);
      } else if (!isStored && type === EntryType.Command) {
        if (batch.count === BATCH_MAX) break;
        const length = payloadLengthBytes(u32, word);
        batch.add(index, u8, (word + 3) << 2, length, keySequence(u32, word), keyNonce(u32, word));
      } else if (!isStored && !takeSpecial(this, u8, u32, word, type, index, sink)) break;
      word += entryWords(u32, word);
    }
    if (taken > 0) {
      this.gatheredIndex = fromIndex + taken - 1;
      this.gatheredTerm = term;
    }
    return taken;
  }

  /** Gives what was gathered to the state machine. A promise when that takes its time; without entries there is nothing to do. */
  store(sink: ApplySink): Promise<void> | undefined {
    const finish = (): void => {
      this.answer(sink);
      this.appliedIndex = this.gatheredIndex;
      this.appliedTerm = this.gatheredTerm;
    };
    if (this.batch.count === 0) {
      finish();
      return undefined;
    }
    const storing = this.update(this.gatheredIndex);
    if (storing !== undefined) {
      const leave = this.gate.enter();
      return storing.then(finish).finally(leave);
    }
    finish();
    return undefined;
  }

  /** Has the state machine store index and sessions that no command came with. For those who hold the gate. */
  async storeIndex(): Promise<void> {
    const leave = this.calls.enter();
    try {
      if (this.storedIndex < this.appliedIndex) await this.update(this.appliedIndex);
    } finally {
      leave();
    }
  }

  private update(index: number): Promise<void> | undefined {
    const { stateMachine } = this;
    invariant(stateMachine.kind === 'on-disk', 'a state machine in memory was stored to');
    let changes: readonly SessionChange[] | undefined;
    const batch: DiskBatch = {
      index,
      sessionChanges: () => {
        if (changes === undefined) {
          if (this.batchedSessions.length > 0) this.keepAnswers();
          changes = this.sessions.takeChanges();
        }
        return changes;
      },
    };
    const stored = (): void => {
      if (this.batchedSessions.length > 0 || this.sessions.hasChanges) {
        throw this.updateFailed(new Error('it did not ask for the session changes of its batch, and lost them'));
      }
      this.storedIndex = index;
    };
    let running: void | Promise<void>;
    try {
      running = stateMachine.update(this.batch.expose(), batch);
    } catch (cause) {
      throw this.updateFailed(cause);
    }
    if (running === undefined) {
      stored();
      return undefined;
    }
    return running.then(stored, (cause: unknown) => {
      throw this.updateFailed(cause);
    });
  }

  /** Everything as of now. A regular state machine is not applied to until the iteration ends. */
  saveImage(signal: AbortSignal): AsyncIterable<Uint8Array> {
    const image = capture(this, signal);
    async function* chunks(): AsyncGenerator<Uint8Array> {
      try {
        yield* image.chunks;
      } finally {
        await image.release();
      }
    }
    return chunks();
  }

  /** Replaces everything by an image. After an error the state is half one, half the other: the replica must fail. */
  async recoverImage(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    await (await readImage(this, chunks)).recover(signal);
  }

  /** After everything that runs in it. */
  async close(): Promise<void> {
    await this.updateGate?.quiet();
    await this.callGate?.quiet();
    await this.stateMachine.close?.();
  }
}

/** A view of the entry's bytes would change when their slab is used again. */
function ownResult(result: Result, bytes: Uint8Array): Result {
  if (typeof result === 'number' || result.buffer !== bytes.buffer) return result;
  return result.slice();
}
