/**
 * Back-pressure among the replicas of a shard. A replica that holds more bytes of entries than it may, because it cannot apply them as fast
 * as they come, says so with its answers; its leader then sends it nothing more and takes no proposals, until that clears or was
 * not said again for an election timeout (so that whoever died busy holds back nobody).
 *
 * Nothing gets stuck by it: only a replica whose whole log is proven to be the leader's says that it is busy, and a leader holds
 * nothing back before its first own entry is committed. What a busy majority holds can be committed, and so applied, as it is.
 */
import { MESSAGE_BUSY, type Message } from '../wire/message.ts';
import type { Member } from './member.ts';
import type { Raft } from './raft.ts';

/** Share of the limit at which it clears: with a gap in between, so that it does not flicker. */
const CLEARS_AT = 0.7;

/** Whether this replica holds more than it may. */
export function isOverloaded(raft: Raft): boolean {
  const { maxUnappliedBytes } = raft.config;
  const { unappliedBytes } = raft.log;
  if (unappliedBytes > maxUnappliedBytes) raft.isOverloaded = true;
  else if (unappliedBytes <= maxUnappliedBytes * CLEARS_AT) raft.isOverloaded = false;
  return raft.isOverloaded;
}

/** For a follower's answers. */
export function answerFlags(raft: Raft): number {
  return isOverloaded(raft) && raft.log.lastIndex <= raft.verifiedIndex ? MESSAGE_BUSY : 0;
}

/** For a leader's heartbeats: so that followers refuse what it would drop. */
export function heartbeatFlags(raft: Raft): number {
  return isOverloaded(raft) || raft.heldBackBy !== 0 ? MESSAGE_BUSY : 0;
}

/** Leader: `member` answered. */
export function onAnswer(raft: Raft, member: Member, message: Message): void {
  const isBusy = (message.flags & MESSAGE_BUSY) !== 0;
  if (!isBusy && member.busyTicks === 0) return;
  member.busyTicks = isBusy ? raft.config.electionTicks : 0;
  if (!isBusy) raft.lags = true; // there is something to send now
  refresh(raft);
}

/** Leader: nothing is sent to it for now. */
export function isPaused(raft: Raft, member: Member): boolean {
  return member.busyTicks > 0 && raft.termStartIndex > 0 && raft.commitIndex >= raft.termStartIndex;
}

/** Leader: who said nothing for an election timeout is not waited for. */
export function tick(raft: Raft): void {
  if (raft.heldBackBy === 0) return;
  for (const member of raft.members) {
    if (member.busyTicks > 0 && --member.busyTicks === 0) raft.lags = true;
  }
  refresh(raft);
}

function refresh(raft: Raft): void {
  raft.heldBackBy = 0;
  for (const member of raft.members) if (member.busyTicks > 0) raft.heldBackBy = member.replicaId;
}
