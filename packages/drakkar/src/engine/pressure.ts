/** Why a replica takes no proposals at the moment, looked at once per turn and tick; and what becomes of what waits when its disk stands still. */
import { DrakkarError } from '../errors.ts';
import { isOverloaded } from '../raft/pressure.ts';
import type { Replica } from './replica.ts';

export function busyError(shardId: number, why: string): DrakkarError {
  return new DrakkarError('ERR_SYSTEM_BUSY', `shard ${shardId} is busy: ${why}; try again later`);
}

function stalledError(replica: Replica): DrakkarError {
  const { dir } = replica.engine;
  return new DrakkarError(
    'ERR_DISK_STALLED',
    `the disk under ${dir} has not finished a write for an election timeout of shard ${replica.shardId}; ask another host`,
  );
}

export function diskFullError(replica: Replica): DrakkarError {
  return new DrakkarError(
    'ERR_DISK_FULL',
    `the disk under ${replica.engine.dir} is full; free some room, or ask another host`,
  );
}

/** The reason that holds for every proposal now. */
export function reasonToRefuse(replica: Replica): DrakkarError | undefined {
  const { raft, shardId } = replica;
  if (raft.isStalled) return stalledError(replica);
  if (isOverloaded(raft)) return busyError(shardId, 'its state machine cannot keep up');
  if (raft.isLeader) {
    return raft.heldBackBy === 0 ? undefined : busyError(shardId, `replica ${raft.heldBackBy} cannot keep up`);
  }
  return raft.leaderIsBusy ? busyError(shardId, 'its leader takes no proposals for now') : undefined;
}

/**
 * The disk has stood still for an election timeout: what waits for it is told at once (design §7.7). Reads of what is durable go on, and
 * what was sealed may still be committed.
 */
export function onStall(replica: Replica): void {
  const { engine } = replica;
  if (engine.log.isFull) return; // told when it became full
  const error = stalledError(replica);
  engine.counters.diskStalls++;
  engine.env.logger.warn({ shardId: replica.shardId, dir: engine.dir }, 'the disk stands still');
  giveUpWaiting(replica, error);
}

/** The disk takes nothing: what is not sealed was not applied, and reads that need more than is durable go elsewhere. */
export function giveUpWaiting(replica: Replica, error: DrakkarError): void {
  const { raft, reads } = replica;
  replica.failUnsealed(error);
  reads.dropAbove(raft.durableIndex, error);
  // What was to be asked of a leader waits for a term to become durable.
  if (!raft.maySpeak) reads.drop(Number.MAX_SAFE_INTEGER, error);
}

/** Why a read at an index that is not durable here cannot be served. */
export function reasonNotToRead(replica: Replica): DrakkarError | undefined {
  if (replica.engine.log.isFull) return diskFullError(replica);
  return replica.raft.isStalled ? stalledError(replica) : undefined;
}
