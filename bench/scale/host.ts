/**
 * One host for the questions of scale, in its own process; obeys orders like the host of a benchmark run. What each order does:
 * `memory` collects garbage and looks; `start` starts all shards and waits until they are led; `idle` does nothing for a while; `fill` writes
 * entries; `image` makes the state as big as asked; `snapshot` takes one; `digests`.
 */
import { createInterface } from 'node:readline';
import { NodeHost } from 'drakkar';
import type { HostSettings } from '../hosts.ts';
import { makeStore } from '../kv.ts';
import { BlobStore } from './blob-store.ts';
import type { ScaleOptions } from './options.ts';

const TIMEOUT_MS = 600_000;
const BATCH = 1000;
/** Batches under way while entries are written. */
const LANES = 8;
const COMMAND_BYTES = 16;

const { replicaId, members, dir, options } = JSON.parse(process.argv[2]) as HostSettings<ScaleOptions>;
const shardIds = Array.from({ length: options.shards }, (_, i) => i + 1);
const makeMachine = (): BlobStore | ReturnType<typeof makeStore> =>
  options.imageMib > 0 ? new BlobStore() : makeStore('array');
const machines = new Map(shardIds.map((shardId) => [shardId, makeMachine()]));

const opening = performance.now();
const host = await NodeHost.open({ dir, raftAddress: members[replicaId], timeoutMs: TIMEOUT_MS });
const openMs = performance.now() - opening;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The pages of a young generation that once was large are kept by V8 for a while, up to three times its bound: no shard needs them. */
function memory(): { rssBytes: number; heapBytes: number; externalBytes: number } {
  globalThis.gc!({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rssBytes: rss, heapBytes: heapUsed, externalBytes: external };
}

/** `startMs`: until all replicas run; `readyMs`: until all are led and have applied what was committed. */
async function start(): Promise<{ openMs: number; startMs: number; readyMs: number }> {
  const begin = performance.now();
  for (const shardId of shardIds) {
    const factory = () => machines.get(shardId)!;
    await host.startReplica({ shardId, replicaId, members, snapshotEntries: 0, compactionOverhead: 0 }, factory);
  }
  const startMs = performance.now() - begin;
  await Promise.all(shardIds.map((shardId) => host.whenReady(shardId, { timeoutMs: TIMEOUT_MS })));
  return { openMs, startMs, readyMs: performance.now() - begin };
}

async function idle(): Promise<{ cpuSeconds: number; seconds: number }> {
  const before = process.cpuUsage();
  const begin = performance.now();
  await pause(options.durationMs);
  const { user, system } = process.cpuUsage(before);
  return { cpuSeconds: (user + system) / 1e6, seconds: (performance.now() - begin) / 1000 };
}

/** Writes `entries` commands over all shards. */
async function fill(): Promise<{ entries: number }> {
  const commands = Array.from({ length: BATCH }, (_, i) => {
    const bytes = new Uint8Array(COMMAND_BYTES);
    new Uint32Array(bytes.buffer).set([i, i]);
    return bytes;
  });
  let left = options.entries;
  const lane = async (n: number): Promise<void> => {
    for (let at = n; left > 0; at += LANES) {
      const count = Math.min(BATCH, left);
      left -= count;
      await host.proposeBatch(shardIds[at % shardIds.length], commands.slice(0, count));
    }
  };
  await Promise.all(Array.from({ length: LANES }, (_, n) => lane(n)));
  return { entries: options.entries };
}

async function image(): Promise<string> {
  for (const shardId of shardIds) await host.propose(shardId, BlobStore.grow(options.imageMib));
  return 'grown';
}

async function snapshot(): Promise<{ snapshotMs: number }> {
  const begin = performance.now();
  for (const shardId of shardIds) await host.requestSnapshot(shardId, { timeoutMs: TIMEOUT_MS });
  return { snapshotMs: performance.now() - begin };
}

const digests = (): unknown =>
  shardIds.map((shardId) => ({ applied: machines.get(shardId)!.applied, hash: host.hash(shardId).hash }));

function fail(error: unknown): void {
  console.error(error);
  process.exit(1);
}

const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
const orders: Record<string, () => unknown> = { memory, start, idle, fill, image, snapshot, digests };
createInterface({ input: process.stdin }).on('line', (order) => {
  if (order === 'close') host.close().then(() => process.stdin.destroy(), fail);
  else Promise.resolve().then(orders[order]).then(say, fail);
});
say('serving');
