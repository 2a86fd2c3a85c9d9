/**
 * The replicated state machine of one replica: applies committed entries to the user's state machine and to the sessions, and
 * makes and reads snapshot images of both. Deterministic: the same entries give the same state everywhere.
 *
 * `apply` is on the hot path: nothing is allocated there per entry.
 */
import { DrakkarError, invariant } from '../errors.ts';
import {
  EntryType,
  SESSION_CLIENT_WORD,
  SESSION_RESPONDED_WORD,
  SESSION_SERIES_WORD,
  entryType,
  entryWords,
  headerWords,
  keyNonce,
  keySequence,
  payloadLengthBytes,
} from '../wire/entry.ts';
import { checksum } from '../wire/checksum.ts';
import { decodeMembership, encodeMembership, type Membership } from '../wire/membership.ts';
import { getU53 } from '../wire/number.ts';
import { ApplyStatus, type ApplySink } from './apply-sink.ts';
import { BATCH_MAX, BatchCursor, EntryBatch } from './entries.ts';
import { ImageReader, SectionReader, encodeImage, encodeSection } from './image.ts';
import { SESSIONS_MAX, Sessions, type Session } from './sessions.ts';
import type { Result, StateMachine } from './state-machine.ts';

export interface RsmOptions {
  readonly shardId: number;
  readonly replicaId: number;
  readonly stateMachine: StateMachine;
  readonly membership: Membership;
  /** Default 4096. Equal on all replicas. */
  readonly maxSessions?: number;
}

/** A session command in the current batch: its answer is kept once it is known. */
interface BatchedSession {
  readonly at: number;
  readonly session: Session;
  readonly series: number;
}

/** One for all shards of the thread: `apply` is synchronous, and leaves nothing in them. */
const BATCH = new EntryBatch();
const CURSOR = new BatchCursor();
const BATCHED_SESSIONS: BatchedSession[] = [];

export class Rsm {
  readonly shardId: number;
  readonly replicaId: number;
  private readonly stateMachine: StateMachine;
  private readonly maxSessions: number;
  private sessions: Sessions;
  appliedIndex = 0;
  appliedTerm = 0;
  membership: Membership;
  /** A snapshot streams: nothing may be applied. */
  busy = false;
  private readonly batch = BATCH;
  private readonly cursor = CURSOR;
  private readonly batchedSessions = BATCHED_SESSIONS;

  constructor(options: RsmOptions) {
    this.shardId = options.shardId;
    this.replicaId = options.replicaId;
    this.stateMachine = options.stateMachine;
    this.membership = options.membership;
    this.maxSessions = options.maxSessions ?? SESSIONS_MAX;
    this.sessions = new Sessions(this.maxSessions);
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
    this.batchedSessions.length = 0;
    for (let i = 0; i < count; i++) {
      const type = entryType(u32, word);
      if (type === EntryType.Command) {
        if (batch.count === BATCH_MAX) this.runBatch(sink);
        const length = payloadLengthBytes(u32, word);
        batch.add(fromIndex + i, u8, (word + 3) << 2, length, keySequence(u32, word), keyNonce(u32, word));
        word += 3 + ((length + 3) >>> 2);
      } else {
        this.applySpecial(u8, u32, word, type, fromIndex + i, sink);
        word += entryWords(u32, word);
      }
    }
    if (batch.count > 0) this.runBatch(sink);
    this.appliedIndex = fromIndex + count - 1;
    this.appliedTerm = term;
  }

  private applySpecial(
    u8: Uint8Array,
    u32: Uint32Array,
    word: number,
    type: number,
    index: number,
    sink: ApplySink,
  ): void {
    const clientLow = u32[word + SESSION_CLIENT_WORD];
    const clientHigh = u32[word + SESSION_CLIENT_WORD + 1];
    switch (type) {
      case EntryType.SessionCommand:
        this.applySessionCommand(u8, u32, word, index, clientHigh, clientLow, sink);
        return;
      case EntryType.SessionRegister:
        this.sessions.register(clientHigh, clientLow);
        report(u32, word, index, ApplyStatus.Ok, 0, sink);
        return;
      case EntryType.SessionUnregister:
        this.sessions.unregister(clientHigh, clientLow);
        report(u32, word, index, ApplyStatus.Ok, 0, sink);
        return;
      case EntryType.ConfigChange:
        report(u32, word, index, ApplyStatus.Rejected, 0, sink);
        return;
      default:
        report(u32, word, index, ApplyStatus.Ok, 0, sink);
    }
  }

  /** The apply table of sessions (thesis §6.3; design §7.6). */
  private applySessionCommand(
    u8: Uint8Array,
    u32: Uint32Array,
    word: number,
    index: number,
    clientHigh: number,
    clientLow: number,
    sink: ApplySink,
  ): void {
    const series = getU53(u32, word + SESSION_SERIES_WORD);
    const session = this.sessions.use(clientHigh, clientLow);
    if (session === undefined) {
      report(u32, word, index, ApplyStatus.SessionNotFound, 0, sink);
      return;
    }
    // Its earlier try may be in this very batch.
    if (this.batchedSessions.some((other) => other.session === session)) this.runBatch(sink);
    session.respond(getU53(u32, word + SESSION_RESPONDED_WORD));
    if (series <= session.respondedTo) {
      report(u32, word, index, ApplyStatus.SessionResponded, 0, sink);
      return;
    }
    const known = session.answers.get(series);
    if (known !== undefined) {
      report(u32, word, index, ApplyStatus.Ok, known, sink);
      return;
    }
    if (this.batch.count === BATCH_MAX) this.runBatch(sink);
    this.batchedSessions.push({ at: this.batch.count, session, series });
    const offset = (word + headerWords(u32, word)) << 2;
    this.batch.add(index, u8, offset, payloadLengthBytes(u32, word), keySequence(u32, word), keyNonce(u32, word));
  }

  private runBatch(sink: ApplySink): void {
    const { batch, stateMachine } = this;
    const { count } = batch;
    if (count === 0) return;
    try {
      if (stateMachine.updateCursor !== undefined) {
        this.cursor.start(batch);
        stateMachine.updateCursor(this.cursor);
      } else stateMachine.update(batch.expose());
    } catch (cause) {
      throw new DrakkarError('ERR_STATE_MACHINE', `update threw in the state machine of shard ${this.shardId}`, {
        cause,
      });
    }
    batch.clear();
    if (this.batchedSessions.length > 0) this.keepAnswers();
    const { entries, sequences, nonces } = batch;
    const { nonce } = sink;
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

  /** Everything as of now; nothing may be applied until the iteration ends. */
  saveImage(signal: AbortSignal): AsyncIterable<Uint8Array> {
    const info = { shardId: this.shardId, index: this.appliedIndex, term: this.appliedTerm };
    // Captured in one step with the state machine's own view.
    const membership = encodeSection(encodeMembership(this.membership));
    const sessions = encodeSection(this.sessions.encode());
    this.busy = true;
    const release = (): void => {
      this.busy = false;
    };
    const { stateMachine, shardId } = this;
    async function* payload(): AsyncGenerator<Uint8Array> {
      yield membership;
      yield sessions;
      try {
        for await (const chunk of stateMachine.saveSnapshot({ signal })) {
          signal.throwIfAborted();
          yield chunk;
        }
      } catch (cause) {
        if (signal.aborted) throw new DrakkarError('ERR_ABORTED', 'the snapshot was aborted', { cause });
        throw new DrakkarError('ERR_STATE_MACHINE', `saveSnapshot threw in the state machine of shard ${shardId}`, {
          cause,
        });
      }
    }
    async function* image(): AsyncGenerator<Uint8Array> {
      try {
        yield* encodeImage(info, payload());
      } finally {
        release();
      }
    }
    return image();
  }

  /** Replaces everything by an image. After an error the state is half one, half the other: the replica must fail. */
  async recoverImage(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const reader = new ImageReader(chunks);
    const info = await reader.header();
    if (info.shardId !== this.shardId) {
      throw new DrakkarError('ERR_SNAPSHOT_CORRUPT', `the snapshot is of shard ${info.shardId}, not ${this.shardId}`);
    }
    const sections = new SectionReader(reader.payload());
    const membership = decodeMembership(await sections.section());
    const sessions = Sessions.decode(await sections.section(), this.maxSessions);
    const rest = sections.rest();
    try {
      await this.stateMachine.recoverFromSnapshot(rest, { signal });
    } catch (cause) {
      if (DrakkarError.is(cause)) throw cause;
      throw new DrakkarError(
        'ERR_STATE_MACHINE',
        `recoverFromSnapshot threw in the state machine of shard ${this.shardId}`,
        {
          cause,
        },
      );
    }
    // A state machine may stop reading early; what follows must verify all the same.
    for await (const piece of rest) void piece;
    this.sessions = sessions;
    this.membership = membership;
    this.appliedIndex = info.index;
    this.appliedTerm = info.term;
  }

  async close(): Promise<void> {
    await this.stateMachine.close?.();
  }
}

function report(
  u32: Uint32Array,
  word: number,
  index: number,
  status: ApplyStatus,
  result: Result,
  sink: ApplySink,
): void {
  if (keyNonce(u32, word) === sink.nonce) sink.applied(keySequence(u32, word), index, status, result);
}

/** A view of the entry's bytes would change when their slab is used again. */
function ownResult(result: Result, bytes: Uint8Array): Result {
  if (typeof result === 'number' || result.buffer !== bytes.buffer) return result;
  return result.slice();
}
