/** What callers ask of a shard's log on a replica of this thread: entries of the past, and those to come. */
import type { LeaderWatchOptions, LogQueryOptions, WatchOptions } from './config.ts';
import type { Leadership } from './engine/leader-watch.ts';
import { LOG_QUERY_BYTES, LOG_QUERY_ENTRIES_MAX, WATCH_BUFFER_BYTES } from './engine/limits.ts';
import type { LogEntry } from './engine/log-entries.ts';
import type { LogQueryResult } from './engine/onlookers.ts';
import type { Replica } from './engine/replica.ts';
import { STREAM_BATCH_BYTES, STREAM_BATCH_ENTRIES } from './threads/limits.ts';
import { proposeNoticed } from './shard-handle.ts';
import type { SessionEntry } from './threads/protocol.ts';
import { ServedStreams, type StreamOpening } from './threads/served-streams.ts';
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
  const { fromIndex = nextLogIndex(replica), bufferBytes = WATCH_BUFFER_BYTES, signal } = options;
  return replica.onlookers.watchLog(fromIndex, bufferBytes, signal);
}

/** See `NodeHost.watch`: with no index, the one that a stream begins with. */
export function nextLogIndex(replica: Replica): number {
  return replica.raft.commitIndex + 1;
}

/** The same streams for a consumer in the host's thread. */
export function batches(replica: Replica, opening: StreamOpening): AsyncIterator<readonly unknown[]> {
  const { onlookers } = replica;
  if (opening.of === 'leader') return singly(onlookers.watchLeader(undefined));
  const { fromIndex = nextLogIndex(replica), bufferBytes = WATCH_BUFFER_BYTES } = opening;
  const bounds = { maxEntries: STREAM_BATCH_ENTRIES, maxBytes: STREAM_BATCH_BYTES };
  return onlookers.watchBatches(fromIndex, bufferBytes, bounds)[Symbol.asyncIterator]();
}

/** A `return` of the iterator, not of a generator around it, ends a wait at once. */
function singly<T>(values: AsyncIterable<T>): AsyncIterator<readonly T[]> {
  const iterator = values[Symbol.asyncIterator]();
  const one = ({ done, value }: IteratorResult<T>): IteratorResult<readonly T[]> =>
    done === true ? { done, value } : { done: false, value: [value] };
  return {
    next: async () => one(await iterator.next()),
    return: async () => {
      await iterator.return?.();
      return { done: true, value: undefined };
    },
  };
}

/** See `NodeHost.watchLeader`. */
export function watchLeader(replica: Replica, options: LeaderWatchOptions): AsyncIterable<Leadership> {
  return replica.onlookers.watchLeader(options.signal);
}

/** What a host asks of the shards in this thread besides its own methods, by name. */
export function shardMethods(replicaOf: (shardId: number) => Replica): Record<string, (...args: any[]) => unknown> {
  return {
    ...new ServedStreams((opening) => batches(replicaOf(opening.shardId), opening)).methods(),
    nextLogIndex: async (shardId: number) => nextLogIndex(replicaOf(shardId)),
    proposeNoticed: async (
      shardId: number,
      command: Uint8Array,
      ticks: number,
      session: SessionEntry | undefined,
      onCommit: (index: number) => void,
    ) => proposeNoticed(replicaOf(shardId), onCommit, command, ticks, session),
  };
}
