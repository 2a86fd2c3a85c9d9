/**
 * Snapshots that come from a leader, for the core: whether one is followed, and what becomes of log and indexes when it is installed.
 * Promises that what is committed never goes back, and that an old log is given up only together with its acknowledgements.
 *
 * Must not know images or files: whoever calls has made the snapshot durable.
 */
import { invariant } from '../errors.ts';
import type { Membership } from '../wire/membership.ts';
import { hearLeader } from './following.ts';
import * as quiesce from './quiesce.ts';
import type { Raft } from './raft.ts';

/**
 * A leader of `term` offers a snapshot. False when there is a newer one; otherwise this replica follows it, whatever it was: a leader
 * whose log is replaced would count acknowledgements of the old one for the new.
 */
export function admitSnapshot(raft: Raft, term: number, leaderId: number): boolean {
  if (term < raft.term) return false;
  if (raft.isQuiesced) quiesce.wake(raft, 'message');
  hearLeader(raft, leaderId, term);
  raft.persistIfDirty();
  return true;
}

/**
 * A snapshot at `index` is installed and durable. The log behind it is kept when it matches (thesis §5.1, scenario 48), else
 * given up. False when the snapshot is older than what is committed.
 */
export function restore(raft: Raft, index: number, term: number, membership: Membership): boolean {
  if (index <= raft.commitIndex) return false;
  invariant(raft.role !== 'leader', 'a leader installs a snapshot');
  raft.restoreReset = raft.log.termAt(index) !== term;
  if (raft.restoreReset) {
    raft.outbox.truncated(raft.commitIndex + 1);
    raft.log.reset(index, term);
    raft.writes.lowerTo(0);
  }
  raft.commitIndex = index;
  raft.verifiedIndex = Math.max(index, Math.min(raft.verifiedIndex, raft.log.lastIndex));
  raft.setMembership(membership);
  raft.recordState(index);
  raft.restoreReset = false;
  return true;
}
