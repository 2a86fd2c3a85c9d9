/**
 * One replica of one shard on this host: its protocol core, its state machine, and the callers that wait. All decisions
 * are the core's; this file connects them with the engine's turn. Runs on the event loop, never waits.
 *
 * Here is the state, the callers' ways in, and their end. What the turn does with it stands in `sealing.ts`, `applying.ts` and `reading.ts`.
 */
import { DrakkarError } from '../errors.ts';
import type { BlockRef } from '../wire/block-ref.ts';
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
import type { Raft } from '../raft/raft.ts';
import { ApplyStatus, errorOfStatus, type ApplySink } from '../rsm/apply-sink.ts';
import type { Rsm } from '../rsm/rsm.ts';
import type { Snapshotter } from '../rsm/snapshotter.ts';
import type { Result } from '../rsm/state-machine.ts';
import type { ReplicaPin } from '../wal/logdb.ts';
import type { Peer } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { HELD_MESSAGES_MAX } from './limits.ts';
import { notMember, showItself, type Stranger } from './membership.ts';
import { OpenBlock, type BlockBuffer, forEachOwnEntry } from './open-block.ts';
import { OpenChanges } from './open-changes.ts';
import type { AddresseeSet } from './outbound.ts';
import { PendingReads } from './pending-reads.ts';
import { StageSample } from './stages.ts';
import { Onlookers } from './onlookers.ts';
import { busyError, onStall, reasonToRefuse } from './pressure.ts';
import { askAgain, askReads } from './reading.ts';
import { refusalOf, unavailable, witnessOnly } from './refusals.ts';
import type { ReplicaOutbox } from './replica-outbox.ts';
import { passOn, sealBlocks } from './sealing.ts';
import { BatchState, PendingRing, type ProposeCallback } from './pending-ring.ts';

/** The same for many shards of a host, and kept once for all of them. */
export interface ReplicaSettings {
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

/** For all replicas that know everybody; never written to. */
const NO_STRANGERS = new Map<number, Stranger>();
const NOTHING_HELD: HeldMessage[] = [];

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
  /** What is being timed of it; nothing while it rests. */
  sample: StageSample | undefined;
  /** Where the sample goes on among the callers. */
  private sampledTo = 0;
  private openChanges: OpenChanges | undefined;
  held = NOTHING_HELD;
  /** Nobody looks on at most of many shards. */
  knownOnlookers: Onlookers | undefined;
  /** Blocks without commands in a row, though it is no witness. */
  hollowBlocks = 0;

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
  peers: readonly (Peer | undefined)[] = [];
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
  /** Shared with other shards; never changed in place. So are `peers`. */
  pins: readonly ReplicaPin[];

  /** A snapshot is being taken, installed or received. */
  isSnapshotting = false;
  isRestoring = false;
  /** Blocks are being read from the log. */
  isFetching = false;
  private stopController: AbortController | undefined;

  constructor(
    engine: Engine,
    settings: ReplicaSettings,
    ids: { readonly shardId: number; readonly replicaId: number },
    rsm: Rsm,
    snapshotter: Snapshotter,
    bootstrap: Uint8Array,
    pins: readonly ReplicaPin[],
  ) {
    this.engine = engine;
    this.settings = settings;
    this.shardId = ids.shardId;
    this.replicaId = ids.replicaId;
    this.rsm = rsm;
    this.snapshotter = snapshotter;
    this.openBlock = new OpenBlock(engine.blockBuffers);
    this.bootstrap = bootstrap;
    this.pins = pins;
    this.nonce = engine.env.random.u32() || 1;
  }

  /** Ends with the replica. Made for the few that ask, which shards without a snapshot never do. */
  get stopSignal(): AbortSignal {
    this.stopController ??= new AbortController();
    if (this.status !== 'running') this.stopController.abort(this.unavailable());
    return this.stopController.signal;
  }

  get changes(): OpenChanges {
    return (this.openChanges ??= new OpenChanges(this));
  }

  get onlookers(): Onlookers {
    return (this.knownOnlookers ??= new Onlookers(this));
  }

  get membership(): Membership {
    return this.rsm.membership;
  }

  get isRunning(): boolean {
    return this.status === 'running';
  }

  // Ways in.

  /** Why `count` commands of `totalBytes`, the largest of `bytes`, cannot be proposed right now. */
  refusal(bytes: number, count: number, totalBytes = bytes): DrakkarError | undefined {
    return refusalOf(this, bytes, count, totalBytes);
  }

  isWitnessOnly(): DrakkarError {
    return witnessOnly(this);
  }

  unavailable(): DrakkarError {
    return unavailable(this);
  }

  propose(command: Uint8Array, timeoutTicks: number): Promise<Result> {
    const refusal = refusalOf(this, command.length, 1);
    if (refusal !== undefined) return Promise.reject(refusal);
    const sequence = this.pending.nextSequence;
    const promise = new Promise<Result>(capture);
    this.pending.addPromise(capturedResolve, capturedReject, this.engine.tickCount + timeoutTicks);
    this.openBlock.put(EntryType.Command, sequence, this.nonce, command);
    if (!this.isReady) this.engine.markReady(this);
    return promise;
  }

  proposeCallback(command: Uint8Array, callback: ProposeCallback, cookie: number, timeoutTicks: number): void {
    const refusal = refusalOf(this, command.length, 1);
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
    const refusal = refusalOf(this, largest, commands.length, total);
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
    const refusal = refusalOf(this, command.length, 1);
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
    const refusal = refusalOf(this, 0, 1) ?? this.changes.refusal(change);
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
    if (!this.reads.hasRoom) return Promise.reject(busyError(this.shardId, 'too many reads wait for their answers'));
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
    this.sample ??= new StageSample(this.sampledTo);
    this.sample.asked(this.pending, this.engine.inputMs);
    if (!this.openBlock.isEmpty && maySeal) {
      if (raft.isLeader) {
        if (raft.canPropose) sealBlocks(this);
      } else passOn(this);
    }
    if (this.openChanges?.isEmpty === false && maySeal) this.openChanges.go();
    if (this.reads.hasOpen) askReads(this);
    raft.flushReads();
    this.heldOff = reasonToRefuse(this);
  }

  /** Sends to those who lag, and the commit index to those whom no block told it. After the turn's blocks have their places. */
  followUp(): void {
    const { raft } = this;
    if (raft.needsCatchUp) raft.catchUp();
    if (!this.sentBlock) raft.flushCommit();
  }

  recycleBlock(block: BlockBuffer): void {
    this.openBlock.recycle(block);
  }

  /** They did not leave this host. */
  notForwarded(block: BlockBuffer): void {
    const error = new DrakkarError(
      'ERR_NOT_LEADER',
      `shard ${this.shardId} lost its leader before the proposal left this host; try again`,
    );
    block.forEachOwn(this.nonce, (sequence) => this.pending.fail(sequence, error));
  }

  setStranger(replicaId: number, stranger: Stranger): void {
    if (this.strangers === NO_STRANGERS) this.strangers = new Map();
    this.strangers.set(replicaId, stranger);
  }

  peerOf(replicaId: number): Peer | undefined {
    const slot = this.raft.slots.indexOf(replicaId);
    if (slot >= 0) return this.peers[slot];
    const stranger = this.strangers.get(replicaId);
    return stranger === undefined ? undefined : this.engine.ways.peerAt(stranger.target, this.shardId);
  }

  // Applying.

  /** Nobody waits, nothing is on its way: what only a busy one needs is given back. */
  rest(): void {
    this.openBlock.release();
    this.pending.release();
    this.reads.release();
    this.sets = undefined;
    if (this.held.length === 0) this.held = NOTHING_HELD;
    if (this.openChanges?.isEmpty === true) this.openChanges = undefined;
    if (this.sample === undefined) return;
    this.sampledTo = this.pending.nextSequence;
    this.sample = undefined;
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
    if (this.reads.count > 0 && !this.raft.isLeader) askAgain(this, tickCount);
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
    if (this.held === NOTHING_HELD) this.held = [];
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
    this.openChanges?.clear();
    this.pending.failAll(error);
    this.reads.failAll(unsealed);
    this.held = NOTHING_HELD;
    this.knownOnlookers?.end(this.status === 'failed' ? error : undefined);
    this.stopController?.abort(error);
  }
}
