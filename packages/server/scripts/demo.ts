/**
 * `npm run demo`: three hosts take the metadata of every installed package as writes over HTTP while the host that leads most shards
 * is killed again and again. Then every acknowledged key is read back through every host, and the replicas' digests are
 * compared. Exit code 0 only if nothing acknowledged was lost and the digests agree.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { shardOfKey } from '../src/kv.ts';
import { Cluster, type ClusterHost } from './cluster.ts';
import { getJson, send } from './http-client.ts';
import { readPackages, type PackageRecord } from './package-data.ts';

const HELP = `npm run demo -- [options]
  --writes <n>    acknowledged writes at least (default 100000)
  --kills <n>     leaders killed at least (default 3)
  --clients <n>   concurrent clients (default 96)
  --dir <path>    where the hosts keep their data (default: a temporary directory, removed after success)
  --json <file>   writes the report as JSON, too`;
const PROGRESS_MS = 2000;
const PROBE_EVERY_MS = 25;
const SETTLE_TIMEOUT_MS = 30_000;
const READ_ATTEMPTS = 20;

const { values: flags } = parseArgs({
  options: {
    writes: { type: 'string', default: '100000' },
    kills: { type: 'string', default: '3' },
    clients: { type: 'string', default: '96' },
    dir: { type: 'string' },
    json: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (flags.help) {
  console.log(HELP);
  process.exit(0);
}

function count(name: 'writes' | 'kills' | 'clients'): number {
  const value = Number(flags[name]);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  console.error(`--${name} is ${flags[name]}; expected a whole number from 1\n\n${HELP}`);
  process.exit(2);
}

const writesWanted = count('writes');
const killsWanted = count('kills');
const clients = count('clients');
const dir = flags.dir ?? mkdtempSync(join(tmpdir(), 'drakkar-demo-'));

interface Status {
  readonly shardCount: number;
  readonly shards: readonly {
    readonly shardId: number;
    readonly replicaId: number;
    readonly leaderId: number;
    readonly digest?: { readonly appliedIndex: number; readonly hash: number; readonly sessionHash: number };
  }[];
}

interface Report {
  readonly writesAcknowledged: number;
  readonly leaderKills: number;
  /** From SIGKILL to the first acknowledged write on every shard that the host led, milliseconds. */
  readonly failoverMs: readonly number[];
  readonly acknowledgedLost: number;
  readonly digestsEqual: boolean;
}

/** What was acknowledged: the key, and the value it must have for ever. Each key is written by one client only. */
const acknowledged: { key: string; value: string }[] = [];
let shardCount = 0;
let stopWriting = false;
let nextWrite = 0;
let retries = 0;

const cluster = new Cluster(dir, ['--log-level', 'warn']);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const urlOf = (host: ClusterHost, key: string): string => `${host.url}/kv/${encodeURIComponent(key)}`;

function someHost(seed: number): ClusterHost | undefined {
  const up = cluster.hosts.filter((host) => host.isUp);
  return up[seed % up.length];
}

/** Tries hosts until one acknowledges. The same value under the same key may be written twice without harm. */
async function put(key: string, value: string, seed: number): Promise<void> {
  for (let attempt = seed; ; attempt++) {
    const host = someHost(attempt);
    const answer = host === undefined ? undefined : await send('PUT', urlOf(host, key), value).catch(() => undefined);
    if (answer?.status === 200) {
      acknowledged.push({ key, value });
      return;
    }
    retries++;
    await pause(20);
  }
}

async function client(packages: readonly PackageRecord[], seed: number): Promise<void> {
  while (!stopWriting) {
    const number = nextWrite++;
    const { key, value } = packages[number % packages.length];
    await put(`v${Math.floor(number / packages.length) + 1}/${key}`, value, seed + number);
  }
}

/** The host that leads most shards, and which. */
async function findLeader(): Promise<{ host: ClusterHost; shards: number[] }> {
  const leaders = new Map<number, number[]>();
  for (const { shardId, leaderId } of (await getJson<Status>(`${someHost(0)!.url}/status`)).shards) {
    if (leaderId !== 0) leaders.set(leaderId, [...(leaders.get(leaderId) ?? []), shardId]);
  }
  const [most] = [...leaders].sort((a, b) => b[1].length - a[1].length);
  if (most === undefined) throw new Error('no shard has a leader');
  return { host: cluster.hosts.find((host) => host.id === most[0])!, shards: most[1] };
}

/** Writes to the shard, a new probe every few milliseconds, until one is acknowledged. */
async function probe(shardId: number, name: string): Promise<void> {
  const prefix = `probe/${name}/${shardId}/`;
  let isDone = false;
  await new Promise<void>((resolve) => {
    const attempt = async (number: number): Promise<void> => {
      if (isDone) return;
      const host = someHost(number);
      // A suffix that lands in the wanted shard, found with the function the server uses.
      const key = inShard(prefix + number, shardId);
      if (host !== undefined) {
        send('PUT', urlOf(host, key), 'alive').then(
          ({ status }) => {
            if (status !== 200) return;
            acknowledged.push({ key, value: 'alive' });
            isDone = true;
            resolve();
          },
          () => {},
        );
      }
      await pause(PROBE_EVERY_MS);
      void attempt(number + 1);
    };
    void attempt(0);
  });
}

function inShard(prefix: string, shardId: number): string {
  for (let suffix = 0; ; suffix++)
    if (shardOfKey(`${prefix}-${suffix}`, shardCount) === shardId) return `${prefix}-${suffix}`;
}

/** Kills the busiest leader, measures until all its shards take writes again, starts it again. */
async function killLeader(number: number): Promise<number> {
  const { host, shards } = await findLeader();
  const start = performance.now();
  await cluster.kill(host);
  await Promise.all(shards.map((shardId) => probe(shardId, `kill-${number}`)));
  const failoverMs = Math.round(performance.now() - start);
  console.log(
    `  kill ${number}: host ${host.id} led shards ${shards.join(', ')}; all take writes again after ${failoverMs} ms`,
  );
  await cluster.startHost(host);
  await untilHealthy();
  return failoverMs;
}

async function untilHealthy(): Promise<void> {
  const end = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const states = await Promise.all(
      cluster.hosts.map((host) => send('GET', `${host.url}/healthz`).catch(() => undefined)),
    );
    if (states.every((state) => state?.status === 200)) return;
    if (performance.now() > end)
      throw new Error(`not healthy in time: ${states.map((state) => state?.body).join(' ')}`);
    await pause(100);
  }
}

/** Reads keys back through `host`; gives how many are gone or changed. */
async function verifyThrough(host: ClusterHost): Promise<number> {
  let next = 0;
  let lost = 0;
  const reader = async (): Promise<void> => {
    while (next < acknowledged.length) {
      const { key, value } = acknowledged[next++];
      const answer = await read(host, key);
      if (answer.status === 200 && answer.body === value) continue;
      lost++;
      console.error(`  LOST: ${key} through host ${host.id}: ${answer.status} ${answer.body.slice(0, 200)}`);
    }
  };
  await Promise.all(Array.from({ length: Math.ceil(clients / cluster.hosts.length) }, reader));
  return lost;
}

async function read(host: ClusterHost, key: string): Promise<{ status: number; body: string }> {
  for (let attempt = 1; ; attempt++) {
    const answer = await send('GET', urlOf(host, key)).catch((error: Error) => ({ status: 0, body: error.message }));
    // 404 is an answer, and so is a value; anything else says that the host could not tell.
    if (answer.status === 200 || answer.status === 404 || attempt === READ_ATTEMPTS) return answer;
    await pause(50);
  }
}

/** Digests at equal applied indexes, per shard and host. */
async function digestsAgree(): Promise<boolean> {
  const end = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const statuses = await Promise.all(cluster.hosts.map((host) => getJson<Status>(`${host.url}/status`)));
    const lines = statuses.map((status) => status.shards.map(({ shardId, digest }) => ({ shardId, ...digest })));
    const indexes = lines.map((line) => line.map(({ appliedIndex }) => appliedIndex).join());
    if (indexes.every((text) => text === indexes[0])) {
      const texts = lines.map((line) => JSON.stringify(line));
      return lines[0].every(({ hash }) => hash !== undefined) && texts.every((text) => text === texts[0]);
    }
    if (performance.now() > end) throw new Error(`the replicas do not reach the same index: ${indexes.join(' | ')}`);
    await pause(100);
  }
}

async function run(): Promise<Report> {
  const packages = readPackages(fileURLToPath(new URL('../../../node_modules', import.meta.url)));
  console.log(`Read the metadata of ${packages.length} packages from node_modules.`);
  console.log(`Starting three hosts, data in ${dir} ...`);
  await cluster.start((host) => console.log(`  host ${host.id}   ${host.url}`));
  await untilHealthy();
  ({ shardCount } = await getJson<Status>(`${cluster.hosts[0].url}/status`));

  const start = performance.now();
  const seconds = (): string => `${((performance.now() - start) / 1000).toFixed(0)} s`;
  const progress = setInterval(() => {
    console.log(`  ${seconds()}: ${acknowledged.length} writes acknowledged, ${retries} tried again`);
  }, PROGRESS_MS);
  console.log(
    `Writing at least ${writesWanted} keys with ${clients} clients, killing ${killsWanted} leaders meanwhile ...`,
  );
  const writers = Array.from({ length: clients }, (_, seed) => client(packages, seed));
  const failoverMs: number[] = [];
  try {
    for (let kill = 1; kill <= killsWanted; kill++) {
      const from = Math.floor((writesWanted * kill) / (killsWanted + 1));
      while (acknowledged.length < from) await pause(20);
      failoverMs.push(await killLeader(kill));
    }
    while (acknowledged.length < writesWanted) await pause(20);
    stopWriting = true;
    await Promise.all(writers);
  } finally {
    clearInterval(progress);
  }
  const writesAcknowledged = acknowledged.length;
  console.log(
    `${writesAcknowledged} writes acknowledged in ${seconds()}. Reading every one back through each host ...`,
  );
  const lost = await Promise.all(cluster.hosts.map(verifyThrough));
  console.log(`Read ${3 * writesAcknowledged} times, ${seconds()} since the start. Comparing digests ...`);
  const digestsEqual = await digestsAgree();
  return {
    writesAcknowledged,
    leaderKills: failoverMs.length,
    failoverMs,
    acknowledgedLost: Math.max(...lost),
    digestsEqual,
  };
}

process.on('SIGINT', () => {
  console.log('\nInterrupted; stopping the hosts ...');
  void cluster.stop().finally(() => process.exit(130));
});
cluster.onUnexpectedExit = (host) => {
  console.error(`Host ${host.id} ended by itself; ${host.logFile} says why.`);
  void cluster.stop().finally(() => process.exit(1));
};

try {
  const report = await run();
  await cluster.stop();
  console.log(`
  acknowledged writes   ${report.writesAcknowledged}
  leaders killed        ${report.leaderKills} (SIGKILL)
  failover, ms          ${report.failoverMs.join(', ')}
  acknowledged, lost    ${report.acknowledgedLost}
  digests               ${report.digestsEqual ? 'equal on all three hosts' : 'DIFFERENT'}`);
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report)}\n`);
  const isGood = report.acknowledgedLost === 0 && report.digestsEqual;
  if (isGood && flags.dir === undefined) rmSync(dir, { recursive: true });
  else console.log(`\nThe data and logs are kept in ${dir}.`);
  process.exit(isGood ? 0 : 1);
} catch (error) {
  console.error(`The demo failed: ${(error as Error).stack}\nThe data and logs are kept in ${dir}.`);
  await cluster.stop();
  process.exit(1);
}
