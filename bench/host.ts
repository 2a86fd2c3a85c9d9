/**
 * One host of a benchmark run, in its own process. Its parent says when: `place` once all serve, `measure`, `digests`. Everything
 * goes over the library's public API.
 */
import { NodeHost, type ShardHandle } from 'drakkar';
import { sampleAllocations } from './allocations.ts';
import { startClients, type Load } from './clients.ts';
import type { BenchOptions, HostSample } from './options.ts';

const { replicaId, members, dir, options } = JSON.parse(process.argv[2]) as {
  replicaId: number;
  members: Record<number, string>;
  dir: string;
  options: BenchOptions;
};
const READY_TIMEOUT_MS = 60_000;

const host = await NodeHost.open({
  dir,
  raftAddress: members[replicaId],
  timeoutMs: 60_000,
  engines: options.engines ?? 1,
});
const shardIds = Array.from({ length: options.shards }, (_, i) => i + 1);
for (const shardId of shardIds) {
  const machine = { module: new URL('./kv.ts', import.meta.url), args: options.sm };
  await host.startReplica({ shardId, replicaId, members, snapshotEntries: options.snapshotEntries }, machine);
}
await Promise.all(shardIds.map((shardId) => host.whenReady(shardId, { timeoutMs: READY_TIMEOUT_MS })));

const leaderOf = (shardId: number): number => (options.spread ? ((shardId - 1) % 3) + 1 : 1);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Moves the leaders to where the run wants them. */
async function place(): Promise<void> {
  for (const shardId of shardIds) {
    while (host.shardInfo(shardId).leaderId !== leaderOf(shardId)) {
      if (host.shardInfo(shardId).role === 'leader')
        await host.transferLeader(shardId, leaderOf(shardId)).catch(() => {});
      await pause(20);
    }
  }
}

interface Snapshot {
  readonly writes: number;
  readonly reads: number;
  readonly cpuSeconds: number;
  readonly flushes: number;
  readonly timeMs: number;
}

function snapshot(load: Load): Snapshot {
  const { user, system } = process.cpuUsage();
  return {
    writes: load.writes,
    reads: load.reads,
    cpuSeconds: (user + system) / 1e6,
    flushes: host.info().log.groups,
    timeMs: performance.now(),
  };
}

async function measure(): Promise<HostSample> {
  const mine = shardIds.filter((shardId) => leaderOf(shardId) === replicaId);
  const handles: ShardHandle[] = mine.map((shardId) => host.shard(shardId));
  const load = startClients(handles, options, 12345 + replicaId);
  await pause(options.warmMs);
  load.samples = 0;
  const sampling = options.profile === '' ? undefined : await sampleAllocations();
  const before = snapshot(load);
  await pause(options.durationMs);
  const after = snapshot(load);
  await sampling?.stop(`${options.profile}/host-${replicaId}.allocations.tsv`);
  const sorted = load.latencies.slice(0, Math.min(load.samples, load.latencies.length)).sort();
  load.isStopped = true;
  const quantile = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0;
  return {
    writes: after.writes - before.writes,
    reads: after.reads - before.reads,
    seconds: (after.timeMs - before.timeMs) / 1000,
    cpuSeconds: after.cpuSeconds - before.cpuSeconds,
    flushes: after.flushes - before.flushes,
    latenciesMs: [quantile(0.5), quantile(0.99), quantile(0.999)],
  };
}

const digests = (): object[] => shardIds.map((shardId) => host.hash(shardId));

async function obey(order: string): Promise<void> {
  if (order === 'place') {
    await place();
    process.send!('placed');
  } else if (order === 'measure') process.send!(await measure());
  else if (order === 'digests') process.send!(digests());
  else {
    await host.close();
    process.disconnect();
  }
}

process.on('message', (order: string) => {
  obey(order).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.send!('serving');
