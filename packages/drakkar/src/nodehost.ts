/**
 * `NodeHost`: one per process and server. Holds the replicas of many shards over one log, one transport and one engine, and is all
 * that most programs need to know.
 */
import {
  DEFAULTS,
  checkAddOptions,
  checkCallOptions,
  checkFormat,
  checkHostOptions,
  checkLeaderWatchOptions,
  checkLogQueryOptions,
  checkMembershipOptions,
  checkReloadTlsOptions,
  checkReplicaId,
  checkRemoveDataOptions,
  checkReplicaOptions,
  checkSnapshotOptions,
  checkTarget,
  checkWatchOptions,
  type AddReplicaOptions,
  type CallOptions,
  type LeaderWatchOptions,
  type LogQueryOptions,
  type MembershipOptions,
  type ProposeOptions,
  type WatchOptions,
  type NodeHostOptions,
  type RemoveDataOptions,
  type ReplicaOptions,
  type SnapshotOptions,
} from './config.ts';
import { startReplica } from './engine/bootstrap.ts';
import { openDirectory, type HostDirectory } from './engine/directory.ts';
import { Engine } from './engine/engine.ts';
import type { Leadership } from './engine/leader-watch.ts';
import { LOG_QUERY_BYTES, LOG_QUERY_ENTRIES_MAX, WATCH_BUFFER_BYTES } from './engine/limits.ts';
import { removeLeftovers } from './engine/leftovers.ts';
import type { LogEntry } from './engine/log-entries.ts';
import type { LogQueryResult } from './engine/onlookers.ts';
import { describeMembership, isRemoved, removeData, removedError, type MembershipInfo } from './engine/membership.ts';
import type { ProposeCallback } from './engine/pending-ring.ts';
import type { Replica } from './engine/replica.ts';
import { exportSnapshot } from './engine/snapshot-export.ts';
import { Trace } from './engine/trace.ts';
import { createNodeEnv } from './env/node/index.ts';
import type { Env } from './env/env.ts';
import { DrakkarError, diskErrorOf, type Outcome } from './errors.ts';
import { HostEvents, type HostEventName, type HostListener } from './events.ts';
import { describeHost, describeShard, type HostInfo, type ShardInfo } from './info.ts';
import { renderMetrics } from './metrics.ts';
import { createRegistry } from './registry/index.ts';
import type { KnownHost, Registry } from './registry/registry.ts';
import { NO_COMPRESSION, codecNamed, codecsOf, type Codecs } from './rsm/codec.ts';
import { PLAIN } from './rsm/image.ts';
import type { Result, StateMachineFactory } from './rsm/state-machine.ts';
import type { ShardView } from './registry/shard-views.ts';
import { Session } from './session.ts';
import { ShardHandle } from './shard-handle.ts';
import { shardView, shardViews, tellRegistry } from './shard-news.ts';
import { TransportSecurity, type ReloadTlsOptions } from './transport/security.ts';
import { createTcpTransport } from './transport/tcp.ts';
import { SlabPool } from './wire/slab.ts';
import { openWal } from './wal/wal.ts';

const NO_OPTIONS: CallOptions = {};
/** `whenReady` without a leader looks for an abort this often. */
const LEADER_LOOK_MS = 1000;
const NO_ADDRESS = { address: '', role: 'voter', autoPromote: false } as const;

export class NodeHost {
  private readonly env: Env;
  private readonly directory: HostDirectory;
  private readonly registry: Registry;
  private readonly security: TransportSecurity | undefined;
  private readonly engine: Engine;
  private readonly events: HostEvents;
  private readonly tickMs: number;
  private readonly timeoutMs: number;
  private readonly codecs: Codecs;
  private readonly handles = new Map<number, ShardHandle>();
  private readonly starting = new Map<number, Promise<unknown>>();
  private readonly stopping = new AbortController();
  private closing: Promise<void> | undefined;

  /**
   * Opens the host: takes the directory, reads the log, begins to listen.
   *
   * @throws ERR_INVALID_OPTION, ERR_DIR_LOCKED, ERR_DIR_FOREIGN, ERR_DIR_FORMAT, ERR_DIR_PERMISSIONS, ERR_DIR_CORRUPT,
   * ERR_ADDRESS_IN_USE, ERR_TLS_CONFIG, ERR_DISK_FULL, ERR_DISK_FAILED
   */
  static async open(options: NodeHostOptions): Promise<NodeHost> {
    checkHostOptions(options);
    const { logger } = options;
    const env = options.env ?? createNodeEnv(logger === undefined ? {} : { logger });
    const deploymentId = options.deploymentId ?? DEFAULTS.deploymentId;
    try {
      return await NodeHost.openWith(env, options, deploymentId);
    } catch (error) {
      throw diskErrorOf(error, `the directory ${options.dir}`);
    }
  }

  private static async openWith(env: Env, options: NodeHostOptions, deploymentId: number): Promise<NodeHost> {
    const { dir, raftAddress, hostId, newestFormat } = options;
    const mayMove = options.gossip !== undefined || options.registry !== undefined;
    const { tls } = options;
    const security = tls === undefined ? undefined : await TransportSecurity.open(env, tls, deploymentId);
    const directory = await openDirectory(env, dir, { deploymentId, raftAddress, hostId, mayMove, newestFormat });
    const registry = createRegistry(options, { env, identity: directory.identity });
    const pool = new SlabPool();
    try {
      // Where hosts may move, they are known by their ids.
      security?.start([mayMove ? directory.identity.hostId : raftAddress], directory.identity);
      const formats = { newest: directory.identity.newestFormat, enabled: directory.format };
      const log = await (options.logDb ?? openWal)({ env, dir: directory.walDir, pool, formats });
      try {
        await removeLeftovers(env.fs, directory.snapshotsDir, log);
        const transport = (options.transport ?? createTcpTransport)({
          env,
          identity: directory.identity,
          listenAddress: options.listenAddress ?? options.raftAddress,
          pool,
          resolve: (target) => registry.resolve(target),
          maxSendQueueBytes: options.maxSendQueueBytes ?? DEFAULTS.maxSendQueueBytes,
          security,
        });
        const trace = new Trace(env.tracing, options.raftAddress);
        const events = new HostEvents(env, trace);
        const tickMs = options.rttMs ?? DEFAULTS.rttMs;
        const engine = new Engine({
          env,
          dir: options.dir,
          log,
          transport,
          pool,
          events,
          tickMs,
          maxInboundBytes: options.maxReceiveQueueBytes ?? DEFAULTS.maxReceiveQueueBytes,
          snapshotLimits: {
            maxSendBytesPerSecond: options.maxSnapshotSendBytesPerSecond ?? 0,
            maxReceiveBytesPerSecond: options.maxSnapshotReceiveBytesPerSecond ?? 0,
            maxSends: options.maxSnapshotSends ?? DEFAULTS.maxSnapshotSends,
            maxReceives: options.maxSnapshotReceives ?? DEFAULTS.maxSnapshotReceives,
          },
          identity: directory.identity,
          trace,
          formats,
          enableFormat: (format) => directory.enableFormat(format),
          condemn: (newestStart) => directory.condemn(newestStart),
          onFailed: () => void transport.close(),
        });
        tellRegistry(registry, engine, events);
        await registry.start((target) => transport.addressChanged(target));
        try {
          await engine.start();
        } catch (error) {
          await registry.close();
          throw error;
        }
        const timeoutMs = options.timeoutMs ?? DEFAULTS.timeoutMs;
        const codecs = codecsOf(options.snapshotCodecs);
        return new NodeHost(env, directory, registry, security, engine, events, tickMs, timeoutMs, codecs);
      } catch (error) {
        await log.close();
        throw error;
      }
    } catch (error) {
      security?.close();
      await directory.release();
      throw error;
    }
  }

  private constructor(
    env: Env,
    directory: HostDirectory,
    registry: Registry,
    security: TransportSecurity | undefined,
    engine: Engine,
    events: HostEvents,
    tickMs: number,
    timeoutMs: number,
    codecs: Codecs,
  ) {
    this.env = env;
    this.directory = directory;
    this.registry = registry;
    this.security = security;
    this.engine = engine;
    this.events = events;
    this.tickMs = tickMs;
    this.timeoutMs = timeoutMs;
    this.codecs = codecs;
  }

  /** 128 random bits as hex, made with the directory. */
  get id(): string {
    return this.directory.identity.hostId;
  }

  get raftAddress(): string {
    return this.directory.identity.raftAddress;
  }

  /** Set when the log failed: nothing runs here any more. */
  get failed(): DrakkarError | undefined {
    return this.engine.failure;
  }

  on<K extends HostEventName>(name: K, listener: HostListener<K>): this {
    this.events.on(name, listener);
    return this;
  }

  off<K extends HostEventName>(name: K, listener: HostListener<K>): this {
    this.events.off(name, listener);
    return this;
  }

  // Replicas.

  /**
   * Starts this host's replica of a shard. At the very first start of a new shard `members` names all initial members, the same on
   * every host; a replica that is added to a running shard has `members: 'join'`, and takes part once `addReplica` was called for it on
   * any host of the shard, before or after. At a restart `members` may be left out. Resolves when the state machine is restored from its snapshot; the log behind it is
   * applied as the shard goes on (`whenReady`).
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_EXISTS, ERR_SHARD_MISMATCH, ERR_SHARD_NOT_BOOTSTRAPPED, ERR_REPLICA_REMOVED, ERR_LOG_CORRUPT,
   * ERR_SNAPSHOT_CORRUPT, ERR_SNAPSHOT_CODEC, ERR_STATE_MACHINE
   */
  async startReplica(options: ReplicaOptions, factory?: StateMachineFactory): Promise<void> {
    checkReplicaOptions(options);
    const isWitness = options.witness === true;
    if (isWitness && factory !== undefined) {
      throw new DrakkarError(
        'ERR_INVALID_OPTION',
        'startReplica: a witness has no state machine; expected no function',
      );
    }
    if (!isWitness && typeof factory !== 'function') {
      throw new DrakkarError(
        'ERR_INVALID_OPTION',
        'startReplica: the second argument makes the state machine; expected a function',
      );
    }
    this.assertOpen();
    const { shardId, replicaId, snapshotCompression = NO_COMPRESSION } = options;
    const codec = snapshotCompression === NO_COMPRESSION ? undefined : codecNamed(this.codecs, snapshotCompression);
    if (this.engine.replicas.has(shardId) || this.starting.has(shardId)) {
      throw new DrakkarError('ERR_SHARD_EXISTS', `shard ${shardId} runs on this host already`);
    }
    this.handles.delete(shardId); // of a replica that was removed
    try {
      const starting = startReplica(
        this.engine,
        {
          shardId,
          replicaId,
          members: options.members,
          isWitness,
          electionTicks: options.electionRtt ?? DEFAULTS.electionRtt,
          heartbeatTicks: options.heartbeatRtt ?? DEFAULTS.heartbeatRtt,
          preVote: options.preVote ?? true,
          checkQuorum: options.checkQuorum ?? true,
          quiesce: options.quiesce ?? true,
          snapshotEntries: options.snapshotEntries ?? DEFAULTS.snapshotEntries,
          compactionOverhead: options.compactionOverhead ?? DEFAULTS.compactionOverhead,
          maxInMemoryLogBytes: options.maxInMemoryLogBytes ?? DEFAULTS.maxInMemoryLogBytes,
          maxPayloadBytes: options.maxPayloadBytes ?? DEFAULTS.maxPayloadBytes,
          snapshotsDir: this.directory.snapshotsDir,
          codecs: this.codecs,
          packing:
            codec === undefined && options.snapshotBlockBytes === undefined
              ? PLAIN
              : { codec, blockBytes: options.snapshotBlockBytes },
          signal: this.stopping.signal,
        },
        factory,
      );
      this.starting.set(shardId, starting);
      await starting;
    } catch (error) {
      throw diskErrorOf(error, `the data of shard ${shardId}`);
    } finally {
      this.starting.delete(shardId);
    }
    this.events.emit('replicaReady', { shardId, replicaId });
  }

  /** Stops this host's replica; the shard goes on elsewhere, and its data stays. Waiting calls end with `ERR_SHARD_STOPPED`. */
  async stopReplica(shardId: number): Promise<void> {
    const replica = this.replicaOf(shardId);
    await this.engine.removeReplica(
      replica,
      new DrakkarError('ERR_SHARD_STOPPED', `shard ${shardId} was stopped on this host`),
    );
    this.handles.delete(shardId);
  }

  // Writes and reads.

  /** A handle to a shard of this host that saves the look-up; for hot paths. Valid until the replica stops. */
  shard(shardId: number): ShardHandle {
    let handle = this.handles.get(shardId);
    if (handle === undefined) {
      handle = new ShardHandle(this.replicaOf(shardId), this.tickMs, this.timeoutMs);
      this.handles.set(shardId, handle);
    }
    return handle;
  }

  /**
   * Replicates `command`; resolves with the state machine's answer once it is applied here. On a follower it is passed on to the
   * leader. Applied at most once, but after `ERR_TIMEOUT` it is unknown whether it was: see `DrakkarError.outcome`.
   *
   * @throws ERR_SHARD_NOT_FOUND, ERR_NO_LEADER, ERR_NOT_LEADER, ERR_SYSTEM_BUSY, ERR_PAYLOAD_TOO_BIG, ERR_TIMEOUT, ERR_ABORTED,
   * ERR_DROPPED, ERR_DISK_FULL, ERR_SHARD_STOPPED, ERR_SHARD_FAILED
   */
  propose(shardId: number, command: Uint8Array, options: ProposeOptions = NO_OPTIONS): Promise<Result> {
    const handle = this.handles.get(shardId);
    if (handle !== undefined) return handle.propose(command, options);
    return this.attempt(() => this.shard(shardId).propose(command, options));
  }

  /** Replicates several commands in order; resolves with all answers, rejects with the first error. */
  proposeBatch(shardId: number, commands: readonly Uint8Array[], options: CallOptions = NO_OPTIONS): Promise<Result[]> {
    return this.attempt(() => this.shard(shardId).proposeBatch(commands, options));
  }

  /** `propose` without a promise, for load generators and gateways. */
  proposeCallback(shardId: number, command: Uint8Array, callback: ProposeCallback, cookie = 0): void {
    this.shard(shardId).proposeCallback(command, callback, cookie);
  }

  /** Opens a session: its commands are applied at most once, and retried until their deadline. */
  async openSession(shardId: number, options: CallOptions = NO_OPTIONS): Promise<Session> {
    checkCallOptions('openSession', options);
    const handle = this.shard(shardId);
    const session = new Session(shardId, this.env, (...args) => handle.proposeSession(...args), this.timeoutMs);
    await session.register(options);
    return session;
  }

  /** Asks the state machine, linearizably: the answer holds every write that was answered before the call (thesis §6.4). */
  read(shardId: number, query: unknown, options: CallOptions = NO_OPTIONS): Promise<unknown> {
    return this.attempt(() => this.shard(shardId).read(query, options));
  }

  /** Asks the state machine of this host as it is now: fast, and possibly behind. */
  staleRead(shardId: number, query: unknown): unknown {
    return this.shard(shardId).staleRead(query);
  }

  // The log.

  /**
   * Committed entries `[firstIndex, lastIndex]` from this host's log. May give fewer than asked for, but at least one: `nextIndex` says
   * where to go on.
   *
   * @throws ERR_LOG_COMPACTED and ERR_LOG_OUT_OF_RANGE, both with the range that is `available`; ERR_SYSTEM_BUSY, ERR_TIMEOUT,
   * ERR_ABORTED, ERR_SHARD_NOT_FOUND, ERR_SHARD_FAILED, ERR_LOG_CORRUPT, ERR_DISK_FAILED
   */
  async queryLog(shardId: number, options: LogQueryOptions): Promise<LogQueryResult> {
    checkLogQueryOptions(options);
    const replica = this.replicaOf(shardId);
    if (replica.settings.isWitness) throw replica.isWitnessOnly();
    if (replica.status !== 'running') throw replica.unavailable();
    const { firstIndex, lastIndex, maxEntries = LOG_QUERY_ENTRIES_MAX, maxBytes = LOG_QUERY_BYTES } = options;
    const ended = new AbortController();
    const work = replica.onlookers.query(firstIndex, lastIndex, { maxEntries, maxBytes }, ended.signal);
    return this.within(work, options, 'nothing was changed', 'not-applied').finally(() => ended.abort());
  }

  /**
   * A change stream: the committed entries of a shard in order, as long as it is iterated. Every iteration begins anew at `fromIndex`. Ends
   * when the replica is stopped or the host closed; throws ERR_SHARD_FAILED when the replica fails, ERR_LOG_COMPACTED with the
   * range that is `available` when its next entry was given up behind a snapshot, ERR_ABORTED on `signal`, ERR_SYSTEM_BUSY
   * beyond 64 streams of a shard.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND
   */
  watch(shardId: number, options: WatchOptions = {}): AsyncIterable<LogEntry> {
    checkWatchOptions(options);
    const replica = this.replicaOf(shardId);
    if (replica.settings.isWitness) throw replica.isWitnessOnly();
    const { fromIndex = replica.raft.commitIndex + 1, bufferBytes = WATCH_BUFFER_BYTES, signal } = options;
    return replica.onlookers.watchLog(fromIndex, bufferBytes, signal);
  }

  /**
   * Who leads the shard, as this replica knows it: at once what is, then what becomes. Ends as `watch` does.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND
   */
  watchLeader(shardId: number, options: LeaderWatchOptions = {}): AsyncIterable<Leadership> {
    checkLeaderWatchOptions(options);
    return this.replicaOf(shardId).onlookers.watchLeader(options.signal);
  }

  // Membership.

  /**
   * Adds a replica to the shard; call it on any host of the shard. Its own host starts it with `members: 'join'`, before or after. A
   * voter counts at once, also while it catches up: where that is a risk, add it with `role: 'non-voting'` and `autoPromote`.
   * Resolves with the index that identifies the new membership, once the change is applied here.
   *
   * @param address what its host is reached by: `host:port`, or a host id with gossip
   * @throws ERR_REPLICA_REMOVED (the id was used before), ERR_CONFIG_CHANGE_REFUSED, ERR_CONFIG_CHANGE_STALE,
   * ERR_CONFIG_CHANGE_PENDING, and what `propose` throws
   */
  async addReplica(
    shardId: number,
    replicaId: number,
    address: string,
    options: AddReplicaOptions = NO_OPTIONS,
  ): Promise<{ configChangeIndex: number }> {
    checkReplicaId('addReplica', replicaId);
    checkTarget('addReplica', address);
    checkAddOptions(options);
    const { role = 'voter', autoPromote = false, configChangeIndex = 0 } = options;
    const change = { kind: 'add', replicaId, address, role, autoPromote, configChangeIndex } as const;
    return { configChangeIndex: await this.shard(shardId).changeMembership('addReplica', change, options) };
  }

  /**
   * Removes a replica, for ever: its id cannot come back. Call it on any host of the shard, its own included; it stops by itself when it
   * learns of it (`replicaRemoved`), and `removeData` gives its room back. A leader may remove itself and hands over.
   *
   * @throws ERR_REPLICA_REMOVED (it was removed before), ERR_CONFIG_CHANGE_REFUSED (no member, or the only voter), ERR_CONFIG_CHANGE_STALE,
   * ERR_CONFIG_CHANGE_PENDING, and what `propose` throws
   */
  async removeReplica(
    shardId: number,
    replicaId: number,
    options: MembershipOptions = NO_OPTIONS,
  ): Promise<{ configChangeIndex: number }> {
    checkReplicaId('removeReplica', replicaId);
    checkMembershipOptions('removeReplica', options);
    const change = {
      ...NO_ADDRESS,
      kind: 'remove',
      replicaId,
      configChangeIndex: options.configChangeIndex ?? 0,
    } as const;
    return { configChangeIndex: await this.shard(shardId).changeMembership('removeReplica', change, options) };
  }

  /**
   * Makes a non-voting member a voter, once it has caught up with the leader (`shardInfo().progress` tells).
   *
   * @throws ERR_CONFIG_CHANGE_PENDING (not caught up, or another change is under way), ERR_CONFIG_CHANGE_REFUSED,
   * ERR_REPLICA_REMOVED, ERR_CONFIG_CHANGE_STALE, and what `propose` throws
   */
  async promote(
    shardId: number,
    replicaId: number,
    options: MembershipOptions = NO_OPTIONS,
  ): Promise<{ configChangeIndex: number }> {
    checkReplicaId('promote', replicaId);
    checkMembershipOptions('promote', options);
    const change = {
      ...NO_ADDRESS,
      kind: 'promote',
      replicaId,
      configChangeIndex: options.configChangeIndex ?? 0,
    } as const;
    return { configChangeIndex: await this.shard(shardId).changeMembership('promote', change, options) };
  }

  /** Who belongs to the shard, linearizably: no change that was answered before the call is missing. */
  async membership(shardId: number, options: CallOptions = NO_OPTIONS): Promise<MembershipInfo> {
    checkCallOptions('membership', options);
    const replica = this.replicaOf(shardId);
    await this.within(this.shard(shardId).barrier(options.timeoutMs ?? this.timeoutMs), options, 'nothing was changed');
    return describeMembership(replica.membership);
  }

  /**
   * Deletes all that this host holds of a replica that was removed from its shard. Refused for others unless `evenIfMember` is set: a member
   * that forgets what it promised must not come back.
   *
   * @throws ERR_SHARD_NOT_FOUND, ERR_SHARD_MISMATCH (another replica of the shard is here), ERR_NOT_REMOVED, ERR_SHARD_EXISTS (it runs;
   * with `evenIfMember`), ERR_LOG_CORRUPT, ERR_DISK_FAILED
   */
  async removeData(shardId: number, replicaId: number, options: RemoveDataOptions = {}): Promise<void> {
    checkReplicaId('removeData', replicaId);
    checkRemoveDataOptions(options);
    this.assertOpen();
    try {
      const { snapshotsDir } = this.directory;
      await removeData(this.engine, snapshotsDir, shardId, replicaId, options.evenIfMember === true);
    } catch (error) {
      throw diskErrorOf(error, `the data of shard ${shardId}`);
    }
  }

  // Care.

  /**
   * Takes a snapshot of this host's replica now, and compacts the log behind it. With `exportTo` it goes into that directory instead, whole
   * and verified, for a backup or for `importSnapshot` of `drakkar/tools`; the log stays as it is. When nothing was applied since the
   * last snapshot, that one's index is given; its log is compacted further where `compactionOverhead` or `compactToIndex` say so.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND, ERR_SYSTEM_BUSY, ERR_DISK_FULL, ERR_DISK_FAILED, ERR_STATE_MACHINE, ERR_TIMEOUT,
   * ERR_ABORTED
   */
  async requestSnapshot(shardId: number, options: SnapshotOptions = NO_OPTIONS): Promise<{ index: number }> {
    checkSnapshotOptions(options);
    const replica = this.replicaOf(shardId);
    if (replica.settings.isWitness) throw replica.isWitnessOnly();
    const { exportTo, compactionOverhead: overhead, compactToIndex: toIndex } = options;
    if (exportTo !== undefined) {
      const { index } = await this.within(exportSnapshot(replica, exportTo), options, 'the export goes on');
      return { index };
    }
    return {
      index: await this.within(
        this.engine.snapshots.take(replica, { overhead, toIndex }),
        options,
        'the snapshot goes on',
      ),
    };
  }

  /** Hands the shard's leadership to another voter; resolves when it leads. Call it on the leader's host. */
  async transferLeader(shardId: number, targetReplicaId: number, options: CallOptions = NO_OPTIONS): Promise<void> {
    checkCallOptions('transferLeader', options);
    const replica = this.replicaOf(shardId);
    const { raft } = replica;
    if (raft.leaderId === targetReplicaId) return;
    if (raft.leaderId === 0) throw new DrakkarError('ERR_NO_LEADER', `shard ${shardId} has no leader at the moment`);
    const done = new AbortController();
    const ended = raft.isLeader
      ? this.engine.transfers.wait(replica, targetReplicaId)
      : this.untilLeader(replica, targetReplicaId, done.signal);
    ended.catch(() => {});
    raft.transferLeader(targetReplicaId);
    this.engine.markReady(replica);
    await this.within(ended, options, 'the transfer may go on').finally(() => done.abort());
  }

  /** A leader elsewhere is only watched: how the transfer ends there, this host is not told. */
  private untilLeader(replica: Replica, leaderId: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const listener: HostListener<'leaderChanged'> = (event) => {
        if (event.shardId === replica.shardId && event.leaderId === leaderId) resolve();
      };
      this.events.on('leaderChanged', listener);
      signal.addEventListener('abort', () => this.events.off('leaderChanged', listener), { once: true });
    });
  }

  /**
   * Reads the certificates again (`tls`), with `change` in place of what it names. New connections use them from then on, those that are up
   * are replaced without a gap, or ended where that is asked. What does not hold is refused and changes nothing.
   *
   * @throws ERR_TLS_CONFIG, ERR_INVALID_OPTION
   */
  async reloadTls(change: ReloadTlsOptions = {}): Promise<void> {
    checkReloadTlsOptions(change);
    this.assertOpen();
    if (this.security === undefined)
      throw new DrakkarError('ERR_INVALID_OPTION', 'reloadTls: the host was opened without tls');
    await this.security.reload(change);
  }

  /** Resolves when a leader is known and this replica has applied all that was committed when it was asked. */
  async whenReady(shardId: number, options: CallOptions = NO_OPTIONS): Promise<void> {
    checkCallOptions('whenReady', options);
    const replica = this.replicaOf(shardId);
    const deadline = this.env.clock.nowMs() + (options.timeoutMs ?? this.timeoutMs);
    for (;;) {
      if (replica.status !== 'running') throw replica.unavailable();
      const leftMs = deadline - this.env.clock.nowMs();
      if (leftMs <= 0)
        throw new DrakkarError('ERR_TIMEOUT', `shard ${shardId} was not ready in time`, { outcome: 'not-applied' });
      if (options.signal?.aborted === true) throw new DrakkarError('ERR_ABORTED', 'the call was aborted');
      if (replica.raft.leaderId === 0) {
        await this.engine.leaderWaits.wait(replica, this.env.scheduler, Math.min(leftMs, LEADER_LOOK_MS));
        continue;
      }
      try {
        // A linearizable read of nothing: answered only when both hold.
        await this.within(this.shard(shardId).barrier(leftMs), options, 'nothing was changed', 'not-applied');
        return;
      } catch (error) {
        if (!DrakkarError.is(error) || !error.retryable || error.code === 'ERR_ABORTED') throw error;
        await new Promise<void>((resolve) => void this.env.scheduler.after(this.tickMs, resolve));
      }
    }
  }

  shardInfo(shardId: number): ShardInfo {
    return describeShard(this.replicaOf(shardId));
  }

  info(): HostInfo {
    return describeHost(this.engine, this.directory.identity);
  }

  /**
   * Ends an upgrade: from now on this host, and every other one as soon as it hears of it, may write `format`, by default the newest that
   * this release knows. Once is enough, on any host, when all run the new release and are up. There is no way back: a release that does
   * not know the format refuses the directory. Until then hosts of both releases live together, and each can go back (docs/operations.md).
   *
   * @throws ERR_INVALID_OPTION for a format that this host does not read, ERR_FORMAT_NOT_AGREED, ERR_DISK_FULL, ERR_DISK_FAILED
   */
  async enableFormat(format: number = this.directory.identity.newestFormat): Promise<void> {
    this.assertOpen();
    checkFormat(format, this.directory.identity.newestFormat);
    try {
      await this.engine.formats.enable(format);
    } catch (error) {
      throw diskErrorOf(error, `the directory ${this.engine.dir}`);
    }
  }

  /** The hosts that the registry knows, this one included; without gossip, only this one. */
  knownHosts(): readonly KnownHost[] {
    return this.registry.hosts();
  }

  /**
   * What is known of a shard that may live elsewhere: who leads it and who belongs to it. With gossip from all hosts, seconds old and only a hint
   * where to ask; without, only of shards that run here. Undefined when nothing is known.
   */
  knownShard(shardId: number): ShardView | undefined {
    return shardView(this.registry, this.engine, shardId);
  }

  /** The same of all shards that anything is known of. */
  knownShards(): readonly ShardView[] {
    return shardViews(this.registry, this.engine);
  }

  /** Digests of what is applied here, for comparing replicas at equal `appliedIndex`. */
  hash(shardId: number): { appliedIndex: number; hash: number | undefined; sessionHash: number } {
    const { rsm } = this.replicaOf(shardId);
    return { appliedIndex: rsm.appliedIndex, hash: rsm.hash(), sessionHash: rsm.sessionHash() };
  }

  /** All metrics as Prometheus text. */
  metrics(): string {
    return renderMetrics(this.engine, this.events);
  }

  /** Stops all replicas, waits until what they wrote is durable, and gives the directory free. */
  close(): Promise<void> {
    if (this.closing === undefined) {
      this.events.emit('hostClosing', { dir: this.engine.dir });
      this.closing = this.shutDown();
    }
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async shutDown(): Promise<void> {
    this.handles.clear();
    const error = new DrakkarError('ERR_CLOSED', 'the host was closed', { outcome: 'unknown' });
    this.stopping.abort(error);
    await Promise.allSettled(this.starting.values());
    await Promise.all([...this.engine.replicas.values()].map((replica) => this.engine.removeReplica(replica, error)));
    await this.registry.close();
    this.security?.close();
    await this.engine.close();
    await this.engine.log.close();
    await this.directory.release();
  }

  private assertOpen(): void {
    if (this.closing !== undefined) throw new DrakkarError('ERR_CLOSED', 'the host was closed');
    if (this.engine.failure !== undefined) throw this.engine.failure;
  }

  private replicaOf(shardId: number): Replica {
    this.assertOpen();
    const replica = this.engine.replicas.get(shardId);
    if (replica === undefined) {
      const parked = this.engine.parked.get(shardId);
      if (parked !== undefined && isRemoved(parked)) throw removedError(shardId, parked.state.replicaId);
      throw new DrakkarError(
        'ERR_SHARD_NOT_FOUND',
        `shard ${shardId} does not run on this host; start its replica first`,
      );
    }
    return replica;
  }

  private attempt<T>(call: () => Promise<T>): Promise<T> {
    try {
      return call();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** `work` under the caller's deadline and signal; it goes on without them. */
  private within<T>(
    work: Promise<T>,
    options: CallOptions,
    meanwhile: string,
    outcome: Outcome = 'unknown',
  ): Promise<T> {
    const { signal } = options;
    const timeoutMs = options.timeoutMs ?? this.timeoutMs;
    return new Promise((resolve, reject) => {
      const timer = this.env.scheduler.after(timeoutMs, () => {
        reject(new DrakkarError('ERR_TIMEOUT', `not done within ${timeoutMs} ms; ${meanwhile}`, { outcome }));
      });
      const onAbort = (): void =>
        reject(
          new DrakkarError('ERR_ABORTED', `the call was aborted; ${meanwhile}`, { cause: signal?.reason, outcome }),
        );
      if (signal?.aborted === true) onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      work.then(resolve, reject).finally(() => {
        timer.cancel();
        signal?.removeEventListener('abort', onAbort);
      });
    });
  }
}
