/**
 * The protocol core of one replica: pure. It is told of messages, ticks, blocks, reads, and of what became durable or applied;
 * it tells its `Outbox` what to send, to store and to answer. It never waits, has no clock, and draws no random number
 * of its own.
 *
 * This file holds the state and the ways in; what a follower, a candidate and a leader do stands in `following.ts`, `election.ts`
 * and `leading.ts`. Fields without `private` are read by those and by the engine, and written by those only.
 */
import { invariant } from '../errors.ts';
import type { BlockHeader } from '../wire/block.ts';
import type { BlockPlace, BlockRef } from '../wire/block-ref.ts';
import { memberIds, type Membership } from '../wire/membership.ts';
import { Message, MessageType } from '../wire/message.ts';
import type { RaftConfig } from './config.ts';
import * as election from './election.ts';
import * as following from './following.ts';
import * as leading from './leading.ts';
import { RaftLog } from './log.ts';
import { Member } from './member.ts';
import type { MessageFields, Outbox } from './outbox.ts';
import * as quiesce from './quiesce.ts';
import { quorumOf } from './quorum.ts';
import { LeaderReads } from './read-index.ts';
import { OutstandingWrites } from './writes.ts';

export { BlockVerdict } from './following.ts';

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

export interface RaftStart {
  readonly term: number;
  readonly vote: number;
  readonly commitIndex: number;
  /** Index of the snapshot that the state machine starts from. */
  readonly appliedIndex: number;
  readonly compactedIndex: number;
  readonly compactedTerm: number;
  /** Recovered and durable. */
  readonly blocks: readonly BlockRef[];
  readonly membership: Membership;
}

export class Raft {
  readonly config: RaftConfig;
  readonly outbox: Outbox;
  readonly log: RaftLog;
  readonly writes: OutstandingWrites;

  /** Only grows; never leaves this replica before it is durable. */
  term: number;
  /** Replica voted for in `term`, 0 for none. */
  vote: number;
  role: Role = 'follower';
  /** Leader of `term` as far as known, 0 for none. */
  leaderId = 0;
  /** Everything up to here is decided for ever. Never above the log's end. */
  commitIndex: number;
  /** What the state machine has seen; at most `commitIndex`. */
  appliedIndex: number;
  /** Highest index that the leader of the current term has proven to match its log; at least `commitIndex` (design §7.2). */
  verifiedIndex: number;
  membership: Membership;
  /** All members, ascending by id; a slot is the position. */
  slots: readonly number[] = [];
  members: Member[] = [];
  selfSlot = -1;
  voterCount = 0;
  /** The state machine is being replaced by a snapshot's: no campaign, its log is about to be replaced, too. */
  isInstalling = false;

  /** Term or vote differ from the newest state record. */
  isStateDirty = false;
  /** Write number of the newest state record. */
  stateWrite = 0;

  /** Ticks since a leader was heard (followers), since the last quorum check (leader). */
  electionElapsed = 0;
  electionTimeout = 0;
  heartbeatElapsed = 0;
  /** Ticks since a write became durable while some are outstanding. */
  stallTicks = 0;

  /** Silent: neither heartbeats nor election timer (quiesce.ts). */
  isQuiesced = false;
  /** Leader: ticks since the last write or read; number of the first heartbeat of the offer under way, 0 for none. */
  idleTicks = 0;
  offeredFrom = 0;

  /** Candidates: who answered, by slot; undefined for not yet. */
  votes: (boolean | undefined)[] = [];

  /** Leader: index of the first own entry, 0 before it is appended. */
  termStartIndex = 0;
  /**
   * Leader: no config change may be proposed before this index is applied (design §4). It is where the last one stands, or, for what
   * earlier leaders left behind, the end of the log at the election.
   */
  pendingChangeIndex = 0;
  /** Leader: where a change that is not committed may remove this replica itself; infinity for nowhere. */
  leaveIndex = Number.POSITIVE_INFINITY;
  heartbeatNumber = 0;
  lags = false;
  /** Leader: a member that is too busy for more, 0 for none. */
  heldBackBy = 0;
  readonly reads = new LeaderReads();
  transferTarget = 0;
  transferElapsed = 0;
  /** A transfer that this replica began and whose new leader is not known yet. */
  awaitedLeader = 0;

  /** More bytes wait to be applied than may. */
  isOverloaded = false;
  /** Follower: the leader takes no proposals for now. */
  leaderIsBusy = false;

  /** Follower: acknowledged to the current leader. */
  ackedIndex = 0;
  /** Newest own read context that was passed on to a leader or queued here, and that may still be unanswered. */
  newestContext = 0;
  /** Asked to take over in this term, and a committed config change has to be applied first. */
  takeoverTerm = 0;

  /** Set by `checkBlock` for the block that may be accepted next. */
  acceptFrom = 0;
  acceptTruncates = false;
  /** Whether the last `restore` gave up the log. Read while the state record it asks for is written. */
  restoreReset = false;

  constructor(config: RaftConfig, start: RaftStart, outbox: Outbox) {
    this.config = config;
    this.outbox = outbox;
    this.term = start.term;
    this.vote = start.vote;
    this.log = new RaftLog(start.compactedIndex, start.compactedTerm, start.blocks);
    this.writes = new OutstandingWrites(this.log.lastIndex);
    invariant(start.appliedIndex <= this.log.lastIndex, 'the snapshot is beyond the end of the log');
    this.appliedIndex = start.appliedIndex;
    this.commitIndex = Math.min(Math.max(start.commitIndex, start.appliedIndex), this.log.lastIndex);
    this.verifiedIndex = this.commitIndex;
    this.log.applied(this.appliedIndex);
    this.membership = start.membership;
    this.setMembership(start.membership);
    election.drawTimeout(this);
  }

  // What others may know.

  get isLeader(): boolean {
    return this.role === 'leader';
  }

  /** A leader that is neither handing over nor leaving. What it appends first says that it leads. */
  get canPropose(): boolean {
    if (this.role !== 'leader' || this.transferTarget !== 0) return false;
    return !this.isLeaving || this.termStartIndex === 0;
  }

  /**
   * Leader: its log removes it, and there are witnesses. Nobody could lead past a witness that has more than all who may lead, and only the
   * one who goes could give it to them: so nothing more is proposed, and the removal is committed when somebody who stays has it all.
   */
  get isLeaving(): boolean {
    return this.leaveIndex !== Number.POSITIVE_INFINITY && this.membership.witnesses.size > 0;
  }

  get durableIndex(): number {
    return this.writes.durableIndex;
  }

  get writeNumber(): number {
    return this.writes.last;
  }

  get durableWrite(): number {
    return this.writes.durable;
  }

  /** Whether the term and vote are durable that every message speaks of (F12). */
  get maySpeak(): boolean {
    return !this.isStateDirty && this.stateWrite <= this.writes.durable;
  }

  /** No write has become durable for an election timeout, though some wait. */
  get isStalled(): boolean {
    return this.stallTicks >= this.config.electionTicks;
  }

  /** Entries are applied only when they are durable here (design §4). */
  get applyLimit(): number {
    return Math.min(this.commitIndex, this.writes.durableIndex);
  }

  get needsCatchUp(): boolean {
    return this.lags && this.role === 'leader';
  }

  /** Votes with its log as it is, and may ask for votes. */
  get mayLead(): boolean {
    return this.selfSlot >= 0 && this.members[this.selfSlot].mayLead;
  }

  /** The first two guards of design §4; the third is `hasUnappliedChange`. */
  get mayChangeMembership(): boolean {
    const hasOwnCommit = this.termStartIndex > 0 && this.commitIndex >= this.termStartIndex;
    return this.canPropose && hasOwnCommit && this.appliedIndex >= this.pendingChangeIndex;
  }

  /** A committed config change is not applied yet: who is asked for votes may not be whose votes count (design §4). */
  get hasUnappliedChange(): boolean {
    for (let index = this.appliedIndex + 1; index <= this.commitIndex; ) {
      const ref = this.log.blockAt(index);
      if (ref === undefined) return true; // a snapshot takes its place
      if (ref.isConfigChange) return true;
      index = ref.lastIndex + 1;
    }
    return false;
  }

  /** Whether a log that ends at `index` with `term` has something that this one does not (Raft §5.4.1). */
  isBehind(index: number, term: number): boolean {
    const { lastIndex, lastTerm } = this.log;
    return term > lastTerm || (term === lastTerm && index > lastIndex);
  }

  get quorum(): number {
    return quorumOf(this.voterCount);
  }

  hardState(): { term: number; vote: number; commitIndex: number } {
    return { term: this.term, vote: this.vote, commitIndex: this.commitIndex };
  }

  memberOf(replicaId: number): Member | undefined {
    return this.members[this.slots.indexOf(replicaId)];
  }

  // Time and messages.

  tick(): void {
    if (this.isQuiesced) return;
    if (this.writes.count > 0) this.stallTicks++;
    if (this.role === 'leader') leading.tick(this);
    else election.tick(this);
    this.persistIfDirty();
  }

  /** A message that was checked to be for this shard and this replica. */
  step(message: Message): void {
    if (this.isQuiesced && !quiesce.isPartOfSilence(this, message)) quiesce.wake(this, 'message');
    if (message.type === MessageType.RequestVoteResponse || message.type === MessageType.RequestPreVoteResponse)
      election.learnCommit(this, message.commit, message.logTerm);
    if (message.term > this.term) {
      if (!election.admitHigherTerm(this, message)) return;
    } else if (message.term < this.term) {
      election.answerLowerTerm(this, message);
      return;
    }
    switch (message.type) {
      case MessageType.RequestPreVote:
        election.onRequestPreVote(this, message);
        break;
      case MessageType.RequestVote:
        election.onRequestVote(this, message);
        break;
      case MessageType.RequestPreVoteResponse:
      case MessageType.RequestVoteResponse:
        election.onVoteResponse(this, message);
        break;
      case MessageType.TimeoutNow:
        election.takeOver(this);
        break;
      case MessageType.Heartbeat:
        following.onHeartbeat(this, message);
        break;
      case MessageType.ReadIndexResponse:
        this.outbox.readReady(message.hint, message.logIndex);
        break;
      case MessageType.HeartbeatResponse:
        if (this.role === 'leader') leading.onHeartbeatResponse(this, message);
        break;
      case MessageType.ReplicateResponse:
        if (this.role === 'leader') leading.onReplicateResponse(this, message);
        break;
      case MessageType.ReadIndex:
        if (this.role === 'leader' && this.memberOf(message.from) !== undefined) {
          quiesce.touch(this, 'read');
          this.reads.add(message.from, message.hint);
        }
        break;
      case MessageType.LeaderTransfer:
        if (this.role === 'leader' && this.memberOf(message.from) !== undefined) leading.transferTo(this, message.hint);
        break;
      default:
        break; // a noop has said all with its term
    }
    this.persistIfDirty();
  }

  // A follower's blocks.

  /** What may become of a block: see `BlockVerdict`. Answers the leader where nothing will be accepted. */
  checkBlock(header: BlockHeader): following.BlockVerdict {
    if (this.isQuiesced) quiesce.wake(this, 'message');
    const verdict = following.checkBlock(this, header);
    this.persistIfDirty();
    return verdict;
  }

  /** Takes over the entries `[acceptFrom, header.lastIndex]` that `ref` covers, right after `checkBlock`. */
  acceptBlock(ref: BlockRef, header: BlockHeader): void {
    following.acceptBlock(this, ref, header);
  }

  // A leader's blocks.

  /**
   * Appends a block of own entries behind the log's end. Gives the mask of the slots whose members get it at once; the others
   * are caught up later. Called once per block and turn: hot.
   */
  appendOwn(ref: BlockRef): number {
    return leading.appendOwn(this, ref);
  }

  /** Sends to members that lag, as far as flow control lets it. */
  catchUp(): void {
    if (this.role === 'leader') leading.catchUp(this);
  }

  /** Tells the commit index to members that no block told it, at the end of a turn. */
  flushCommit(): void {
    if (this.role === 'leader') leading.flushCommit(this);
  }

  // Storage and apply.

  /** The oldest outstanding write is durable; `place` where its block stands. */
  writeDurable(place?: BlockPlace): void {
    this.writes.pop(place);
    this.stallTicks = 0;
  }

  /** Once per group of writes: acknowledges, counts, or takes the own vote. */
  afterFlush(): void {
    if (this.role === 'leader') leading.maybeCommit(this);
    else if (this.role === 'follower') following.acknowledge(this, false);
    else election.countOwnVote(this);
    this.persistIfDirty();
  }

  applied(index: number): void {
    this.appliedIndex = index;
    this.log.applied(index);
    if (this.takeoverTerm > 0) {
      election.takeOver(this);
      this.persistIfDirty();
    }
  }

  /** Gives back the bytes of blocks that nobody needs from memory any more. */
  trim(): void {
    let limit = this.appliedIndex;
    if (this.role === 'leader') limit = Math.min(limit, leading.replicatedIndex(this));
    this.log.trim(limit);
  }

  /** Gives up entries up to `index`, which a durable snapshot holds. */
  compact(index: number): void {
    invariant(index <= this.appliedIndex, `compaction to ${index} beyond what is applied`);
    this.log.compact(index);
  }

  /**
   * A leader of `term` offers a snapshot. False when there is a newer one; otherwise this replica follows it, whatever it was: a leader
   * whose log is replaced would count acknowledgements of the old one for the new.
   */
  admitSnapshot(term: number, leaderId: number): boolean {
    if (term < this.term) return false;
    if (this.isQuiesced) quiesce.wake(this, 'message');
    following.hearLeader(this, leaderId, term);
    this.persistIfDirty();
    return true;
  }

  /**
   * A snapshot at `index` is installed and durable. The log behind it is kept when it matches (thesis §5.1, scenario 48), else
   * given up. False when the snapshot is older than what is committed.
   */
  restore(index: number, term: number, membership: Membership): boolean {
    if (index <= this.commitIndex) return false;
    invariant(this.role !== 'leader', 'a leader installs a snapshot');
    this.restoreReset = this.log.termAt(index) !== term;
    if (this.restoreReset) {
      this.outbox.truncated(this.commitIndex + 1);
      this.log.reset(index, term);
      this.writes.lowerTo(0);
    }
    this.commitIndex = index;
    this.verifiedIndex = Math.max(index, Math.min(this.verifiedIndex, this.log.lastIndex));
    this.setMembership(membership);
    this.recordState(index);
    this.restoreReset = false;
    return true;
  }

  // Reads, transfers, elections.

  /** Asks for the index to read at. False: no leader is known. */
  readIndex(context: number): boolean {
    quiesce.touch(this, 'read');
    if (this.role === 'leader') {
      this.newestContext = context;
      return this.reads.add(this.config.replicaId, context);
    }
    if (this.leaderId === 0) return false;
    this.newestContext = context;
    this.send(MessageType.ReadIndex, this.leaderId, { hint: context });
    return true;
  }

  /** The question, or its answer, may be lost. */
  askAgain(context: number): void {
    if (this.role !== 'leader' && this.leaderId !== 0)
      this.send(MessageType.ReadIndex, this.leaderId, { hint: context });
  }

  /** Starts the round that confirms all reads asked for since the last one. */
  flushReads(): void {
    if (this.role === 'leader') leading.flushReads(this);
  }

  /** Hands leadership to `targetId`, or asks the leader to. False when nothing was begun; the outbox hears how it ends. */
  transferLeader(targetId: number): boolean {
    quiesce.touch(this, 'operator');
    if (this.role === 'leader') return leading.transferTo(this, targetId);
    if (this.leaderId === 0) return false;
    this.send(MessageType.LeaderTransfer, this.leaderId, { hint: targetId });
    return true;
  }

  campaign(): void {
    quiesce.touch(this, 'operator');
    if (this.role !== 'leader' && this.mayLead) election.campaign(this, false);
    this.persistIfDirty();
  }

  reportUnreachable(replicaId: number): void {
    const member = this.memberOf(replicaId);
    if (this.role === 'leader' && member !== undefined) leading.onUnreachable(member);
  }

  reportReachable(replicaId: number): void {
    const member = this.memberOf(replicaId);
    if (this.role === 'leader' && member !== undefined) {
      member.isWaiting = false;
      this.lags = true;
    }
  }

  reportSnapshot(replicaId: number, ok: boolean, index: number): void {
    const member = this.memberOf(replicaId);
    if (this.role === 'leader' && member !== undefined) leading.onSnapshotReport(this, member, ok, index);
  }

  // For the parts of the core.

  /** Takes effect at once: the change, or the snapshot, that made it is applied. */
  setMembership(membership: Membership): void {
    this.membership = membership;
    this.slots = memberIds(membership);
    const { maxInflightBlocks, maxInflightBytes, replicaId } = this.config;
    const old = this.members;
    this.members = this.slots.map((id) => {
      const isVoter = !membership.nonVotings.has(id);
      const known = old.find((member) => member.replicaId === id);
      if (known !== undefined) {
        known.isVoter = isVoter;
        return known;
      }
      const member = new Member(id, isVoter, membership.witnesses.has(id), maxInflightBlocks, maxInflightBytes);
      member.reset(this.log.lastIndex + 1);
      return member;
    });
    this.selfSlot = this.slots.indexOf(replicaId);
    this.voterCount = this.members.filter((member) => member.isVoter).length;
    if (this.role === 'leader') leading.membershipChanged(this);
    // The votes that were asked for are others' now.
    else if (this.role !== 'follower') election.becomeFollower(this, this.term, 0);
  }

  setLeader(leaderId: number): void {
    if (this.leaderId === leaderId) return;
    this.leaderId = leaderId;
    this.leaderIsBusy = false;
    this.ackedIndex = 0;
    if (leaderId !== 0 && this.awaitedLeader !== 0) {
      const target = this.awaitedLeader;
      this.awaitedLeader = 0;
      this.outbox.transferEnded(target, leaderId === target ? 'done' : 'stepped-down');
    }
    this.outbox.leaderChanged(leaderId, this.term);
  }

  /** A state record is appended to the log now; entries up to `index` are durable with it (a restored snapshot), or none. */
  recordState(index = 0): void {
    this.isStateDirty = false;
    this.writes.push(undefined, index);
    this.stateWrite = this.writes.last;
    this.outbox.saveState();
  }

  /** For others whose part of the state record changed (snapshot, pins, compaction). */
  saveState(): void {
    this.recordState();
  }

  persistIfDirty(): void {
    if (this.isStateDirty) this.recordState();
  }

  /**
   * Sends a message of the current term. None leaves before the term and vote it speaks of are durable (F12); what else it
   * promises is durable already when it is made.
   */
  send(type: MessageType, to: number, fields: Partial<MessageFields> = NO_FIELDS): void {
    this.persistIfDirty();
    const message = OUTGOING;
    message.type = type;
    message.flags = fields.flags ?? 0;
    message.shardId = this.config.shardId;
    message.from = this.config.replicaId;
    message.to = to;
    message.term = fields.term ?? this.term;
    message.logIndex = fields.logIndex ?? 0;
    message.logTerm = fields.logTerm ?? 0;
    message.commit = fields.commit ?? 0;
    message.hint = fields.hint ?? 0;
    message.hintHigh = fields.hintHigh ?? 0;
    this.outbox.send(message, this.stateWrite);
  }
}

const NO_FIELDS: Partial<MessageFields> = {};
/** One for all: an outbox copies or encodes it before it returns. */
const OUTGOING = new Message();
