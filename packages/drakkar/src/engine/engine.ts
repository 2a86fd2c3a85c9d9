/**
 * The engine: one event loop with its shards, one log, one transport. Input is handled as it arrives and only marks replicas
 * ready; once per event-loop turn all that is ready is sealed, written, sent and applied together, so that a frame, a
 * system call and a flush are shared by every shard that has something to say.
 *
 * Errors of one shard fail that shard (`failReplica`); an error of the log ends the host (`failed`).
 *
 * Here are the turn and what the log tells. What the network tells comes through `connections.ts`; how replicas end is `endings.ts`'s.
 */
import { DrakkarError } from '../errors.ts';
import type { Env } from '../env/env.ts';
import type { BlockPlace } from '../wire/block-ref.ts';
import type { SlabPool } from '../wire/slab.ts';
import type { LogDb, LogSink, RecoveredShard } from '../wal/logdb.ts';
import type { HostIdentity, Transport } from '../transport/transport.ts';
import { applyCommitted } from './applying.ts';
import { Arrivals } from './arrivals.ts';
import { Connections } from './connections.ts';
import { newCounters, type EngineCounters } from './counters.ts';
import { rolledBack } from './directory.ts';
import { Durability } from './durability.ts';
import { failReplica, removeReplica, stopAll } from './endings.ts';
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
import { stateOf } from './parking.ts';
import { giveUpWaiting } from './pressure.ts';
import type { Replica } from './replica.ts';
import type { ReplicaOutbox } from './replica-outbox.ts';
import { Snapshots, type SnapshotLimits } from './snapshots.ts';
import { Stages } from './stages.ts';
import { traceFlush, type Trace } from './trace.ts';
import { Ticker } from './ticker.ts';
import { Transfers } from './transfers.ts';
import { Ways } from './ways.ts';

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
  readonly connections: Connections;
  readonly ways: Ways;
  readonly durability: Durability;
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
  readonly counters: EngineCounters = newCounters();

  readonly replicas = new Map<number, Replica>();
  /** Shards that the log holds and that do not run: found at the opening, or stopped since. */
  readonly parked: Map<number, RecoveredShard>;
  /** Removed replicas that are on their way out, by shard. */
  readonly removals = new Map<number, Promise<void>>();
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
  private readonly onFailed: (error: DrakkarError) => void;
  private readonly condemn: (newestStart: number, error: DrakkarError) => Promise<void>;
  readonly startedMs: number;
  failure: DrakkarError | undefined;
  isClosed = false;

  constructor(options: EngineOptions) {
    this.env = options.env;
    this.number = options.number ?? 0;
    this.dir = options.dir;
    this.snapshotsDir = options.snapshotsDir;
    this.log = options.log;
    this.transport = options.transport;
    this.pool = options.pool;
    this.events = options.events;
    this.connections = new Connections(this, options.maxInboundBytes);
    this.ways = new Ways(this);
    this.durability = new Durability(this);
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
      if (peer.connected) this.connections.peerLost(peer);
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
    await this.connections.start();
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

  /** Waits until what the replica wrote is durable, then forgets it. Its part of the log stays. */
  removeReplica(replica: Replica, error: DrakkarError): Promise<void> {
    return removeReplica(this, replica, error);
  }

  /** A broken invariant, a throwing state machine or a damaged log: this shard stops here, the others live on. */
  failReplica(replica: Replica, cause: unknown): void {
    failReplica(this, replica, cause);
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
    this.durability.stateDurable(shardId);
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
    this.durability.groupDurable();
    if (this.ready.length > 0) this.scheduleTurn();
    this.connections.resumeReading();
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
    stopAll(this, error);
    this.onFailed(error);
  }

  /** Peers know of a start of this directory that it does not remember: nothing it promised can be relied on (fault F19). */
  rolledBack(newestStart: number): void {
    if (this.failure !== undefined) return;
    const error = rolledBack(this.dir, newestStart, this.identity.startCounter);
    stopAll(this, error);
    // Told when it is written down: whoever starts the host again must find it, since a later start would be believed.
    this.condemn(newestStart, error)
      .catch((cause: unknown) => this.env.logger.error({ err: cause, dir: this.dir }, 'could not note that'))
      .finally(() => this.onFailed(error));
  }

  /** Stops time and the network; replicas and the log are closed by the owner. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.ticker.stop();
    await this.transport.close();
    this.outbound.close();
  }
}
