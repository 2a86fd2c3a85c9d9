/** Whole hosts on disks and a network in memory, under a manual clock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import { TestCluster, text } from './support.ts';

test('three hosts elect, replicate from any host, and read linearizably on any host', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  for (let i = 1; i <= 30; i++) assert.equal(await cluster.propose((i % 3) + 1, 1, `line ${i}`), i);
  for (const host of cluster.hosts.values()) {
    const lines = await cluster.settle(host.read(1, 'all'));
    assert.deepEqual(
      lines,
      Array.from({ length: 30 }, (_, i) => `line ${i + 1}`),
    );
  }
  await cluster.assertEqual(1);
  await cluster.close();
});

test('a killed leader is replaced, what it acknowledged stays, and it catches up when it returns', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  for (let i = 1; i <= 10; i++) await cluster.propose(leader, 1, `before ${i}`);
  cluster.kill(leader);
  await cluster.world.until(() => cluster.leaderOf(1) !== 0, 10_000);
  const next = cluster.leaderOf(1);
  assert.notEqual(next, leader);
  await cluster.propose(next, 1, 'after');
  await cluster.open(leader);
  await cluster.startReplica(leader, 1);
  await cluster.ready(1);
  assert.equal(cluster.lines(leader, 1).length, 11);
  await cluster.assertEqual(1);
  await cluster.close();
});

test('scenario 68: a power cut of all hosts loses nothing that was acknowledged, whatever sectors survive', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const cluster = new TestCluster({ seed });
    await cluster.startAll();
    const acknowledged = new Set<string>();
    const leader = cluster.hosts.get(cluster.leaderOf(1))!;
    for (let i = 0; i < 40; i++) {
      leader.propose(1, text(`line ${i}`)).then(
        () => acknowledged.add(`line ${i}`),
        () => {},
      );
      if (i % 5 === 4) await cluster.world.run(0.7);
    }
    for (const id of [1, 2, 3]) cluster.losePower(id, () => cluster.world.random.u32() % 2 === 0);
    for (const id of [1, 2, 3]) await cluster.open(id);
    for (const id of [1, 2, 3]) await cluster.startReplica(id, 1);
    await cluster.ready(1);
    assert.ok(acknowledged.size > 0, `seed ${seed}: nothing was acknowledged before the cut`);
    const lines = new Set(cluster.lines(1, 1));
    for (const line of acknowledged) assert.ok(lines.has(line), `seed ${seed}: ${line} was acknowledged and is gone`);
    await cluster.assertEqual(1);
    await cluster.close();
  }
});

test('scenario 14: a partitioned leader steps down, acknowledges nothing, and its entries are replaced', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const old = cluster.leaderOf(1);
  const others = [1, 2, 3].filter((id) => id !== old);
  for (const other of others) cluster.machines.network.cut(`host${old}`, `host${other}`);
  const lost = cluster.hosts.get(old)!.propose(1, text('lost'), { timeoutMs: 4000 });
  lost.catch(() => {});
  await cluster.world.until(() => others.some((id) => cluster.hosts.get(id)!.shardInfo(1).role === 'leader'), 20_000);
  await cluster.world.until(() => cluster.hosts.get(old)!.shardInfo(1).role !== 'leader', 20_000);
  const next = others.find((id) => cluster.hosts.get(id)!.shardInfo(1).role === 'leader')!;
  await cluster.propose(next, 1, 'kept');
  cluster.machines.network.heal();
  await assert.rejects(cluster.settle(lost), (error: unknown) => DrakkarError.is(error) && error.outcome === 'unknown');
  await cluster.ready(1);
  await cluster.assertEqual(1);
  assert.deepEqual(cluster.lines(old, 1), ['kept']);
  await cluster.close();
});

test('five hosts with overlapping placements: every shard goes to its own members', async () => {
  const cluster = new TestCluster({ hosts: 5 });
  const placements = [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 1], [1, 2, 3, 4, 5], [5], [1, 3]];
  for (const id of [1, 2, 3, 4, 5]) await cluster.open(id);
  for (const [i, ids] of placements.entries()) for (const id of ids) await cluster.startReplica(id, i + 1, ids);
  for (const [i, ids] of placements.entries()) await cluster.ready(i + 1, ids);
  // All shards have proposals in the same turns, so that frames with different addressees are made side by side.
  const waiting: Promise<unknown>[] = [];
  for (let round = 0; round < 20; round++) {
    for (const [i, ids] of placements.entries()) {
      const host = cluster.hosts.get(ids[round % ids.length])!;
      waiting.push(host.propose(i + 1, text(`shard ${i + 1} round ${round}`)));
    }
  }
  await cluster.settle(Promise.all(waiting));
  for (const [i, ids] of placements.entries()) {
    await cluster.assertEqual(i + 1, ids);
    for (const id of ids) {
      const lines = cluster.lines(id, i + 1);
      assert.equal(lines.length, 20);
      assert.ok(lines.every((line) => line.startsWith(`shard ${i + 1} `)));
    }
  }
  await cluster.close();
});

test('scenario 53: a follower that was away too long gets a snapshot and goes on from there', async () => {
  const cluster = new TestCluster({ replica: { snapshotEntries: 50, compactionOverhead: 10 } });
  await cluster.startAll();
  const away = cluster.followerOf(1);
  cluster.kill(away);
  const leader = cluster.leaderOf(1);
  for (let i = 0; i < 200; i++) await cluster.propose(leader, 1, `line ${i}`);
  await cluster.world.until(() => cluster.hosts.get(leader)!.shardInfo(1).firstIndex > 100);
  const host = await cluster.open(away);
  let received = 0;
  host.on('snapshotRecovered', () => received++);
  await cluster.startReplica(away, 1);
  await cluster.ready(1);
  assert.equal(cluster.lines(away, 1).length, 200);
  assert.ok(received >= 1, 'it caught up without a snapshot');
  await cluster.propose(leader, 1, 'one more');
  await cluster.assertEqual(1);
  // And again from its own disk.
  cluster.losePower(away);
  await cluster.open(away);
  await cluster.startReplica(away, 1);
  await cluster.ready(1);
  assert.equal(cluster.lines(away, 1).length, 201);
  await cluster.close();
});

test('requestSnapshot with an overhead or an index of its own: so much of the log goes, also behind a snapshot that is there', async () => {
  const cluster = new TestCluster({ hosts: 1, replica: { electionRtt: 11, compactionOverhead: 1000 } });
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  const first = (): number => host.shardInfo(1).firstIndex;
  for (let i = 0; i < 20; i++) await cluster.propose(1, 1, `line ${i}`);
  const { index } = await cluster.settle(host.requestSnapshot(1));
  assert.equal(first(), 1, 'the replica keeps more than there is');
  assert.deepEqual(await cluster.settle(host.requestSnapshot(1, { compactionOverhead: 10 })), { index });
  assert.equal(first(), index - 9);
  await cluster.settle(host.requestSnapshot(1, { compactionOverhead: 15 }));
  assert.equal(first(), index - 9, 'what is gone does not come back');
  await cluster.settle(host.requestSnapshot(1, { compactToIndex: index - 5 }));
  assert.equal(first(), index - 4);
  await cluster.propose(1, 1, 'one more');
  assert.deepEqual(await cluster.settle(host.requestSnapshot(1, { compactToIndex: index + 100 })), {
    index: index + 1,
  });
  assert.equal(first(), index + 2, 'never beyond the snapshot');
  for (const [options, message] of [
    [{ compactionOverhead: 1, compactToIndex: 1 }, /both/],
    [{ exportTo: 'x', compactToIndex: 1 }, /an export compacts nothing/],
    [{ exportTo: 'x', compactionOverhead: 0 }, /an export compacts nothing/],
    [{ compactionOverhead: -1 }, /compactionOverhead is -1/],
  ] as const) {
    await assert.rejects(cluster.settle(host.requestSnapshot(1, options)), { code: 'ERR_INVALID_OPTION', message });
  }
  cluster.losePower(1);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  assert.equal(cluster.lines(1, 1).length, 21);
  await cluster.close();
});

test('scenario 61, 62: a session command is applied once, however often it is tried, and survives a snapshot', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  const session = await cluster.settle(host.openSession(1));
  assert.equal(await cluster.settle(session.propose(text('once'))), 1);
  // The next leader dies under the command: the session tries again by itself.
  const other = cluster.hosts.get(cluster.followerOf(1))!;
  const second = await cluster.settle(other.openSession(1));
  const pending = second.propose(text('twice?'), { timeoutMs: 20_000 });
  await cluster.world.run(0.3);
  cluster.kill(leader);
  assert.equal(await cluster.settle(pending), 2);
  const survivor = cluster.hosts.get(cluster.leaderOf(1))!;
  assert.deepEqual(await cluster.settle(survivor.read(1, 'all')), ['once', 'twice?']);
  await cluster.settle(second.close());
  await assert.rejects(cluster.settle(second.propose(text('closed'))), { code: 'ERR_INVALID_SESSION' });
  await cluster.close();
});

test('leadership is handed over on request, from the leader and from a follower, and a hopeless transfer says why', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const target = cluster.followerOf(1);
  await cluster.settle(cluster.hosts.get(leader)!.transferLeader(1, target));
  assert.equal(cluster.leaderOf(1), target);
  await cluster.settle(cluster.hosts.get(leader)!.transferLeader(1, leader));
  assert.equal(cluster.leaderOf(1), leader);
  await assert.rejects(cluster.settle(cluster.hosts.get(leader)!.transferLeader(1, 9)), {
    code: 'ERR_TRANSFER_ABORTED',
  });
  cluster.kill(target);
  await assert.rejects(cluster.settle(cluster.hosts.get(leader)!.transferLeader(1, target)), {
    code: 'ERR_TRANSFER_ABORTED',
  });
  await cluster.propose(leader, 1, 'it still leads');
  await cluster.close();
});

test('batches, callbacks and handles answer in order', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const host = cluster.hosts.get(cluster.leaderOf(1))!;
  assert.deepEqual(await cluster.settle(host.proposeBatch(1, [text('a'), text('b'), text('c')])), [1, 2, 3]);
  assert.deepEqual(await cluster.settle(host.proposeBatch(1, [])), []);
  const answers: unknown[] = [];
  host.proposeCallback(1, text('d'), (error, result, cookie) => answers.push([error, result, cookie]), 42);
  assert.deepEqual(answers, [], 'a callback ran inside the call');
  await cluster.world.until(() => answers.length === 1);
  assert.deepEqual(answers, [[null, 4, 42]]);
  assert.equal(await cluster.settle(host.shard(1).propose(text('e'))), 5);
  assert.equal(await cluster.settle(Promise.resolve(host.staleRead(1, 'count'))), 5);
  await cluster.close();
});

test('stopReplica ends what waits, keeps the data, and the replica starts again in the same process', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const follower = cluster.followerOf(1);
  const host = cluster.hosts.get(follower)!;
  await cluster.propose(follower, 1, 'kept');
  const waiting = host.propose(1, text('waiting'));
  waiting.catch(() => {});
  await cluster.settle(host.stopReplica(1));
  await assert.rejects(cluster.settle(waiting), { code: 'ERR_SHARD_STOPPED' });
  assert.throws(() => host.staleRead(1, 'all'), { code: 'ERR_SHARD_NOT_FOUND' });
  await cluster.startReplica(follower, 1);
  await cluster.ready(1);
  assert.equal(cluster.lines(follower, 1)[0], 'kept');
  await cluster.assertEqual(1);
  await cluster.close();
});

test('scenario 74: a state machine that throws fails its shard wherever the entry is applied, and the other shards live on', async () => {
  const cluster = new TestCluster();
  await cluster.startAll([1, 2]);
  const host = cluster.hosts.get(cluster.leaderOf(1))!;
  const failures: string[] = [];
  for (const other of cluster.hosts.values()) other.on('replicaFailed', ({ error }) => failures.push(error.code));
  await assert.rejects(cluster.settle(host.propose(1, text('throw'))), {
    code: 'ERR_SHARD_FAILED',
    outcome: 'unknown',
  });
  // The leader, and then the next one; the third stays without a majority and applies nothing.
  await cluster.world.until(() => failures.length === 2);
  assert.deepEqual(failures, ['ERR_STATE_MACHINE', 'ERR_STATE_MACHINE']);
  await assert.rejects(cluster.settle(host.propose(1, text('more'))), {
    code: 'ERR_SHARD_FAILED',
    outcome: 'not-applied',
  });
  assert.equal(host.shardInfo(1).state, 'failed');
  assert.equal(await cluster.propose(1, 2, 'the other shard'), 1);
  await cluster.close();
});

test('a look-up that throws rejects its own caller only', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const host = cluster.hosts.get(2)!;
  const [bad, good] = [host.read(1, 'throw'), host.read(1, 'count')];
  await assert.rejects(cluster.settle(bad), /a look-up that throws/);
  assert.equal(await cluster.settle(good), 0);
  await cluster.close();
});

test('without a majority, writes and reads end at their deadlines with an unknown outcome', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  for (const id of [1, 2, 3]) if (id !== leader) cluster.kill(id);
  const host = cluster.hosts.get(leader)!;
  const write = host.propose(1, text('alone'), { timeoutMs: 200 });
  const read = host.read(1, 'all', { timeoutMs: 200 });
  write.catch(() => {});
  read.catch(() => {});
  await assert.rejects(cluster.settle(write), { code: 'ERR_TIMEOUT', outcome: 'unknown' });
  await assert.rejects(cluster.settle(read), { code: 'ERR_TIMEOUT' });
  await cluster.world.until(() => host.shardInfo(1).leaderId === 0, 20_000);
  await assert.rejects(cluster.settle(host.propose(1, text('late'))), {
    code: 'ERR_NO_LEADER',
    outcome: 'not-applied',
  });
  assert.deepEqual(await cluster.settle(Promise.resolve(host.staleRead(1, 'all'))), []);
  await cluster.close();
});

test('an abort signal ends a call early', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  const controller = new AbortController();
  const waiting = host.propose(1, text('aborted'), { signal: controller.signal });
  controller.abort();
  await assert.rejects(cluster.settle(waiting), { code: 'ERR_ABORTED', outcome: 'unknown' });
  await assert.rejects(cluster.settle(host.propose(1, text('x'), { signal: controller.signal })), {
    code: 'ERR_ABORTED',
    outcome: 'not-applied',
  });
  await cluster.close();
});

test('requestSnapshot compacts the log, and a restart begins from the image', async () => {
  const cluster = new TestCluster({ replica: { compactionOverhead: 5 } });
  await cluster.startAll();
  for (let i = 0; i < 40; i++) await cluster.propose(1, 1, `line ${i}`);
  const host = cluster.hosts.get(1)!;
  const { index } = await cluster.settle(host.requestSnapshot(1));
  assert.equal(index, host.shardInfo(1).appliedIndex);
  assert.equal(host.shardInfo(1).snapshotIndex, index);
  assert.equal(host.shardInfo(1).firstIndex, index - 5 + 1);
  assert.deepEqual(await cluster.settle(host.requestSnapshot(1)), { index }, 'a second one with nothing new');
  cluster.losePower(1);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  assert.equal(cluster.lines(1, 1).length, 40);
  await cluster.assertEqual(1);
  await cluster.close();
});

test('await using closes a host, and a closed host refuses everything with ERR_CLOSED', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const host = cluster.hosts.get(3)!;
  await cluster.settle(host[Symbol.asyncDispose]());
  assert.throws(() => host.staleRead(1, 'all'), { code: 'ERR_CLOSED' });
  await assert.rejects(host.propose(1, text('x')), { code: 'ERR_CLOSED' });
  await assert.rejects(
    host.startReplica({ shardId: 2, replicaId: 3, members: cluster.members(3) }, () => null as never),
    {
      code: 'ERR_CLOSED',
    },
  );
  await cluster.close();
});

test('a follower’s read is answered though the connections break under it', async () => {
  const cluster = new TestCluster({ replica: { electionRtt: 12, heartbeatRtt: 2 } });
  await cluster.startAll();
  const [follower, leader] = [cluster.followerOf(1), cluster.leaderOf(1)];
  const host = cluster.hosts.get(follower)!;
  for (let i = 0; i < 10; i++) {
    const started = cluster.world.nowMs();
    const read = host.read(1, 'count', { timeoutMs: 60_000 });
    await cluster.world.run(i / 4);
    cluster.machines.network.reset(`host${follower}`, `host${leader}`);
    assert.equal(await cluster.settle(read), 0);
    assert.ok(cluster.world.nowMs() - started < 5000, 'it waited for nothing');
    await cluster.ready(1);
  }
  await cluster.close();
});
