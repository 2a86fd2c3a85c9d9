/** Idle shards on whole hosts: silent together, awake when wanted, and never without a leader for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_TARGET_BYTES } from '../src/wire/limits.ts';
import { EntryType } from '../src/wire/entry.ts';
import { Message } from '../src/wire/message.ts';
import { Journal, TestCluster, engineOf, text } from './support.ts';

const SHARDS = [1, 2, 3, 4, 5];
/** Twice the election timeout of 50 ticks of 20 ms, an offer, and some air. */
const IDLE_MS = 4000;

const isSilent = (cluster: TestCluster, id: number): boolean =>
  cluster.hosts
    .get(id)!
    .info()
    .shards.every(({ quiesced }) => quiesced);

async function silent(options: ConstructorParameters<typeof TestCluster>[0] = {}): Promise<TestCluster> {
  const cluster = new TestCluster(options);
  await cluster.startAll(SHARDS);
  for (const shardId of SHARDS) await cluster.propose(cluster.followerOf(shardId), shardId, 'one');
  await cluster.world.until(() => [...cluster.hosts.keys()].every((id) => isSilent(cluster, id)), 2 * IDLE_MS);
  return cluster;
}

test('idle shards cost no ticks and no messages: only hosts say that they live', async () => {
  const cluster = await silent();
  await cluster.world.run(200);
  const sent = (): number[] => [...cluster.hosts.values()].map((host) => engineOf(host).transport.counters.bytesSent);
  for (const host of cluster.hosts.values()) assert.equal(engineOf(host).ticker.activeCount, 0);
  const before = sent();
  await cluster.world.run(10_000);
  // One message of 80 bytes in a frame of 16 to each of two hosts, every heartbeat interval of 100 ms.
  for (const [i, bytes] of sent().entries()) assert.ok(bytes - before[i] <= 2 * 101 * 96, `${bytes - before[i]} bytes`);
  const { counters } = engineOf(cluster.hosts.get(1)!);
  assert.ok(counters.quiesced >= SHARDS.length);
  assert.match(cluster.hosts.get(1)!.metrics(), /drakkar_shards_quiesced 5\n/);
  assert.match(cluster.hosts.get(1)!.metrics(), /drakkar_woken_total\{cause="host-lost"\} 0\n/);
  await cluster.close();
});

test('the heartbeats of many shards that are awake go out together, and so do the answers', async () => {
  const shards = Array.from({ length: 40 }, (_, i) => i + 1);
  const cluster = new TestCluster({ replica: { quiesce: false } });
  await cluster.startAll(shards);
  const frames = (): number[] =>
    [...cluster.hosts.values()].map((host) => engineOf(host).transport.counters.framesSent);
  const before = frames();
  await cluster.world.run(10_000);
  for (const id of [1, 2, 3]) assert.equal(engineOf(cluster.hosts.get(id)!).ticker.activeCount, shards.length);
  // A frame for each of 500 ticks to each of two hosts, and one that answers each of theirs; shard by shard they would be 8000.
  for (const [i, sent] of frames().entries()) assert.ok(sent - before[i] <= 2 * 2 * 501, `${sent - before[i]} frames`);
  await cluster.close();
});

test('a proposal or a read on any host is answered from the silence, without an election', async () => {
  const cluster = await silent();
  const terms = (): number[] => SHARDS.map((shardId) => cluster.hosts.get(1)!.shardInfo(shardId).term);
  const before = terms();
  await cluster.propose(cluster.leaderOf(1), 1, 'two');
  await cluster.propose(cluster.followerOf(2), 2, 'two');
  const lines = await cluster.settle(cluster.hosts.get(cluster.followerOf(3))!.read(3, 'all'));
  assert.deepEqual(lines, ['one']);
  const shardOf = (id: number, shardId: number): boolean => cluster.hosts.get(id)!.shardInfo(shardId).quiesced;
  for (const id of cluster.hosts.keys()) assert.ok(shardOf(id, 4) && shardOf(id, 5), 'the others sleep on');
  await cluster.assertEqual(1);
  await cluster.assertEqual(2);
  await cluster.world.until(() => [...cluster.hosts.keys()].every((id) => isSilent(cluster, id)), 2 * IDLE_MS);
  assert.deepEqual(terms(), before);
  await cluster.close();
});

test('a call on a silent replica ends at its deadline, though nothing answers', async () => {
  const cluster = await silent();
  const leader = cluster.leaderOf(1);
  const follower = cluster.followerOf(1);
  for (const id of cluster.hosts.keys()) if (id !== follower) cluster.machineOf.get(id)!.process!.stop();
  await assert.rejects(cluster.propose(follower, 1, 'lost', 200), { code: 'ERR_TIMEOUT' });
  for (const id of cluster.hosts.keys()) cluster.machineOf.get(id)!.process!.continue();
  await cluster.ready(1);
  assert.ok(leader > 0);
  await cluster.close();
});

for (const way of ['killed', 'stopped', 'cut off'] as const) {
  test(`scenario 30: the leader's host is ${way} while all are silent, and the others elect by themselves`, async () => {
    const cluster = await silent();
    const lost = cluster.leaderOf(1);
    const others = [...cluster.hosts.keys()].filter((id) => id !== lost);
    const led = SHARDS.filter((shardId) => cluster.leaderOf(shardId) === lost);
    if (way === 'killed') cluster.kill(lost);
    else if (way === 'stopped') cluster.machineOf.get(lost)!.process!.stop();
    else for (const id of others) cluster.machines.network.cut(`host${lost}`, `host${id}`);
    const leaderOf = (shardId: number): number => cluster.hosts.get(others[0])!.shardInfo(shardId).leaderId;
    await cluster.world.until(() => led.every((shardId) => others.includes(leaderOf(shardId))), 6000);
    for (const shardId of SHARDS) await cluster.propose(others[0], shardId, 'two');
    // Silent again, without the lost host.
    await cluster.world.until(() => others.every((id) => isSilent(cluster, id)), 2 * IDLE_MS);
    if (way === 'killed') {
      await cluster.open(lost);
      for (const shardId of SHARDS) await cluster.startReplica(lost, shardId);
    } else if (way === 'stopped') cluster.machineOf.get(lost)!.process!.continue();
    else cluster.machines.network.heal();
    await cluster.world.until(() => {
      return SHARDS.every(
        (shardId) =>
          cluster.hosts.get(lost)!.hash(shardId).appliedIndex ===
          cluster.hosts.get(others[0])!.hash(shardId).appliedIndex,
      );
    }, 30_000);
    for (const shardId of SHARDS) await cluster.assertEqual(shardId);
    await cluster.world.until(() => [...cluster.hosts.keys()].every((id) => isSilent(cluster, id)), 20_000);
    await cluster.close();
  });
}

test('a replica that leads and stops while its host lives is replaced by another', async () => {
  const cluster = await silent();
  const leader = cluster.leaderOf(1);
  await cluster.settle(cluster.hosts.get(leader)!.stopReplica(1));
  const others = [...cluster.hosts.keys()].filter((id) => id !== leader);
  await cluster.world.until(() => others.includes(cluster.leaderOf(1)), 6000);
  await cluster.close();
});

test('with quiesce off on one replica the shard stays awake', async () => {
  const cluster = new TestCluster();
  for (const id of [1, 2, 3]) await cluster.open(id);
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3], { quiesce: id !== 2 });
  await cluster.ready(1);
  await cluster.world.run(4 * IDLE_MS);
  assert.equal(cluster.hosts.get(cluster.leaderOf(1))!.shardInfo(1).quiesced, false);
  assert.equal(cluster.hosts.get(2)!.shardInfo(1).quiesced, false);
  await cluster.close();
});

test('replicas that start together share flushes, and idle ones give their memory back', async () => {
  const cluster = new TestCluster({ hosts: 1, segmentBytes: 4 * 1024 * 1024 });
  const host = await cluster.open(1);
  const before = host.info().log['groups'];
  const shardIds = Array.from({ length: 1000 }, (_, i) => i + 1);
  const members = cluster.members(1);
  const start = (shardId: number): Promise<void> =>
    host.startReplica({ shardId, replicaId: 1, members }, () => new Journal());
  await cluster.settle(Promise.all(shardIds.map(start)));
  await cluster.settle(Promise.all(shardIds.map((shardId) => host.whenReady(shardId, { timeoutMs: 30_000 }))));
  const groups = host.info().log['groups'] - before;
  // A record for the start, a vote and an entry of each shard; elections are spread over fifty ticks.
  assert.ok(groups <= 300, `${groups} flushes for the start of 1000 shards`);
  await cluster.settle(Promise.all(shardIds.map((shardId) => host.propose(shardId, text('one')))));
  await cluster.settle(Promise.all(shardIds.map((shardId) => host.read(shardId, 'lines'))));
  await cluster.world.until(() => isSilent(cluster, 1), 2 * IDLE_MS);
  await cluster.world.run(100);
  const engine = engineOf(host);
  assert.equal(engine.ticker.activeCount, 0);
  assert.ok(engine.pool.pinnedBytes <= 8 * 1024 * 1024, `${engine.pool.pinnedBytes} bytes of slabs are out`);
  const [first, second] = engine.replicas.values();
  const { held } = first;
  const [waiting, full, votes] = [first.reads['waiting'], first.openBlock['full'], first.raft.votes];
  for (const replica of engine.replicas.values()) {
    // The same for all, and nothing of what only a busy one needs.
    assert.equal(replica.raft.config, second.raft.config);
    assert.equal(replica.settings, second.settings);
    assert.equal(replica.peers, second.peers);
    assert.equal(replica.pins, second.pins);
    assert.equal(replica.held, held);
    assert.equal(replica.reads['waiting'], waiting);
    assert.equal(replica.openBlock['full'], full);
    assert.equal(replica.raft.votes, votes);
    assert.deepEqual([held, waiting, full, votes], [[], [], [], []]);
    assert.deepEqual([replica['openChanges'], replica.knownOnlookers], [undefined, undefined]);
    assert.deepEqual([replica.rsm['updateGate'], replica.rsm['callGate']], [undefined, undefined]);
    assert.equal(replica.pending['capacity'], 0);
    assert.equal(replica.raft.writes['mask'], -1);
    assert.equal(replica.openBlock['current'].u8.length, 72);
  }
  // And what it gave back it takes again.
  assert.equal(await cluster.propose(1, 500, 'two'), 2);
  // Of what is shared nothing is written to: what one replica begins to hold, another does not.
  first.hold({ after: 0, message: new Message() });
  const half = new Uint8Array(BLOCK_TARGET_BYTES / 2);
  for (let i = 0; i < 3; i++) first.openBlock.put(EntryType.Command, i, first.nonce, half);
  assert.deepEqual([first.held.length, first.openBlock['full'].length], [1, 2]);
  assert.deepEqual([second.held.length, second.openBlock.isEmpty], [0, true]);
  await cluster.close();
});
