/**
 * `NodeHost`: one per process and server. Holds the replicas of many shards over one log, one transport and one engine, and is all
 * that most programs need to know. With several engines each runs in a thread, where another `NodeHost` does what this one is asked for.
 */
import {
  DEFAULTS,
  checkCallOptions,
  checkHostOptions,
  checkLeaderWatchOptions,
  checkLogQueryOptions,
  checkReloadTlsOptions,
  checkReplicaOptions,
  checkThreads,
  checkSnapshotOptions,
  checkWatchOptions,
  type CallOptions,
  type LeaderWatchOptions,
  type LogQueryOptions,
  type ProposeOptions,
  type WatchOptions,
  type NodeHostOptions,
  type ReplicaOptions,
  type SnapshotOptions,
} from './config.ts';
import { openDirectory, type HostDirectory } from './engine/directory.ts';
import type { Leadership } from './engine/leader-watch.ts';
import { LOG_QUERY_BYTES, LOG_QUERY_ENTRIES_MAX, WATCH_BUFFER_BYTES } from './engine/limits.ts';
import type { LogEntry } from './engine/log-entries.ts';
import type { LogQueryResult } from './engine/onlookers.ts';
import type { ProposeCallback } from './engine/pending-ring.ts';
import type { Replica } from './engine/replica.ts';
import { EngineThreads, notHere } from './engine-threads.ts';
import type { Env, ThreadMain } from './env/env.ts';
import { exportSnapshot } from './engine/snapshot-export.ts';
import { Trace } from './engine/trace.ts';
import { createNodeEnv } from './env/node/index.ts';
import { DrakkarError, diskErrorOf, type Outcome } from './errors.ts';
import { HostEvents, type HostEventName, type HostListener } from './events.ts';
import { describeShard, type HostInfo, type ShardInfo } from './info.ts';
import { LocalEngines } from './local-engines.ts';
import { moduleOf, refuseFunction, type StateMachineSource } from './machine-module.ts';
import { createRegistry } from './registry/index.ts';
import type { KnownHost, Registry } from './registry/registry.ts';
import type { Result } from './rsm/state-machine.ts';
import { Session } from './session.ts';
import { ShardHandle, notAcross, type ShardTarget } from './shard-handle.ts';
import { serveThread, type ServedHost, type ThreadOpening } from './threads/server.ts';
import { TransportSecurity, type ReloadTlsOptions } from './transport/security.ts';
import { whenReady } from './when-ready.ts';
import { within } from './within.ts';

const NO_OPTIONS: CallOptions = {};

export class NodeHost {
  private readonly env: Env;
  private readonly directory: HostDirectory;
  private readonly registry: Registry;
  private readonly options: NodeHostOptions;
  private readonly security: TransportSecurity | undefined;
  /** Those of this thread; none when they run in threads of their own. */
  private readonly engines: LocalEngines;
  /** What runs in threads: shards are there, and calls go there. */
  private threads: EngineThreads | undefined;
  /** The hosts inside, where threads are simulated; for `inspect.ts`. */
  private readonly simulated: NodeHost[] = [];
  private readonly events: HostEvents;
  private readonly tickMs: number;
  private readonly timeoutMs: number;
  private readonly handles = new Map<number, ShardHandle>();
  private readonly starting = new Set<number>();
  private closing: Promise<void> | undefined;

  /**
   * Opens the host: takes the directory, reads the log, begins to listen.
   *
   * @throws ERR_INVALID_OPTION, ERR_DIR_LOCKED, ERR_DIR_FOREIGN, ERR_DIR_FORMAT, ERR_DIR_PERMISSIONS, ERR_DIR_CORRUPT,
   * ERR_ADDRESS_IN_USE, ERR_TLS_CONFIG, ERR_DISK_FULL, ERR_DISK_FAILED, ERR_ENGINE_FAILED
   */
  static async open(options: NodeHostOptions): Promise<NodeHost> {
    checkHostOptions(options);
    const { logger } = options;
    const env = options.env ?? createNodeEnv(logger === undefined ? {} : { logger });
    checkThreads(options, env.threads);
    const { deploymentId = DEFAULTS.deploymentId, engines = DEFAULTS.engines, dir, raftAddress, hostId } = options;
    const mayMove = options.gossip !== undefined || options.registry !== undefined;
    let security: TransportSecurity | undefined;
    try {
      if (options.tls !== undefined) security = await TransportSecurity.open(env, options.tls, deploymentId);
      const directory = await openDirectory(env, dir, { deploymentId, raftAddress, hostId, mayMove }, engines);
      try {
        // Where hosts may move, they are known by their ids.
        security?.start([mayMove ? directory.identity.hostId : raftAddress], directory.identity);
        const registry = createRegistry(options, { env, identity: directory.identity });
        const host = new NodeHost(env, options, directory, registry, security);
        await host.openEngines(engines);
        return host;
      } catch (error) {
        await directory.release();
        throw error;
      }
    } catch (error) {
      security?.close();
      throw diskErrorOf(error, `the directory ${options.dir}`);
    }
  }

  private async openEngines(count: number): Promise<void> {
    await this.registry.start((target) => (this.threads ?? this.engines).addressChanged(target));
    try {
      if (count === 1) await this.engines.open();
      else await this.openThreads(count);
    } catch (error) {
      await this.registry.close();
      throw error;
    }
  }

  private async openThreads(count: number): Promise<void> {
    const { env, options, directory, registry, events, tickMs } = this;
    this.security?.close(); // here they were only checked: every thread reads its certificates itself
    const { logDb, transport } = options;
    const own = { ...(logDb === undefined ? {} : { logDb }), ...(transport === undefined ? {} : { transport }) };
    const run: ThreadMain = (side, threadEnv) => {
      serveThread(side, threadEnv, (opening) => NodeHost.openPart(opening, own, this.simulated));
    };
    this.threads = await EngineThreads.open({ env, host: options, directory, registry, events, tickMs, count, run });
  }

  /** For a thread: the part of a host that runs there. */
  private static async openPart(
    { env, directory, registry, mayMove, options, onEvent }: ThreadOpening,
    own: Partial<NodeHostOptions>,
    parts: NodeHost[],
  ): Promise<ServedHost> {
    const all = { ...options, ...own } as NodeHostOptions;
    const { tls, raftAddress } = all;
    const { identity } = directory;
    const security = tls && (await TransportSecurity.open(env, tls, identity.deploymentId));
    const host = new NodeHost(env, all, directory, registry, security, onEvent);
    parts.push(host);
    try {
      security?.start([mayMove ? identity.hostId : raftAddress], identity);
      await host.openEngines(1);
    } catch (error) {
      security?.close();
      throw diskErrorOf(error, `the directory ${host.options.dir}`);
    }
    const methods = host.engines.partMethods();
    const others = host as unknown as typeof methods;
    return {
      replicaOf: (shardId) => host.replicaOf(shardId),
      call: (method, args) => (methods[method] ?? others[method].bind(host))(...args),
    };
  }

  private constructor(
    env: Env,
    options: NodeHostOptions,
    directory: HostDirectory,
    registry: Registry,
    security: TransportSecurity | undefined,
    tap?: ThreadOpening['onEvent'],
  ) {
    this.env = env;
    this.options = options;
    this.directory = directory;
    this.registry = registry;
    this.security = security;
    const trace = new Trace(env.tracing, options.raftAddress);
    this.events = new HostEvents(env, trace, tap);
    this.tickMs = options.rttMs ?? DEFAULTS.rttMs;
    this.timeoutMs = options.timeoutMs ?? DEFAULTS.timeoutMs;
    const { events, tickMs } = this;
    const isPart = tap !== undefined;
    this.engines = new LocalEngines({ env, options, directory, registry, security, events, trace, tickMs, isPart });
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
    return (this.threads ?? this.engines).failure;
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
   * Starts this host's replica of a shard. At the very first start `members` names all initial members, the same on every host; at
   * a restart it may be left out. Resolves when the state machine is restored from its snapshot; the log behind it is
   * applied as the shard goes on (`whenReady`). `machine` is a function that makes the state machine, or the module that exports it;
   * with several engines it is a module, which is loaded in the thread that the shard lives in.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_EXISTS, ERR_SHARD_MISMATCH, ERR_SHARD_NOT_BOOTSTRAPPED, ERR_LOG_CORRUPT,
   * ERR_SNAPSHOT_CORRUPT, ERR_STATE_MACHINE, ERR_ENGINE_FAILED
   */
  async startReplica(options: ReplicaOptions, machine: StateMachineSource): Promise<void> {
    checkReplicaOptions(options);
    const module = moduleOf(machine);
    this.assertOpen();
    const { shardId } = options;
    if (this.engines.find(shardId) !== undefined || this.threads?.isRunning(shardId) || this.starting.has(shardId)) {
      throw new DrakkarError('ERR_SHARD_EXISTS', `shard ${shardId} runs on this host already`);
    }
    this.starting.add(shardId);
    try {
      if (this.threads === undefined) await this.engines.start(this.engines.placeOf(shardId), options, machine);
      else {
        await this.threads.startReplica(options, module ?? refuseFunction());
        this.handles.delete(shardId); // one of an earlier start
      }
    } catch (error) {
      throw diskErrorOf(error, `the data of shard ${shardId}`);
    } finally {
      this.starting.delete(shardId);
    }
  }

  /** Stops this host's replica; the shard goes on elsewhere, and its data stays. Waiting calls end with `ERR_SHARD_STOPPED`. */
  async stopReplica(shardId: number): Promise<void> {
    if (this.threads !== undefined) {
      this.assertOpen();
      await this.threads.stopReplica(shardId);
      this.handles.delete(shardId);
      return;
    }
    const replica = this.replicaOf(shardId);
    await replica.engine.removeReplica(
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
      handle = new ShardHandle(this.targetOf(shardId), this.tickMs, this.timeoutMs);
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

  /**
   * Asks the state machine of this host as it is now: fast, and possibly behind. With several engines the answer comes from another thread
   * and this gives a promise of it; `await` is right for both.
   */
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
    if (this.threads !== undefined) return this.pass('queryLog', shardId, [options], options);
    const replica = this.replicaOf(shardId);
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
   * beyond 64 streams of a shard. Not with several engines: shards live in other threads then, which streams do not cross.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND
   */
  watch(shardId: number, options: WatchOptions = {}): AsyncIterable<LogEntry> {
    checkWatchOptions(options);
    if (this.threads !== undefined) throw notAcross('watch');
    const replica = this.replicaOf(shardId);
    const { fromIndex = replica.raft.commitIndex + 1, bufferBytes = WATCH_BUFFER_BYTES, signal } = options;
    return replica.onlookers.watchLog(fromIndex, bufferBytes, signal);
  }

  /**
   * Who leads the shard, as this replica knows it: at once what is, then what becomes. Ends as `watch` does. With several
   * engines listen to `leaderChanged` instead.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND
   */
  watchLeader(shardId: number, options: LeaderWatchOptions = {}): AsyncIterable<Leadership> {
    checkLeaderWatchOptions(options);
    if (this.threads !== undefined) throw notAcross('watchLeader');
    return this.replicaOf(shardId).onlookers.watchLeader(options.signal);
  }

  // Care.

  /**
   * Takes a snapshot of this host's replica now, and compacts the log behind it. With `exportTo` it goes into that directory instead, whole
   * and verified, for a backup or for `importSnapshot` of `drakkar/tools`; the log stays as it is.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND, ERR_SYSTEM_BUSY, ERR_DISK_FULL, ERR_DISK_FAILED, ERR_STATE_MACHINE, ERR_TIMEOUT,
   * ERR_ABORTED
   */
  async requestSnapshot(shardId: number, options: SnapshotOptions = NO_OPTIONS): Promise<{ index: number }> {
    checkSnapshotOptions(options);
    if (this.threads !== undefined) return this.pass('requestSnapshot', shardId, [options], options);
    const replica = this.replicaOf(shardId);
    const { exportTo } = options;
    if (exportTo !== undefined) {
      const { index } = await this.within(exportSnapshot(replica, exportTo), options, 'the export goes on');
      return { index };
    }
    return { index: await this.within(replica.engine.snapshots.take(replica), options, 'the snapshot goes on') };
  }

  /** Hands the shard's leadership to another voter; resolves when it leads. Call it on the leader's host. */
  async transferLeader(shardId: number, targetReplicaId: number, options: CallOptions = NO_OPTIONS): Promise<void> {
    checkCallOptions('transferLeader', options);
    if (this.threads !== undefined) return this.pass('transferLeader', shardId, [targetReplicaId, options], options);
    const replica = this.replicaOf(shardId);
    const { raft } = replica;
    if (raft.leaderId === targetReplicaId) return;
    if (raft.leaderId === 0) throw new DrakkarError('ERR_NO_LEADER', `shard ${shardId} has no leader at the moment`);
    const done = new AbortController();
    const ended = raft.isLeader
      ? replica.engine.transfers.wait(replica, targetReplicaId)
      : this.untilLeader(replica, targetReplicaId, done.signal);
    ended.catch(() => {});
    raft.transferLeader(targetReplicaId);
    replica.engine.markReady(replica);
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
    await this.threads?.reloadTls(change);
  }

  /** Resolves when a leader is known and this replica has applied all that was committed when it was asked. */
  async whenReady(shardId: number, options: CallOptions = NO_OPTIONS): Promise<void> {
    checkCallOptions('whenReady', options);
    if (this.threads !== undefined) return this.pass('whenReady', shardId, [options], options);
    const replica = this.replicaOf(shardId);
    const { env, tickMs, timeoutMs } = this;
    await whenReady(replica, this.shard(shardId), { env, tickMs, timeoutMs }, options);
  }

  /** With several engines this, `info`, `hash` and `metrics` wait, standing still, until the engines' threads have answered. */
  shardInfo(shardId: number): ShardInfo {
    this.assertOpen();
    if (this.threads !== undefined) return this.threads.shardInfo(shardId);
    return describeShard(this.replicaOf(shardId));
  }

  info(): HostInfo {
    return (this.threads ?? this.engines).info();
  }

  /** The hosts that the registry knows, this one included; without gossip, only this one. */
  knownHosts(): readonly KnownHost[] {
    return this.registry.hosts();
  }

  /** Digests of what is applied here, for comparing replicas at equal `appliedIndex`. */
  hash(shardId: number): { appliedIndex: number; hash: number | undefined; sessionHash: number } {
    if (this.threads !== undefined) {
      this.assertOpen();
      return this.threads.ask(shardId, 'hash', [shardId]);
    }
    const { rsm } = this.replicaOf(shardId);
    return { appliedIndex: rsm.appliedIndex, hash: rsm.hash(), sessionHash: rsm.sessionHash() };
  }

  /** All metrics as Prometheus text. */
  metrics(): string {
    return (this.threads ?? this.engines).metrics();
  }

  /** Stops all replicas, waits until what they wrote is durable, and gives the directory free. */
  close(): Promise<void> {
    if (this.closing === undefined) {
      this.events.emit('hostClosing', { dir: this.options.dir });
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
    await this.engines.close(error);
    await this.threads?.close();
    await this.registry.close();
    this.security?.close();
    await this.directory.release();
  }

  private assertOpen(): void {
    if (this.closing !== undefined) throw new DrakkarError('ERR_CLOSED', 'the host was closed');
    const { failed } = this;
    if (failed !== undefined) throw failed;
  }

  private targetOf(shardId: number): ShardTarget {
    this.assertOpen();
    return this.threads === undefined ? this.replicaOf(shardId) : this.threads.shard(shardId);
  }

  private replicaOf(shardId: number): Replica {
    this.assertOpen();
    const replica = this.engines.find(shardId);
    if (replica === undefined) throw notHere(shardId);
    return replica;
  }

  /** To the thread that the shard lives in. */
  private pass(method: string, shardId: number, args: readonly unknown[], options: CallOptions): Promise<any> {
    this.assertOpen();
    return this.threads!.call(shardId, method, [shardId, ...args], options.timeoutMs ?? this.timeoutMs);
  }

  private attempt<T>(call: () => Promise<T>): Promise<T> {
    try {
      return call();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  private within<T>(work: Promise<T>, options: CallOptions, meanwhile: string, outcome?: Outcome): Promise<T> {
    return within(this.env, work, options, this.timeoutMs, meanwhile, outcome);
  }
}
