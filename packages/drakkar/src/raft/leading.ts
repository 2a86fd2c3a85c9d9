/** What a leader does: append, send, count, hand over. How it confirms reads stands in `reading.ts`. */
import { invariant } from '../errors.ts';
import { mayRemove } from '../wire/block.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import { MESSAGE_NO_REPLY, MESSAGE_QUIESCE, MessageType, type Message } from '../wire/message.ts';
import { becomeFollower } from './election.ts';
import { MemberState, type Member } from './member.ts';
import { heartbeatFlags, isPaused, onAnswer, tick as tickPressure } from './pressure.ts';
import * as quiesce from './quiesce.ts';
import { majorityReached } from './quorum.ts';
import type { Raft } from './raft.ts';
import { confirmReads, confirmRound, flushReads } from './reading.ts';

export function tick(raft: Raft): void {
  const { electionTicks, heartbeatTicks, checkQuorum } = raft.config;
  if (raft.isStalled) {
    giveAway(raft);
    return;
  }
  if (++raft.electionElapsed >= electionTicks) {
    raft.electionElapsed = 0;
    if (checkQuorum && !hearsQuorum(raft)) {
      becomeFollower(raft, raft.term, 0);
      return;
    }
  }
  if (raft.transferTarget !== 0 && ++raft.transferElapsed >= electionTicks) endTransfer(raft, 'timeout');
  tickPressure(raft);
  flushReads(raft);
  followRounds(raft);
  raft.idleTicks++;
  if (++raft.heartbeatElapsed >= heartbeatTicks) broadcastHeartbeat(raft);
}

/** Whether a majority was heard of since the last time this was asked (thesis §6.2). */
function hearsQuorum(raft: Raft): boolean {
  let active = 0;
  for (const member of raft.members) {
    const isSelf = member.replicaId === raft.config.replicaId;
    if (member.isVoter && (isSelf || (member.isActive && !member.hasRegressed))) active++;
    member.isActive = false;
  }
  return active >= raft.quorum;
}

/** How members that do not vote yet catch up; those that shall vote are promoted when they have. */
function followRounds(raft: Raft): void {
  const { electionTicks } = raft.config;
  for (const member of raft.members) {
    member.silentTicks++;
    if (member.isVoter) continue;
    member.roundTicks++;
    if (member.roundTicks > electionTicks || member.silentTicks > electionTicks) member.isCaughtUp = false;
    if (member.matchIndex < member.roundTarget) continue;
    const isAlive = member.silentTicks <= electionTicks && member.state === MemberState.Replicate;
    member.isCaughtUp = isAlive && member.roundTarget > 0 && member.roundTicks <= electionTicks;
    member.roundTarget = raft.log.lastIndex;
    member.roundTicks = 0;
    const isWanted = member.isCaughtUp && raft.membership.autoPromoted.has(member.replicaId);
    if (isWanted && raft.mayChangeMembership) raft.outbox.promote(member.replicaId);
  }
}

/** The members are others from now on: what a smaller majority has is committed, and a leader that is none of them goes. */
export function membershipChanged(raft: Raft): void {
  if (raft.transferTarget !== 0 && raft.memberOf(raft.transferTarget)?.mayLead !== true) {
    endTransfer(raft, 'target-invalid');
  }
  if (!raft.mayLead) {
    flushCommit(raft); // the others must know that it is committed
    giveAway(raft);
    return;
  }
  raft.lags = true;
  raft.leaveIndex = findLeaveIndex(raft);
  maybeCommit(raft);
  confirmReads(raft);
}

/** Another one leads better: the disk stands still (design §7.7), or this is no member any more. No heartbeat leaves any more. */
function giveAway(raft: Raft): void {
  let best: Member | undefined;
  for (const member of raft.members) {
    const isAlive = member.matchIndex > 0 && member.silentTicks <= raft.config.electionTicks;
    if (!isOther(raft, member) || !member.mayLead || !isAlive || member.hasRegressed) continue;
    if (best === undefined || member.matchIndex > best.matchIndex) best = member;
  }
  if (best !== undefined) raft.send(MessageType.TimeoutNow, best.replicaId);
  becomeFollower(raft, raft.term, 0);
}

function isOther(raft: Raft, member: Member): boolean {
  return member.replicaId !== raft.config.replicaId;
}

export function broadcastHeartbeat(raft: Raft): void {
  raft.heartbeatElapsed = 0;
  raft.heartbeatNumber++;
  const flags = heartbeatFlags(raft) | quiesce.offer(raft);
  for (const member of raft.members) {
    if (!isOther(raft, member)) continue;
    const commit = Math.min(member.matchIndex, raft.commitIndex);
    if (commit > member.sentCommit) member.sentCommit = commit;
    raft.send(MessageType.Heartbeat, member.replicaId, {
      flags,
      commit,
      hint: raft.reads.hasRounds ? raft.reads.round : 0,
      logTerm: raft.heartbeatNumber,
    });
  }
  // Alone, or all others are away.
  if (flags !== 0) quiesce.settle(raft);
}

// Sending.

export function appendOwn(raft: Raft, ref: BlockRef): number {
  invariant(raft.role === 'leader' && ref.term === raft.term, 'only a leader appends, and in its own term');
  invariant(ref.firstIndex === raft.log.lastIndex + 1, 'an own block does not stand at the end of the log');
  quiesce.touch(raft, 'proposal');
  raft.log.append(ref);
  raft.writes.push(ref, ref.lastIndex);
  if (raft.termStartIndex === 0) raft.termStartIndex = ref.firstIndex;
  if (ref.isConfigChange) {
    raft.pendingChangeIndex = ref.firstIndex;
    raft.leaveIndex = findLeaveIndex(raft);
  }
  raft.verifiedIndex = ref.lastIndex;
  let mask = 0;
  const { members } = raft;
  for (let slot = 0; slot < members.length; slot++) {
    if (slot === raft.selfSlot) continue;
    const member = members[slot];
    if (member.isWitness) {
      raft.lags = true; // it gets the block without its entries
      continue;
    }
    const fits = member.state === MemberState.Replicate && member.nextIndex === ref.firstIndex;
    if (!fits || member.isWindowFull || member.hasRegressed || isPaused(raft, member)) {
      raft.lags = true;
      continue;
    }
    member.sent(ref.lastIndex, ref.sizeBytes, raft.heartbeatNumber);
    member.sentCommit = raft.commitIndex;
    mask |= 1 << slot;
  }
  return mask;
}

export function catchUp(raft: Raft): void {
  raft.lags = false;
  for (let slot = 0; slot < raft.members.length; slot++) {
    const member = raft.members[slot];
    if (slot === raft.selfSlot || member.hasRegressed) continue;
    if (member.state === MemberState.Probe && !member.isWaiting) probe(raft, slot, member);
    else if (member.state === MemberState.Replicate && !isPaused(raft, member)) pipeline(raft, slot, member);
  }
}

/** The first block, or the question whether the logs match, then silence until the answer. */
function probe(raft: Raft, slot: number, member: Member): void {
  const { log } = raft;
  if (member.nextIndex > log.lastIndex) {
    if (member.matchIndex >= log.lastIndex) return;
    raft.outbox.sendProbe(slot, log.lastIndex, log.lastTerm);
    member.nextIndex = log.lastIndex + 1;
    member.isWaiting = true;
    return;
  }
  if (member.nextIndex <= log.compactedIndex) {
    startSnapshot(raft, slot, member);
    return;
  }
  const ref = log.blockAt(member.nextIndex)!;
  const skip = member.nextIndex - ref.firstIndex;
  if (raft.outbox.sendBlock(slot, ref, skip, ref.count - skip, skip > 0 ? ref.term : ref.prevTerm)) {
    member.isWaiting = true;
    member.sentCommit = raft.commitIndex;
  } else raft.lags = true;
}

function pipeline(raft: Raft, slot: number, member: Member): void {
  const { log } = raft;
  let bytes = 0;
  while (member.nextIndex <= log.lastIndex && !member.isWindowFull) {
    if (member.nextIndex <= log.compactedIndex) {
      startSnapshot(raft, slot, member);
      return;
    }
    if (bytes >= raft.config.maxSendBytes) {
      raft.lags = true;
      return;
    }
    const ref = log.blockAt(member.nextIndex)!;
    const skip = member.nextIndex - ref.firstIndex;
    if (!raft.outbox.sendBlock(slot, ref, skip, ref.count - skip, skip > 0 ? ref.term : ref.prevTerm)) {
      raft.lags = true;
      return;
    }
    member.sent(ref.lastIndex, ref.sizeBytes, raft.heartbeatNumber);
    member.sentCommit = raft.commitIndex;
    bytes += ref.sizeBytes;
  }
}

function startSnapshot(raft: Raft, slot: number, member: Member): void {
  member.becomeSnapshot();
  raft.outbox.sendSnapshot(slot);
}

export function flushCommit(raft: Raft): void {
  for (let slot = 0; slot < raft.members.length; slot++) {
    const member = raft.members[slot];
    if (slot === raft.selfSlot) continue;
    const commit = Math.min(member.matchIndex, raft.commitIndex);
    if (commit <= member.sentCommit) continue;
    member.sentCommit = commit;
    raft.send(MessageType.Heartbeat, member.replicaId, { flags: MESSAGE_NO_REPLY | heartbeatFlags(raft), commit });
  }
}

// Counting.

export function onReplicateResponse(raft: Raft, message: Message): void {
  const member = raft.memberOf(message.from);
  if (member === undefined || member.hasRegressed) return;
  member.heard();
  onAnswer(raft, member, message);
  if (message.rejected) onReject(raft, member, message);
  else onAck(raft, member, message.logIndex);
}

function onReject(raft: Raft, member: Member, message: Message): void {
  const { log } = raft;
  if (member.state === MemberState.Replicate) {
    if (message.logIndex <= member.matchIndex) return; // an old answer
    member.becomeProbe(member.matchIndex + 1);
  } else if (member.state === MemberState.Probe && member.nextIndex - 1 !== message.logIndex) return;
  else if (member.state === MemberState.Snapshot) return;
  // The same back-off from this side: nothing above the last own entry with a term that the follower may have.
  const agree = log.findAtMostTerm(Math.min(message.hint, log.lastIndex), message.logTerm);
  member.becomeProbe(Math.max(agree + 1, member.matchIndex + 1));
  // No agreement above what is compacted here: only a snapshot helps.
  const disagreesBelow = message.hint < log.compactedIndex || message.logIndex <= log.compactedIndex;
  if (agree <= log.compactedIndex && disagreesBelow) member.nextIndex = Math.min(message.hint + 1, log.compactedIndex);
  raft.lags = true;
}

function onAck(raft: Raft, member: Member, index: number): void {
  invariant(index <= raft.log.lastIndex, `replica ${member.replicaId} acknowledges ${index}, beyond the log's end`);
  if (index > member.matchIndex) {
    member.matchIndex = index;
    member.matchedAtHeartbeat = raft.heartbeatNumber;
    if (member.nextIndex <= index) member.nextIndex = index + 1;
    member.arrived(index);
    maybeCommit(raft);
  }
  if (member.state === MemberState.Probe) member.becomeReplicate();
  else if (member.state === MemberState.Snapshot && member.matchIndex >= raft.log.compactedIndex)
    member.becomeReplicate();
  if (member.nextIndex <= raft.log.lastIndex) raft.lags = true;
  if (raft.transferTarget === member.replicaId && member.matchIndex === raft.log.lastIndex) {
    raft.send(MessageType.TimeoutNow, member.replicaId);
  }
}

const reached = new Float64Array(64);

/** Commits what a majority has durably, from the own term on (Raft §5.4.2, figure 8). */
export function maybeCommit(raft: Raft): void {
  if (raft.role !== 'leader') return;
  let count = 0;
  for (let slot = 0; slot < raft.members.length; slot++) {
    const member = raft.members[slot];
    if (!member.isVoter) continue;
    reached[count++] = slot === raft.selfSlot ? raft.writes.durableIndex : member.hasRegressed ? 0 : member.matchIndex;
  }
  let index = majorityReached(reached, count);
  if (index >= raft.leaveIndex && raft.isLeaving && !hasHeir(raft)) index = raft.leaveIndex - 1;
  if (index > raft.commitIndex && raft.termStartIndex > 0 && index >= raft.termStartIndex) raft.commitIndex = index;
}

/** Where the first change stands that is not committed and may remove this replica. */
export function findLeaveIndex(raft: Raft): number {
  for (let index = raft.commitIndex + 1; index <= raft.log.lastIndex; ) {
    const ref = raft.log.blockAt(index)!;
    if (mayRemove(ref.flags, raft.config.replicaId)) return ref.firstIndex;
    index = ref.lastIndex + 1;
  }
  return Number.POSITIVE_INFINITY;
}

/** Whether somebody who stays and may lead has all that this leader has. */
function hasHeir(raft: Raft): boolean {
  for (const member of raft.members) {
    const isHeir = isOther(raft, member) && member.mayLead && !member.hasRegressed;
    if (isHeir && member.matchIndex >= raft.log.lastIndex) return true;
  }
  return false;
}

/** What every member that is sent to in step has; bytes up to there need not stay in memory. */
export function replicatedIndex(raft: Raft): number {
  let index = Number.POSITIVE_INFINITY;
  for (let slot = 0; slot < raft.members.length; slot++) {
    const member = raft.members[slot];
    if (slot === raft.selfSlot || member.state !== MemberState.Replicate) continue;
    if (member.matchIndex < index) index = member.matchIndex;
  }
  return index;
}

export function onHeartbeatResponse(raft: Raft, message: Message): void {
  const member = raft.memberOf(message.from);
  if (member === undefined || member.hasRegressed) return;
  member.heard();
  onAnswer(raft, member, message);
  // An answer to a heartbeat that was sent after the acknowledgement came: its log cannot be shorter, unless it was lost.
  if (message.logTerm > member.matchedAtHeartbeat && message.hintHigh < member.matchIndex) {
    member.hasRegressed = true;
    raft.outbox.memberRegressed(member.replicaId);
    return;
  }
  if (message.logIndex > member.matchIndex) onAck(raft, member, message.logIndex);
  if (member.state === MemberState.Probe) {
    if (member.matchIndex < raft.log.lastIndex) {
      member.isWaiting = false;
      raft.lags = true;
    }
  } else if (member.state === MemberState.Replicate) {
    const isLost = message.logTerm > member.sentAtHeartbeat && message.hintHigh < member.nextIndex - 1;
    if (isLost) {
      member.becomeProbe(member.matchIndex + 1);
      raft.lags = true;
    } else if (member.isWindowFull) {
      member.freeOldest();
      raft.lags = true;
    }
  }
  if (message.hint > 0) confirmRound(raft, member, message.hint);
  if ((message.flags & MESSAGE_QUIESCE) !== 0) quiesce.onAccepted(raft, member, message);
}

/** What was under way is lost. A lost probe is not repeated at once: the answer to a heartbeat, or the way being open again, does. */
export function onUnreachable(member: Member): void {
  if (member.state === MemberState.Replicate) member.becomeProbe(member.matchIndex + 1);
}

export function onSnapshotReport(raft: Raft, member: Member, ok: boolean, index: number): void {
  if (member.state !== MemberState.Snapshot) return;
  member.becomeProbe(ok ? Math.max(member.matchIndex, index) + 1 : member.matchIndex + 1);
  raft.lags = true;
}

// Handing over.

export function transferTo(raft: Raft, targetId: number): boolean {
  const target = raft.memberOf(targetId);
  if (target === undefined || !target.mayLead || targetId === raft.config.replicaId) {
    raft.outbox.transferEnded(targetId, 'target-invalid');
    return false;
  }
  quiesce.touch(raft, 'operator');
  if (raft.transferTarget === targetId) return true;
  if (raft.transferTarget !== 0) endTransfer(raft, 'superseded');
  raft.transferTarget = targetId;
  raft.transferElapsed = 0;
  if (target.matchIndex === raft.log.lastIndex) raft.send(MessageType.TimeoutNow, targetId);
  else raft.lags = true; // it catches up first; the acknowledgement of the last entry sends it off
  return true;
}

function endTransfer(raft: Raft, outcome: 'timeout' | 'superseded' | 'target-invalid'): void {
  const target = raft.transferTarget;
  raft.transferTarget = 0;
  raft.outbox.transferEnded(target, outcome);
}
