/**
 * What idle shards cost: three hosts in processes of their own, many shards on all of them, nobody asks for anything.
 *
 *     npm run bench:idle -- --shards 10000 [--seconds 10] [--writes 1] [--heap-snapshot DIR] [--json]
 *
 * Per host: time to start, until every shard has a leader, until all are silent; then CPU as a share of one core, and memory for a
 * shard: heap, buffers outside of it, and what the process holds in all.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { IdleOptions, IdleSample } from './idle-host.ts';
import { freePorts } from './run.ts';

const HOST = fileURLToPath(new URL('idle-host.ts', import.meta.url));
const HOST_IDS = [1, 2, 3];

const { values } = parseArgs({
  options: {
    shards: { type: 'string', default: '10000' },
    seconds: { type: 'string', default: '10' },
    writes: { type: 'string', default: '0' },
    dir: { type: 'string', default: tmpdir() },
    'heap-snapshot': { type: 'string', default: '' },
    'cpu-prof': { type: 'string', default: '' },
    json: { type: 'boolean', default: false },
  },
});
const dir = mkdtempSync(join(values.dir, 'drakkar-idle-'));
const ports = await freePorts(HOST_IDS.length);
const members = Object.fromEntries(HOST_IDS.map((id, i) => [id, `127.0.0.1:${ports[i]}`]));

function start(replicaId: number): ChildProcess {
  const options: IdleOptions = {
    replicaId,
    members,
    dir: join(dir, `host-${replicaId}`),
    shards: Number(values.shards),
    seconds: Number(values.seconds),
    writes: Number(values.writes),
    heapSnapshot: values['heap-snapshot'],
  };
  const profile =
    values['cpu-prof'] === ''
      ? []
      : ['--cpu-prof', `--cpu-prof-dir=${values['cpu-prof']}`, `--cpu-prof-name=idle-${replicaId}.cpuprofile`];
  return fork(HOST, [JSON.stringify(options)], {
    execArgv: ['--conditions=drakkar-source', '--expose-gc', '--max-old-space-size=8192', ...profile],
  });
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

/** All go one step, and wait for each other. */
function ask(hosts: readonly ChildProcess[], order: string): Promise<unknown[]> {
  return Promise.all(
    hosts.map((host) => {
      const answer = reply(host);
      host.send(order);
      return answer;
    }),
  );
}

const hosts = HOST_IDS.map(start);
try {
  await Promise.all(hosts.map(reply));
  for (const step of ['start', 'lead', 'silence']) await ask(hosts, step);
  const samples = (await ask(hosts, 'measure')) as IdleSample[];
  for (const sample of samples)
    console.log(
      Object.entries(sample)
        .map(([name, value]) => `${name} ${value}`)
        .join('  '),
    );
  if (values.json) console.log(JSON.stringify({ shards: Number(values.shards), hosts: samples }));
} finally {
  for (const host of hosts) if (host.connected) host.send('close');
  const ended = (host: ChildProcess): Promise<void> =>
    new Promise((resolve) => (host.exitCode === null ? host.once('exit', () => resolve()) : resolve()));
  await Promise.all(hosts.map(ended));
  rmSync(dir, { recursive: true, force: true });
}
