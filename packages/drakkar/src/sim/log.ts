/** A log that tells which term, vote and snapshot of which shard are on the disk for certain: after recovery, and as records become durable. */
import type { LogDb, ShardState } from '../wal/logdb.ts';

export interface StateWatcher {
  onRecovered(shardId: number, replicaId: number, term: number, vote: number, snapshotIndex: number): void;
  onDurable(shardId: number, replicaId: number, term: number, vote: number, snapshotIndex: number): void;
}

/** The same log, not a copy. */
export function watchLog<T extends LogDb>(log: T, watcher: StateWatcher): T {
  const underway = new Map<number, ShardState[]>();
  for (const [shardId, { state, failure }] of log.recovered) {
    const { replicaId, term, vote, snapshotIndex } = state;
    if (failure === undefined) watcher.onRecovered(shardId, replicaId, term, vote, snapshotIndex);
  }
  const appendState = log.appendState.bind(log);
  const start = log.start.bind(log);
  const watched: Pick<LogDb, 'appendState' | 'start'> = {
    appendState(state, resetsLog) {
      const queue = underway.get(state.shardId);
      if (queue === undefined) underway.set(state.shardId, [state]);
      else queue.push(state);
      appendState(state, resetsLog);
    },
    start(sink, liveBlocks) {
      const stateDurable = sink.stateDurable.bind(sink);
      sink.stateDurable = (shardId) => {
        const state = underway.get(shardId)?.shift();
        if (state !== undefined)
          watcher.onDurable(shardId, state.replicaId, state.term, state.vote, state.snapshotIndex);
        stateDurable(shardId);
      };
      start(sink, liveBlocks);
    },
  };
  return Object.assign(log, watched);
}
