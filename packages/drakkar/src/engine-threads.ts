/**
 * The engines of a host in threads (design §5): which shard lives in which, and who to ask. The record of a shard's engine is the engine's log;
 * what is kept here was read from the logs at the opening, and grows with every first start.
 */
import type { NodeHostOptions, ReplicaOptions } from './config.ts';
import { removedError } from './engine/membership.ts';
import type { EnginePaths, HostDirectory } from './engine/directory.ts';
import { rolledBack } from './engine/directory.ts';
import type { Env, ThreadMain } from './env/env.ts';
import { DrakkarError } from './errors.ts';
import type { HostEvents, HostEventMap, HostEventName } from './events.ts';
import { failedShard, mergeInfo, type HostInfo, type ShardInfo } from './info.ts';
import { notHere, twice } from './local-engines.ts';
import { moduleOf, refuseFunction, type StateMachineSource } from './machine-module.ts';
import { mergeMetrics } from './metrics.ts';
import type { Registry } from './registry/registry.ts';
import type { ShardView } from './registry/shard-views.ts';
import { ThreadClient } from './threads/client.ts';
import type { EngineReport } from './threads/protocol.ts';
import type { ReloadTlsOptions } from './transport/security.ts';
import type { RemoteShard } from './threads/remote-shard.ts';

/** The first module of a thread, beside this one, in the sources as in the build. */
const THREAD_MODULE = new URL(
  `engine-thread${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`,
  import.meta.url,
);

/** Options that are the host's own business, or that cannot be cloned. */
const STAYS_HERE: ReadonlySet<string> = new Set<keyof NodeHostOptions>([
  'engines',
  'gossip',
  'registry',
  'logger',
  'env',
  'logDb',
  'transport',
  'snapshotCodecs',
]);

export interface EngineThreadsOptions {
  readonly env: Env;
  readonly host: NodeHostOptions;
  readonly directory: HostDirectory;
  readonly registry: Registry;
  readonly events: HostEvents;
  readonly tickMs: number;
  readonly count: number;
  /** What a thread runs, where threads are simulated. */
  readonly run: ThreadMain;
}

/** An engine as it is known here. */
interface Known {
  readonly client: ThreadClient;
  readonly report: EngineReport;
  readonly damage: DrakkarError | undefined;
  /** Shards that are placed in it. */
  shardCount: number;
  failure: DrakkarError | undefined;
}

export class EngineThreads {
  private readonly options: EngineThreadsOptions;
  private readonly clients: ThreadClient[] = [];
  private readonly engines = new Map<number, Known>();
  /** By shard: its engine, for ever. */
  private readonly placement = new Map<number, number>();
  /** Replicas that were removed from their shards and whose data is here, by shard. */
  private readonly removed = new Map<number, number>();
  /** Of replicas that stopped; a caller may hold a handle to one. */
  private readonly stopped = new Map<number, RemoteShard>();
  /** Tells whoever dials where the engines are, while engine 0 cannot. */
  private standIn: Known | undefined;
  /** Engines that failed before all were open. */
  private readonly early = new Map<number, DrakkarError>();
  private formatTold = 0;
  private isClosing = false;

  static async open(options: EngineThreadsOptions): Promise<EngineThreads> {
    const threads = new EngineThreads(options);
    try {
      await threads.start();
      return threads;
    } catch (error) {
      await threads.close();
      throw error;
    }
  }

  private constructor(options: EngineThreadsOptions) {
    this.options = options;
  }

  private async start(): Promise<void> {
    const { env, count, directory, run } = this.options;
    const threads = env.threads!;
    for (let t = 0; t < count; t++) {
      const name = `engine ${t} of ${this.options.host.dir}`;
      this.clients.push(
        new ThreadClient({
          env,
          thread: threads.start({ name: `drakkar-engine-${t}`, module: THREAD_MODULE, run }),
          name,
          tickMs: this.options.tickMs,
          onEvent: (event, payload) => this.onEvent(this.clients[t], event, payload),
          enableFormat: (format) => this.formatEnabled(format),
          condemn: (newestStart) => this.condemn(this.clients[t], newestStart),
          tellShard: (view) => this.options.registry.tellShard?.(view),
          resolve: (target) => this.options.registry.resolve(target),
          onDied: (error) => this.threadDied(this.clients[t], error),
        }),
      );
    }
    const opened = await Promise.all(
      this.clients.map((client, t) => this.openThread(client, enginesOf(directory, t, count))),
    );
    for (const known of opened.flat().sort((a, b) => a.report.number - b.report.number)) this.add(known);
    this.announceAll();
    for (const [number, error] of this.early) this.engineFailed(number, error);
  }

  private async openThread(client: ThreadClient, engines: readonly EnginePaths[]): Promise<Known[]> {
    const { directory, host } = this.options;
    const hasRegistry = host.gossip !== undefined || host.registry !== undefined;
    const wantsShards = this.options.registry.tellShard !== undefined;
    const options = Object.fromEntries(Object.entries(host).filter(([name]) => !STAYS_HERE.has(name)));
    const { identity, format } = directory;
    const opening = { options, identity, format, engines, hasRegistry, wantsShards };
    const reports = (await client.open(opening)) as EngineReport[];
    return reports.map((report) => ({
      client,
      report,
      damage: report.damage as DrakkarError | undefined,
      shardCount: 0,
      failure: undefined,
    }));
  }

  private add(known: Known): void {
    const { number, shardIds } = known.report;
    this.engines.set(number, known);
    for (const shardId of shardIds) this.place(shardId, number);
    for (const [shardId, replicaId] of known.report.removed) this.removed.set(shardId, replicaId);
  }

  private place(shardId: number, engine: number): void {
    const known = this.placement.get(shardId);
    if (known !== undefined && known !== engine) throw twice(this.options.host.dir, shardId, known, engine);
    this.placement.set(shardId, engine);
    this.engines.get(engine)!.shardCount++;
  }

  /** Engine 0 tells whoever dials where the shards are; when it has failed, the first that has not. */
  private announceAll(): void {
    const shardsIn = new Map<number, number[]>([...this.engines.keys()].map((number) => [number, []]));
    for (const [shardId, number] of this.placement) shardsIn.get(number)!.push(shardId);
    for (const [number, { report }] of this.engines) this.announce(report, shardsIn.get(number)!);
  }

  private announce({ number, address }: EngineReport, shardIds: readonly number[]): void {
    const first = this.engines.get(0)!;
    const teller = isAlive(first) ? first : this.standIn;
    teller?.client.call('announce', [number, address, shardIds]).catch(() => {});
  }

  private standInFor(failed: Known): void {
    if (this.isClosing || (failed !== this.standIn && failed !== this.engines.get(0))) return;
    if (this.standIn !== undefined && isAlive(this.standIn)) return;
    this.standIn = [...this.engines.values()].find(isAlive);
    this.announceAll();
  }

  addressChanged(target: string): void {
    const address = this.options.registry.resolve(target);
    for (const client of this.clients) client.learn(target, address);
  }

  // Shards.

  /** The handle's target; throws when the shard does not run here. */
  shard(shardId: number): RemoteShard {
    const shard = this.engineOf(shardId)?.client.shards.get(shardId);
    if (shard === undefined) throw this.whyNotHere(shardId);
    return shard;
  }

  private whyNotHere(shardId: number): DrakkarError {
    const replicaId = this.removed.get(shardId);
    return replicaId === undefined ? notHere(shardId) : removedError(shardId, replicaId);
  }

  isRunning(shardId: number): boolean {
    return this.engineOf(shardId)?.client.shards.has(shardId) === true;
  }

  private engineOf(shardId: number): Known | undefined {
    return this.engines.get(this.placement.get(shardId) ?? -1);
  }

  async startReplica(options: ReplicaOptions, machine: StateMachineSource | undefined): Promise<void> {
    const { shardId } = options;
    const module = options.witness === true ? undefined : (moduleOf(machine) ?? refuseFunction());
    const recorded = this.placement.get(shardId);
    if (recorded === undefined) this.refuseDamage();
    const number = recorded ?? this.emptiest();
    const engine = this.engines.get(number)!;
    if (engine.failure !== undefined) throw engineFailed(engine.failure);
    // Two first starts at a time must not choose twice, and a start that fails has recorded nothing.
    if (recorded === undefined) this.place(shardId, number);
    try {
      await engine.client.call('startIn', [number, options, module]);
    } catch (error) {
      if (recorded === undefined) {
        this.placement.delete(shardId);
        engine.shardCount--;
      }
      throw error;
    }
    this.stopped.delete(shardId);
    engine.client.addShard(shardId, options.replicaId, options.witness);
    if (recorded === undefined) this.announce(engine.report, [shardId]);
  }

  /** A shard that no log mentions may have been in the damaged one (F2). */
  private refuseDamage(): void {
    for (const { damage } of this.engines.values()) {
      if (damage !== undefined) throw new DrakkarError('ERR_LOG_CORRUPT', damage.message, { cause: damage });
    }
  }

  /** Engines of an earlier start take no new shards. */
  private emptiest(): number {
    let best: Known | undefined;
    for (const engine of this.engines.values()) {
      const isCandidate = engine.report.number < this.options.count && engine.failure === undefined;
      if (isCandidate && (best === undefined || engine.shardCount < best.shardCount)) best = engine;
    }
    if (best === undefined) throw engineFailed(this.failure!);
    return best.report.number;
  }

  async stopReplica(shardId: number): Promise<void> {
    const shard = this.shard(shardId);
    const { client } = this.engineOf(shardId)!;
    if (client.failure === undefined) await client.call('stopReplica', [shardId]);
    if (client.shards.get(shardId) === shard) this.hasStopped(client, shardId);
  }

  /** See `NodeHost.removeData`. */
  async removeData(shardId: number, replicaId: number, evenIfMember: boolean): Promise<void> {
    const engine = this.engineOf(shardId);
    if (engine === undefined)
      throw new DrakkarError('ERR_SHARD_NOT_FOUND', `this host holds nothing of shard ${shardId}`);
    const isForgotten = (await engine.client.call('removeDataIn', [shardId, replicaId, evenIfMember])) as boolean;
    if (isForgotten) {
      this.removed.delete(shardId);
      this.placement.delete(shardId);
      engine.shardCount--;
    } else this.removed.set(shardId, replicaId);
  }

  private hasStopped(client: ThreadClient, shardId: number): void {
    const shard = client.shards.get(shardId);
    if (shard !== undefined) this.stopped.set(shardId, shard);
    client.endShard(shardId, new DrakkarError('ERR_SHARD_STOPPED', `shard ${shardId} was stopped on this host`));
  }

  /** See `NodeHost.enableFormat`. */
  async enableFormat(format: number): Promise<void> {
    const alive = this.clients.filter(({ failure }) => failure === undefined);
    // All of them agree before one begins.
    await Promise.all(alive.map((client) => client.call('checkFormat', [format])));
    await Promise.all(alive.map((client) => client.call('enableFormat', [format])));
  }

  /** One engine writes it from now on; the others learn that they may follow. */
  private async formatEnabled(format: number): Promise<void> {
    const { directory } = this.options;
    await directory.enableFormat(format);
    for (const client of this.clients) client.learnFormat(directory.format);
  }

  /** A method with a promise of the shard's host in its thread. */
  call(shardId: number, method: string, args: readonly unknown[], timeoutMs?: number): Promise<any> {
    try {
      const shard = this.shard(shardId);
      if (shard.ended !== undefined) throw shard.ended;
      return this.engineOf(shardId)!.client.call(method, args, timeoutMs);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** A method without: this thread stands still until the other has answered. */
  ask(shardId: number, method: string, args: readonly unknown[]): any {
    const shard = this.shard(shardId);
    if (shard.ended !== undefined) throw shard.ended;
    return this.engineOf(shardId)!.client.ask(method, args);
  }

  /** Certificates are read by each thread for itself. */
  async reloadTls(change: ReloadTlsOptions): Promise<void> {
    const alive = this.clients.filter(({ failure }) => failure === undefined);
    await Promise.all(alive.map((client) => client.call('reloadTls', [change])));
  }

  // What the host tells about itself.

  shardInfo(shardId: number): ShardInfo {
    const shard = this.shard(shardId);
    const engine = this.engineOf(shardId)!;
    if (engine.client.failure === undefined) return engine.client.ask('shardInfo', [shardId]) as ShardInfo;
    return failedShard(shardId, shard.replicaId, engine.report.number, engine.client.failure);
  }

  info(): HostInfo {
    const parts: HostInfo[] = [];
    const lost: ShardInfo[] = [];
    for (const client of this.clients) {
      if (client.failure === undefined) parts.push(client.ask('info', []) as HostInfo);
      else if (!this.isClosing) for (const shardId of client.shards.keys()) lost.push(this.shardInfo(shardId));
    }
    return mergeInfo(this.options.host.dir, this.options.directory.identity, parts, lost, this.failure);
  }

  metrics(): string {
    const texts = new Map<number, string>();
    for (const client of this.clients) {
      if (client.failure !== undefined) continue;
      for (const [engine, text] of client.ask('engineMetrics', []) as [number, string][]) texts.set(engine, text);
    }
    return mergeMetrics(texts);
  }

  /** See `NodeHost.knownShard`. */
  knownShard(shardId: number): ShardView | undefined {
    const { registry } = this.options;
    if (registry.shard !== undefined) return registry.shard(shardId);
    const client = this.engineOf(shardId)?.client;
    if (client === undefined || client.failure !== undefined) return undefined;
    return client.ask('knownShard', [shardId]) as ShardView | undefined;
  }

  knownShards(): readonly ShardView[] {
    const { registry } = this.options;
    if (registry.shards !== undefined) return registry.shards();
    const alive = this.clients.filter(({ failure }) => failure === undefined);
    return alive.flatMap((client) => client.ask('knownShards', []) as readonly ShardView[]);
  }

  // Failures.

  /** Set when no engine is left. */
  get failure(): DrakkarError | undefined {
    let failure: DrakkarError | undefined;
    for (const engine of this.engines.values()) {
      if (engine.failure === undefined) return undefined;
      failure = engine.failure;
    }
    return failure;
  }

  private onEvent(client: ThreadClient, name: string, payload: unknown): void {
    if (name === 'engineFailed') {
      const { engine, error } = payload as HostEventMap['engineFailed'];
      this.engineFailed(engine, error);
      return;
    }
    if (name === 'formatEnabled') {
      const { format } = payload as HostEventMap['formatEnabled'];
      if (format <= this.formatTold) return; // by another engine
      this.formatTold = format;
    }
    if (name === 'hostClosing') return; // of the part, not of the host
    if (name === 'replicaStopped' && !this.isClosing)
      this.hasStopped(client, (payload as HostEventMap['replicaStopped']).shardId);
    if (name === 'replicaRemoved') this.wasRemoved(payload as HostEventMap['replicaRemoved']);
    this.options.events.emit(name as HostEventName, payload as never);
  }

  /** It has stopped before. */
  private wasRemoved({ shardId, replicaId }: HostEventMap['replicaRemoved']): void {
    this.removed.set(shardId, replicaId);
    this.stopped.get(shardId)?.end(removedError(shardId, replicaId));
    this.stopped.delete(shardId);
  }

  private engineFailed(number: number, error: DrakkarError): void {
    const engine = this.engines.get(number);
    if (engine === undefined) this.early.set(number, error);
    if (engine === undefined || engine.failure !== undefined) return;
    engine.failure = error;
    this.options.events.emit('engineFailed', { engine: number, error });
    if (this.failure !== undefined) this.options.events.emit('hostFailed', { error });
    else this.standInFor(engine);
  }

  private threadDied(client: ThreadClient, error: DrakkarError): void {
    const { env, events } = this.options;
    env.logger.error({ err: error }, `${client.name} died`);
    const shards = [...client.shards.values()];
    for (const shard of shards) {
      shard.end(shardFailed(shard.shardId, error));
      events.emit('replicaFailed', { shardId: shard.shardId, replicaId: shard.replicaId, error });
    }
    for (const [number, known] of this.engines) if (known.client === client) this.engineFailed(number, error);
  }

  /** One engine heard that the directory was rolled back: none of them may go on. */
  private async condemn(teller: ThreadClient, newestStart: number): Promise<void> {
    const { directory, host } = this.options;
    const error = rolledBack(host.dir, newestStart, directory.identity.startCounter);
    const others = this.clients.filter((client) => client !== teller && client.failure === undefined);
    try {
      await directory.condemn(newestStart);
    } finally {
      await Promise.all(others.map((client) => client.call('giveUp', [error.message]).catch(() => {})));
    }
  }

  async close(): Promise<void> {
    this.isClosing = true;
    await Promise.all(this.clients.map((client) => client.close()));
  }
}

const isAlive = ({ failure, client }: Known): boolean => failure === undefined && client.failure === undefined;

/** The engines of thread `t` of `count`. */
export function enginesOf(directory: HostDirectory, t: number, count: number): EnginePaths[] {
  return directory.engines.filter(({ number }) => number % count === t);
}

function shardFailed(shardId: number, cause: DrakkarError): DrakkarError {
  const message = `the replica of shard ${shardId} on this host failed (${cause.code})`;
  return new DrakkarError('ERR_SHARD_FAILED', message, { cause });
}

function engineFailed(cause: DrakkarError): DrakkarError {
  const message = `the shard's engine on this host failed (${cause.code}); start the host again`;
  return new DrakkarError('ERR_ENGINE_FAILED', message, { cause, outcome: 'not-applied' });
}
