/**
 * The way in for messages: what a message's term means is settled first, whatever its type; then it goes to the part of the core that it is
 * for. Promises that a term or vote which changed on the way is recorded when this returns.
 *
 * Decides nothing else. What a type of message does stands in `following.ts`, `election.ts`, `leading.ts` and `reading.ts`; blocks do not
 * come this way.
 */
import { MessageType, type Message } from '../wire/message.ts';
import * as election from './election.ts';
import * as following from './following.ts';
import * as leading from './leading.ts';
import * as quiesce from './quiesce.ts';
import type { Raft } from './raft.ts';
import * as reading from './reading.ts';

export function step(raft: Raft, message: Message): void {
  if (raft.isQuiesced && !quiesce.isPartOfSilence(raft, message)) quiesce.wake(raft, 'message');
  if (message.type === MessageType.RequestVoteResponse || message.type === MessageType.RequestPreVoteResponse)
    election.learnCommit(raft, message.commit, message.logTerm);
  if (message.term > raft.term) {
    if (!election.admitHigherTerm(raft, message)) return;
  } else if (message.term < raft.term) {
    election.answerLowerTerm(raft, message);
    return;
  }
  switch (message.type) {
    case MessageType.RequestPreVote:
      election.onRequestPreVote(raft, message);
      break;
    case MessageType.RequestVote:
      election.onRequestVote(raft, message);
      break;
    case MessageType.RequestPreVoteResponse:
    case MessageType.RequestVoteResponse:
      election.onVoteResponse(raft, message);
      break;
    case MessageType.TimeoutNow:
      election.takeOver(raft);
      break;
    case MessageType.Heartbeat:
      following.onHeartbeat(raft, message);
      break;
    case MessageType.ReadIndexResponse:
      raft.outbox.readReady(message.hint, message.logIndex);
      break;
    case MessageType.HeartbeatResponse:
      if (raft.role === 'leader') leading.onHeartbeatResponse(raft, message);
      break;
    case MessageType.ReplicateResponse:
      if (raft.role === 'leader') leading.onReplicateResponse(raft, message);
      break;
    case MessageType.ReadIndex:
      if (raft.role === 'leader' && raft.memberOf(message.from) !== undefined) reading.onReadIndex(raft, message);
      break;
    case MessageType.LeaderTransfer:
      if (raft.role === 'leader' && raft.memberOf(message.from) !== undefined) leading.transferTo(raft, message.hint);
      break;
    default:
      break; // a noop has said all with its term
  }
  raft.persistIfDirty();
}
