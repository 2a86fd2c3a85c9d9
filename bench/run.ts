/** One benchmark run: three hosts in their own processes over TCP, each with its own log on disk. */
import { fork, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchOptions, BenchResult, HostSample } from './options.ts';

const HOST = fileURLToPath(new URL('host.ts', import.meta.url));
const HOST_IDS = [1, 2, 3];
const SETTLE_MS = 20_000;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function run(options: BenchOptions): Promise<BenchResult> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-bench-'));
  if (options.profile !== '') mkdirSync(options.profile, { recursive: true });
  const ports = await freePorts(HOST_IDS.length);
  const members = Object.fromEntries(HOST_IDS.map((id, i) => [id, `127.0.0.1:${ports[i]}`]));
  const hosts = HOST_IDS.map((replicaId) =>
    fork(HOST, [JSON.stringify({ replicaId, members, dir: join(dir, `host-${replicaId}`), options })], {
      execArgv: ['--conditions=drakkar-source', '--max-semi-space-size=64', ...profileFlags(options, replicaId)],
    }),
  );
  try {
    await Promise.all(hosts.map((host) => reply(host)));
    await askAll(hosts, 'place');
    const samples = (await askAll(hosts, 'measure')) as HostSample[];
    const digestsEqual = await digestsSettle(hosts);
    return summarise(samples, digestsEqual);
  } finally {
    await Promise.all(hosts.map(stop));
    rmSync(dir, { recursive: true, force: true });
  }
}

function profileFlags({ profile }: BenchOptions, replicaId: number): string[] {
  return profile === ''
    ? []
    : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=host-${replicaId}.cpuprofile`];
}

/** The host's next message. */
function reply(host: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`a host ended with exit code ${code}`));
    host.once('exit', ended);
    host.once('message', (message) => {
      host.off('exit', ended);
      resolve(message);
    });
  });
}

function askAll(hosts: readonly ChildProcess[], order: string): Promise<unknown[]> {
  return Promise.all(
    hosts.map((host) => {
      const answer = reply(host);
      host.send(order);
      return answer;
    }),
  );
}

/** Compares digests once all replicas have applied the same. */
async function digestsSettle(hosts: readonly ChildProcess[]): Promise<boolean> {
  const end = performance.now() + SETTLE_MS;
  for (;;) {
    const all = (await askAll(hosts, 'digests')) as { appliedIndex: number }[][];
    const indexes = all.map((host) => host.map(({ appliedIndex }) => appliedIndex).join());
    if (indexes.every((text) => text === indexes[0])) {
      const texts = all.map((host) => JSON.stringify(host));
      return texts.every((text) => text === texts[0]);
    }
    if (performance.now() > end) return false;
    await pause(100);
  }
}

function summarise(samples: readonly HostSample[], digestsEqual: boolean): BenchResult {
  const sum = (of: (sample: HostSample) => number): number => samples.reduce((total, sample) => total + of(sample), 0);
  const worst = (at: 0 | 1 | 2): number => round(Math.max(...samples.map((sample) => sample.latenciesMs[at])), 3);
  const { seconds } = samples[0];
  const cpuSeconds = sum((sample) => sample.cpuSeconds);
  return {
    writesPerSecond: Math.round(sum((sample) => sample.writes) / seconds),
    readsPerSecond: Math.round(sum((sample) => sample.reads) / seconds),
    writesPerCpuSecond: Math.round(sum((sample) => sample.writes) / cpuSeconds),
    readsPerCpuSecond: Math.round(sum((sample) => sample.reads) / cpuSeconds),
    p50Ms: worst(0),
    p99Ms: worst(1),
    p999Ms: worst(2),
    cpuSeconds: round(cpuSeconds, 2),
    flushesPerSecond: Math.round(samples[0].flushes / seconds),
    digestsEqual,
  };
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

async function stop(host: ChildProcess): Promise<void> {
  if (host.exitCode !== null || host.signalCode !== null) return;
  const ended = new Promise((resolve) => host.once('exit', resolve));
  if (host.connected) host.send('close');
  await ended;
}

export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
