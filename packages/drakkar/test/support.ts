/** Hosts in memory for tests: machines, hosts on them, and a state machine whose whole history can be compared. */
import assert from 'node:assert/strict';
import {
  NodeHost,
  type Entry,
  type NodeHostOptions,
  type ReplicaOptions,
  type StateMachine,
  type StateMachineSource,
} from 'drakkar';
import { MemoryMachines, type MemoryMachine } from 'drakkar/testing';
import type { Engine } from '../src/engine/engine.ts';
import type { Replica } from '../src/engine/replica.ts';
import { enginesOf } from '../src/inspect.ts';
import { openWal } from '../src/wal/open.ts';

export const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const untext = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Remembers every command in order; answers a command with its number in the sequence. */
export class Journal implements StateMachine<string, unknown> {
  lines: string[] = [];

  update(entries: readonly Entry[]): void {
    for (const entry of entries) {
      const line = untext(entry.command);
      if (line === 'throw') throw new Error('a state machine that throws');
      entry.result = this.lines.push(line);
    }
  }

  lookup(query: string): unknown {
    if (query === 'throw') throw new Error('a look-up that throws');
    return query === 'all' ? [...this.lines] : this.lines.length;
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    yield text(JSON.stringify(this.lines));
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of image) chunks.push(chunk);
    this.lines = JSON.parse(untext(Buffer.concat(chunks))) as string[];
  }

  hash(): number {
    let hash = 0;
    for (const line of this.lines)
      for (let i = 0; i < line.length; i++) hash = (Math.imul(hash, 31) + line.charCodeAt(i)) | 0;
    return hash;
  }
}

/** Small segments, so that logs roll and memory stays small. */
export const SEGMENT_BYTES = 256 * 1024;

export interface ClusterOptions {
  readonly hosts?: number;
  readonly seed?: number;
  readonly segmentBytes?: number;
  readonly replica?: Partial<ReplicaOptions>;
  /** Engines of each host, by its id; all hosts have one where it is absent. */
  readonly engines?: (id: number) => number;
}

const BALLAST = 1_000_000;

/** The journal as a module that every machine has. */
export const JOURNAL_MODULE = 'test:journal';

/** The replica itself, wherever on the host it runs. */
export function replicaOf(host: NodeHost, shardId: number): Replica {
  for (const engine of enginesOf(host)) {
    const replica = engine.replicas.get(shardId);
    if (replica !== undefined) return replica;
  }
  throw new Error(`no replica of shard ${shardId}`);
}

/** The engine of a host that has one. */
export function engineOf(host: NodeHost): Engine {
  const [engine] = enginesOf(host);
  return engine;
}

/** `hosts` machines named host1.., each with one NodeHost; shards are placed where a test wants them. */
export class TestCluster {
  /** Engines of the hosts of clusters that do not say; a suite may run with several. */
  static defaultEngines: number | undefined;
  /** Its first shards are of no interest: what a test starts lives in another engine than 0. */
  static hasBallast = false;
  readonly machines: MemoryMachines;
  readonly machineOf = new Map<number, MemoryMachine>();
  readonly hosts = new Map<number, NodeHost>();
  private readonly options: ClusterOptions;
  private readonly engines: ((id: number) => number) | undefined;

  constructor(options: ClusterOptions = {}) {
    this.options = options;
    const count = TestCluster.defaultEngines;
    this.engines = options.engines ?? (count === undefined ? undefined : () => count);
    this.machines = new MemoryMachines(options.seed ?? 1);
    for (let id = 1; id <= (options.hosts ?? 3); id++) this.machineOf.set(id, this.machines.add(`host${id}`));
    const exports = { default: () => this.journal() };
    for (const machine of this.machineOf.values()) machine.modules.set(JOURNAL_MODULE, exports);
  }

  get world(): MemoryMachines['world'] {
    return this.machines.world;
  }

  addressOf(id: number): string {
    return `host${id}:7000`;
  }

  members(...ids: number[]): Record<number, string> {
    return Object.fromEntries(ids.map((id) => [id, this.addressOf(id)]));
  }

  settle<T>(promise: Promise<T>, limitMs?: number): Promise<T> {
    return this.world.settle(promise, limitMs);
  }

  async open(id: number, more: Partial<NodeHostOptions> = {}): Promise<NodeHost> {
    const env = this.machineOf.get(id)!.boot();
    const host = await this.settle(
      NodeHost.open({
        dir: 'data',
        raftAddress: this.addressOf(id),
        env,
        ...(this.engines === undefined ? {} : { engines: this.engines(id) }),
        logDb: (context) => openWal({ ...context, segmentBytes: this.options.segmentBytes ?? SEGMENT_BYTES }),
        ...more,
      }),
    );
    this.hosts.set(id, host);
    if (TestCluster.hasBallast) {
      const ballast = { shardId: BALLAST, replicaId: id, members: this.members(id) };
      await this.settle(host.startReplica(ballast, { module: JOURNAL_MODULE }));
    }
    return host;
  }

  /** Starts the shard's replica on host `id`; replica ids are host ids. */
  async startReplica(
    id: number,
    shardId: number,
    memberIds?: readonly number[] | 'join',
    more: Partial<ReplicaOptions> = {},
  ): Promise<void> {
    const named = memberIds === 'join' ? memberIds : this.members(...(memberIds ?? []));
    const members = memberIds === undefined ? {} : { members: named };
    const options = { shardId, replicaId: id, ...members, ...this.options.replica, ...more };
    await this.settle(this.hosts.get(id)!.startReplica(options, this.machine));
  }

  async startWitness(id: number, shardId: number): Promise<void> {
    const options = { shardId, replicaId: id, ...this.options.replica, witness: true, members: 'join' } as const;
    await this.settle(this.hosts.get(id)!.startReplica(options));
  }

  /** What makes a journal, on hosts with one engine as with several. */
  get machine(): StateMachineSource {
    return this.engines === undefined ? () => this.journal() : { module: JOURNAL_MODULE };
  }

  journal(): Journal {
    return new Journal();
  }

  /** All hosts with one shard that lives on all of them, ready. */
  async startAll(shardIds: readonly number[] = [1]): Promise<void> {
    const ids = [...this.machineOf.keys()];
    for (const id of ids) await this.open(id);
    for (const shardId of shardIds) {
      for (const id of ids) await this.startReplica(id, shardId, ids);
    }
    for (const shardId of shardIds) await this.ready(shardId, ids);
  }

  async ready(shardId: number, ids: readonly number[] = [...this.hosts.keys()]): Promise<void> {
    for (const id of ids) await this.settle(this.hosts.get(id)!.whenReady(shardId, { timeoutMs: 30_000 }));
  }

  /** Whether the host runs a replica of the shard. Asks the host itself last: from thread to thread that takes long. */
  runs(id: number, shardId: number): boolean {
    const host = this.hosts.get(id)!;
    for (const { replicas } of enginesOf(host)) if (replicas.has(shardId)) return true;
    return host.info().shards.some((shard) => shard.shardId === shardId);
  }

  /** The host whose replica leads the shard. */
  leaderOf(shardId: number): number {
    for (const [id, host] of this.hosts) {
      for (const { replicas } of enginesOf(host)) {
        const replica = replicas.get(shardId);
        if (replica?.isRunning === true && replica.raft.isLeader) return id;
      }
    }
    return 0;
  }

  followerOf(shardId: number): number {
    const leader = this.leaderOf(shardId);
    return [...this.hosts.keys()].find((id) => id !== leader && this.runs(id, shardId))!;
  }

  propose(id: number, shardId: number, line: string, timeoutMs = 5000): Promise<unknown> {
    return this.settle(this.hosts.get(id)!.propose(shardId, text(line), { timeoutMs }));
  }

  lines(id: number, shardId: number): string[] {
    return replicaOf(this.hosts.get(id)!, shardId).staleRead('all') as string[];
  }

  /** Waits until the replicas have applied the same, then compares their digests. */
  async assertEqual(shardId: number, ids: readonly number[] = [...this.hosts.keys()]): Promise<void> {
    const hashes = (): { appliedIndex: number; hash: number | undefined }[] =>
      ids.map((id) => this.hosts.get(id)!.hash(shardId));
    await this.world.until(
      () => hashes().every(({ appliedIndex }) => appliedIndex === hashes()[0].appliedIndex),
      30_000,
    );
    for (const hash of hashes()) assert.deepEqual(hash, hashes()[0]);
  }

  kill(id: number): void {
    this.machineOf.get(id)!.kill();
    this.hosts.delete(id);
  }

  losePower(id: number, keep?: () => boolean): void {
    this.machineOf.get(id)!.losePower(keep);
    this.hosts.delete(id);
  }

  async close(): Promise<void> {
    for (const host of this.hosts.values()) await this.settle(host.close());
    this.hosts.clear();
  }
}
