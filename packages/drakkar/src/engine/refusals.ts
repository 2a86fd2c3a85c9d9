/**
 * Why a replica takes no proposal, or no call at all: it has stopped or failed, is a witness or no member, nobody leads, too much waits. Promises
 * that whoever is refused here was certainly not applied, and that asking costs comparisons only: `refusalOf` is asked for every proposal.
 *
 * Must not change the replica. What is looked at once a turn instead (disk, apply, a leader that is busy) is `pressure.ts`'s, and is read
 * from `heldOff` here.
 */
import { DrakkarError } from '../errors.ts';
import { UNSEALED_BYTES_MAX } from './limits.ts';
import { notMember } from './membership.ts';
import { busyError, diskFullError } from './pressure.ts';
import type { Replica } from './replica.ts';

/** The reason why nothing can be proposed right now: `count` commands of `totalBytes`, the largest of `bytes`. */
export function refusalOf(
  replica: Replica,
  bytes: number,
  count: number,
  totalBytes = bytes,
): DrakkarError | undefined {
  if (replica.status !== 'running') return unavailable(replica);
  const { maxPayloadBytes } = replica.settings;
  if (bytes > maxPayloadBytes) {
    return new DrakkarError('ERR_PAYLOAD_TOO_BIG', `a command of ${bytes} bytes exceeds ${maxPayloadBytes}`);
  }
  if (replica.settings.isWitness) return witnessOnly(replica);
  if (replica.raft.selfSlot < 0) return notMember(replica);
  if (replica.engine.log.isFull) return diskFullError(replica);
  if (replica.raft.leaderId === 0) {
    return new DrakkarError('ERR_NO_LEADER', `shard ${replica.shardId} has no leader at the moment; try again`);
  }
  if (!replica.pending.hasRoom(count)) return busyError(replica.shardId, 'too many proposals wait for their answers');
  if (replica.openBlock.pendingBytes + totalBytes > UNSEALED_BYTES_MAX)
    return busyError(replica.shardId, 'the log cannot keep up');
  return replica.heldOff;
}

export function witnessOnly(replica: Replica): DrakkarError {
  return new DrakkarError(
    'ERR_WITNESS',
    `the replica of shard ${replica.shardId} on this host is a witness and has no state machine; ask another host`,
  );
}

export function unavailable(replica: Replica): DrakkarError {
  if (replica.removal !== undefined) return replica.removal;
  if (replica.failure !== undefined) {
    return new DrakkarError(
      'ERR_SHARD_FAILED',
      `the replica of shard ${replica.shardId} on this host has failed (${replica.failure.code}); ask another host`,
      { cause: replica.failure, outcome: 'not-applied' },
    );
  }
  return new DrakkarError('ERR_SHARD_STOPPED', `shard ${replica.shardId} was stopped`, { outcome: 'not-applied' });
}
