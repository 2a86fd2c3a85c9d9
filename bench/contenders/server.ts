/** The library as users of etcd would use it: packages/server, three processes, puts over HTTP. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Cluster } from '../../packages/server/scripts/cluster.ts';
import { getJson } from '../../packages/server/scripts/http-client.ts';
import { drive, type Inspection } from '../gateway/drive.ts';
import { freePorts } from '../hosts.ts';
import type { BenchOptions, BenchResult } from '../options.ts';
import type { Contender } from './contender.ts';
import { drakkar } from './drakkar.ts';

const SETTLE_MS = 20_000;

export function server(): Contender {
  return {
    name: 'drakkar-server',
    describe: () => `${drakkar().describe()}, packages/server`,
    prepare: async () => undefined,
    run: runServer,
  };
}

async function runServer(options: BenchOptions): Promise<BenchResult> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-bench-'));
  const [raftPort, httpPort] = await portBases();
  const flags = ['--shards', String(options.shards), '--log-level', 'error'];
  const cluster = new Cluster(dir, flags, { raftPort, httpPort });
  try {
    await cluster.start();
    const urls = cluster.hosts.map(({ url }) => url);
    const [before] = await settled(urls);
    const pids = cluster.hosts.map((host) => host.process!.pid!);
    const targets = urls.map((url) => url.slice('http://'.length));
    return await drive(options, { protocol: 'http1', targets, pids }, () => inspect(urls, before));
  } finally {
    await cluster.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

interface Shard {
  readonly leaderId: number;
  readonly term: number;
  readonly digest: { readonly appliedIndex: number; readonly hash: number };
}

/** Waits until all hosts know all leaders and have applied the same, and gives what each says about its shards. */
async function settled(urls: readonly string[]): Promise<Shard[][]> {
  const end = performance.now() + SETTLE_MS;
  for (;;) {
    const all = await Promise.all(
      urls.map(async (url) => (await getJson<{ shards: Shard[] }>(`${url}/status`)).shards),
    );
    const applied = all.map((shards) => shards.map(({ digest }) => digest.appliedIndex).join());
    const isLed = all.every((shards) => shards.every(({ leaderId }) => leaderId > 0));
    if ((isLed && applied.every((text) => text === applied[0])) || performance.now() > end) return all;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Each put is an entry, and each new term adds one that is none. */
async function inspect(urls: readonly string[], before: readonly Shard[]): Promise<Inspection> {
  const all = await settled(urls);
  const digests = all.map((shards) => shards.map(({ digest }) => `${digest.appliedIndex}:${digest.hash}`).join());
  const sum = (shards: readonly Shard[], of: (shard: Shard) => number): number =>
    shards.reduce((total, shard) => total + of(shard), 0);
  const growth = (of: (shard: Shard) => number): number => sum(all[0], of) - sum(before, of);
  return {
    digestsEqual: digests.every((digest) => digest === digests[0]),
    puts: growth(({ digest }) => digest.appliedIndex),
    others: growth(({ term }) => term),
  };
}

/** Two free runs of ports: the cluster numbers its hosts from a base. */
async function portBases(): Promise<[number, number]> {
  const [port] = await freePorts(1);
  return [port, port + 10];
}
