/**
 * One replica of one shard on this host: its protocol core, its state machine, and the callers that wait. All decisions
 * are the core's; this file connects them with the engine's turn. Runs on the event loop, never waits.
 */
import { DrakkarError, invariant } from '../errors.ts';
import { BlockRef } from '../wire/block-ref.ts';
import { BLOCK_HEADER_WORDS, BlockHeader, writeBlockHeader } from '../wire/block.ts';
import { decodeConfigChange, type ConfigChange } from '../wire/config-change.ts';
import {
  ENTRY_HEADER_WORDS,
  EntryType,
  keyNonce,
  keySequence,
  payloadLengthBytes,
  skipEntries,
  type SessionFields,
} from '../wire/entry.ts';
import type { Membership } from '../wire/membership.ts';
import type { Message } from '../wire/message.ts';
import * as quiesce from '../raft/quiesce.ts';
import type { Raft } from '../raft/raft.ts';
import { ApplyStatus, errorOfStatus, type ApplySink } from '../rsm/apply-sink.ts';
import type { Rsm } from '../rsm/rsm.ts';
import type { Snapshotter } from '../rsm/snapshotter.ts';
import type { Result } from '../rsm/state-machine.ts';
import type { ReplicaPin } from '../wal/logdb.ts';
import type { Peer } from '../transport/transport.ts';
import { applyToDisk } from './disk-apply.ts';
import type { Engine } from './engine.ts';
import { HELD_MESSAGES_MAX, UNSEALED_BYTES_MAX } from './limits.ts';
import { followMembership, notMember, showItself, type Stranger } from './membership.ts';
import { OpenBlock, type BlockBuffer, forEachOwnEntry } from './open-block.ts';
import { OpenChanges } from './open-changes.ts';
import type { AddresseeSet } from './outbound.ts';
import { PendingReads } from './pending-reads.ts';
import { StageSample } from './stages.ts';
import { traceApply, traceForward, traceProposal, traceRead } from './trace.ts';
import { Onlookers } from './onlookers.ts';
import { busyError, diskFullError, onStall, reasonNotToRead, reasonToRefuse } from './pressure.ts';
import type { ReplicaOutbox } from './replica-outbox.ts';
import { BatchState, PendingRing, type ProposeCallback } from './pending-ring.ts';

export interface ReplicaSettings {
  readonly shardId: number;
  readonly replicaId: number;
  readonly snapshotEntries: number;
  readonly compactionOverhead: number;
  readonly electionTicks: number;
  readonly maxPayloadBytes: number;
  /** It has no state machine. */
  readonly isWitness: boolean;
}

/** A message that waits for a write of its shard to become durable (fault F12). */
export interface HeldMessage {
  readonly after: number;
  readonly message: Message;
}

export type ReplicaStatus = 'running' | 'failed' | 'stopped';

// `new Promise` hands its functions to an executor; one shared executor saves a closure per proposal (hot-path §1).
let capturedResolve: (value: any) => void;
let capturedReject: (error: unknown) => void;
const capture = (resolve: (value: any) => void, reject: (error: unknown) => void): void => {
  capturedResolve = resolve;
  capturedReject = reject;
};

const sealing = new BlockHeader();
/** For all replicas that know everybody; never written to. */
const NO_STRANGERS = new Map<number, Stranger>();

/** A read of nothing: waits for all that a read waits for; the state machine never sees it. */
export const BARRIER: unique symbol = Symbol('barrier');

export class Replica implements ApplySink {
  readonly engine: Engine;
  readonly settings: ReplicaSettings;
  readonly shardId: number;
  readonly replicaId: number;
  /** Both set right after construction: the core needs the outbox, which needs this. */
  raft!: Raft;
  outbox!: ReplicaOutbox;
  readonly rsm: Rsm;
  readonly snapshotter: Snapshotter;
  status: ReplicaStatus = 'running';
  failure: DrakkarError | undefined;
  /** Set when it stopped because it is no member any more. */
  removal: DrakkarError | undefined;

  /** Part of the key of every entry proposed here; new at every start. */
  readonly nonce: number;
  readonly openBlock: OpenBlock;
  readonly pending = new PendingRing();
  readonly reads = new PendingReads();
  private readonly sample = new StageSample();
  readonly changes: OpenChanges;
  readonly held: HeldMessage[] = [];
  readonly onlookers = new Onlookers(this);

  /** In the engine's list of replicas that the next turn looks at. */
  isReady = false;
  /** In the list of those that get ticks. */
  isTicking = false;
  /** A block went out in this turn, so the commit index needs no message of its own. */
  sentBlock = false;
  /** Why no proposal is taken at the moment. */
  heldOff: DrakkarError | undefined;
  /** A core call wrote to the log since the last flush; acknowledgements follow. */
  isTouched = false;

  /** By slot: the peer a member lives at (undefined for this replica). */
  peers: (Peer | undefined)[] = [];
  /** Addressee sets by slot mask, filled as masks come up. */
  sets: Map<number, AddresseeSet> | undefined;
  /** By slot: the inbound session whose incarnation was checked against the pin; negative when it was refused. */
  verifiedSessions: number[] = [];
  /** Who was heard of and is no member here. */
  strangers: Map<number, Stranger> = NO_STRANGERS;

  /** Newest snapshot that is durable and recorded. */
  snapshotIndex = 0;
  snapshotTerm = 0;
  /** No automatic snapshot below this applied index: the last one failed. */
  snapshotNotBefore = 0;
  bootstrap: Uint8Array;
  pins: ReplicaPin[];

  /** A snapshot is being taken, installed or received. */
  isSnapshotting = false;
  isRestoring = false;
  /** Blocks are being read from the log. */
  isFetching = false;
  private stopController: AbortController | undefined;

  constructor(
    engine: Engine,
    settings: ReplicaSettings,
    rsm: Rsm,
    snapshotter: Snapshotter,
    bootstrap: Uint8Array,
    pins: readonly ReplicaPin[],
  ) {
    this.engine = engine;
    this.settings = settings;
    this.shardId = settings.shardId;
    this.replicaId = settings.replicaId;
    this.rsm = rsm;
    this.snapshotter = snapshotter;
    this.openBlock = new OpenBlock(engine.blockBuffers);
    this.bootstrap = bootstrap;
    this.pins = [...pins];
    this.nonce = engine.env.random.u32() || 1;
    this.changes = new OpenChanges(this);
  }

  /** Ends with the replica. Made for the few that ask, which shards without a snapshot never do. */
  get stopSignal(): AbortSignal {
    this.stopController ??= new AbortController();
    if (this.status !== 'running') this.stopController.abort(this.unavailable());
    return this.stopController.signal;
  }

  get membership(): Membership {
    return this.rsm.membership;
  }

  get isRunning(): boolean {
    return this.status === 'running';
  }

  // Ways in.

  /** The reason why nothing can be proposed right now: `count` commands of `totalBytes`, the largest of `bytes`. */
  refusal(bytes: number, count: number, totalBytes = bytes): DrakkarError | undefined {
    if (this.status !== 'running') return this.unavailable();
    const { maxPayloadBytes } = this.settings;
    if (bytes > maxPayloadBytes) {
      return new DrakkarError('ERR_PAYLOAD_TOO_BIG', `a command of ${bytes} bytes exceeds ${maxPayloadBytes}`);
    }
    if (this.settings.isWitness) return this.isWitnessOnly();
    if (this.raft.selfSlot < 0) return notMember(this);
    if (this.engine.log.isFull) return diskFullError(this);
    if (this.raft.leaderId === 0) {
      return new DrakkarError('ERR_NO_LEADER', `shard ${this.shardId} has no leader at the moment; try again`);
    }
    if (!this.pending.hasRoom(count)) return this.busy('too many proposals wait for their answers');
    if (this.openBlock.pendingBytes + totalBytes > UNSEALED_BYTES_MAX) return this.busy('the log cannot keep up');
    return this.heldOff;
  }

  isWitnessOnly(): DrakkarError {
    return new DrakkarError(
      'ERR_WITNESS',
      `the replica of shard ${this.shardId} on this host is a witness and has no state machine; ask another host`,
    );
  }

  private busy(why: string): DrakkarError {
    return busyError(this.shardId, why);
  }

  unavailable(): DrakkarError {
    if (this.removal !== undefined) return this.removal;
    if (this.failure !== undefined) {
      return new DrakkarError(
        'ERR_SHARD_FAILED',
        `the replica of shard ${this.shardId} on this host has failed (${this.failure.code}); ask another host`,
        { cause: this.failure, outcome: 'not-applied' },
      );
    }
    return new DrakkarError('ERR_SHARD_STOPPED', `shard ${this.shardId} was stopped`, { outcome: 'not-applied' });
  }

  propose(command: Uint8Array, timeoutTicks: number): Promise<Result> {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) return Promise.reject(refusal);
    const sequence = this.pending.nextSequence;
    const promise = new Promise<Result>(capture);
    this.pending.addPromise(capturedResolve, capturedReject, this.engine.tickCount + timeoutTicks);
    this.openBlock.put(EntryType.Command, sequence, this.nonce, command);
    if (!this.isReady) this.engine.markReady(this);
    return promise;
  }

  proposeCallback(command: Uint8Array, callback: ProposeCallback, cookie: number, timeoutTicks: number): void {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) {
      this.engine.env.scheduler.defer(() => callback(refusal, 0, cookie));
      return;
    }
    const sequence = this.pending.nextSequence;
    this.pending.addCallback(callback, cookie, this.engine.tickCount + timeoutTicks);
    this.openBlock.put(EntryType.Command, sequence, this.nonce, command);
    if (!this.isReady) this.engine.markReady(this);
  }

  proposeBatch(commands: readonly Uint8Array[], timeoutTicks: number): Promise<Result[]> {
    let largest = 0;
    let total = 0;
    for (let i = 0; i < commands.length; i++) {
      largest = Math.max(largest, commands[i].length);
      total += commands[i].length;
    }
    const refusal = this.refusal(largest, commands.length, total);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (commands.length === 0) return Promise.resolve([]);
    const deadline = this.engine.tickCount + timeoutTicks;
    const promise = new Promise<Result[]>(capture);
    const batch = new BatchState(commands.length, capturedResolve, capturedReject);
    for (let i = 0; i < commands.length; i++) {
      const sequence = this.pending.nextSequence;
      this.pending.addBatchMember(batch, i, deadline);
      this.openBlock.put(EntryType.Command, sequence, this.nonce, commands[i]);
    }
    if (!this.isReady) this.engine.markReady(this);
    return promise;
  }

  proposeSession(type: EntryType, session: SessionFields, command: Uint8Array, timeoutTicks: number): Promise<Result> {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) return Promise.reject(refusal);
    const sequence = this.pending.nextSequence;
    const promise = new Promise<Result>(capture);
    this.pending.addPromise(capturedResolve, capturedReject, this.engine.tickCount + timeoutTicks);
    this.openBlock.putSession(type, sequence, this.nonce, session, command);
    this.engine.markReady(this);
    return promise;
  }

  /** Answered with the index that identifies the new membership, once it is applied here. */
  changeMembership(change: ConfigChange, timeoutTicks: number): Promise<Result> {
    const refusal = this.refusal(0, 1) ?? this.changes.refusal(change);
    if (refusal !== undefined) return Promise.reject(refusal);
    const sequence = this.pending.nextSequence;
    const promise = new Promise<Result>(capture);
    this.pending.addPromise(capturedResolve, capturedReject, this.engine.tickCount + timeoutTicks);
    this.changes.add({ change, sequence, nonce: this.nonce });
    return promise;
  }

  takeForwardedChange(u8: Uint8Array, u32: Uint32Array, word: number): void {
    const at = (word + ENTRY_HEADER_WORDS) << 2;
    const change = decodeConfigChange(u8.subarray(at, at + payloadLengthBytes(u32, word)));
    this.changes.add({ change, sequence: keySequence(u32, word), nonce: keyNonce(u32, word) });
  }

  read(query: unknown, timeoutTicks: number): Promise<unknown> {
    if (this.status !== 'running') return Promise.reject(this.unavailable());
    if (this.settings.isWitness && query !== BARRIER) return Promise.reject(this.isWitnessOnly());
    const stranger = notMember(this);
    if (stranger !== undefined) return Promise.reject(stranger);
    if (!this.reads.hasRoom) return Promise.reject(this.busy('too many reads wait for their answers'));
    const promise = new Promise<unknown>(capture);
    this.reads.add(query, capturedResolve, capturedReject, this.engine.tickCount + timeoutTicks);
    if (!this.isReady) this.engine.markReady(this);
    return promise;
  }

  /** This replica's state as it is now. */
  staleRead(query: unknown): unknown {
    if (this.status !== 'running') throw this.unavailable();
    if (this.settings.isWitness) throw this.isWitnessOnly();
    if (this.isRestoring) {
      throw new DrakkarError('ERR_SHARD_NOT_READY', `shard ${this.shardId} is installing a snapshot; try again`);
    }
    return this.rsm.lookup(query);
  }

  // The turn.

  /** Seals what was proposed, or passes it on to the leader; asks for the reads. */
  gather(maySeal: boolean): void {
    const { raft } = this;
    this.sentBlock = false;
    this.sample.asked(this.pending, this.engine.inputMs);
    if (!this.openBlock.isEmpty && maySeal) {
      if (raft.isLeader) {
        if (raft.canPropose) this.sealBlocks();
      } else this.passOn();
    }
    if (!this.changes.isEmpty && maySeal) this.changes.go();
    if (this.reads.hasOpen) this.askReads();
    raft.flushReads();
    this.heldOff = reasonToRefuse(this);
  }

  /** Sends to those who lag, and the commit index to those whom no block told it. After the turn's blocks have their places. */
  followUp(): void {
    const { raft } = this;
    if (raft.needsCatchUp) raft.catchUp();
    if (!this.sentBlock) raft.flushCommit();
  }

  private sealBlocks(): void {
    for (let block = this.openBlock.take(); block !== undefined; block = this.openBlock.take()) this.seal(block, 0);
  }

  /** Appends the block to the own log and sends it. `flags`: of `LASTING_FLAGS`. */
  seal(block: BlockBuffer, flags: number): void {
    const { raft } = this;
    const { log } = raft;
    sealing.lengthBytes = block.lengthBytes;
    sealing.count = block.count;
    sealing.shardId = this.shardId;
    sealing.term = raft.term;
    sealing.senderTerm = raft.term;
    sealing.prevTerm = log.lastTerm;
    sealing.firstIndex = log.lastIndex + 1;
    sealing.commitIndex = raft.commitIndex;
    sealing.senderId = this.replicaId;
    sealing.flags = flags;
    writeBlockHeader(block.u32, 0, sealing);
    // Its place in a slab follows when the turn's frames are built; until then only its size is right.
    const words = block.endWord - BLOCK_HEADER_WORDS;
    const ref = new BlockRef(sealing.firstIndex, block.count, raft.term, sealing.prevTerm, undefined, 0, words, flags);
    const mask = raft.appendOwn(ref);
    this.engine.outbound.addBlock(this.addresseeSet(mask), block, ref, this);
    this.sentBlock = true;
    this.sample.sealed(sealing.firstIndex, raft.term, this.engine.turnMs);
    traceProposal(this, ref);
  }

  recycleBlock(block: BlockBuffer): void {
    this.openBlock.recycle(block);
  }

  private addresseeSet(mask: number): AddresseeSet {
    this.sets ??= new Map();
    let set = this.sets.get(mask);
    if (set === undefined) {
      const peers: Peer[] = [];
      for (let slot = 0; slot < this.peers.length; slot++) {
        const peer = this.peers[slot];
        if ((mask & (1 << slot)) !== 0 && peer !== undefined) peers.push(peer);
      }
      set = this.engine.outbound.addresseeSet(peers);
      this.sets.set(mask, set);
    }
    return set;
  }

  /** A follower's proposals go to the leader, once (design §7.6). Without one they certainly were not applied. */
  private passOn(): void {
    quiesce.touch(this.raft, 'proposal');
    const leader = this.raft.leaderId === 0 ? undefined : this.peerOf(this.raft.leaderId);
    for (let block = this.openBlock.take(); block !== undefined; block = this.openBlock.take())
      this.forward(leader, block);
  }

  /** Passes proposals on to the leader at `peer`, with all that this host passes on to it in this turn. */
  forward(peer: Peer | undefined, block: BlockBuffer): void {
    if (peer === undefined) {
      this.notForwarded(block);
      this.recycleBlock(block);
      return;
    }
    sealing.lengthBytes = block.lengthBytes;
    sealing.count = block.count;
    sealing.shardId = this.shardId;
    sealing.term = sealing.senderTerm = this.raft.term;
    sealing.prevTerm = 0;
    sealing.firstIndex = 1; // means nothing here
    sealing.commitIndex = 0;
    sealing.senderId = this.replicaId;
    sealing.flags = 0;
    writeBlockHeader(block.u32, 0, sealing);
    traceForward(this, block);
    this.engine.outbound.addForward(peer, block, this);
  }

  /** They did not leave this host. */
  notForwarded(block: BlockBuffer): void {
    const error = new DrakkarError(
      'ERR_NOT_LEADER',
      `shard ${this.shardId} lost its leader before the proposal left this host; try again`,
    );
    block.forEachOwn(this.nonce, (sequence) => this.pending.fail(sequence, error));
  }

  private askReads(): void {
    const context = this.reads.close(this.engine.inputMs);
    const reason = this.raft.maySpeak ? undefined : reasonNotToRead(this);
    // Its term cannot become durable, so that it cannot even ask.
    if (reason !== undefined) this.reads.drop(context, reason);
    else if (!this.raft.readIndex(context)) {
      this.reads.drop(
        context,
        new DrakkarError('ERR_NO_LEADER', `shard ${this.shardId} has no leader at the moment; try again`),
      );
    }
  }

  setStranger(replicaId: number, stranger: Stranger): void {
    if (this.strangers === NO_STRANGERS) this.strangers = new Map();
    this.strangers.set(replicaId, stranger);
  }

  peerOf(replicaId: number): Peer | undefined {
    const slot = this.raft.slots.indexOf(replicaId);
    if (slot >= 0) return this.peers[slot];
    const stranger = this.strangers.get(replicaId);
    return stranger === undefined ? undefined : this.engine.peerAt(stranger.target, this.shardId);
  }

  // Applying.

  /**
   * Applies what is committed and durable here. Stops at blocks whose bytes must be read first, while a snapshot holds the state
   * machine, when the turn has answered enough callers, and when `deadlineMs` has passed; gives true when there is more to do at once.
   */
  applyCommitted(deadlineMs: number): boolean {
    const { raft, rsm, engine } = this;
    if (this.onlookers.wantsCommits) this.onlookers.committed();
    if (this.isRestoring || rsm.busy) return false;
    this.sample.look(raft, this.pending, engine.turnMs, engine.stages);
    const before = raft.appliedIndex;
    if (rsm.isOnDisk) return applyToDisk(this, deadlineMs);
    while (raft.appliedIndex < raft.applyLimit && this.status === 'running') {
      const room = this.pending.count > 0 ? engine.applyRoom : Number.POSITIVE_INFINITY;
      if (room <= 0) {
        this.afterApply(before);
        return true;
      }
      const from = raft.appliedIndex + 1;
      const ref = raft.log.blockAt(from);
      invariant(ref !== undefined, `shard ${this.shardId}: entry ${from} is committed and not in the log`);
      const to = Math.min(ref.lastIndex, raft.applyLimit, from + room - 1);
      const { slab } = ref;
      if (ref.isHollow) rsm.skip(to, ref.term);
      else if (slab === undefined) {
        engine.fetch(this, from);
        break;
      } else {
        const word = skipEntries(slab.u32, ref.entriesWord, from - ref.firstIndex);
        rsm.apply(slab.u8, slab.u32, word, from, to - from + 1, ref.term, this);
        engine.applyRoom -= to - from + 1;
      }
      // Before what it waited for to be applied: a leader that hands over may wait for it.
      if (rsm.membership !== raft.membership) followMembership(this.engine, this);
      raft.applied(to);
      if (raft.appliedIndex < raft.applyLimit && engine.env.clock.nowMs() > deadlineMs) {
        this.afterApply(before);
        return true;
      }
    }
    this.afterApply(before);
    return false;
  }

  afterApply(before: number): void {
    if (this.status !== 'running') return;
    const { raft, engine } = this;
    this.sample.applied(raft, this.pending, engine.env.clock, engine.stages);
    traceApply(this, before);
    raft.trim();
    this.serveReads();
    engine.snapshots.considerSnapshot(this);
  }

  serveReads(): void {
    const { appliedIndex } = this.raft;
    if (!this.reads.isServable(appliedIndex)) return;
    const startedMs = this.reads.serve(appliedIndex, this);
    if (startedMs < 0) return;
    const sinceMs = this.engine.env.clock.nowMs() - startedMs;
    this.engine.stages.read.observe(sinceMs);
    traceRead(this, sinceMs);
  }

  lookup(query: unknown): unknown {
    return query === BARRIER ? undefined : this.rsm.lookup(query);
  }

  /** From the state machine, for each entry that was proposed here. */
  applied(sequence: number, _index: number, status: ApplyStatus, result: Result): void {
    if (status === ApplyStatus.Ok) this.pending.complete(sequence, result);
    else this.pending.fail(sequence, errorOfStatus(status, this.shardId, result));
  }

  // Time and ends.

  tick(tickCount: number): void {
    this.raft.tick();
    if (!this.raft.mayLead && tickCount % this.settings.electionTicks === 0) showItself(this.engine, this);
    if (this.raft.stallTicks === this.settings.electionTicks) onStall(this);
    this.heldOff = reasonToRefuse(this);
    if (this.pending.mayExpire(tickCount)) this.pending.expire(tickCount, () => this.timeoutError());
    this.reads.expire(tickCount);
    if (this.reads.count > 0 && !this.raft.isLeader) this.askAgain(tickCount);
  }

  /** A connection that breaks takes questions and answers with it; an index that is told later is as good (thesis §6.4). */
  private askAgain(tickCount: number): void {
    for (const context of this.reads.unanswered(tickCount, this.settings.electionTicks)) this.raft.askAgain(context);
  }

  private timeoutError(): DrakkarError {
    return new DrakkarError('ERR_TIMEOUT', `a proposal to shard ${this.shardId} was not answered in time`);
  }

  /** The proposals in blocks that a newer leader's entries replaced may still be committed by a third one. */
  failTruncated(ref: BlockRef, fromIndex: number): void {
    if (ref.slab === undefined || ref.isHollow || this.pending.count === 0) return;
    const skip = Math.max(0, fromIndex - ref.firstIndex);
    const error = new DrakkarError(
      'ERR_DROPPED',
      `a new leader of shard ${this.shardId} replaced the proposal; whether it was applied is unknown`,
    );
    const start = skipEntries(ref.slab.u32, ref.entriesWord, skip);
    forEachOwnEntry(ref.slab.u32, start, ref.entriesEndWord, this.nonce, (sequence) => {
      this.pending.fail(sequence, error);
    });
  }

  hold(message: HeldMessage): void {
    // Each message is repeated by its sender's timers, so that the newest are the ones worth keeping.
    if (this.held.length === HELD_MESSAGES_MAX) this.held.shift();
    this.held.push(message);
  }

  /** Gives up what no block was sealed for. */
  failUnsealed(error: DrakkarError): void {
    for (let block = this.openBlock.take(); block !== undefined; block = this.openBlock.take()) {
      block.forEachOwn(this.nonce, (sequence) => this.pending.fail(sequence, error));
      this.openBlock.recycle(block);
    }
    // Without its first entry a leader could commit nothing.
    if (this.raft.isLeader && this.raft.termStartIndex === 0) this.raft.outbox.appendNoop();
  }

  /** Ends all waiting. Unsealed proposals certainly were not applied, the others may have been. */
  end(error: DrakkarError): void {
    const unsealed = new DrakkarError(error.code, error.message, { cause: error.cause, outcome: 'not-applied' });
    this.failUnsealed(unsealed);
    this.changes.clear();
    this.pending.failAll(error);
    this.reads.failAll(unsealed);
    this.held.length = 0;
    this.onlookers.end(this.status === 'failed' ? error : undefined);
    this.stopController?.abort(error);
  }
}
