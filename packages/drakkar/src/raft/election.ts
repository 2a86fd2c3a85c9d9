/** Elections: timers, pre-votes, votes, and what becomes of a replica when it wins, loses or steps down. */
import { invariant } from '../errors.ts';
import { MESSAGE_REJECT, MESSAGE_TRANSFER, MessageType, type Message } from '../wire/message.ts';
import * as leading from './leading.ts';
import { hasUnappliedChange } from './membership.ts';
import type { Raft } from './raft.ts';

/** Of all that are no candidates; never written to. */
export const NO_VOTES: (boolean | undefined)[] = [];

/** Drawn from [n, 2n) at every change of role, so that candidates do not collide for ever (Raft §5.2). */
export function drawTimeout(raft: Raft): void {
  const { electionTicks, random } = raft.config;
  raft.electionTimeout = electionTicks + (random() % electionTicks);
}

export function tick(raft: Raft): void {
  raft.electionElapsed++;
  if (raft.electionElapsed < raft.electionTimeout) return;
  raft.electionElapsed = 0;
  // Whoever cannot write could not lead either (design §7.7).
  const mayCampaign = raft.mayLead && !raft.isStalled && !isHeldBack(raft);
  if (mayCampaign) campaign(raft, false);
  // Whoever can must not be refused for the sake of a leader that is gone.
  else if (raft.role === 'follower') changeLeader(raft, 0);
}

function isHeldBack(raft: Raft): boolean {
  return hasUnappliedChange(raft) || raft.isInstalling;
}

/** `forTransfer`: on behalf of the leader, so without asking first, and past everybody's lease (thesis §3.10). */
export function campaign(raft: Raft, forTransfer: boolean): void {
  if (isHeldBack(raft)) return;
  if (raft.config.preVote && !forTransfer) becomePreCandidate(raft);
  else becomeCandidate(raft, forTransfer);
}

/** The leader of this term hands over: at once, or when what is committed of the membership is applied. */
export function takeOver(raft: Raft): void {
  const isAskedLate = raft.takeoverTerm !== 0 && raft.takeoverTerm !== raft.term;
  raft.takeoverTerm = 0;
  if (isAskedLate || raft.role === 'leader' || !raft.mayLead) return;
  if (hasUnappliedChange(raft)) raft.takeoverTerm = raft.term;
  else campaign(raft, true);
}

function becomePreCandidate(raft: Raft): void {
  raft.role = 'pre-candidate';
  raft.electionElapsed = 0;
  drawTimeout(raft);
  changeLeader(raft, 0);
  raft.votes = [];
  raft.votes[raft.selfSlot] = true;
  if (hasWon(raft)) {
    becomeCandidate(raft, false);
    return;
  }
  requestVotes(raft, MessageType.RequestPreVote, raft.term + 1, 0);
}

function becomeCandidate(raft: Raft, forTransfer: boolean): void {
  raft.role = 'candidate';
  raft.electionElapsed = 0;
  drawTimeout(raft);
  changeLeader(raft, 0);
  raft.term++;
  raft.vote = raft.config.replicaId;
  raft.verifiedIndex = raft.commitIndex;
  raft.isStateDirty = true;
  // The own vote counts when it is durable: `countOwnVote`.
  raft.votes = [];
  raft.persistIfDirty();
  requestVotes(raft, MessageType.RequestVote, raft.term, forTransfer ? MESSAGE_TRANSFER : 0);
}

function requestVotes(raft: Raft, type: MessageType, term: number, flags: number): void {
  for (const member of raft.members) {
    if (!member.isVoter || member.replicaId === raft.config.replicaId) continue;
    raft.send(type, member.replicaId, { term, flags, logIndex: raft.log.lastIndex, logTerm: raft.log.lastTerm });
  }
}

/** The own reads that wait were asked of a leader that may be none any more. */
function changeLeader(raft: Raft, leaderId: number): void {
  raft.reads.clear();
  if (raft.newestContext > 0) {
    const context = raft.newestContext;
    raft.newestContext = 0;
    raft.outbox.readsDropped(context);
  }
  raft.setLeader(leaderId);
}

export function becomeFollower(raft: Raft, term: number, leaderId: number): void {
  invariant(term >= raft.term, 'a term went back');
  const wasLeader = raft.role === 'leader';
  raft.role = 'follower';
  if (term > raft.term) {
    raft.term = term;
    raft.vote = 0;
    raft.isStateDirty = true;
    raft.verifiedIndex = raft.commitIndex;
  }
  if (wasLeader) {
    raft.termStartIndex = 0;
    raft.lags = false;
    if (raft.transferTarget !== 0) {
      raft.awaitedLeader = raft.transferTarget;
      raft.transferTarget = 0;
    }
  }
  if (raft.leaderId !== leaderId) changeLeader(raft, leaderId);
  raft.ackedIndex = 0;
  raft.electionElapsed = 0;
  drawTimeout(raft);
}

function becomeLeader(raft: Raft): void {
  raft.role = 'leader';
  raft.electionElapsed = 0;
  raft.heartbeatElapsed = 0;
  raft.idleTicks = 0;
  raft.offeredFrom = 0;
  raft.termStartIndex = 0;
  raft.pendingChangeIndex = raft.log.lastIndex;
  raft.leaveIndex = leading.findLeaveIndex(raft);
  raft.transferTarget = 0;
  raft.heldBackBy = 0;
  // Its own log is the measure now.
  raft.verifiedIndex = raft.log.lastIndex;
  for (const member of raft.members) member.reset(raft.log.lastIndex + 1);
  raft.lags = true;
  raft.setLeader(raft.config.replicaId);
  raft.outbox.appendNoop();
  leading.broadcastHeartbeat(raft);
}

/** Whether the other log may lead: later last term, or the same and at least as long (Raft §5.4.1). */
function isUpToDate(raft: Raft, message: Message): boolean {
  const { lastIndex, lastTerm } = raft.log;
  return message.logTerm > lastTerm || (message.logTerm === lastTerm && message.logIndex >= lastIndex);
}

export function onRequestPreVote(raft: Raft, message: Message): void {
  if (message.term > raft.term && isUpToDate(raft, message)) {
    raft.send(MessageType.RequestPreVoteResponse, message.from, { term: message.term });
  } else rejectPreVote(raft, message.from);
}

export function rejectPreVote(raft: Raft, to: number): void {
  reject(raft, MessageType.RequestPreVoteResponse, to);
}

/** Whoever is refused learns what is committed: see `learnCommit`. */
function reject(raft: Raft, type: MessageType, to: number): void {
  const { commitIndex, log } = raft;
  raft.send(type, to, { flags: MESSAGE_REJECT, commit: commitIndex, logTerm: log.termAt(commitIndex) ?? 0 });
}

/**
 * What is committed stays committed, whoever says so in whatever term. A candidate whose log holds the same entry takes it over: the last
 * voter left may need it, when the one that knew of its own removal's commit has gone (etcd issue 10998).
 */
export function learnCommit(raft: Raft, index: number, term: number): void {
  if (raft.role === 'leader' || index <= raft.commitIndex || index > raft.log.lastIndex) return;
  if (term === 0 || raft.log.termAt(index) !== term) return;
  let commit = index;
  if (raft.membership.witnesses.size > 0) {
    // Whoever goes with entries behind its removal, which a witness may have, too, passes them on first: see `Raft.isLeaving`.
    const leaveIndex = leading.findLeaveIndex(raft);
    if (leaveIndex < raft.log.lastIndex) commit = Math.min(commit, leaveIndex - 1);
  }
  if (commit <= raft.commitIndex) return;
  raft.commitIndex = commit;
  if (raft.verifiedIndex < commit) raft.verifiedIndex = commit;
  // Who is to be asked for votes may change with it.
  if (raft.role !== 'follower' && hasUnappliedChange(raft)) becomeFollower(raft, raft.term, 0);
}

/** To a candidate that does not know that this replica is no member any more. Promises nothing. */
export function answerAsRemoved(raft: Raft, message: Message): void {
  if (message.type === MessageType.RequestPreVote) rejectPreVote(raft, message.from);
  else if (message.type === MessageType.RequestVote) reject(raft, MessageType.RequestVoteResponse, message.from);
}

export function onRequestVote(raft: Raft, message: Message): void {
  const isFree = raft.vote === message.from || (raft.vote === 0 && raft.leaderId === 0);
  if (!isFree || !isUpToDate(raft, message)) {
    reject(raft, MessageType.RequestVoteResponse, message.from);
    return;
  }
  if (raft.vote !== message.from) {
    raft.vote = message.from;
    raft.isStateDirty = true;
  }
  raft.electionElapsed = 0;
  raft.send(MessageType.RequestVoteResponse, message.from);
}

export function onVoteResponse(raft: Raft, message: Message): void {
  const asked = message.type === MessageType.RequestPreVoteResponse ? 'pre-candidate' : 'candidate';
  if (raft.role !== asked) return;
  // A granted pre-vote names the term it was asked for.
  if (asked === 'pre-candidate' && !message.rejected && message.term !== raft.term + 1) return;
  const slot = raft.slots.indexOf(message.from);
  if (slot < 0 || !raft.members[slot].isVoter) return;
  raft.votes[slot] ??= !message.rejected;
  decide(raft);
}

/** The vote for oneself, once it is durable: a lone voter leads only then (etcd issue 14370). */
export function countOwnVote(raft: Raft): void {
  if (raft.role !== 'candidate' || raft.writes.durable < raft.stateWrite) return;
  raft.votes[raft.selfSlot] = true;
  decide(raft);
}

function decide(raft: Raft): void {
  if (hasWon(raft)) {
    if (raft.role === 'pre-candidate') becomeCandidate(raft, false);
    else becomeLeader(raft);
    return;
  }
  let refused = 0;
  for (let slot = 0; slot < raft.members.length; slot++) if (raft.votes[slot] === false) refused++;
  if (refused >= raft.quorum || raft.voterCount - refused < raft.quorum) becomeFollower(raft, raft.term, 0);
}

function hasWon(raft: Raft): boolean {
  let granted = 0;
  for (let slot = 0; slot < raft.members.length; slot++) {
    if (raft.members[slot].isVoter && raft.votes[slot] === true) granted++;
  }
  return granted >= raft.quorum;
}

// Terms of messages.

/** Gives false when the message must be ignored. Otherwise its higher term is adopted, unless it is only a pre-vote's. */
export function admitHigherTerm(raft: Raft, message: Message): boolean {
  const { type } = message;
  const isVoteRequest = type === MessageType.RequestVote || type === MessageType.RequestPreVote;
  if (isVoteRequest && (message.flags & MESSAGE_TRANSFER) === 0) {
    // A leader was heard of just now: whoever asks cannot hear it, and must not disturb (thesis §6.2, §9.6).
    const { checkQuorum, electionTicks } = raft.config;
    if (checkQuorum && raft.leaderId !== 0 && raft.electionElapsed < electionTicks) return false;
  }
  if (type === MessageType.RequestPreVote) return true;
  // The answer to a pre-vote carries the term that was asked for.
  if (type === MessageType.RequestPreVoteResponse && !message.rejected) return true;
  const fromLeader =
    type === MessageType.Heartbeat || type === MessageType.TimeoutNow || type === MessageType.ReadIndexResponse;
  // A vote request leaves the election timer alone, so that a hopeless candidate cannot keep others from campaigning.
  const elapsed = raft.electionElapsed;
  becomeFollower(raft, message.term, fromLeader ? message.from : 0);
  if (type === MessageType.RequestVote) raft.electionElapsed = elapsed;
  return true;
}

/** An answer with our term frees a leader or candidate that does not know it is outdated (etcd's stuck candidate). */
export function answerLowerTerm(raft: Raft, message: Message): void {
  if (message.type === MessageType.Heartbeat) raft.send(MessageType.Noop, message.from);
  else if (message.type === MessageType.RequestPreVote) rejectPreVote(raft, message.from);
}
