/** What operators ask of a replica of this thread: a snapshot, another leader. */
import type { CallOptions, SnapshotOptions } from './config.ts';
import type { Replica } from './engine/replica.ts';
import { exportSnapshot } from './engine/snapshot-export.ts';
import { DrakkarError } from './errors.ts';
import type { HostEvents, HostListener } from './events.ts';
import { within, type Waiter } from './within.ts';

/** See `NodeHost.requestSnapshot`. */
export async function requestSnapshot(
  replica: Replica,
  options: SnapshotOptions,
  waiter: Waiter,
): Promise<{ index: number }> {
  if (replica.settings.isWitness) throw replica.isWitnessOnly();
  const { exportTo, compactionOverhead: overhead, compactToIndex: toIndex } = options;
  if (exportTo !== undefined) {
    const { index } = await within(waiter, exportSnapshot(replica, exportTo), options, 'the export goes on');
    return { index };
  }
  return {
    index: await within(
      waiter,
      replica.engine.snapshots.take(replica, { overhead, toIndex }),
      options,
      'the snapshot goes on',
    ),
  };
}

/** See `NodeHost.transferLeader`. */
export async function transferLeader(
  replica: Replica,
  targetReplicaId: number,
  options: CallOptions,
  waiter: Waiter,
  events: HostEvents,
): Promise<void> {
  const { raft, shardId, engine } = replica;
  if (raft.leaderId === targetReplicaId) return;
  if (raft.leaderId === 0) throw new DrakkarError('ERR_NO_LEADER', `shard ${shardId} has no leader at the moment`);
  const done = new AbortController();
  const ended = raft.isLeader
    ? engine.transfers.wait(replica, targetReplicaId)
    : untilLeader(events, shardId, targetReplicaId, done.signal);
  ended.catch(() => {});
  raft.transferLeader(targetReplicaId);
  engine.markReady(replica);
  await within(waiter, ended, options, 'the transfer may go on').finally(() => done.abort());
}

/** A leader elsewhere is only watched: how the transfer ends there, this host is not told. */
function untilLeader(events: HostEvents, shardId: number, leaderId: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const listener: HostListener<'leaderChanged'> = (event) => {
      if (event.shardId === shardId && event.leaderId === leaderId) resolve();
    };
    events.on('leaderChanged', listener);
    signal.addEventListener('abort', () => events.off('leaderChanged', listener), { once: true });
  });
}
