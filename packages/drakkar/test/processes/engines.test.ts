/** Three processes over TCP with one and two engines, in real threads: restarts with other numbers, and a thread that dies. */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const HOST = fileURLToPath(new URL('engine-host.ts', import.meta.url));
const IDS = [1, 2, 3];
const SHARDS = [1, 2, 3, 4];
const root = mkdtempSync(join(tmpdir(), 'drakkar-engines-'));
const children = new Set<ChildProcess>();
after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

class Member {
  private readonly child: ChildProcess;

  constructor(setup: object) {
    this.child = fork(HOST, [JSON.stringify(setup)], { execArgv: ['--conditions=drakkar-source'] });
    children.add(this.child);
  }

  /** The next answer. */
  async answer(): Promise<any> {
    const died = once(this.child, 'exit').then(([code, signal]) => {
      throw new Error(`the host ended with ${code ?? signal}`);
    });
    died.catch(() => {});
    const [{ value, error }] = (await Promise.race([once(this.child, 'message'), died])) as [
      { value: unknown; error?: string },
    ];
    if (error !== undefined) throw new Error(error);
    return value;
  }

  ask(order: object): Promise<any> {
    const answer = this.answer();
    this.child.send(order);
    return answer;
  }

  async close(): Promise<void> {
    const ended = once(this.child, 'exit');
    await this.ask({ kind: 'close' });
    const [code] = await ended;
    children.delete(this.child);
    assert.equal(code, 0);
  }

  async kill(): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
    children.delete(this.child);
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

const ports = await freePorts(IDS.length);
const members = Object.fromEntries(IDS.map((id, i) => [id, `127.0.0.1:${ports[i]}`]));

async function startAll(engines: readonly number[]): Promise<Member[]> {
  const hosts = IDS.map(
    (id, i) => new Member({ id, dir: join(root, `${id}`), members, engines: engines[i], shardIds: SHARDS }),
  );
  await Promise.all(hosts.map((host) => host.answer()));
  return hosts;
}

const linesOf = (round: number, shardId: number): string[] =>
  Array.from({ length: 200 }, (_, i) => `round ${round} shard ${shardId} line ${i}`);

test('processes with one and two engines serve the same shards, and restarts with other numbers keep all data', async () => {
  const expected = new Map<number, Set<string>>(SHARDS.map((shardId) => [shardId, new Set()]));
  let placed: string | undefined;
  const starts = [
    [1, 2, 2],
    [2, 1, 1],
    [1, 2, 1],
  ];
  for (const [round, engines] of starts.entries()) {
    const hosts = await startAll(engines);
    for (const shardId of SHARDS) {
      const writer = hosts[(round + shardId) % 3];
      await writer.ask({ kind: 'write', shardId, lines: linesOf(round, shardId) });
      for (const line of linesOf(round, shardId)) expected.get(shardId)!.add(line);
    }
    for (const host of hosts) {
      for (const shardId of SHARDS) {
        const lines = (await host.ask({ kind: 'read', shardId, query: 'all' })) as string[];
        assert.deepEqual(new Set(lines), expected.get(shardId), `shard ${shardId} in round ${round}`);
        assert.equal(lines.length, expected.get(shardId)!.size);
        // The change stream, from the beginning: what was applied, in the same order.
        assert.deepEqual(await host.ask({ kind: 'follow', shardId, count: lines.length }), lines);
      }
    }
    // Host 3 began with two engines: what lives where stays so whatever it is started with.
    const { shards } = await hosts[2].ask({ kind: 'infos' });
    placed ??= JSON.stringify(shards);
    assert.equal(JSON.stringify(shards), placed);
    // In turn in order and by force.
    for (const host of hosts) await (round % 2 === 0 ? host.close() : host.kill());
  }
  assert.match(placed!, /"engine":1/);
});

test('a thread that dies takes its shards with it and nothing else', async () => {
  const hosts = await startAll([2, 2, 1]);
  const { shards } = await hosts[1].ask({ kind: 'infos' });
  const doomed = shards.find((shard: { shardId: number }) => shard.shardId === 2).engine as number;
  assert.notEqual(doomed, shards[0].engine);
  await hosts[1].ask({ kind: 'follow-to-the-end', shardId: 2 });
  // The state machine of shard 2 ends its thread behind an answer.
  await assert.rejects(async () => {
    for (;;) await hosts[1].ask({ kind: 'read', shardId: 2, query: 'die' });
  }, /ERR_ENGINE_FAILED|ERR_SHARD_FAILED/);
  const after = await hosts[1].ask({ kind: 'infos' });
  assert.deepEqual(after.events.sort(), [`engine ${doomed} ERR_ENGINE_FAILED`, 'stream ERR_ENGINE_FAILED']);
  for (const { engine, state } of after.shards) assert.equal(state, engine === doomed ? 'failed' : 'running');
  await hosts[1].ask({ kind: 'write', shardId: 1, lines: ['the other engine goes on'] });
  await hosts[0].ask({ kind: 'write', shardId: 2, lines: ['the other hosts go on'] });
  for (const host of hosts) await host.close();
});

test('a host whose engine 0 died is found by one that starts later: another thread listens in its place', async () => {
  const hosts = await startAll([1, 2, 2]);
  const { shards } = (await hosts[1].ask({ kind: 'infos' })) as { shards: { shardId: number; engine: number }[] };
  const doomed = shards.find(({ shardId, engine }) => shardId > 1 && engine === 0)!.shardId;
  const living = shards.find(({ engine }) => engine === 1)!.shardId;
  await assert.rejects(async () => {
    for (;;) await hosts[1].ask({ kind: 'read', shardId: doomed, query: 'die' });
  }, /ERR_ENGINE_FAILED|ERR_SHARD_FAILED/);
  await hosts[2].kill();
  const later = new Member({ id: 3, dir: join(root, '3'), members, engines: 2, shardIds: SHARDS });
  await later.answer();
  await hosts[0].kill();
  // Only the two of them are left.
  await later.ask({ kind: 'write', shardId: living, lines: ['found'] });
  const lines = (await hosts[1].ask({ kind: 'read', shardId: living, query: 'all' })) as string[];
  assert.equal(lines.at(-1), 'found');
  for (const host of [hosts[1], later]) await host.close();
});
