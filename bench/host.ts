/**
 * One host of a benchmark run, in its own process. Its parent gives orders as lines on standard input (`place` once all serve, `measure`,
 * `digests`, `close`) and reads one JSON value for each on standard output. Everything goes over the library's public API.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { NodeHost } from 'drakkar';
import { sampleAllocations } from './allocations.ts';
import { startClients } from './clients.ts';
import { APPLIED } from './kv.ts';
import { quantilesMs, type Load } from './load.ts';
import { startOpenLoop } from './open-loop.ts';
import type { HostSettings } from './hosts.ts';
import type { BenchOptions, HostSample, Resources, ShardDigest } from './options.ts';

const { replicaId, members, dir, options, tls } = JSON.parse(process.argv[2]) as HostSettings<BenchOptions>;
const READY_TIMEOUT_MS = 60_000;
const DELAY_RESOLUTION_MS = 10;

const host = await NodeHost.open({
  dir,
  raftAddress: members[replicaId],
  timeoutMs: 60_000,
  engines: options.engines,
  ...(tls === undefined ? {} : { tls }),
});
let leaderChanges = 0;
host.on('leaderChanged', () => leaderChanges++);
const shardIds = Array.from({ length: options.shards }, (_, i) => i + 1);
for (const shardId of shardIds) {
  const { snapshotEntries, sm } = options;
  const store = { module: new URL('./kv.ts', import.meta.url), args: sm };
  await host.startReplica({ shardId, replicaId, members, snapshotEntries }, store);
}
await Promise.all(shardIds.map((shardId) => host.whenReady(shardId, { timeoutMs: READY_TIMEOUT_MS })));

const leaderOf = (shardId: number): number => (options.spread ? ((shardId - 1) % 3) + 1 : 1);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Moves the leaders to where the run wants them. */
async function place(): Promise<string> {
  for (const shardId of shardIds) {
    while (host.shardInfo(shardId).leaderId !== leaderOf(shardId)) {
      if (host.shardInfo(shardId).role === 'leader')
        await host.transferLeader(shardId, leaderOf(shardId)).catch(() => {});
      await pause(20);
    }
  }
  return 'placed';
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
  const handles = mine.map((shardId) => host.shard(shardId));
  const start = options.rate > 0 ? startOpenLoop : startClients;
  const load = await start(host, handles, options, 12345 + replicaId);
  load.drained.catch(fail);
  await pause(options.warmMs);
  load.samples = 0;
  const sampling = options.profile === '' ? undefined : await sampleAllocations();
  const delay = monitorEventLoopDelay({ resolution: DELAY_RESOLUTION_MS });
  delay.enable();
  const changesBefore = leaderChanges;
  const before = snapshot(load);
  const resources = await watched(options.durationMs);
  const after = snapshot(load);
  delay.disable();
  await sampling?.stop(`${options.profile}/host-${replicaId}.allocations.tsv`);
  const latenciesMs = quantilesMs(load, [0.5, 0.99, 0.999]);
  load.isStopped = true;
  await load.drained;
  return {
    writes: after.writes - before.writes,
    reads: after.reads - before.reads,
    seconds: (after.timeMs - before.timeMs) / 1000,
    cpuSeconds: after.cpuSeconds - before.cpuSeconds,
    flushes: after.flushes - before.flushes,
    latenciesMs,
    acknowledged: load.writes,
    unknown: 0, // a client whose write fails ends the run
    // The histogram holds whole intervals, the timer's own included.
    loopDelayP99Ms: Math.max(0, delay.percentile(99) / 1e6 - DELAY_RESOLUTION_MS),
    leaderChanges: leaderChanges - changesBefore,
    resources,
  };
}

/** Waits, and looks at memory now and then when that was asked for. */
async function watched(ms: number): Promise<Resources[]> {
  const resources: Resources[] = [];
  if (options.sampleMs === 0) await pause(ms);
  for (let left = ms; options.sampleMs > 0 && left > 0; left -= options.sampleMs) {
    await pause(Math.min(left, options.sampleMs));
    const { rss, heapUsed } = process.memoryUsage();
    resources.push({ rssBytes: rss, heapBytes: heapUsed });
  }
  return resources;
}

function digests(): Promise<ShardDigest[]> {
  return Promise.all(
    shardIds.map(async (shardId) => {
      const applied = (await host.staleRead(shardId, APPLIED)) as number;
      const { hash, sessionHash } = host.hash(shardId);
      return { shardId, applied, hash: `${hash}-${sessionHash}` };
    }),
  );
}

function fail(error: unknown): void {
  console.error(error);
  process.exit(1);
}

const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`);

const orders: Record<string, () => unknown> = { place, measure, digests };
createInterface({ input: process.stdin }).on('line', (order) => {
  if (order === 'close') {
    host.close().then(() => process.stdin.destroy(), fail);
  } else Promise.resolve(orders[order]()).then(say, fail);
});
say('serving');
