/** The questions of scale: idle shards, recovery, snapshot streams, a long run. Each gives plain figures. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts, startHost, type HostProcess, type HostSettings } from '../hosts.ts';
import { DEFAULT_OPTIONS, type BenchResult, type HostSample } from '../options.ts';
import { run } from '../run.ts';
import { median, round } from '../statistics.ts';
import { growth } from './flatness.ts';
import type { ScaleOptions } from './options.ts';

const HOST = fileURLToPath(new URL('host.ts', import.meta.url));
const FLAGS = ['--conditions=drakkar-source', '--max-semi-space-size=64', '--expose-gc'];
const NONE: ScaleOptions = { shards: 1, durationMs: 0, entries: 0, imageMib: 0 };

interface Hosts {
  readonly start: (replicaId: number) => Promise<HostProcess>;
}

/** Gives processes for `count` hosts on directories of their own, and takes all away at the end. */
async function withHosts<T>(count: number, options: ScaleOptions, use: (hosts: Hosts) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-bench-'));
  const ports = await freePorts(count);
  const members = Object.fromEntries(ports.map((port, i) => [i + 1, `127.0.0.1:${port}`]));
  const started: HostProcess[] = [];
  try {
    return await use({
      async start(replicaId) {
        const settings: HostSettings<ScaleOptions> = {
          replicaId,
          members,
          dir: join(dir, `host-${replicaId}`),
          options,
        };
        const host = startHost(process.execPath, [...FLAGS, HOST, JSON.stringify(settings)]);
        started.push(host);
        await host.ask('');
        return host;
      },
    });
  } finally {
    await Promise.all(started.map((host) => host.stop()));
    rmSync(dir, { recursive: true, force: true });
  }
}

const askAll = <T>(hosts: readonly HostProcess[], order: string): Promise<T[]> =>
  Promise.all(hosts.map((host) => host.ask(order))) as Promise<T[]>;

interface Memory {
  readonly rssBytes: number;
  readonly heapBytes: number;
  readonly externalBytes: number;
}
interface Start {
  readonly openMs: number;
  readonly startMs: number;
  readonly readyMs: number;
}

export interface IdleFigures {
  readonly shards: number;
  /** Of one core, for the busiest host. */
  readonly cpuPercent: number;
  /** Resident memory of each, beyond that of a host without shards. */
  readonly bytesPerShard: number;
  readonly heapBytesPerShard: number;
  readonly startMs: number;
  readonly readyMs: number;
}

/** Three hosts with so many shards that nobody uses. */
export function idleShards(shards: number, durationMs: number): Promise<IdleFigures> {
  return withHosts(3, { ...NONE, shards, durationMs }, async ({ start }) => {
    const hosts = await Promise.all([1, 2, 3].map(start));
    const empty = await askAll<Memory>(hosts, 'memory');
    const starts = await askAll<Start>(hosts, 'start');
    await askAll(hosts, 'idle'); // what the start left behind settles first
    const idle = await askAll<{ cpuSeconds: number; seconds: number }>(hosts, 'idle');
    const full = await askAll<Memory>(hosts, 'memory');
    const perShard = (of: keyof Memory): number =>
      Math.round(Math.max(...full.map((memory, i) => memory[of] - empty[i][of])) / shards);
    return {
      shards,
      cpuPercent: round(100 * Math.max(...idle.map(({ cpuSeconds, seconds }) => cpuSeconds / seconds)), 2),
      bytesPerShard: perShard('rssBytes'),
      heapBytesPerShard: perShard('heapBytes'),
      startMs: Math.round(Math.max(...starts.map(({ startMs }) => startMs))),
      readyMs: Math.round(Math.max(...starts.map(({ readyMs }) => readyMs))),
    };
  });
}

export interface RecoveryFigures {
  readonly entries: number;
  readonly shards: number;
  /** The log is scanned. */
  readonly openMs: number;
  /** All is applied again. */
  readonly readyMs: number;
  readonly entriesPerSecond: number;
  readonly digestsEqual: boolean;
}

/** One host whose log holds so many entries is stopped and started again. */
export function recovery(entries: number, shards: number): Promise<RecoveryFigures> {
  return withHosts(1, { ...NONE, shards, entries }, async ({ start }) => {
    const first = await start(1);
    await first.ask('start');
    await first.ask('fill');
    const before = JSON.stringify(await first.ask('digests'));
    await first.stop();
    const second = await start(1);
    const { openMs, readyMs } = (await second.ask('start')) as Start;
    const totalMs = openMs + readyMs;
    return {
      entries,
      shards,
      openMs: Math.round(openMs),
      readyMs: Math.round(readyMs),
      entriesPerSecond: Math.round(entries / (totalMs / 1000)),
      digestsEqual: JSON.stringify(await second.ask('digests')) === before,
    };
  });
}

export interface SnapshotFigures {
  readonly mib: number;
  readonly saveMs: number;
  readonly saveMibPerSecond: number;
  /** From the start of a host that has nothing until it has all: connect, stream, verify, install. */
  readonly streamMs: number;
  readonly streamMibPerSecond: number;
  readonly digestsEqual: boolean;
}

/** A third host joins late, when the log it would need is gone. */
export function snapshotStream(mib: number): Promise<SnapshotFigures> {
  return withHosts(3, { ...NONE, imageMib: mib }, async ({ start }) => {
    const two = await Promise.all([1, 2].map(start));
    await askAll(two, 'start');
    await two[0].ask('image');
    const { snapshotMs } = (await two[0].ask('snapshot')) as { snapshotMs: number };
    await two[1].ask('snapshot');
    const third = await start(3);
    const { readyMs } = (await third.ask('start')) as Start;
    const digests = await askAll([...two, third], 'digests');
    const perSecond = (ms: number): number => round(mib / (ms / 1000), 1);
    return {
      mib,
      saveMs: Math.round(snapshotMs),
      saveMibPerSecond: perSecond(snapshotMs),
      streamMs: Math.round(readyMs),
      streamMibPerSecond: perSecond(readyMs),
      digestsEqual: digests.every((digest) => JSON.stringify(digest) === JSON.stringify(digests[0])),
    };
  });
}

export interface SoakFigures extends BenchResult {
  /** Growth from the first to the last third of the run, as a share: of the least in each, on the worst host. */
  readonly heapGrowth: number;
  readonly rssGrowth: number;
  readonly rssMib: number;
}

const SOAK_SAMPLES = 60;

/** A long run at a rate that leaves the machine some air. */
export async function soak(durationMs: number, rate: number): Promise<SoakFigures> {
  let samples: readonly HostSample[] = [];
  const sampleMs = Math.max(100, Math.floor(durationMs / SOAK_SAMPLES));
  const warmMs = Math.min(10_000, Math.floor(durationMs / 10));
  const options = { ...DEFAULT_OPTIONS, durationMs, warmMs, sampleMs, rate, snapshotEntries: 100_000 };
  const result = await run(options, (all) => {
    samples = all;
  });
  const worst = (of: 'rssBytes' | 'heapBytes'): number =>
    round(Math.max(...samples.map(({ resources = [] }) => growth(resources.map((one) => one[of])))), 3);
  const rss = samples.map(({ resources = [] }) => median(resources.map(({ rssBytes }) => rssBytes)));
  return {
    ...result,
    heapGrowth: worst('heapBytes'),
    rssGrowth: worst('rssBytes'),
    rssMib: Math.round(Math.max(...rss) / 2 ** 20),
  };
}
