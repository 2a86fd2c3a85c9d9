/**
 * Writes as fast as they are answered, on hosts in this process whose logs are on real disks and whose network is memory: what disk and
 * engine give together. With one host it is a check of the disk. The comparison with other systems is in the repository's `bench/`.
 */
import type { Env } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import { NodeHost } from '../nodehost.ts';
import type { EntryCursor, StateMachine } from '../rsm/state-machine.ts';
import { MemoryHub } from '../transport/memory.ts';
import { envOf, type ToolOptions } from './tool-env.ts';
import { summarise, type LatencySummary } from './latency.ts';

export interface BenchOptions extends ToolOptions {
  /** An existing directory on the disk to be measured. What is made in it is removed. */
  readonly dir: string;
  /** Default 3. */
  readonly hosts?: number;
  /** Default 48. */
  readonly shards?: number;
  /** Bytes of a command. Default 16. */
  readonly payloadBytes?: number;
  /** Commands under way at any time, over all shards. Default 4800. */
  readonly inflight?: number;
  /** Default 5000. */
  readonly durationMs?: number;
  /** As in `NodeHost.open`. */
  readonly logDb?: Parameters<typeof NodeHost.open>[0]['logDb'];
}

export interface BenchResult {
  readonly hosts: number;
  readonly shards: number;
  readonly payloadBytes: number;
  readonly inflight: number;
  readonly durationMs: number;
  readonly writes: number;
  readonly errors: number;
  readonly writesPerSecond: number;
  /** Flushes of the busiest host's log, and commands in each of them on average. */
  readonly flushesPerSecond: number;
  readonly writesPerFlush: number;
  readonly latency: LatencySummary;
}

const READY_MS = 30_000;
const SAMPLES_MAX = 1_000_000;

class Counter implements StateMachine {
  private count = 0;

  update(): void {}

  updateCursor(cursor: EntryCursor): void {
    while (cursor.next()) cursor.setResult(++this.count);
  }

  lookup(): number {
    return this.count;
  }

  *saveSnapshot(): Iterable<Uint8Array> {}

  async recoverFromSnapshot(): Promise<void> {}
}

/** @throws ERR_DISK_FULL, ERR_DISK_FAILED, ERR_TIMEOUT when the hosts do not get ready within 30 seconds. */
export async function runBench(options: BenchOptions): Promise<BenchResult> {
  const env = envOf(options);
  const { hosts: hostCount = 3, shards = 48, payloadBytes = 16, inflight = 4800, durationMs = 5000 } = options;
  const root = `${options.dir}/drakkar-bench-${env.random.u32().toString(16)}`;
  const hub = new MemoryHub();
  const members = Object.fromEntries(Array.from({ length: hostCount }, (_, i) => [i + 1, `bench-${i + 1}:1`]));
  const hosts: NodeHost[] = [];
  try {
    for (const [id, raftAddress] of Object.entries(members)) {
      const more = options.logDb === undefined ? {} : { logDb: options.logDb };
      const host = await NodeHost.open({
        dir: `${root}/${id}`,
        raftAddress,
        env,
        transport: hub.createTransport,
        ...more,
      });
      hosts.push(host);
      for (let shardId = 1; shardId <= shards; shardId++) {
        const replica = { shardId, replicaId: Number(id), members, snapshotEntries: 0 };
        await host.startReplica(replica, () => new Counter());
      }
    }
    const leaders = await placeLeaders(hosts, shards);
    return await drive(env, hosts, leaders, { hosts: hostCount, shards, payloadBytes, inflight, durationMs });
  } finally {
    for (const host of hosts) await host.close().catch(() => {});
    await env.fs.remove(root);
  }
}

/** By shard: the host that leads it. */
async function placeLeaders(hosts: readonly NodeHost[], shards: number): Promise<NodeHost[]> {
  const leaders: NodeHost[] = [];
  for (let shardId = 1; shardId <= shards; shardId++) {
    await hosts[0].whenReady(shardId, { timeoutMs: READY_MS });
    const { leaderId } = hosts[0].shardInfo(shardId);
    leaders.push(hosts[leaderId - 1] ?? hosts[0]);
  }
  return leaders;
}

type Load = Pick<BenchResult, 'hosts' | 'shards' | 'payloadBytes' | 'inflight' | 'durationMs'>;

function drive(env: Env, hosts: readonly NodeHost[], leaders: readonly NodeHost[], load: Load): Promise<BenchResult> {
  const { clock } = env;
  const command = new Uint8Array(load.payloadBytes);
  const groupsBefore = hosts.map(groupsOf);
  const startMs = clock.nowMs();
  const endMs = startMs + load.durationMs;
  const samples: number[] = [];
  let writes = 0;
  let errors = 0;
  let underway = 0;
  return new Promise((resolve) => {
    const finish = (): void => {
      const tookMs = Math.max(1, clock.nowMs() - startMs);
      const flushes = Math.max(...hosts.map((host, i) => groupsOf(host) - groupsBefore[i]));
      resolve({
        ...load,
        durationMs: tookMs,
        writes,
        errors,
        writesPerSecond: (writes / tookMs) * 1000,
        flushesPerSecond: (flushes / tookMs) * 1000,
        writesPerFlush: flushes === 0 ? 0 : writes / flushes,
        latency: summarise(samples),
      });
    };
    const clients = leaders.map((host, i) => {
      const handle = host.shard(i + 1);
      const send = (): void => {
        underway++;
        handle.proposeCallback(command, answered, clock.nowMs());
      };
      const answered = (error: DrakkarError | null, _result: unknown, sentMs: number): void => {
        underway--;
        const nowMs = clock.nowMs();
        if (error === null) {
          writes++;
          if (samples.length < SAMPLES_MAX) samples.push(nowMs - sentMs);
        } else errors++;
        if (nowMs < endMs) send();
        else if (underway === 0) finish();
      };
      return send;
    });
    for (let i = 0; i < load.inflight; i++) clients[i % clients.length]();
  });
}

const groupsOf = (host: NodeHost): number => host.info().log['groups'] ?? 0;
