/** One host of `idle.ts`, in its own process. */
import { NodeHost } from 'drakkar';
import { writeHeapSnapshot } from 'node:v8';
import { makeStore } from './kv.ts';

export interface IdleOptions {
  readonly replicaId: number;
  readonly members: Record<number, string>;
  readonly dir: string;
  readonly shards: number;
  /** Length of the measurement. */
  readonly seconds: number;
  /** Writes to every shard before it idles. */
  readonly writes: number;
  readonly heapSnapshot: string;
}

export interface IdleSample {
  readonly startMs: number;
  readonly leadersMs: number;
  readonly silentMs: number;
  readonly cpuPercent: number;
  readonly heapBytesPerShard: number;
  readonly externalBytesPerShard: number;
  readonly residentBytesPerShard: number;
  /** What V8 has reserved, used or not. */
  readonly heapTotalBytesPerShard: number;
  /** Of it, what the user's state machines take. */
  readonly storeBytesPerShard: number;
}

const options = JSON.parse(process.argv[2]) as IdleOptions;
const { replicaId, members, dir, shards } = options;
const shardIds = Array.from({ length: shards }, (_, i) => i + 1);
const READY_TIMEOUT_MS = 600_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Memory {
  readonly heap: number;
  readonly heapTotal: number;
  readonly external: number;
  readonly resident: number;
}

async function memory(): Promise<Memory> {
  for (let times = 0; times < 4; times++) {
    globalThis.gc!();
    await pause(50);
  }
  const { heapUsed, heapTotal, external, rss } = process.memoryUsage();
  return { heap: heapUsed, heapTotal, external, resident: rss };
}

async function storeBytes(): Promise<number> {
  const before = await memory();
  const stores = shardIds.map(() => makeStore('array'));
  const after = await memory();
  return stores.length === 0 ? 0 : (after.heap + after.external - before.heap - before.external) / stores.length;
}

const host = await NodeHost.open({ dir, raftAddress: members[replicaId], timeoutMs: READY_TIMEOUT_MS });
const perStore = await storeBytes();
const before = await memory();
let startMs = 0;
let leadersMs = 0;
let silentMs = 0;

async function start(): Promise<void> {
  const from = performance.now();
  await Promise.all(
    shardIds.map((shardId) => host.startReplica({ shardId, replicaId, members }, () => makeStore('array'))),
  );
  startMs = performance.now() - from;
}

async function lead(): Promise<void> {
  const from = performance.now();
  await Promise.all(shardIds.map((shardId) => host.whenReady(shardId, { timeoutMs: READY_TIMEOUT_MS })));
  leadersMs = performance.now() - from;
  const command = new Uint8Array(16);
  for (let left = options.writes; left > 0; left--)
    await Promise.all(shardIds.map((shardId) => host.propose(shardId, command)));
}

async function silence(): Promise<void> {
  const from = performance.now();
  while (!host.info().shards.every(({ quiesced }) => quiesced)) await pause(500);
  silentMs = performance.now() - from;
}

async function measure(): Promise<IdleSample> {
  const after = await memory();
  await pause(2000);
  const { user, system } = process.cpuUsage();
  const from = performance.now();
  await pause(options.seconds * 1000);
  const end = process.cpuUsage();
  const cpuPercent = (end.user + end.system - user - system) / 10 / (performance.now() - from);
  if (options.heapSnapshot !== '') writeHeapSnapshot(`${options.heapSnapshot}/idle-${replicaId}.heapsnapshot`);
  const perShard = (of: keyof Memory): number => Math.round((after[of] - before[of]) / shards);
  return {
    startMs: Math.round(startMs),
    leadersMs: Math.round(leadersMs),
    silentMs: Math.round(silentMs),
    cpuPercent: Number(cpuPercent.toFixed(2)),
    heapBytesPerShard: perShard('heap'),
    externalBytesPerShard: perShard('external'),
    residentBytesPerShard: perShard('resident'),
    heapTotalBytesPerShard: perShard('heapTotal'),
    storeBytesPerShard: Math.round(perStore),
  };
}

async function obey(order: string): Promise<void> {
  if (order === 'close') {
    process.disconnect();
    await host.close();
    process.exit(0);
  }
  if (order === 'measure') process.send!(await measure());
  else {
    await (order === 'start' ? start() : order === 'lead' ? lead() : silence());
    process.send!(order);
  }
}

process.on('message', (order: string) => {
  obey(order).catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.send!('open');
