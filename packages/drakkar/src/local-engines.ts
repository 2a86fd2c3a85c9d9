/**
 * The engines that run in this thread: usually the only one there is. A thread may run several when the host was once started with more;
 * each keeps its log and its listener, so that every shard stays where it is.
 */
import { DEFAULTS, type NodeHostOptions, type ReplicaOptions } from './config.ts';
import { startReplica } from './engine/bootstrap.ts';
import { isRemoved, removeData, removedError } from './engine/membership.ts';
import type { EnginePaths, HostDirectory } from './engine/directory.ts';
import { Door } from './engine/door.ts';
import { Engine } from './engine/engine.ts';
import { removeLeftovers } from './engine/leftovers.ts';
import type { Replica } from './engine/replica.ts';
import type { Trace } from './engine/trace.ts';
import type { Env } from './env/env.ts';
import { DrakkarError } from './errors.ts';
import type { HostEvents } from './events.ts';
import { describeHost, mergeInfo, type HostInfo } from './info.ts';
import { loadFactory, moduleOf, type ModuleSpec, type StateMachineSource } from './machine-module.ts';
import { mergeMetrics, renderMetrics } from './metrics.ts';
import { NO_COMPRESSION, codecNamed, codecsOf, type Codecs } from './rsm/codec.ts';
import { PLAIN } from './rsm/image.ts';
import type { SnapshotLimits } from './engine/snapshots.ts';
import type { StateMachineFactory } from './rsm/state-machine.ts';
import type { Registry } from './registry/registry.ts';
import type { ShardView } from './registry/shard-views.ts';
import { shardView, shardViews, tellRegistry, type OwnReplicas } from './shard-news.ts';
import type { EngineReport } from './threads/protocol.ts';
import type { TransportSecurity } from './transport/security.ts';
import { createTcpTransport } from './transport/tcp.ts';
import type { Transport } from './transport/transport.ts';
import { openWal } from './wal/open.ts';
import { SlabPool } from './wire/slab.ts';

export interface EngineContext {
  readonly env: Env;
  readonly options: NodeHostOptions;
  readonly directory: HostDirectory;
  readonly registry: Registry;
  readonly security: TransportSecurity | undefined;
  readonly events: HostEvents;
  readonly trace: Trace;
  readonly tickMs: number;
  /** The thread is one of several of its host, which looks after the whole. */
  readonly isPart: boolean;
}

export class LocalEngines implements OwnReplicas {
  readonly all: Engine[] = [];
  private readonly starting = new Set<Promise<void>>();
  private readonly stopping = new AbortController();
  private readonly context: EngineContext;
  private readonly codecs: Codecs;
  /** While engine 0 has failed, here or in its thread, and it is for this thread to stand in for it. */
  private door: Door | undefined;

  constructor(context: EngineContext) {
    this.context = context;
    this.codecs = codecsOf(context.options.snapshotCodecs);
    tellRegistry(context.registry, this, context.events);
  }

  async open(): Promise<void> {
    const { directory, options } = this.context;
    try {
      for (const paths of directory.engines) this.all.push(await openEngine(this, paths));
      this.checkPlacement(options.dir);
    } catch (error) {
      await this.closeAll();
      throw error;
    }
    if (!this.context.isPart && this.all.length > 1) this.announceAll();
  }

  private announceAll(): void {
    for (const { number, address, shardIds } of this.reports()) this.announce(number, address, shardIds);
  }

  private checkPlacement(dir: string): void {
    const known = new Map<number, number>();
    for (const engine of this.all) {
      for (const shardId of engine.parked.keys()) {
        const other = known.get(shardId);
        if (other !== undefined) throw twice(dir, shardId, other, engine.number);
        known.set(shardId, engine.number);
      }
    }
  }

  get condition(): EngineContext {
    return this.context;
  }

  /** Set when none of them can go on. */
  get failure(): DrakkarError | undefined {
    for (const engine of this.all) if (engine.failure === undefined) return undefined;
    return this.all[0]?.failure;
  }

  find(shardId: number): Replica | undefined {
    for (let i = 0; i < this.all.length; i++) {
      const replica = this.all[i].replicas.get(shardId);
      if (replica !== undefined) return replica;
    }
    return undefined;
  }

  *replicas(): IterableIterator<Replica> {
    for (const engine of this.all) yield* engine.replicas.values();
  }

  /** See `NodeHost.knownShard`. */
  knownShard(shardId: number): ShardView | undefined {
    return shardView(this.context.registry, this, shardId);
  }

  knownShards(): readonly ShardView[] {
    return shardViews(this.context.registry, this);
  }

  numbered(number: number): Engine | undefined {
    return this.all.find((engine) => engine.number === number);
  }

  /** Where the shard has always been. At its first start: engine 0, since those of an earlier start take no new shards. */
  placeOf(shardId: number): Engine {
    const recorded = this.all.find((engine) => engine.parked.has(shardId));
    if (recorded !== undefined) return recorded;
    for (const { log } of this.all) {
      // It may have been in the damaged one (F2).
      if (log.damage !== undefined)
        throw new DrakkarError('ERR_LOG_CORRUPT', log.damage.message, { cause: log.damage });
    }
    return this.all[0];
  }

  startReplica(options: ReplicaOptions, machine: StateMachineSource | undefined): Promise<void> {
    return this.startIn(this.placeOf(options.shardId), options, machine);
  }

  /** Starts a replica in `engine`. */
  private async startIn(
    engine: Engine,
    options: ReplicaOptions,
    machine: StateMachineSource | undefined,
  ): Promise<void> {
    const { shardId, replicaId } = options;
    const starting = this.begin(engine, options, machine);
    this.starting.add(starting);
    try {
      await starting;
    } finally {
      this.starting.delete(starting);
    }
    this.placed(engine, shardId);
    this.context.events.emit('replicaReady', { shardId, replicaId });
  }

  private async begin(engine: Engine, options: ReplicaOptions, machine: StateMachineSource | undefined): Promise<void> {
    const { env } = this.context;
    const { shardId, replicaId, witness: isWitness = false } = options;
    const module = isWitness ? undefined : moduleOf(machine);
    const factory = module === undefined ? (machine as StateMachineFactory) : await loadFactory(env, module);
    if (engine.failure !== undefined) throw engine.failure;
    const { snapshotCompression = NO_COMPRESSION, snapshotBlockBytes } = options;
    const codecs = this.codecs;
    const codec = snapshotCompression === NO_COMPRESSION ? undefined : codecNamed(codecs, snapshotCompression);
    await startReplica(
      engine,
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
        maxInMemoryLogBytes: options.maxInMemoryLogBytes ?? DEFAULTS.maxInMemoryLogBytes,
        maxPayloadBytes: options.maxPayloadBytes ?? DEFAULTS.maxPayloadBytes,
        snapshotEntries: options.snapshotEntries ?? DEFAULTS.snapshotEntries,
        compactionOverhead: options.compactionOverhead ?? DEFAULTS.compactionOverhead,
        snapshotsDir: engine.snapshotsDir,
        codecs,
        packing:
          codec === undefined && snapshotBlockBytes === undefined ? PLAIN : { codec, blockBytes: snapshotBlockBytes },
        signal: this.stopping.signal,
      },
      factory,
    );
  }

  async stopReplica(shardId: number): Promise<void> {
    const replica = this.find(shardId);
    if (replica === undefined) throw this.whyNotHere(shardId);
    const error = new DrakkarError('ERR_SHARD_STOPPED', `shard ${shardId} was stopped on this host`);
    await replica.engine.removeReplica(replica, error);
  }

  /** See `NodeHost.removeData`. */
  async removeData(shardId: number, replicaId: number, evenIfMember: boolean): Promise<void> {
    const holds = ({ removals, parked, replicas }: Engine): boolean =>
      removals.has(shardId) || parked.has(shardId) || replicas.has(shardId);
    await removeData(this.all.find(holds) ?? this.all[0], shardId, replicaId, evenIfMember);
  }

  /** Throws `ERR_FORMAT_NOT_AGREED`. */
  checkFormat(format: number): void {
    for (const { formats } of this.all) formats.checkAgreed(format);
  }

  /** See `NodeHost.enableFormat`. */
  async enableFormat(format: number): Promise<void> {
    this.checkFormat(format);
    for (const { formats } of this.all) await formats.enable(format);
  }

  /** Why there is no replica to ask. */
  whyNotHere(shardId: number): DrakkarError {
    for (const { parked } of this.all) {
      const known = parked.get(shardId);
      if (known !== undefined && isRemoved(known)) return removedError(shardId, known.state.replicaId);
    }
    return notHere(shardId);
  }

  /** The replica of `shardId` runs in `engine`. */
  private placed(engine: Engine, shardId: number): void {
    if (!this.context.isPart && this.all.length > 1) this.announce(engine.number, reachableAt(engine), [shardId]);
  }

  /** Engine 0 tells whoever dials, or what stands in for it. */
  announce(number: number, address: string, shardIds: readonly number[]): void {
    const first = this.numbered(0);
    if (first !== undefined && first.failure === undefined) first.transport.announce?.(number, address, shardIds);
    else {
      this.door ??= new Door(this.context.env, () => transportOf(this.context, 0, new SlabPool()));
      this.door.announce(number, address, shardIds);
    }
  }

  addressChanged(target: string): void {
    for (const { transport } of this.all) transport.addressChanged(target);
  }

  reports(): EngineReport[] {
    return this.all.map((engine) => ({
      number: engine.number,
      address: reachableAt(engine),
      shardIds: [...engine.parked.keys(), ...engine.replicas.keys()],
      removed: [...engine.parked.values()]
        .filter(isRemoved)
        .map(({ state }) => [state.shardId, state.replicaId] as const),
      damage: engine.log.damage,
    }));
  }

  info(): HostInfo {
    const { identity } = this.context.directory;
    const { dir } = this.context.options;
    if (this.all.length === 1) return describeHost(this.all[0], identity);
    const parts = this.all.map((engine) => describeHost(engine, identity));
    return mergeInfo(dir, identity, parts, [], this.failure);
  }

  metrics(): string {
    return this.all.length === 1
      ? renderMetrics(this.all[0], this.context.events)
      : mergeMetrics(new Map(this.metricsByEngine()));
  }

  metricsByEngine(): [number, string][] {
    return this.all.map((engine) => [engine.number, renderMetrics(engine, this.context.events)]);
  }

  /** What the host whose part this is asks for, by name. */
  partMethods(): Record<string, (...args: any[]) => unknown> {
    return {
      startIn: (number: number, options: ReplicaOptions, module: ModuleSpec | undefined) =>
        this.startIn(this.numbered(number)!, options, module),
      engineReports: () => this.reports(),
      engineMetrics: () => this.metricsByEngine(),
      announce: (number: number, address: string, shardIds: number[]) => this.announce(number, address, shardIds),
      checkFormat: (format: number) => this.checkFormat(format),
      enableFormat: (format: number) => this.enableFormat(format),
      /** Tells whether nothing of the shard is left. */
      removeDataIn: async (shardId: number, replicaId: number, evenIfMember: boolean) => {
        await this.removeData(shardId, replicaId, evenIfMember);
        return this.all.every(({ parked }) => !parked.has(shardId));
      },
      giveUp: (message: string) => this.giveUp(new DrakkarError('ERR_DIR_CORRUPT', message)),
    };
  }

  // Ends.

  /** Peers know that the directory was rolled back: none of its engines may go on. */
  async condemn(newestStart: number, error: DrakkarError): Promise<void> {
    try {
      await this.context.directory.condemn(newestStart);
    } finally {
      this.giveUp(error);
    }
  }

  giveUp(error: DrakkarError): void {
    for (const engine of this.all) engine.failed(error);
  }

  engineFailed(number: number, error: DrakkarError): void {
    const { events, isPart } = this.context;
    if (isPart || this.all.length > 1) events.emit('engineFailed', { engine: number, error });
    if (this.failure !== undefined) {
      void this.door?.close();
      if (!isPart) events.emit('hostFailed', { error });
    } else if (!isPart && number === 0) this.announceAll();
  }

  /** Waits until what the replicas wrote is durable. */
  async close(error: DrakkarError): Promise<void> {
    this.stopping.abort(error);
    await Promise.allSettled(this.starting);
    await Promise.all(
      this.all.flatMap((engine) =>
        [...engine.replicas.values()].map((replica) => engine.removeReplica(replica, error)),
      ),
    );
    await this.closeAll();
  }

  private async closeAll(): Promise<void> {
    await this.door?.close();
    for (const engine of this.all) {
      await engine.close();
      await engine.log.close();
    }
  }
}

/** Opens the log, begins to listen. */
async function openEngine(engines: LocalEngines, paths: EnginePaths): Promise<Engine> {
  const { env, options, directory, events, trace, tickMs } = engines.condition;
  const { number } = paths;
  const pool = new SlabPool(env.slabBytes);
  const formats = { newest: directory.identity.newestFormat, enabled: directory.format };
  const log = await (options.logDb ?? openWal)({ env, dir: paths.walDir, pool, formats });
  try {
    await removeLeftovers(env.fs, paths.snapshotsDir, log);
    const transport = transportOf(engines.condition, number, pool);
    const engine = new Engine({
      env,
      number,
      dir: options.dir,
      snapshotsDir: paths.snapshotsDir,
      log,
      transport,
      pool,
      events,
      tickMs,
      maxInboundBytes: options.maxReceiveQueueBytes ?? DEFAULTS.maxReceiveQueueBytes,
      snapshotLimits: snapshotLimitsOf(options, directory.engines.length),
      trace,
      identity: directory.identity,
      formats,
      directory,
      condemn: (newestStart, error) => engines.condemn(newestStart, error),
      onFailed: (error) => {
        void transport.close();
        engines.engineFailed(number, error);
      },
    });
    await engine.start();
    return engine;
  } catch (error) {
    await log.close();
    throw error;
  }
}

/** What listens for engine `number`. */
function transportOf(context: EngineContext, number: number, pool: SlabPool): Transport {
  const { env, options, directory, registry, security } = context;
  return (options.transport ?? createTcpTransport)({
    env,
    identity: directory.identity,
    listenAddress: listenAddressOf(options, number),
    pool,
    engine: number,
    resolve: (target) => registry.resolve(target),
    maxSendQueueBytes: options.maxSendQueueBytes ?? DEFAULTS.maxSendQueueBytes,
    security,
  });
}

/** Each engine has its share of what the host may take. */
function snapshotLimitsOf(options: NodeHostOptions, engines: number): SnapshotLimits {
  const { maxSnapshotSends = DEFAULTS.maxSnapshotSends, maxSnapshotReceives = DEFAULTS.maxSnapshotReceives } = options;
  return {
    maxSendBytesPerSecond: (options.maxSnapshotSendBytesPerSecond ?? 0) / engines,
    maxReceiveBytesPerSecond: (options.maxSnapshotReceiveBytesPerSecond ?? 0) / engines,
    maxSends: Math.max(1, Math.floor(maxSnapshotSends / engines)),
    maxReceives: Math.max(1, Math.floor(maxSnapshotReceives / engines)),
  };
}

/** Engine 0 listens where the host does; the others at ports that it names to whoever dials. */
function listenAddressOf(options: NodeHostOptions, number: number): string {
  const address = options.listenAddress ?? options.raftAddress;
  return number === 0 ? address : withPort(address, options.enginePorts?.[number - 1] ?? 0);
}

/** Where the other hosts reach `engine`. */
function reachableAt(engine: Engine): string {
  const { raftAddress } = engine.identity;
  if (engine.number === 0) return raftAddress;
  const { address } = engine.transport;
  return withPort(raftAddress, Number(address.slice(address.lastIndexOf(':') + 1)));
}

function withPort(address: string, port: number): string {
  return `${address.slice(0, address.lastIndexOf(':'))}:${port}`;
}

export function notHere(shardId: number): DrakkarError {
  return new DrakkarError('ERR_SHARD_NOT_FOUND', `shard ${shardId} does not run on this host; start its replica first`);
}

/** Two logs know the same shard: which of them it promised with cannot be told. */
export function twice(dir: string, shardId: number, one: number, other: number): DrakkarError {
  return new DrakkarError(
    'ERR_DIR_CORRUPT',
    `the logs of engines ${one} and ${other} in ${dir} both hold shard ${shardId}; restore the directory as it was`,
  );
}
