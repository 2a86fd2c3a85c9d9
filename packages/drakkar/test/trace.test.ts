/** Trace channels: what they carry, on the real `node:diagnostics_channel` too, and that without a listener nothing is made. */
import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NodeHost, TRACE_CHANNELS, type TraceChannel, type TraceMessages } from 'drakkar';
import { Journal, TestCluster, text } from './support.ts';

type Message = Record<string, unknown>;

async function traced(hasSubscribers: boolean): Promise<Map<string, Message[]>> {
  const said = new Map<string, Message[]>(TRACE_CHANNELS.map((name) => [name, []]));
  const tracing = {
    channel: (name: string): TraceChannel => ({
      hasSubscribers,
      publish: (message) => said.get(name)!.push(message as Message),
    }),
  };
  const cluster = new TestCluster({ replica: { electionRtt: 11 } });
  for (const id of [1, 2, 3]) {
    await cluster.open(id, { env: { ...cluster.machineOf.get(id)!.boot(), tracing } });
    await cluster.startReplica(id, 1, [1, 2, 3]);
  }
  await cluster.ready(1);
  const follower = cluster.followerOf(1);
  await cluster.settle(cluster.hosts.get(follower)!.proposeBatch(1, [text('a'), text('b')]));
  await cluster.settle(cluster.hosts.get(follower)!.read(1, 'count'));
  await cluster.assertEqual(1);
  await cluster.close();
  return said;
}

test('every channel says what happened, with the host and the shard it happened on', async () => {
  const said = await traced(true);
  for (const name of TRACE_CHANNELS) assert.ok(said.get(name)!.length > 0, name);
  for (const messages of said.values())
    for (const { host } of messages) assert.match(host as string, /^host[123]:7000$/);
  const forwarded = said.get('drakkar:forward')! as unknown as TraceMessages['drakkar:forward'][];
  assert.deepEqual(
    forwarded.map(({ count }) => count),
    [2],
  );
  const [{ leaderId }] = forwarded;
  const proposed = (said.get('drakkar:propose')! as unknown as TraceMessages['drakkar:propose'][]).find(
    ({ replicaId, count }) => replicaId === leaderId && count === 2,
  );
  assert.ok(proposed, 'one message for the block of both proposals');
  assert.ok(proposed.sizeBytes > 0);
  const applies = said.get('drakkar:apply')! as unknown as TraceMessages['drakkar:apply'][];
  for (const replicaId of [1, 2, 3]) {
    let next = 1;
    for (const { firstIndex, lastIndex } of applies.filter((apply) => apply.replicaId === replicaId)) {
      assert.equal(firstIndex, next);
      next = lastIndex + 1;
    }
    assert.equal(next, proposed.firstIndex + 2, `all entries of replica ${replicaId}, each once`);
  }
  const names = new Set(said.get('drakkar:event')!.map(({ name }) => name));
  for (const name of ['replicaReady', 'leaderChanged', 'hostClosing']) assert.ok(names.has(name), name);
});

test('without a listener nothing is published', async () => {
  for (const [name, messages] of await traced(false)) assert.deepEqual(messages, [], name);
});

test('the channels are those of node:diagnostics_channel', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-trace-'));
  const leaders: TraceMessages['drakkar:leader'][] = [];
  const onLeader = (message: unknown): void => void leaders.push(message as TraceMessages['drakkar:leader']);
  subscribe('drakkar:leader', onLeader);
  try {
    const raftAddress = '127.0.0.1:26010';
    await using host = await NodeHost.open({ dir, raftAddress, rttMs: 5 });
    await host.startReplica(
      { shardId: 1, replicaId: 1, members: { 1: raftAddress }, electionRtt: 11 },
      () => new Journal(),
    );
    await host.whenReady(1);
    assert.deepEqual(leaders.at(-1), { host: raftAddress, shardId: 1, replicaId: 1, leaderId: 1, term: 1 });
  } finally {
    unsubscribe('drakkar:leader', onLeader);
    rmSync(dir, { recursive: true });
  }
});

test('docs/operations.md lists the channels', () => {
  const docs = readFileSync(new URL('../../../docs/operations.md', import.meta.url), 'utf8');
  const rows = [...docs.matchAll(/^\| `(drakkar:\w+)` \|/gm)].map(([, name]) => name);
  assert.deepEqual(rows, TRACE_CHANNELS);
});
