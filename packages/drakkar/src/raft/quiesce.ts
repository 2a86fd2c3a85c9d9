/**
 * Quiescence: the replicas of an idle shard fall silent together, and cost nothing until somebody wants something. The leader offers it
 * on its heartbeats; a member that holds all there is, committed, accepts and stops its election timer; when every member whose
 * host is up has accepted, and they are a majority, the leader stops its heartbeats.
 *
 * Silence is safe because it promises nothing: terms, votes and commits are as before, and a read still asks a majority. It is
 * live because whoever is in doubt wakes: everything that comes in but the offer itself wakes a replica, with its timers at
 * their start. What nobody hears any more, the death of the leader's host, is told by those who watch hosts instead of shards
 * (`hostLost`): a silent follower's leader always lives on a host that is up.
 */
import { MESSAGE_QUIESCE, MessageType, type Message } from '../wire/message.ts';
import { NO_VOTES, drawTimeout } from './election.ts';
import type { Member } from './member.ts';
import type { Raft } from './raft.ts';

/** Why a replica woke. */
export type WakeCause = 'proposal' | 'read' | 'message' | 'operator' | 'host-lost' | 'host-back';
export const WAKE_CAUSES: readonly WakeCause[] = ['proposal', 'read', 'message', 'operator', 'host-lost', 'host-back'];

/** Election timeouts without a write or read before a leader offers silence. */
const IDLE_ELECTIONS = 2;

// The leader.

/** A proposal, read or the like: the shard is not idle, and an offer that is under way is void. */
export function touch(raft: Raft, cause: WakeCause): void {
  raft.idleTicks = 0;
  raft.offeredFrom = 0;
  if (raft.isQuiesced) wake(raft, cause);
}

/** The flag of the heartbeat with the newest number: an offer while the shard may fall silent, else nothing. */
export function offer(raft: Raft): number {
  if (!mayFallSilent(raft)) {
    raft.offeredFrom = 0;
    return 0;
  }
  if (raft.offeredFrom === 0) raft.offeredFrom = raft.heartbeatNumber;
  return MESSAGE_QUIESCE;
}

function mayFallSilent(raft: Raft): boolean {
  const { config, log, commitIndex, termStartIndex, members, membership, reads } = raft;
  if (!config.quiesce || raft.idleTicks < IDLE_ELECTIONS * config.electionTicks) return false;
  if (raft.transferTarget !== 0 || reads.hasWaiting || reads.hasRounds) return false;
  // Followers would go on refusing what nobody tells them is taken again.
  if (raft.heldBackBy !== 0 || raft.isOverloaded) return false;
  if (commitIndex !== log.lastIndex || termStartIndex === 0 || commitIndex < termStartIndex) return false;
  if (raft.appliedIndex !== commitIndex || raft.writes.count > 0) return false;
  for (let slot = 0; slot < members.length; slot++) {
    const member = members[slot];
    if (slot === raft.selfSlot || member.isAway) continue;
    // Whoever is to be promoted is, before there is silence.
    if (!isInStep(member, log.lastIndex) || membership.autoPromoted.has(member.replicaId)) return false;
  }
  return true;
}

function isInStep(member: Member, lastIndex: number): boolean {
  return member.matchIndex === lastIndex && !member.hasRegressed;
}

/** `member` fell silent on the offer with the number that its answer repeats. */
export function onAccepted(raft: Raft, member: Member, message: Message): void {
  if (raft.offeredFrom === 0) return;
  if (message.logTerm > member.silentSince) member.silentSince = message.logTerm;
  settle(raft);
}

/** Falls silent when all others have that can. */
export function settle(raft: Raft): void {
  let silent = 0;
  for (let slot = 0; slot < raft.members.length; slot++) {
    const member = raft.members[slot];
    const isSilent = slot === raft.selfSlot || (!member.isAway && member.silentSince >= raft.offeredFrom);
    if (!isSilent && !member.isAway) return;
    if (isSilent && member.isVoter) silent++;
  }
  if (silent >= raft.quorum && mayFallSilent(raft)) fallSilent(raft);
}

// Everybody.

function fallSilent(raft: Raft): void {
  raft.isQuiesced = true;
  raft.offeredFrom = 0;
  raft.outbox.quiesceChanged(undefined);
}

/** An offer of the leader of the current term, whom this follower has just heard. */
export function accept(raft: Raft, message: Message): boolean {
  const { log, commitIndex } = raft;
  // Nobody would tell of the death of a host that is taken for dead already.
  const isWatched = raft.memberOf(message.from)?.isAway === false;
  const accepts =
    raft.config.quiesce &&
    isWatched &&
    message.commit === log.lastIndex &&
    commitIndex === log.lastIndex &&
    raft.appliedIndex === commitIndex &&
    raft.writes.count === 0 &&
    !raft.isInstalling;
  if (accepts && !raft.isQuiesced) fallSilent(raft);
  else if (!accepts && raft.isQuiesced) wake(raft, 'message');
  return accepts;
}

/** Whether a message is of the silence itself: the offer repeated, or a late answer to it. */
export function isPartOfSilence(raft: Raft, message: Message): boolean {
  if ((message.flags & MESSAGE_QUIESCE) === 0 || message.term !== raft.term) return false;
  return message.type === (raft.role === 'leader' ? MessageType.HeartbeatResponse : MessageType.Heartbeat);
}

/** `heardAgo`: ticks since the leader's host was heard, where that is known to be longer than now. */
export function wake(raft: Raft, cause: WakeCause, heardAgo = 0): void {
  raft.isQuiesced = false;
  raft.idleTicks = 0;
  raft.offeredFrom = 0;
  raft.electionElapsed = 0;
  if (raft.role === 'leader') {
    // With the next tick; and it must hear a majority anew, as if it had just been elected.
    raft.heartbeatElapsed = raft.config.heartbeatTicks;
    for (const member of raft.members) member.isActive = false;
  } else {
    drawTimeout(raft);
    raft.electionElapsed = Math.min(heardAgo, raft.config.electionTicks);
  }
  raft.outbox.quiesceChanged(cause);
}

/** Connections to the host of `replicaId` are down, or it has not been heard for `heardAgo` ticks. */
export function hostLost(raft: Raft, replicaId: number, heardAgo: number): void {
  const member = raft.memberOf(replicaId);
  if (member === undefined) return;
  member.isAway = true;
  if (raft.isQuiesced && (raft.role === 'leader' || raft.leaderId === replicaId)) wake(raft, 'host-lost', heardAgo);
}

/** It is there again: a silent leader has to look what it missed. */
export function hostBack(raft: Raft, replicaId: number): void {
  const member = raft.memberOf(replicaId);
  if (member === undefined) return;
  member.isAway = false;
  if (raft.isQuiesced && raft.role === 'leader') wake(raft, 'host-back');
}

/** This replica ends while its host lives on: whoever is silent behind it must notice. */
export function farewell(raft: Raft): void {
  if (!raft.config.quiesce || raft.role !== 'leader' || !raft.maySpeak) return;
  for (const { replicaId } of raft.members) {
    if (replicaId !== raft.config.replicaId) raft.send(MessageType.Noop, replicaId);
  }
}

/** Gives memory back that only a busy shard needs. */
export function rest(raft: Raft): void {
  raft.log.rest();
  raft.writes.release();
  for (const member of raft.members) member.release();
  if (raft.role === 'leader' || raft.role === 'follower') raft.votes = NO_VOTES;
}
