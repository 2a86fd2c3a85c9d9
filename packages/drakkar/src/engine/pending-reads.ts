/**
 * Linearizable reads of one shard that wait. All reads of one turn form a batch with one context; the protocol confirms
 * contexts, the batch is served once the index it was confirmed with is applied.
 */
import { DrakkarError } from '../errors.ts';
import { PENDING_READS_MAX } from './limits.ts';

type Resolve = (value: unknown) => void;
type Reject = (error: unknown) => void;

class ReadBatch {
  readonly queries: unknown[] = [];
  readonly resolves: (Resolve | undefined)[] = [];
  readonly rejects: Reject[] = [];
  readonly deadlines: number[] = [];
  context = 0;
  /** When the first of its turn was asked, or a little before. */
  startedMs = 0;
  /** Applied index that must be reached; infinity until the protocol has confirmed the context. */
  index = Number.POSITIVE_INFINITY;
  earliestDeadline = Number.POSITIVE_INFINITY;
  /** Tick from which on it has waited for the protocol, -1 until the first tick. */
  askedTick = -1;
}

/** Of the many shards that nobody reads from; never written to. */
const NO_BATCHES: ReadBatch[] = [];

export class PendingReads {
  private open: ReadBatch | undefined;
  /** Contexts asked for, ascending; confirmed out of order when answers come from afar. */
  private waiting = NO_BATCHES;
  private lastContext = 0;
  /** Reads that wait, open ones included. */
  count = 0;

  get hasOpen(): boolean {
    return this.open !== undefined;
  }

  get hasRoom(): boolean {
    return this.count < PENDING_READS_MAX;
  }

  add(query: unknown, resolve: Resolve, reject: Reject, deadlineTick: number): void {
    const batch = (this.open ??= new ReadBatch());
    batch.queries.push(query);
    batch.resolves.push(resolve);
    batch.rejects.push(reject);
    batch.deadlines.push(deadlineTick);
    if (deadlineTick < batch.earliestDeadline) batch.earliestDeadline = deadlineTick;
    this.count++;
  }

  /** Closes the open batch, which there must be and whose reads were asked from `startedMs` on; gives the context to ask the protocol for. */
  close(startedMs: number): number {
    const batch = this.open!;
    batch.startedMs = startedMs;
    batch.context = ++this.lastContext;
    if (this.waiting === NO_BATCHES) this.waiting = [];
    this.waiting.push(batch);
    this.open = undefined;
    return batch.context;
  }

  confirm(context: number, index: number): void {
    for (const batch of this.waiting) if (batch.context === context) batch.index = index;
  }

  /** Contexts that were asked for `afterTicks` ago, or asked again, and have no answer: it was lost, or the question was. */
  unanswered(tick: number, afterTicks: number): number[] {
    const contexts: number[] = [];
    for (const batch of this.waiting) {
      if (batch.index !== Number.POSITIVE_INFINITY) continue;
      if (batch.askedTick < 0) batch.askedTick = tick;
      if (tick - batch.askedTick < afterTicks) continue;
      batch.askedTick = tick;
      contexts.push(batch.context);
    }
    return contexts;
  }

  /** Whether a batch waits for nothing but the apply of `index`. */
  isServable(appliedIndex: number): boolean {
    for (let i = 0; i < this.waiting.length; i++) if (this.waiting[i].index <= appliedIndex) return true;
    return false;
  }

  /**
   * Answers every confirmed batch whose index is applied; gives when the oldest of them started, -1 for none. A throwing look-up rejects
   * its own caller only.
   */
  serve(appliedIndex: number, from: { lookup(query: unknown): unknown }): number {
    let oldestMs = -1;
    for (let b = 0; b < this.waiting.length; b++) {
      const batch = this.waiting[b];
      if (batch.index > appliedIndex) continue;
      if (oldestMs < 0 || batch.startedMs < oldestMs) oldestMs = batch.startedMs;
      for (let i = 0; i < batch.queries.length; i++) {
        const resolve = batch.resolves[i];
        if (resolve === undefined) continue;
        this.count--;
        try {
          resolve(from.lookup(batch.queries[i]));
        } catch (error) {
          batch.rejects[i](error);
        }
      }
      batch.context = 0;
    }
    if (oldestMs >= 0) this.waiting = this.waiting.filter((batch) => batch.context !== 0);
    return oldestMs;
  }

  /** Fails the batches up to and including `context`. */
  drop(context: number, error: DrakkarError): void {
    for (const batch of this.waiting) {
      if (batch.context > context || batch.index !== Number.POSITIVE_INFINITY) continue;
      this.failBatch(batch, error);
      batch.context = 0;
    }
    this.waiting = this.waiting.filter((batch) => batch.context !== 0);
  }

  /** Fails what was confirmed for an index above `durableIndex` (design §7.7). */
  dropAbove(durableIndex: number, error: DrakkarError): void {
    for (const batch of this.waiting) {
      if (batch.index === Number.POSITIVE_INFINITY || batch.index <= durableIndex) continue;
      this.failBatch(batch, error);
      batch.context = 0;
    }
    this.waiting = this.waiting.filter((batch) => batch.context !== 0);
  }

  failAll(error: DrakkarError): void {
    for (const batch of this.waiting) this.failBatch(batch, error);
    this.waiting = NO_BATCHES;
    if (this.open !== undefined) this.failBatch(this.open, error);
    this.open = undefined;
  }

  /** Gives the memory back when nobody waits. */
  release(): void {
    if (this.waiting.length === 0) this.waiting = NO_BATCHES;
  }

  expire(tick: number): void {
    if (this.count === 0) return;
    for (const batch of this.waiting) this.expireBatch(batch, tick);
    if (this.open !== undefined) this.expireBatch(this.open, tick);
  }

  private expireBatch(batch: ReadBatch, tick: number): void {
    if (tick < batch.earliestDeadline) return;
    let earliest = Number.POSITIVE_INFINITY;
    let error: DrakkarError | undefined;
    for (let i = 0; i < batch.deadlines.length; i++) {
      if (batch.resolves[i] === undefined) continue;
      const deadline = batch.deadlines[i];
      if (deadline > tick) {
        if (deadline < earliest) earliest = deadline;
        continue;
      }
      error ??= new DrakkarError('ERR_TIMEOUT', 'the read was not answered in time', { outcome: 'not-applied' });
      batch.resolves[i] = undefined;
      this.count--;
      batch.rejects[i](error);
    }
    batch.earliestDeadline = earliest;
  }

  private failBatch(batch: ReadBatch, error: DrakkarError): void {
    for (let i = 0; i < batch.queries.length; i++) {
      if (batch.resolves[i] === undefined) continue;
      batch.resolves[i] = undefined;
      this.count--;
      batch.rejects[i](error);
    }
  }
}
