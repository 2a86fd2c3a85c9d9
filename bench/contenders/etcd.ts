/** etcd, three members, puts over its own gRPC at the leader; the version under peers/etcd, or else the one that is installed. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drive, type Inspection } from '../gateway/drive.ts';
import { freePorts, HOST_IDS } from '../hosts.ts';
import type { BenchOptions, BenchResult } from '../options.ts';
import { refuseAll, type Contender } from './contender.ts';
import { buildGo } from './go.ts';

const READY_MS = 60_000;
const SETTLE_MS = 20_000;
const QUOTA_BYTES = 8 * 2 ** 30;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export function etcd(): Contender {
  let binary = '';
  return {
    name: 'etcd',
    describe: () => versionOf(binary) ?? 'etcd',
    async prepare() {
      const built = await buildGo('etcd');
      if ('binary' in built) binary = built.binary;
      else if (versionOf('etcd') !== undefined) binary = 'etcd';
      else return `${built.reason}, and no etcd is installed (Debian: etcd-server)`;
      return undefined;
    },
    refuses: (options) =>
      refuseAll(options, ['readPercent', 'api', 'sm', 'sessions', 'rate', 'tls', 'spread', 'snapshotEntries']),
    run: (options) => runEtcd(binary, options),
  };
}

function versionOf(binary: string): string | undefined {
  try {
    const text = execFileSync(binary, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const line = (name: string): string => new RegExp(`^${name} Version: (.*)$`, 'm').exec(text)?.[1] ?? 'unknown';
    return `etcd ${line('etcd')}, ${line('Go')}`;
  } catch {
    return undefined;
  }
}

interface Member {
  readonly url: string;
  readonly process: ChildProcess;
  readonly ended: Promise<unknown>;
}

async function runEtcd(binary: string, options: BenchOptions): Promise<BenchResult> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-bench-'));
  const ports = await freePorts(2 * HOST_IDS.length);
  const cluster = HOST_IDS.map((id, i) => `m${id}=http://127.0.0.1:${ports[i]}`).join(',');
  const members = HOST_IDS.map((id, i): Member => {
    const peerUrl = `http://127.0.0.1:${ports[i]}`;
    const url = `http://127.0.0.1:${ports[HOST_IDS.length + i]}`;
    const flags = {
      name: `m${id}`,
      'data-dir': join(dir, `m${id}`),
      'listen-peer-urls': peerUrl,
      'initial-advertise-peer-urls': peerUrl,
      'listen-client-urls': url,
      'advertise-client-urls': url,
      'initial-cluster': cluster,
      'quota-backend-bytes': String(QUOTA_BYTES),
      'log-level': 'error',
    };
    const args = Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
    const child = spawn(binary, args, { stdio: 'ignore' });
    child.on('error', () => {}); // what follows says so
    return { url, process: child, ended: new Promise((resolve) => child.on('exit', resolve)) };
  });
  try {
    const leader = await leaderOf(members);
    const pids = members.map((member) => member.process.pid!);
    const targets = [leader.url.slice('http://'.length)];
    return await drive(options, { protocol: 'grpc', targets, pids }, () => inspect(members));
  } finally {
    for (const member of members) member.process.kill('SIGTERM');
    await Promise.all(members.map(({ ended }) => ended));
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A call through etcd's JSON gateway. */
async function ask(member: Member, path: string, body: object): Promise<Record<string, any>> {
  const response = await fetch(`${member.url}${path}`, { method: 'POST', body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as Record<string, any>;
}

async function leaderOf(members: readonly Member[]): Promise<Member> {
  const end = performance.now() + READY_MS;
  for (;;) {
    for (const member of members) {
      if (member.process.exitCode !== null) throw new Error(`etcd ended with exit code ${member.process.exitCode}`);
      const status = await ask(member, '/v3/maintenance/status', {}).catch(() => undefined);
      if (status !== undefined && status.leader !== '0' && status.leader === status.header.member_id) return member;
    }
    if (performance.now() > end) throw new Error('etcd has no leader');
    await pause(100);
  }
}

/** A put raises the revision by one, from 1. */
async function inspect(members: readonly Member[]): Promise<Inspection> {
  const end = performance.now() + SETTLE_MS;
  for (;;) {
    const hashes = await Promise.all(members.map((member) => ask(member, '/v3/maintenance/hash', {})));
    const texts = hashes.map(({ hash, header }) => `${header.revision} ${hash}`);
    const isEqual = texts.every((text) => text === texts[0]);
    if (isEqual || performance.now() > end)
      return { digestsEqual: isEqual, puts: Number(hashes[0].header.revision) - 1, others: 0 };
    await pause(200);
  }
}
