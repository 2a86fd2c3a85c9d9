/**
 * A change stream: the committed entries of one shard in order, for a consumer that asks for one after the other. What is committed
 * while it waits goes from memory into a bounded buffer; what does not fit is read from the log when the buffer is empty. A slow
 * consumer so costs no more than its buffer twice, and holds back no compaction: it is told what it missed.
 */
import { DrakkarError, invariant } from '../errors.ts';
import {
  EntryList,
  compactedError,
  copyEntries,
  costOf,
  readCommitted,
  wordOf,
  type LogEntry,
  type ReadBounds,
} from './log-entries.ts';
import type { Replica } from './replica.ts';
import { Wait } from './wait.ts';

const UNBOUNDED: ReadBounds = { maxEntries: Number.POSITIVE_INFINITY, maxBytes: Number.POSITIVE_INFINITY };

export class LogWatch extends Wait {
  private readonly replica: Replica;
  private readonly bounds: ReadBounds;
  private list: EntryList;
  /** Index of the entry that goes into the list next. */
  private nextIndex: number;
  /** A read is under way, whose entries come first. */
  private isReading = false;

  constructor(replica: Replica, fromIndex: number, maxBytes: number) {
    super();
    this.replica = replica;
    this.nextIndex = fromIndex;
    this.bounds = { maxEntries: Number.POSITIVE_INFINITY, maxBytes };
    this.list = new EntryList(this.bounds);
  }

  /** In the turn, before blocks give their bytes back: takes what is new and in memory. */
  committed(): void {
    const { log, commitIndex } = this.replica.raft;
    if (this.isReading || this.nextIndex > commitIndex) return;
    while (this.nextIndex <= commitIndex) {
      const ref = log.blockAt(this.nextIndex);
      if (ref?.slab === undefined) break;
      const last = Math.min(commitIndex, ref.lastIndex);
      const word = wordOf(ref, ref.slab, this.nextIndex);
      this.nextIndex = copyEntries(ref.slab, word, this.nextIndex, last, ref.term, this.list);
      if (this.nextIndex <= last) break;
    }
    this.wake();
  }

  /** One by one. */
  async *entries(): AsyncGenerator<LogEntry, void, void> {
    for await (const batch of this.batches(UNBOUNDED)) {
      for (const entry of batch) {
        if (this.isAborted) break;
        yield entry;
      }
    }
  }

  /** Those that are here together. Throws what ended it; ends without an error when the replica was stopped. */
  async *batches(bounds: ReadBounds): AsyncGenerator<readonly LogEntry[], void, void> {
    for (;;) {
      const { entries } = this.list;
      if (entries.length > 0 && !this.isAborted) {
        this.list = new EntryList(this.bounds);
        for (let from = 0; from < entries.length && !this.isAborted; ) {
          const to = endOfBatch(entries, from, bounds);
          yield from === 0 && to === entries.length ? entries : entries.slice(from, to);
          from = to;
        }
        continue;
      }
      if (this.isEnded) {
        if (this.error !== undefined) throw this.error;
        return;
      }
      const { raft } = this.replica;
      if (this.nextIndex <= raft.log.compactedIndex) throw compactedError(this.replica, this.nextIndex);
      if (this.nextIndex <= raft.commitIndex) await this.readAgain(raft.commitIndex);
      else await this.next();
    }
  }

  /** It fell behind, or begins in the past. */
  private async readAgain(to: number): Promise<void> {
    const from = this.nextIndex;
    this.isReading = true;
    try {
      this.nextIndex = await readCommitted(this.replica, from, to, this.list);
    } catch (error) {
      // The segment may be gone because of a compaction, which says it better.
      if (from <= this.replica.raft.log.compactedIndex && DrakkarError.is(error, 'ERR_LOG_COMPACTED')) return;
      throw error;
    } finally {
      this.isReading = false;
    }
    const isStuck = this.nextIndex === from && from > this.replica.raft.log.compactedIndex;
    invariant(!isStuck, `entry ${from} is committed and not in the log`);
  }
}

/** One entry is in it however large it is. */
function endOfBatch(entries: readonly LogEntry[], from: number, { maxEntries, maxBytes }: ReadBounds): number {
  let bytes = costOf(entries[from]);
  let to = from + 1;
  while (to < entries.length && to - from < maxEntries && (bytes += costOf(entries[to])) <= maxBytes) to++;
  return to;
}
