/**
 * Those who look on at one replica: queries of its log, change streams, leader watches and notices of commits. None of them changes
 * anything; when there are none the turn pays one test.
 */
import { DrakkarError } from '../errors.ts';
import { CommitNotices } from './commit-notices.ts';
import { LeaderWatch, type Leadership } from './leader-watch.ts';
import { LOG_QUERIES_MAX, WATCHES_MAX } from './limits.ts';
import {
  EntryList,
  beyondError,
  compactedError,
  readCommitted,
  type LogEntry,
  type ReadBounds,
} from './log-entries.ts';
import { LogWatch } from './log-watch.ts';
import type { Replica } from './replica.ts';
import { iterable } from './wait.ts';

/** What a query of the log gives. */
export interface LogQueryResult {
  readonly entries: readonly LogEntry[];
  /** Where to go on; above the last index asked for when all is here. */
  readonly nextIndex: number;
  /** The commit index of this replica when the query ended. */
  readonly commitIndex: number;
}

/** For all replicas that nobody looks at; never written to. */
const NOBODY = new Set<never>();

export class Onlookers {
  private readonly replica: Replica;
  private logWatches: Set<LogWatch> = NOBODY;
  private leaderWatches: Set<LeaderWatch> = NOBODY;
  private notices: CommitNotices | undefined;
  private queries = 0;
  /** Somebody wants to know of commits. Read once per turn. */
  wantsCommits = false;

  constructor(replica: Replica) {
    this.replica = replica;
  }

  get watchCount(): number {
    return this.logWatches.size + this.leaderWatches.size;
  }

  /** In the turn, before what is committed is applied and before blocks give their bytes back. */
  committed(): void {
    for (const watch of this.logWatches) watch.committed();
    this.notices?.committed();
  }

  leaderChanged(): void {
    for (const watch of this.leaderWatches) watch.wake();
  }

  /** The replica ends; `error` when it failed. */
  end(error: DrakkarError | undefined): void {
    for (const watch of [...this.logWatches, ...this.leaderWatches]) watch.end(error);
  }

  // Notices of commits.

  /**
   * Calls `onCommit` with the index once the entry that `propose` proposes is committed, before its answer. What is proposed must be the
   * only entry that `propose` adds.
   */
  noticed<T>(onCommit: (index: number) => void, propose: () => Promise<T>): Promise<T> {
    const { replica } = this;
    const sequence = replica.pending.nextSequence;
    const answer = propose();
    if (replica.pending.nextSequence === sequence) return answer; // refused
    const notices = (this.notices ??= new CommitNotices(replica.raft, replica.nonce));
    // The caller's code runs outside of the turn, and still before the caller hears the answer.
    const committed = new Promise<number>((resolve) => notices.add(sequence, resolve));
    committed.then(onCommit).catch((error: unknown) => {
      replica.engine.env.logger.error({ shardId: replica.shardId, err: error }, 'a commit listener threw');
    });
    this.update();
    const end = (): void => {
      notices.remove(sequence);
      this.update();
    };
    answer.then(end, end);
    return answer;
  }

  private update(): void {
    this.wantsCommits = this.logWatches.size > 0 || this.notices?.isEmpty === false;
  }

  // The log.

  /** Committed entries `[firstIndex, lastIndex]`, up to the bounds. */
  async query(
    firstIndex: number,
    lastIndex: number | undefined,
    bounds: ReadBounds,
    signal: AbortSignal,
  ): Promise<LogQueryResult> {
    const { replica } = this;
    const { raft } = replica;
    if (this.queries >= LOG_QUERIES_MAX) throw this.tooMany(`${LOG_QUERIES_MAX} queries of its log run`);
    if (firstIndex <= raft.log.compactedIndex) throw compactedError(replica, firstIndex);
    const to = lastIndex ?? raft.commitIndex;
    if (firstIndex > raft.commitIndex || to > raft.commitIndex) {
      throw beyondError(replica, Math.max(firstIndex, to));
    }
    const list = new EntryList(bounds);
    this.queries++;
    try {
      const nextIndex = await readCommitted(replica, firstIndex, to, list, signal);
      if (list.entries.length === 0 && signal.aborted !== true) throw compactedError(replica, firstIndex);
      return { entries: list.entries, nextIndex, commitIndex: raft.commitIndex };
    } finally {
      this.queries--;
    }
  }

  /** Committed entries from `fromIndex` on, without an end. */
  watchLog(fromIndex: number, bufferBytes: number, signal: AbortSignal | undefined): AsyncIterable<LogEntry> {
    return this.stream(fromIndex, bufferBytes, signal, (watch) => watch.entries());
  }

  /** The same for one who takes several at a time: no more than `bounds` say. */
  watchBatches(fromIndex: number, bufferBytes: number, bounds: ReadBounds): AsyncIterable<readonly LogEntry[]> {
    return this.stream(fromIndex, bufferBytes, undefined, (watch) => watch.batches(bounds));
  }

  private stream<T>(
    fromIndex: number,
    bufferBytes: number,
    signal: AbortSignal | undefined,
    values: (watch: LogWatch) => AsyncGenerator<T, void, void>,
  ): AsyncIterable<T> {
    return iterable(
      () => {
        this.assertWatchable(this.logWatches);
        if (this.logWatches === NOBODY) this.logWatches = new Set();
        const watch = new LogWatch(this.replica, fromIndex, bufferBytes);
        this.logWatches.add(watch);
        this.update();
        return watch;
      },
      values,
      (watch) => {
        this.logWatches.delete(watch);
        this.update();
      },
      signal,
      () => this.aborted(signal),
    );
  }

  watchLeader(signal: AbortSignal | undefined): AsyncIterable<Leadership> {
    return iterable(
      () => {
        this.assertWatchable(this.leaderWatches);
        if (this.leaderWatches === NOBODY) this.leaderWatches = new Set();
        const watch = new LeaderWatch(this.replica);
        this.leaderWatches.add(watch);
        return watch;
      },
      (watch) => watch.values(),
      (watch) => this.leaderWatches.delete(watch),
      signal,
      () => this.aborted(signal),
    );
  }

  private assertWatchable(watches: ReadonlySet<unknown>): void {
    if (this.replica.status !== 'running') throw this.replica.unavailable();
    if (watches.size >= WATCHES_MAX) throw this.tooMany(`${WATCHES_MAX} watches run`);
  }

  private aborted(signal: AbortSignal | undefined): DrakkarError {
    return new DrakkarError('ERR_ABORTED', `the watch of shard ${this.replica.shardId} was aborted`, {
      cause: signal?.reason,
      outcome: 'not-applied',
    });
  }

  private tooMany(what: string): DrakkarError {
    return new DrakkarError('ERR_SYSTEM_BUSY', `shard ${this.replica.shardId} is busy: ${what}; try again later`);
  }
}
