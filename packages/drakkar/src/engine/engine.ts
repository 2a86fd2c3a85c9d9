/**
 * The engine: one event loop with its shards, one log, one transport. Input is handled as it arrives and only marks replicas
 * ready; once per event-loop turn all that is ready is sealed, written, sent and applied together, so that a frame, a
 * system call and a flush are shared by every shard that has something to say.
 *
 * Errors of one shard fail that shard (`failReplica`); an error of the log ends the host (`failed`).
 */
import { DrakkarError } from '../errors.ts';
import type { Env } from '../env/env.ts';
import type { BlockPlace } from '../wire/block-ref.ts';
import * as quiesce from '../raft/quiesce.ts';
import type { Slab, SlabPool } from '../wire/slab.ts';
import type { LogDb, LogSink, RecoveredShard } from '../wal/logdb.ts';
import type { HostIdentity, InboundSession, Peer, Transport } from '../transport/transport.ts';
import { applyCommitted } from './applying.ts';
import { Arrivals } from './arrivals.ts';
import { rolledBack } from './directory.ts';
import type { EventSink } from './events.ts';
import { Formats, type FormatDirectory, type OpenFormats } from './formats.ts';
import { Inbound } from './inbound.ts';
import { Incarnations } from './incarnation.ts';
import {
  APPLY_BUDGET_MS,
  APPLY_SLICE_ENTRIES,
  LOG_PENDING_BYTES_MAX,
  PINNED_BYTES_MAX,
  READ_AHEAD_BYTES,
} from './limits.ts';
import { Interned } from './interned.ts';
import { LeaderWaits } from './leader-wait.ts';
import { fetchBlocks } from './log-reader.ts';
import { BlockBuffers } from './open-block.ts';
import { Outbound } from './outbound.ts';
import { Liveness } from './liveness.ts';
import { parkReplica, stateOf } from './parking.ts';
import { giveUpWaiting } from './pressure.ts';
import type { Replica } from './replica.ts';
import type { ReplicaOutbox } from './replica-outbox.ts';
import { reroute } from './reroute.ts';
import { Snapshots, type SnapshotLimits } from './snapshots.ts';
import { Stages } from './stages.ts';
import { traceFlush, type Trace } from './trace.ts';
import { Ticker } from './ticker.ts';
import { Transfers } from './transfers.ts';

export interface EngineOptions {
  readonly env: Env;
  /** Its number in the host's directory; 0 where there is one. */
  readonly number?: number;
  /** For messages to people. */
  readonly dir: string;
  readonly snapshotsDir: string;
  readonly log: LogDb;
  readonly transport: Transport;
  readonly pool: SlabPool;
  readonly events: EventSink;
  readonly tickMs: number;
  /** Bytes that wait for the log before connections are paused. */
  readonly maxInboundBytes: number;
  readonly snapshotLimits: SnapshotLimits;
  readonly identity: HostIdentity;
  readonly trace: Trace;
  /** What it may read and write; the log looks at it, too. */
  readonly formats: OpenFormats;
  /** Of the host's directory, which all its engines share. */
  readonly directory: FormatDirectory;
  /** Remembers for ever that the directory was rolled back: none of its engines may go on. */
  readonly condemn: (newestStart: number, error: DrakkarError) => Promise<void>;
  /** The log is dead: the host tells the world and closes what is left. */
  readonly onFailed: (error: DrakkarError) => void;
}

export interface EngineCounters {
  turns: number;
  forwardsDropped: number;
  messagesRefused: number;
  snapshotsFailed: number;
  /** Given up by their state machines. */
  snapshotsAborted: number;
  /** Streams that began where an earlier one had broken off, and what they did not need to bring again. */
  snapshotsResumed: number;
  snapshotBytesNotSentAgain: number;
  /** Of on-disk state machines: records without an image, images streamed from a store, images given up once they were taken over. */
  snapshotsWithoutState: number;
  imagesStreamed: number;
  imagesShrunk: number;
  /** Times that a shard's writes stood still for an election timeout. */
  diskStalls: number;
  /** How often a replica learned who leads, itself included, and how often it lost its leader. */
  leadersFound: number;
  leadersLost: number;
  /** How often a replica fell silent, and why it woke. */
  quiesced: number;
  readonly woken: Record<quiesce.WakeCause, number>;
}

/** Called when a shard's write number is durable, or at its end. */
interface DurableWaiter {
  readonly replica: Replica;
  readonly write: number;
  readonly resolve: () => void;
}

export class Engine implements LogSink {
  readonly env: Env;
  readonly number: number;
  readonly dir: string;
  readonly snapshotsDir: string;
  readonly log: LogDb;
  readonly transport: Transport;
  readonly pool: SlabPool;
  readonly events: EventSink;
  readonly identity: HostIdentity;
  readonly outbound: Outbound;
  readonly inbound: Inbound;
  readonly incarnations: Incarnations;
  readonly snapshots: Snapshots;
  readonly arrivals: Arrivals;
  readonly transfers = new Transfers();
  readonly stages = new Stages();
  readonly trace: Trace;
  readonly leaderWaits = new LeaderWaits();
  readonly blockBuffers = new BlockBuffers();
  readonly interned = new Interned();
  /** For the cores: one function for all of them. */
  readonly random = (): number => this.env.random.u32();
  readonly ticker: Ticker;
  readonly liveness: Liveness;
  readonly formats: Formats;
  readonly counters: EngineCounters = {
    turns: 0,
    forwardsDropped: 0,
    messagesRefused: 0,
    snapshotsFailed: 0,
    snapshotsAborted: 0,
    snapshotsResumed: 0,
    snapshotBytesNotSentAgain: 0,
    snapshotsWithoutState: 0,
    imagesStreamed: 0,
    imagesShrunk: 0,
    diskStalls: 0,
    leadersFound: 0,
    leadersLost: 0,
    quiesced: 0,
    woken: { proposal: 0, read: 0, message: 0, operator: 0, 'host-lost': 0, 'host-back': 0 },
  };

  readonly replicas = new Map<number, Replica>();
  /** Shards that the log holds and that do not run: found at the opening, or stopped since. */
  readonly parked: Map<number, RecoveredShard>;
  /** Removed replicas that are on their way out, by shard. */
  readonly removals = new Map<number, Promise<void>>();
  /** Hosts that are no member's and that are talked to all the same, each until a tick. */
  readonly guests = new Map<string, number>();
  /** All ways that were asked for and not given up. */
  private readonly peersInUse = new Set<Peer>();
  /** Of them, those on which nothing is said but where the engines of a host are. */
  private readonly peersForNews = new Set<Peer>();
  /** What the next turn looks at. */
  private ready: Replica[] = [];
  private touched: Replica[] = [];
  private turnScheduled = false;
  /** When the first input of the current turn came, and when the turn began. */
  inputMs = 0;
  turnMs = 0;
  /** Entries that callers wait for and that this turn may still apply. */
  applyRoom = 0;
  /** Ticks since the start; deadlines of requests are in it. */
  tickCount = 0;
  private readonly maxInboundBytes: number;
  private readonly pausedSessions = new Set<InboundSession>();
  private durableWaiters: DurableWaiter[] = [];
  /** By shards that do not run. */
  private readonly stateWaiters = new Map<number, () => void>();
  private readonly onFailed: (error: DrakkarError) => void;
  private readonly condemn: (newestStart: number, error: DrakkarError) => Promise<void>;
  readonly startedMs: number;
  failure: DrakkarError | undefined;
  private isClosed = false;

  constructor(options: EngineOptions) {
    this.env = options.env;
    this.number = options.number ?? 0;
    this.dir = options.dir;
    this.snapshotsDir = options.snapshotsDir;
    this.log = options.log;
    this.transport = options.transport;
    this.pool = options.pool;
    this.events = options.events;
    this.maxInboundBytes = options.maxInboundBytes;
    this.ticker = new Ticker(this, options.tickMs);
    this.liveness = new Liveness(this);
    this.formats = new Formats(this, options.formats, options.directory);
    this.identity = options.identity;
    this.trace = options.trace;
    this.startedMs = options.env.clock.nowMs();
    this.condemn = options.condemn;
    this.onFailed = options.onFailed;
    // A peer that is down was reported when it went down, and is again when it is up: not for every frame in between.
    this.outbound = new Outbound(options.pool, options.log, (peer) => {
      if (peer.connected) this.peerLost(peer);
    });
    this.parked = new Map(options.log.recovered);
    this.inbound = new Inbound(this);
    this.incarnations = new Incarnations(this);
    this.snapshots = new Snapshots(this, options.snapshotLimits);
    this.arrivals = new Arrivals(this, options.snapshotLimits);
  }

  async start(): Promise<void> {
    this.log.start(
      this,
      (shardId) => this.replicas.get(shardId)?.raft.log.blocks() ?? this.parked.get(shardId)?.blocks ?? [],
    );
    this.formats.settle();
    await this.transport.start({
      onFrame: (from, slab, offset, lengthBytes) => this.onFrame(from, slab, offset, lengthBytes),
      onSessionEnd: (from) => {
        this.pausedSessions.delete(from);
        this.liveness.sessionEnded(from);
      },
      onPeerUp: (peer) => this.peerUp(peer),
      onPeerDown: (peer) => this.peerDown(peer),
      onRoutes: (address, shardIds) => reroute(this, address, shardIds),
      onConnection: (address, isSnapshot, error) => this.connectionChanged(address, isSnapshot, error),
      onSnapshot: (...offer) => this.arrivals.receive(...offer),
    });
    this.ticker.start();
  }

  // Replicas.

  addReplica(replica: Replica, outbox: ReplicaOutbox): void {
    this.replicas.set(replica.shardId, replica);
    this.parked.delete(replica.shardId);
    replica.outbox = outbox;
    for (const [slot, peer] of replica.peers.entries()) {
      if (peer !== undefined) this.incarnations.meet(replica, replica.raft.slots[slot], peer);
    }
    this.liveness.join(replica);
    this.markReady(replica);
  }

  /** The way to the engine of a host that the shard lives in, for as long as a member lives there or the host is a guest. */
  peerAt(target: string, shardId: number): Peer {
    const peer = this.transport.peer(target, shardId);
    if (!this.peersInUse.has(peer) || this.peersForNews.has(peer)) {
      this.peersInUse.add(peer);
      this.peersForNews.delete(peer);
      this.formats.settle();
    }
    return peer;
  }

  /** Whoever was not heard of lately is no guest any more. */
  checkGuests(): void {
    if (this.guests.size === 0) return;
    for (const [target, untilTick] of this.guests) if (untilTick <= this.tickCount) this.guests.delete(target);
    this.releaseUnusedPeers();
  }

  /**
   * Hosts that no member lives at any more are left alone. The way to engine 0 of a host stays as long as one to another of its engines: on
   * it is told where they are.
   */
  releaseUnusedPeers(): void {
    const used = new Set<Peer | undefined>();
    const hosts = new Set<string | undefined>();
    for (const { status, peers } of this.replicas.values()) {
      if (status !== 'running') continue;
      for (const peer of peers) {
        used.add(peer);
        hosts.add(peer?.address);
      }
    }
    for (const peer of this.peersInUse) {
      const { address, engine = 0 } = peer;
      if (used.has(peer) || this.guests.has(address)) continue;
      if (engine === 0 && hosts.has(address)) {
        this.peersForNews.add(peer);
        continue;
      }
      this.peersInUse.delete(peer);
      this.peersForNews.delete(peer);
      this.liveness.forget(peer);
      this.formats.forget(peer);
      this.outbound.forget(peer);
      this.transport.release(address, engine);
    }
    this.formats.settle();
  }

  /** Whom this engine talks to. */
  *peers(): IterableIterator<Peer> {
    for (const peer of this.peersInUse) if (!this.peersForNews.has(peer)) yield peer;
  }

  /** Waits until what the replica wrote is durable, then forgets it. Its part of the log stays. */
  async removeReplica(replica: Replica, error: DrakkarError): Promise<void> {
    const leaving = this.removals.get(replica.shardId);
    if (leaving !== undefined) return leaving;
    if (replica.status === 'running') {
      replica.status = 'stopped';
      quiesce.farewell(replica.raft);
    }
    replica.end(error);
    this.transfers.end(replica, error);
    this.leaderWaits.changed(replica);
    // Of a failed one no write is counted any more.
    const isCounted = replica.status !== 'failed' && this.failure === undefined;
    if (isCounted) await this.whenDurable(replica, replica.raft.writeNumber);
    // Its entries stay in memory while an update reads them.
    await replica.rsm.gate.quiet();
    this.parked.set(replica.shardId, parkReplica(replica));
    this.replicas.delete(replica.shardId);
    await replica.rsm.close();
    this.events.emit('replicaStopped', { shardId: replica.shardId, replicaId: replica.replicaId });
  }

  /** A broken invariant, a throwing state machine or a damaged log: this shard stops here, the others live on. */
  failReplica(replica: Replica, cause: unknown): void {
    if (replica.status !== 'running') return;
    const error = DrakkarError.is(cause)
      ? cause
      : new DrakkarError('ERR_INVARIANT', `shard ${replica.shardId} failed on this host: ${String(cause)}`, { cause });
    replica.status = 'failed';
    if (this.failure === undefined) quiesce.farewell(replica.raft);
    replica.failure = error;
    this.env.logger.error({ shardId: replica.shardId, replicaId: replica.replicaId, err: error }, 'replica failed');
    replica.end(
      new DrakkarError(
        'ERR_SHARD_FAILED',
        `the replica of shard ${replica.shardId} on this host failed (${error.code})`,
        {
          cause: error,
        },
      ),
    );
    this.transfers.end(replica, error);
    this.leaderWaits.changed(replica);
    this.events.emit('replicaFailed', { shardId: replica.shardId, replicaId: replica.replicaId, error });
  }

  refuseMember(replica: Replica, memberId: number, reason: string): void {
    this.env.logger.error(
      { shardId: replica.shardId, memberId, reason },
      'member refused; replace it by a new replica',
    );
    this.events.emit('memberRefused', { shardId: replica.shardId, replicaId: replica.replicaId, memberId, reason });
  }

  // The turn.

  markReady(replica: Replica): void {
    if (replica.isReady) return;
    replica.isReady = true;
    this.ready.push(replica);
    if (!replica.isTicking) this.ticker.activate(replica);
    this.scheduleTurn();
  }

  scheduleTurn(): void {
    if (this.turnScheduled) return;
    this.turnScheduled = true;
    this.inputMs = this.env.clock.nowMs();
    this.env.scheduler.defer(this.turn);
  }

  private readonly turn = (): void => {
    this.turnScheduled = false;
    if (this.isClosed) return;
    this.counters.turns++;
    const { ready } = this;
    this.ready = [];
    // What is committed is applied first: the answered callers' next proposals go out in this same turn.
    this.turnMs = this.env.clock.nowMs();
    const deadline = this.turnMs + APPLY_BUDGET_MS;
    this.applyRoom = APPLY_SLICE_ENTRIES;
    const maySeal = this.log.pendingBytes < LOG_PENDING_BYTES_MAX && !this.log.isFull;
    for (let i = 0; i < ready.length; i++) {
      const replica = ready[i];
      replica.isReady = false;
      if (replica.status !== 'running') continue;
      try {
        if (applyCommitted(replica, deadline)) this.markReady(replica);
        if (!replica.isRunning) continue; // it applied its own removal
        replica.gather(maySeal);
        if (!maySeal && !replica.openBlock.isEmpty) this.markReadyLater(replica);
      } catch (error) {
        this.failReplica(replica, error);
      }
    }
    this.outbound.flushBlocks();
    for (let i = 0; i < ready.length; i++) {
      const replica = ready[i];
      if (replica.status !== 'running') continue;
      try {
        replica.followUp();
      } catch (error) {
        this.failReplica(replica, error);
      }
    }
    this.outbound.flush();
    this.log.flush();
    if (this.pool.pinnedBytes > PINNED_BYTES_MAX) this.dropOldBytes();
  };

  /** Waits for the end of a group, which schedules the next turn. */
  private markReadyLater(replica: Replica): void {
    if (replica.isReady) return;
    replica.isReady = true;
    this.ready.push(replica);
  }

  /** Beyond the bound on pinned slabs, durable blocks keep only their place in the log (design §5). */
  private dropOldBytes(): void {
    for (const replica of this.replicas.values()) {
      let aheadBytes = 0;
      for (const ref of replica.raft.log.blocks()) {
        // What the apply wants next stays: it would only be read again at once.
        if (ref.lastIndex > replica.raft.appliedIndex) aheadBytes += ref.sizeBytes;
        if (ref.place !== undefined && (aheadBytes === 0 || aheadBytes > READ_AHEAD_BYTES)) ref.dropBytes();
      }
    }
  }

  /** Reads blocks from `fromIndex` on back into memory, then looks at the replica again. */
  fetch(replica: Replica, fromIndex: number): void {
    if (replica.isFetching) return;
    replica.isFetching = true;
    fetchBlocks(this.log, replica, fromIndex).then(
      () => {
        replica.isFetching = false;
        if (replica.status === 'running') this.markReady(replica);
      },
      (error: unknown) => {
        replica.isFetching = false;
        if (this.failure === undefined) this.failReplica(replica, error);
      },
    );
  }

  // The log.

  appendState(replica: Replica, resetsLog: boolean): void {
    this.inbound.packAccepted();
    this.outbound.flushBlocks();
    this.log.appendState(stateOf(replica), resetsLog || replica.raft.restoreReset);
    this.touch(replica);
    this.scheduleTurn();
  }

  /** Resolves when the replica's write is durable, or when it never will be. */
  whenDurable(replica: Replica, write: number): Promise<void> {
    if (replica.raft.durableWrite >= write || this.failure !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.durableWaiters.push({ replica, write, resolve });
      this.log.flush();
    });
  }

  private touch(replica: Replica): void {
    if (replica.isTouched) return;
    replica.isTouched = true;
    this.touched.push(replica);
  }

  blockDurable(shardId: number, place: BlockPlace, _firstIndex: number, _count: number): void {
    this.writeDurable(shardId, place);
  }

  stateDurable(shardId: number): void {
    this.writeDurable(shardId, undefined);
    if (this.stateWaiters.size > 0) this.stateWaiters.get(shardId)?.();
  }

  /** Resolves when the next state record of a shard that does not run is durable, or when it never will be. */
  whenStateDurable(shardId: number): Promise<void> {
    if (this.failure !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.stateWaiters.set(shardId, () => {
        this.stateWaiters.delete(shardId);
        resolve();
      });
    });
  }

  private writeDurable(shardId: number, place: BlockPlace | undefined): void {
    const replica = this.replicas.get(shardId);
    // A failed one may have stopped between counting a write and giving it to the log.
    if (replica === undefined || replica.status === 'failed') return;
    try {
      replica.raft.writeDurable(place);
    } catch (error) {
      this.failReplica(replica, error);
    }
    this.touch(replica);
  }

  groupDurable(writeMs?: number): void {
    if (writeMs !== undefined) this.stages.fsync.observe(writeMs);
    traceFlush(this, writeMs);
    const { touched } = this;
    this.touched = [];
    for (let i = 0; i < touched.length; i++) {
      const replica = touched[i];
      replica.isTouched = false;
      if (replica.status !== 'running') continue;
      try {
        replica.raft.afterFlush();
        if (replica.held.length > 0) replica.outbox.releaseHeld();
      } catch (error) {
        this.failReplica(replica, error);
      }
      this.markReady(replica);
    }
    if (this.durableWaiters.length > 0) this.wakeDurableWaiters();
    if (this.ready.length > 0) this.scheduleTurn();
    if (this.pausedSessions.size > 0 && this.log.pendingBytes < this.maxInboundBytes / 2) this.resumeSessions();
  }

  private wakeDurableWaiters(): void {
    const waiters = this.durableWaiters;
    this.durableWaiters = [];
    for (const waiter of waiters) {
      if (waiter.replica.raft.durableWrite >= waiter.write) waiter.resolve();
      else this.durableWaiters.push(waiter);
    }
  }

  private resumeSessions(): void {
    for (const session of this.pausedSessions) session.resume();
    this.pausedSessions.clear();
  }

  diskFull(error: DrakkarError): void {
    this.env.logger.error({ err: error, dir: this.dir }, 'disk full: nothing is acknowledged until there is room');
    for (const replica of this.replicas.values()) {
      if (replica.status === 'running') giveUpWaiting(replica, error);
    }
    this.events.emit('diskFull', { error });
  }

  roomAgain(): void {
    this.env.logger.info({ dir: this.dir }, 'the disk has room again');
    this.events.emit('diskRoom', { dir: this.dir });
    for (const replica of this.replicas.values()) this.markReady(replica);
  }

  spaceFreed(segments: number): void {
    this.events.emit('logSpaceFreed', { segments });
  }

  /** A write failed: nothing that waits will ever be durable, and nothing may be promised any more (fault F5). */
  failed(error: DrakkarError): void {
    if (this.failure !== undefined) return;
    this.stopAll(error);
    this.onFailed(error);
  }

  private stopAll(error: DrakkarError): void {
    this.failure = error;
    this.env.logger.error({ err: error, dir: this.dir }, 'the log failed; this host stops');
    this.ticker.stop();
    for (const replica of this.replicas.values()) this.failReplica(replica, error);
    for (const waiter of this.durableWaiters.splice(0)) waiter.resolve();
    for (const wake of [...this.stateWaiters.values()]) wake();
  }

  /** Peers know of a start of this directory that it does not remember: nothing it promised can be relied on (fault F19). */
  rolledBack(newestStart: number): void {
    if (this.failure !== undefined) return;
    const error = rolledBack(this.dir, newestStart, this.identity.startCounter);
    this.stopAll(error);
    // Told when it is written down: whoever starts the host again must find it, since a later start would be believed.
    this.condemn(newestStart, error)
      .catch((cause: unknown) => this.env.logger.error({ err: cause, dir: this.dir }, 'could not note that'))
      .finally(() => this.onFailed(error));
  }

  // The network.

  private onFrame(from: InboundSession, slab: Slab, offset: number, lengthBytes: number): void {
    if (this.failure !== undefined || this.isClosed) return;
    this.liveness.heard(from);
    this.inbound.onFrame(from, slab, offset, lengthBytes);
    if (this.log.pendingBytes > this.maxInboundBytes && !this.pausedSessions.has(from)) {
      this.pausedSessions.add(from);
      from.pause();
    }
  }

  private peerUp(peer: Peer): void {
    this.events.emit('peerUp', { address: peer.address });
    this.formats.peerUp(peer);
    this.snapshots.peerUp(peer);
    this.forEachMemberAt(peer, (replica, replicaId) => {
      this.incarnations.meet(replica, replicaId, peer);
      replica.raft.reportUnreachable(replicaId);
      replica.raft.reportReachable(replicaId);
      this.markReady(replica);
    });
  }

  private peerDown(peer: Peer): void {
    this.events.emit('peerDown', { address: peer.address });
    this.peerLost(peer);
    this.liveness.peerDown(peer);
  }

  private connectionChanged(address: string, isSnapshot: boolean, error: Error | undefined): void {
    if (error === undefined) this.events.emit('connectionEstablished', { address, isSnapshot });
    else this.events.emit('connectionFailed', { address, isSnapshot, reason: error.message });
  }

  /** Frames to `peer` were lost: whoever lives there is asked anew what it has. */
  private peerLost(peer: Peer): void {
    this.forEachMemberAt(peer, (replica, replicaId) => replica.raft.reportUnreachable(replicaId));
  }

  forEachMemberAt(peer: Peer, visit: (replica: Replica, replicaId: number) => void): void {
    for (const replica of this.replicas.values()) {
      if (replica.status !== 'running') continue;
      const slot = replica.peers.indexOf(peer);
      if (slot < 0) continue;
      visit(replica, replica.raft.slots[slot]);
    }
  }

  /** Stops time and the network; replicas and the log are closed by the owner. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.ticker.stop();
    await this.transport.close();
    this.outbound.close();
  }
}
