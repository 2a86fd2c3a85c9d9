/**
 * The one way out for messages. Promises that none leaves before the term and vote it speaks of are durable (F12): they are recorded first,
 * and the outbox is told which write to wait for. What else a message promises is durable already when it is made.
 *
 * Must not decide what is said to whom, nor keep the message: there is one for all cores.
 */
import { Message, type MessageType } from '../wire/message.ts';
import type { MessageFields } from './outbox.ts';
import type { Raft } from './raft.ts';

const NO_FIELDS: Partial<MessageFields> = {};
/** An outbox copies or encodes it before it returns. */
const OUTGOING = new Message();

export function send(raft: Raft, type: MessageType, to: number, fields: Partial<MessageFields> = NO_FIELDS): void {
  raft.persistIfDirty();
  const message = OUTGOING;
  message.type = type;
  message.flags = fields.flags ?? 0;
  message.shardId = raft.shardId;
  message.from = raft.config.replicaId;
  message.to = to;
  message.term = fields.term ?? raft.term;
  message.logIndex = fields.logIndex ?? 0;
  message.logTerm = fields.logTerm ?? 0;
  message.commit = fields.commit ?? 0;
  message.hint = fields.hint ?? 0;
  message.hintHigh = fields.hintHigh ?? 0;
  raft.outbox.send(message, raft.stateWrite);
}
