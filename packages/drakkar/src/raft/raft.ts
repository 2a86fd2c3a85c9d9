/**
 * The protocol core of one replica: pure. It is told of messages, ticks, blocks, reads, and of what became durable or applied;
 * it tells its `Outbox` what to send, to store and to answer. It never waits, has no clock, and draws no random number
 * of its own.
 *
 * This file holds the state and the ways in; what a follower, a candidate and a leader do stands in `following.ts`, `election.ts`
 * and `leading.ts`, what is everybody's in `step.ts` and `sending.ts` (messages), `reading.ts`, `snapshots.ts` and `membership.ts`.
 * Fields are read by those and by the engine, and written by those only.
 */
import { invariant } from '../errors.ts';
import type { BlockHeader } from '../wire/block.ts';
import type { BlockPlace, BlockRef } from '../wire/block-ref.ts';
import type { Membership } from '../wire/membership.ts';
import { MessageType, type Message } from '../wire/message.ts';
import type { RaftConfig, RaftStart } from './config.ts';
import * as election from './election.ts';
import * as following from './following.ts';
import * as leading from './leading.ts';
import { RaftLog } from './log.ts';
import type { Member } from './member.ts';
import { setMembership } from './membership.ts';
import type { MessageFields, Outbox } from './outbox.ts';
import * as quiesce from './quiesce.ts';
import { quorumOf } from './quorum.ts';
import { LeaderReads } from './read-index.ts';
import * as reading from './reading.ts';
import { send } from './sending.ts';
import * as snapshots from './snapshots.ts';
import { step } from './step.ts';
import { OutstandingWrites } from './writes.ts';

export { BlockVerdict } from './following.ts';

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

export class Raft {
  readonly shardId: number;
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
  votes = election.NO_VOTES;

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
    this.shardId = start.shardId;
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

  /** The first two guards of design §4; the third is `hasUnappliedChange` (membership.ts). */
  get mayChangeMembership(): boolean {
    const hasOwnCommit = this.termStartIndex > 0 && this.commitIndex >= this.termStartIndex;
    return this.canPropose && hasOwnCommit && this.appliedIndex >= this.pendingChangeIndex;
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
    step(this, message);
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

  /** A leader offers a snapshot: whether it is one to be followed. */
  admitSnapshot(term: number, leaderId: number): boolean {
    return snapshots.admitSnapshot(this, term, leaderId);
  }

  /** A snapshot at `index` is installed and durable. False when it is older than what is committed. */
  restore(index: number, term: number, membership: Membership): boolean {
    return snapshots.restore(this, index, term, membership);
  }

  // Reads, transfers, elections.

  /** Asks for the index to read at. False: no leader is known. */
  readIndex(context: number): boolean {
    return reading.readIndex(this, context);
  }

  /** The question, or its answer, may be lost. */
  askAgain(context: number): void {
    reading.askAgain(this, context);
  }

  /** Starts the round that confirms all reads asked for since the last one. */
  flushReads(): void {
    if (this.role === 'leader') reading.flushReads(this);
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
    setMembership(this, membership);
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

  /** Sends a message of the current term, once term and vote are durable. */
  send(type: MessageType, to: number, fields?: Partial<MessageFields>): void {
    send(this, type, to, fields);
  }
}
