/** What a follower does with blocks and heartbeats, and when it acknowledges. */
import { invariant } from '../errors.ts';
import type { BlockHeader } from '../wire/block.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import {
  MESSAGE_BUSY,
  MESSAGE_NO_REPLY,
  MESSAGE_QUIESCE,
  MESSAGE_REJECT,
  MessageType,
  type Message,
} from '../wire/message.ts';
import { becomeFollower } from './election.ts';
import { answerFlags } from './pressure.ts';
import * as quiesce from './quiesce.ts';
import type { Raft } from './raft.ts';

export const BlockVerdict = {
  /** Outdated, or it does not fit: the leader was told where to try. */
  Refused: 0,
  /** Nothing new in it: acknowledged again. */
  Duplicate: 1,
  /** Appends whole and exactly at the log's end. */
  Whole: 2,
  /** New from `acceptFrom` on, or replaces entries there. */
  Suffix: 3,
} as const;
export type BlockVerdict = (typeof BlockVerdict)[keyof typeof BlockVerdict];

/** The leader of the current term speaks. */
export function hearLeader(raft: Raft, leaderId: number, term: number): void {
  if (term > raft.term || raft.role !== 'follower' || raft.leaderId !== leaderId) {
    invariant(raft.role !== 'leader' || term > raft.term, `two leaders in term ${term}`);
    invariant(term > raft.term || raft.leaderId === 0 || raft.leaderId === leaderId, `two leaders in term ${term}`);
    becomeFollower(raft, term, leaderId);
  }
  raft.electionElapsed = 0;
}

export function checkBlock(raft: Raft, header: BlockHeader): BlockVerdict {
  if (header.senderTerm < raft.term) {
    raft.send(MessageType.Noop, header.senderId);
    return BlockVerdict.Refused;
  }
  hearLeader(raft, header.senderId, header.senderTerm);
  const { log } = raft;
  const previous = header.firstIndex - 1;
  // What is committed matches every leader's log; only above it the term has to be compared.
  if (previous > raft.commitIndex && log.termAt(previous) !== header.prevTerm) {
    refuse(raft, header, previous);
    return BlockVerdict.Refused;
  }
  const last = header.lastIndex;
  let from = Math.max(header.firstIndex, raft.commitIndex + 1);
  raft.acceptTruncates = false;
  while (from <= last && from <= log.lastIndex) {
    const own = log.blockAt(from)!;
    if (own.term !== header.term) {
      raft.acceptTruncates = true;
      break;
    }
    from = own.lastIndex + 1;
  }
  if (from > last) {
    verify(raft, last, header.commitIndex);
    acknowledge(raft, true);
    return BlockVerdict.Duplicate;
  }
  invariant(from > raft.commitIndex, 'a leader replaces what is committed');
  raft.acceptFrom = from;
  return from === header.firstIndex && !raft.acceptTruncates ? BlockVerdict.Whole : BlockVerdict.Suffix;
}

/** Says where the logs may agree: the last own entry whose term is not above the leader's there (Raft §5.3 end). */
function refuse(raft: Raft, header: BlockHeader, previous: number): void {
  const { log } = raft;
  const hint = log.findAtMostTerm(Math.min(previous, log.lastIndex), header.prevTerm);
  raft.send(MessageType.ReplicateResponse, header.senderId, {
    flags: MESSAGE_REJECT,
    logIndex: previous,
    hint,
    logTerm: log.termAt(hint) ?? 0,
    hintHigh: log.lastIndex,
  });
}

export function acceptBlock(raft: Raft, ref: BlockRef, header: BlockHeader): void {
  const { log } = raft;
  if (raft.acceptTruncates) {
    raft.outbox.truncated(ref.firstIndex);
    log.truncateFrom(ref.firstIndex);
    // What was acknowledged of the replaced entries is void (design §7.1).
    raft.writes.lowerTo(ref.firstIndex - 1);
    raft.verifiedIndex = Math.min(raft.verifiedIndex, ref.firstIndex - 1);
  }
  invariant(
    ref.firstIndex === log.lastIndex + 1,
    `block at ${ref.firstIndex} behind a log that ends at ${log.lastIndex}`,
  );
  log.append(ref);
  raft.writes.push(ref, ref.lastIndex);
  verify(raft, header.lastIndex, header.commitIndex);
}

/** The current leader has proven that the logs match up to `index`. */
function verify(raft: Raft, index: number, commitIndex: number): void {
  if (index > raft.verifiedIndex) raft.verifiedIndex = index;
  const commit = Math.min(commitIndex, raft.verifiedIndex);
  if (commit > raft.commitIndex) raft.commitIndex = commit;
}

/** Tells the leader what is durable and proven to match; `again` also when it was told before. */
export function acknowledge(raft: Raft, again: boolean): void {
  if (raft.leaderId === 0) return;
  const index = Math.min(raft.writes.durableIndex, raft.verifiedIndex);
  if (index <= raft.ackedIndex && !again) return;
  raft.ackedIndex = index;
  raft.send(MessageType.ReplicateResponse, raft.leaderId, {
    flags: answerFlags(raft),
    logIndex: index,
    hintHigh: raft.log.lastIndex,
  });
}

export function onHeartbeat(raft: Raft, message: Message): void {
  hearLeader(raft, message.from, message.term);
  // A leader names a commit index only up to what this replica acknowledged to it in this term, so that it proves the match, also
  // of what was forgotten to be proven over a restart. Beyond the log's end it proves that something was lost (F6).
  if (message.commit <= raft.log.lastIndex) verify(raft, message.commit, message.commit);
  raft.leaderIsBusy = (message.flags & MESSAGE_BUSY) !== 0;
  if ((message.flags & MESSAGE_NO_REPLY) !== 0) return;
  const isOffer = (message.flags & MESSAGE_QUIESCE) !== 0;
  raft.send(MessageType.HeartbeatResponse, message.from, {
    flags: answerFlags(raft) | (isOffer && quiesce.accept(raft, message) ? MESSAGE_QUIESCE : 0),
    logIndex: Math.min(raft.writes.durableIndex, raft.verifiedIndex),
    hint: message.hint,
    logTerm: message.logTerm,
    hintHigh: raft.log.lastIndex,
  });
}
