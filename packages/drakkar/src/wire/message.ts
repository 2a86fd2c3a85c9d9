/**
 * Raft messages other than blocks. All have one fixed layout of 20 words, so that a frame of them is an array, and a
 * batch of acknowledgements for a thousand shards is one frame.
 */
import { DrakkarError } from '../errors.ts';
import { getU53, isU53, putU53 } from './number.ts';

export const MESSAGE_WORDS = 20;
export const MESSAGE_BYTES = MESSAGE_WORDS << 2;

export const MessageType = {
  /** Carries a term and nothing else; frees a candidate that is stuck at a higher term. */
  Noop: 0,
  RequestPreVote: 1,
  RequestPreVoteResponse: 2,
  RequestVote: 3,
  RequestVoteResponse: 4,
  /** `commit`, `hint` = newest read context or 0. */
  Heartbeat: 5,
  /** `logIndex` = acknowledged index, `hint` = the heartbeat's read context, `hintHigh` = the replica's last index. */
  HeartbeatResponse: 6,
  /** `logIndex` = acknowledged index; rejected: `logIndex` = the refused previous index, `hint`, `logTerm` = where to try next. */
  ReplicateResponse: 7,
  /** From a follower: `hint` = its own read context. */
  ReadIndex: 8,
  /** `logIndex` = the read index, `hint` = the context asked with. */
  ReadIndexResponse: 9,
  TimeoutNow: 10,
  /** Asks the leader to hand over to `hint`. */
  LeaderTransfer: 11,
  /** To a host whose directory went back: `hint` = its newest start that is known, `logIndex`, `logTerm` = its directory id. */
  Outdated: 12,
  /**
   * From host to host, for no shard: the sender lives. Any frame says so; this one is sent when there is no other. `hint` = the format that
   * is enabled on the sender, 0 when it does not say.
   */
  Alive: 13,
  /**
   * To a replica that was removed from its shard and may not know; `logIndex`, `logTerm` = where the sender's log ends, `commit`, `hint` = what
   * it knows to be committed, and the term of that.
   */
  Removed: 14,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

const LAST_TYPE = 14;

export const MESSAGE_REJECT = 1;
/** A vote asked for on behalf of a leader that hands over: lease and check-quorum do not hold it back. */
export const MESSAGE_TRANSFER = 2;
/** A heartbeat that only carries the commit index and wants no answer. */
export const MESSAGE_NO_REPLY = 4;

/** In answers: this replica holds more than it can apply. In heartbeats: the leader takes no proposals. */
export const MESSAGE_BUSY = 16;

/** A heartbeat that offers to fall silent, and an answer that accepts it. */
export const MESSAGE_QUIESCE = 8;

const KNOWN_FLAGS = MESSAGE_REJECT | MESSAGE_TRANSFER | MESSAGE_NO_REPLY | MESSAGE_QUIESCE | MESSAGE_BUSY;

/** A message as an object; made once and filled again and again. Receivers copy what they keep. */
export class Message {
  type: MessageType = MessageType.Noop;
  flags = 0;
  shardId = 0;
  from = 0;
  to = 0;
  term = 0;
  logIndex = 0;
  logTerm = 0;
  commit = 0;
  hint = 0;
  hintHigh = 0;

  get rejected(): boolean {
    return (this.flags & MESSAGE_REJECT) !== 0;
  }
}

export function writeMessage(u32: Uint32Array, word: number, message: Message): void {
  u32[word] = message.type;
  u32[word + 1] = message.flags;
  putU53(u32, word + 2, message.shardId);
  putU53(u32, word + 4, message.from);
  putU53(u32, word + 6, message.to);
  putU53(u32, word + 8, message.term);
  putU53(u32, word + 10, message.logIndex);
  putU53(u32, word + 12, message.logTerm);
  putU53(u32, word + 14, message.commit);
  putU53(u32, word + 16, message.hint);
  putU53(u32, word + 18, message.hintHigh);
}

export function readMessage(u32: Uint32Array, word: number, into: Message): void {
  into.type = u32[word] as MessageType;
  into.flags = u32[word + 1]!;
  into.shardId = getU53(u32, word + 2);
  into.from = getU53(u32, word + 4);
  into.to = getU53(u32, word + 6);
  into.term = getU53(u32, word + 8);
  into.logIndex = getU53(u32, word + 10);
  into.logTerm = getU53(u32, word + 12);
  into.commit = getU53(u32, word + 14);
  into.hint = getU53(u32, word + 16);
  into.hintHigh = getU53(u32, word + 18);
}

export function messageIsSound(u32: Uint32Array, word: number): boolean {
  if (u32[word] > LAST_TYPE || (u32[word + 1] & ~KNOWN_FLAGS) !== 0) return false;
  for (let w = word + 2; w < word + MESSAGE_WORDS; w += 2) if (!isU53(u32, w)) return false;
  return true;
}

/** Checks a frame of messages in `[word, endWord)`; throws `ERR_FRAME`. */
export function checkMessages(u32: Uint32Array, word: number, endWord: number, count: number): void {
  if (endWord - word !== count * MESSAGE_WORDS) {
    throw new DrakkarError('ERR_FRAME', `a frame does not hold the ${count} messages it claims`);
  }
  for (; word < endWord; word += MESSAGE_WORDS) {
    if (!messageIsSound(u32, word)) throw new DrakkarError('ERR_FRAME', 'a frame holds a malformed message');
  }
}
