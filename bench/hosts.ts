/** Three hosts of one contender, each a process of its own that obeys orders: `place`, `measure`, `digests`, `close`. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { makeCertificates, type CertificateFiles } from './certificates.ts';
import { foreignCpuSince, readMachine } from './machine.ts';
import type { BenchOptions, BenchResult, HostSample, ShardDigest } from './options.ts';
import { addsUp, summarise } from './summary.ts';

export interface HostSettings<Options> {
  readonly replicaId: number;
  readonly members: Readonly<Record<number, string>>;
  readonly dir: string;
  readonly options: Options;
  /** Present when the hosts speak TLS. */
  readonly tls?: CertificateFiles;
}

export interface Program {
  readonly command: string;
  /** The settings of a host are put behind them, as JSON. */
  readonly args: (replicaId: number) => readonly string[];
  /** Working directory, where a program looks for settings in it. */
  readonly cwd?: string;
}

export interface HostProcess {
  readonly pid: number;
  /** Sends an order and gives the answer. */
  ask(order: string): Promise<unknown>;
  /** Ends the process in order, or hard when it does not obey. */
  stop(): Promise<void>;
}

export const HOST_IDS: readonly number[] = [1, 2, 3];
const SETTLE_MS = 20_000;
const STOP_MS = 20_000;
/** Of what a host printed to standard error, kept for when it fails. */
const COMPLAINTS_MAX = 16 * 1024;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Starts a process that answers every line on its standard input by one JSON line; the first comes by itself. */
export function startHost(command: string, args: readonly string[], cwd?: string): HostProcess {
  const child = spawn(command, args, { stdio: 'pipe', cwd });
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-COMPLAINTS_MAX);
  });
  const waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  let ended: Error | undefined;
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.resolve(JSON.parse(line)));
  child.stdin.on('error', () => {}); // it ended; its exit says so
  const end = (error: Error): void => {
    ended ??= error;
    for (const { reject } of waiting.splice(0)) reject(ended);
  };
  child.on('error', end);
  const exited = new Promise<void>((resolve) => {
    child.on('exit', (code, signal) => {
      end(new Error(`a host ended with ${signal ?? `exit code ${code}`}\n${complaints}`));
      resolve();
    });
    child.on('error', () => resolve());
  });
  return {
    pid: child.pid ?? 0,
    ask: (order) =>
      new Promise((resolve, reject) => {
        if (ended !== undefined) return reject(ended);
        waiting.push({ resolve, reject });
        if (order !== '') child.stdin.write(`${order}\n`);
      }),
    async stop() {
      child.stdin.end('close\n');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** One run: start, place the leaders, measure, compare digests, stop. */
export async function runHosts<Options extends BenchOptions>(
  program: Program,
  options: Options,
  onSamples: (samples: readonly HostSample[]) => void = () => {},
): Promise<BenchResult> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-bench-'));
  const ports = await freePorts(HOST_IDS.length);
  const members = Object.fromEntries(HOST_IDS.map((id, i) => [id, `127.0.0.1:${ports[i]}`]));
  const tls = options.tls ? { tls: await makeCertificates(join(dir, 'certificates')) } : {};
  const hosts = HOST_IDS.map((replicaId) => {
    const settings: HostSettings<Options> = {
      replicaId,
      members,
      dir: join(dir, `host-${replicaId}`),
      options,
      ...tls,
    };
    return startHost(program.command, [...program.args(replicaId), JSON.stringify(settings)], program.cwd);
  });
  const askAll = (order: string): Promise<unknown[]> => Promise.all(hosts.map((host) => host.ask(order)));
  try {
    await askAll('');
    await askAll('place');
    const measured = askAll('measure') as Promise<HostSample[]>;
    measured.catch(() => {});
    // The other programs' share is looked at inside of the measurement.
    await pause(options.warmMs);
    const before = readMachine(hosts.map(({ pid }) => pid));
    await Promise.race([pause(options.durationMs), measured]);
    const foreignCpu = foreignCpuSince(before);
    const samples = await measured;
    onSamples(samples);
    const digests = await settledDigests(askAll);
    return summarise(samples, digests !== undefined, digests !== undefined && addsUp(samples, digests), foreignCpu);
  } finally {
    await Promise.all(hosts.map((host) => host.stop()));
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The shards' digests once all replicas have applied the same; undefined if they differ then. */
async function settledDigests(ask: (order: string) => Promise<unknown[]>): Promise<ShardDigest[] | undefined> {
  const end = performance.now() + SETTLE_MS;
  for (;;) {
    const all = (await ask('digests')) as ShardDigest[][];
    const applied = all.map((host) => host.map((digest) => digest.applied).join());
    if (applied.every((text) => text === applied[0])) {
      const texts = all.map((host) => JSON.stringify(host));
      return texts.every((text) => text === texts[0]) ? all[0] : undefined;
    }
    if (performance.now() > end) return undefined;
    await pause(100);
  }
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
