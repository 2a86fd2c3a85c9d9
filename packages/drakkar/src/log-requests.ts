/** What callers ask of a shard's log on a replica of this thread: entries of the past, and those to come. */
import { type LeaderWatchOptions, type LogQueryOptions, type WatchOptions } from './config.ts';
import type { Leadership } from './engine/leader-watch.ts';
import { LOG_QUERY_BYTES, LOG_QUERY_ENTRIES_MAX, WATCH_BUFFER_BYTES } from './engine/limits.ts';
import type { LogEntry } from './engine/log-entries.ts';
import type { LogQueryResult } from './engine/onlookers.ts';
import type { Replica } from './engine/replica.ts';
import { within, type Waiter } from './within.ts';

/** Of the end of a call; without it each would make an error with a stack. */
const ANSWERED = 'answered';

/** See `NodeHost.queryLog`. */
export async function queryLog(replica: Replica, options: LogQueryOptions, waiter: Waiter): Promise<LogQueryResult> {
  if (replica.settings.isWitness) throw replica.isWitnessOnly();
  if (replica.status !== 'running') throw replica.unavailable();
  const { firstIndex, lastIndex, maxEntries = LOG_QUERY_ENTRIES_MAX, maxBytes = LOG_QUERY_BYTES } = options;
  const ended = new AbortController();
  const work = replica.onlookers.query(firstIndex, lastIndex, { maxEntries, maxBytes }, ended.signal);
  return within(waiter, work, options, 'nothing was changed', 'not-applied').finally(() => ended.abort(ANSWERED));
}

/** See `NodeHost.watch`. */
export function watch(replica: Replica, options: WatchOptions): AsyncIterable<LogEntry> {
  if (replica.settings.isWitness) throw replica.isWitnessOnly();
  const { fromIndex = replica.raft.commitIndex + 1, bufferBytes = WATCH_BUFFER_BYTES, signal } = options;
  return replica.onlookers.watchLog(fromIndex, bufferBytes, signal);
}

/** See `NodeHost.watchLeader`. */
export function watchLeader(replica: Replica, options: LeaderWatchOptions): AsyncIterable<Leadership> {
  return replica.onlookers.watchLeader(options.signal);
}
