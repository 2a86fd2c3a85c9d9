/**
 * Reads at an index that a leader confirms (ReadIndex, thesis §6.4): any replica asks, the leader answers when a majority has said since that
 * it still leads. Promises that no read is answered below what was committed when it was asked, nor before an entry of the leader's own
 * term is.
 *
 * What waits is kept in `read-index.ts`; waiting for the apply, and the read itself, are the engine's. Must not change term, role or log.
 */
import { MessageType, type Message } from '../wire/message.ts';
import { broadcastHeartbeat } from './leading.ts';
import type { Member } from './member.ts';
import * as quiesce from './quiesce.ts';
import { majorityReached } from './quorum.ts';
import type { Raft } from './raft.ts';
import type { ReadRequest } from './read-index.ts';

// Who asks.

/** Asks for the index to read at. False: no leader is known. */
export function readIndex(raft: Raft, context: number): boolean {
  quiesce.touch(raft, 'read');
  if (raft.role === 'leader') {
    raft.newestContext = context;
    return raft.reads.add(raft.config.replicaId, context);
  }
  if (raft.leaderId === 0) return false;
  raft.newestContext = context;
  raft.send(MessageType.ReadIndex, raft.leaderId, { hint: context });
  return true;
}

export function askAgain(raft: Raft, context: number): void {
  if (raft.role !== 'leader' && raft.leaderId !== 0) raft.send(MessageType.ReadIndex, raft.leaderId, { hint: context });
}

// The leader.

export function onReadIndex(raft: Raft, message: Message): void {
  quiesce.touch(raft, 'read');
  raft.reads.add(message.from, message.hint);
}

const confirmed = new Float64Array(64);

/** One round of heartbeats confirms every read that waits, once an entry of the own term is committed (thesis §6.4). */
export function flushReads(raft: Raft): void {
  if (!raft.reads.hasWaiting || raft.termStartIndex === 0 || raft.commitIndex < raft.termStartIndex) return;
  const round = raft.reads.startRound(raft.commitIndex);
  if (raft.quorum === 1) releaseReads(raft, round);
  else broadcastHeartbeat(raft);
}

/** `member` has answered a heartbeat of this round. */
export function confirmRound(raft: Raft, member: Member, round: number): void {
  if (!raft.reads.hasRounds || round <= member.readRound || round > raft.reads.round) return;
  member.readRound = round;
  releaseReads(raft, confirmedRound(raft));
}

/** The members are others: what a majority of these has confirmed is. */
export function confirmReads(raft: Raft): void {
  if (raft.reads.hasRounds) releaseReads(raft, confirmedRound(raft));
}

/** The newest round that a majority has confirmed. */
function confirmedRound(raft: Raft): number {
  let count = 0;
  for (let slot = 0; slot < raft.members.length; slot++) {
    const voter = raft.members[slot];
    if (!voter.isVoter) continue;
    confirmed[count++] = slot === raft.selfSlot ? raft.reads.round : voter.hasRegressed ? 0 : voter.readRound;
  }
  return majorityReached(confirmed, count);
}

function releaseReads(raft: Raft, round: number): void {
  raft.reads.release(round, (request: ReadRequest, index: number) => {
    if (request.from === raft.config.replicaId) raft.outbox.readReady(request.context, index);
    else raft.send(MessageType.ReadIndexResponse, request.from, { logIndex: index, hint: request.context });
  });
}
