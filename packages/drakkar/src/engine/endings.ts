/**
 * How replicas end: stopped in order, failed by themselves, or all at once because the log failed. Promises that everyone who waits is told, once,
 * that hosts which are silent behind it notice, and that a failure stays with its shard.
 *
 * Must not decide whether something is a failure: whoever met it does. What a removed replica leaves behind is `leftovers.ts`'s.
 */
import { DrakkarError } from '../errors.ts';
import * as quiesce from '../raft/quiesce.ts';
import type { Engine } from './engine.ts';
import { parkReplica } from './parking.ts';
import type { Replica } from './replica.ts';

export async function removeReplica(engine: Engine, replica: Replica, error: DrakkarError): Promise<void> {
  const leaving = engine.removals.get(replica.shardId);
  if (leaving !== undefined) return leaving;
  if (replica.status === 'running') {
    replica.status = 'stopped';
    quiesce.farewell(replica.raft);
  }
  replica.end(error);
  engine.transfers.end(replica, error);
  engine.leaderWaits.changed(replica);
  // Of a failed one no write is counted any more.
  const isCounted = replica.status !== 'failed' && engine.failure === undefined;
  if (isCounted) await engine.durability.whenDurable(replica, replica.raft.writeNumber);
  // Its entries stay in memory while an update reads them.
  await replica.rsm.gate.quiet();
  engine.parked.set(replica.shardId, parkReplica(replica));
  engine.replicas.delete(replica.shardId);
  await replica.rsm.close();
  engine.events.emit('replicaStopped', { shardId: replica.shardId, replicaId: replica.replicaId });
}

export function failReplica(engine: Engine, replica: Replica, cause: unknown): void {
  if (replica.status !== 'running') return;
  const error = DrakkarError.is(cause)
    ? cause
    : new DrakkarError('ERR_INVARIANT', `shard ${replica.shardId} failed on this host: ${String(cause)}`, { cause });
  replica.status = 'failed';
  if (engine.failure === undefined) quiesce.farewell(replica.raft);
  replica.failure = error;
  engine.env.logger.error({ shardId: replica.shardId, replicaId: replica.replicaId, err: error }, 'replica failed');
  replica.end(
    new DrakkarError(
      'ERR_SHARD_FAILED',
      `the replica of shard ${replica.shardId} on this host failed (${error.code})`,
      {
        cause: error,
      },
    ),
  );
  engine.transfers.end(replica, error);
  engine.leaderWaits.changed(replica);
  engine.events.emit('replicaFailed', { shardId: replica.shardId, replicaId: replica.replicaId, error });
}

/** Nothing that waits will ever be durable, and nothing may be promised any more (fault F5). */
export function stopAll(engine: Engine, error: DrakkarError): void {
  engine.failure = error;
  engine.env.logger.error({ err: error, dir: engine.dir }, 'the log failed; this host stops');
  engine.ticker.stop();
  for (const replica of engine.replicas.values()) failReplica(engine, replica, error);
  engine.durability.end();
}
