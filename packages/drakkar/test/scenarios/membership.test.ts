/** Scenarios 36 to 47: changes of membership, numbered as in docs/testing.md. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import { BLOCK_CONFIG_CHANGE } from '../../src/wire/block.ts';
import { BlockRef } from '../../src/wire/block-ref.ts';
import { RaftCluster } from '../raft/cluster.ts';
import { TestCluster, text, type ClusterOptions } from '../support.ts';

/** `voters` hosts with the shard, and free ones up to `hosts`. */
async function clusterOf(hosts: number, voters = 3, options: ClusterOptions = {}): Promise<TestCluster> {
  const cluster = new TestCluster({ ...options, hosts });
  const ids = [...cluster.machineOf.keys()];
  for (const id of ids) await cluster.open(id);
  for (const id of ids.slice(0, voters)) await cluster.startReplica(id, 1, ids.slice(0, voters));
  await cluster.ready(1, ids.slice(0, voters));
  return cluster;
}

const leaderHost = (cluster: TestCluster) => cluster.hosts.get(cluster.leaderOf(1))!;

function isolate(cluster: TestCluster, id: number): void {
  for (const other of cluster.machineOf.keys())
    if (other !== id) cluster.machines.network.cut(`host${id}`, `host${other}`);
}

async function untilRemoved(cluster: TestCluster, id: number): Promise<void> {
  await cluster.world.until(() => !cluster.runs(id, 1), 60_000);
  assert.throws(() => cluster.hosts.get(id)!.shardInfo(1), { code: 'ERR_REPLICA_REMOVED' });
}

/** What became of a call, in the end. */
const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'ok',
    (error: unknown) => (DrakkarError.is(error) ? error.code : String(error)),
  );

/** Refusals that pass are waited out. */
async function untilDone(cluster: TestCluster, begin: () => Promise<unknown>): Promise<void> {
  while ((await cluster.settle(codeOf(Promise.resolve().then(begin)))) !== 'ok') await cluster.world.run(50);
}

test('scenario 36: a leader changes nothing before it has committed in its own term; two leaders’ changes leave one membership', async () => {
  const cores = new RaftCluster(3);
  const core = cores.node(1);
  core.raft.campaign();
  core.work();
  cores.settle(({ block }) => block !== undefined); // its first entry reaches nobody
  assert.equal(core.raft.role, 'leader');
  assert.equal(core.raft.mayChangeMembership, false);
  cores.run(3);
  assert.equal(core.raft.mayChangeMembership, true);

  // An old leader's addition, cut off from the others, and a new leader's removal of it.
  const cluster = await clusterOf(5, 4);
  const old = cluster.leaderOf(1);
  isolate(cluster, old);
  const added = codeOf(cluster.hosts.get(old)!.addReplica(1, 5, cluster.addressOf(5), { timeoutMs: 20_000 }));
  const others = [1, 2, 3, 4].filter((id) => id !== old);
  const leads = (id: number): boolean => cluster.hosts.get(id)!.shardInfo(1).role === 'leader';
  await cluster.world.until(() => others.some(leads), 30_000);
  const next = cluster.hosts.get(others.find(leads)!)!;
  const gone = others.find((id) => !leads(id))!;
  await untilDone(cluster, () => next.removeReplica(1, gone));
  cluster.machines.network.heal();
  assert.notEqual(await cluster.settle(added), 'ok');
  const rest = [1, 2, 3, 4].filter((id) => id !== gone);
  await cluster.ready(1, rest);
  for (const id of rest) {
    const { voters } = await cluster.settle(cluster.hosts.get(id)!.membership(1));
    assert.deepEqual(voters, cluster.members(...rest));
  }
  await cluster.assertEqual(1, rest);
  await cluster.close();
});

test('scenario 37: a second change while one is pending is refused, also by a leader that inherits it', async () => {
  const cluster = await clusterOf(5);
  const host = leaderHost(cluster);
  const calls = [host.addReplica(1, 4, cluster.addressOf(4)), host.addReplica(1, 5, cluster.addressOf(5))];
  const codes = await cluster.settle(Promise.all(calls.map(codeOf)));
  assert.deepEqual(codes, ['ok', 'ERR_CONFIG_CHANGE_PENDING']);
  await cluster.close();

  const cores = new RaftCluster(3);
  const heir = cores.node(2).raft;
  cores.elect(1);
  const { lastIndex, lastTerm } = heir.log;
  heir.log.append(new BlockRef(lastIndex + 1, 1, lastTerm, lastTerm, undefined, 0, 0, BLOCK_CONFIG_CHANGE));
  cores.isolate(1);
  while (heir.role !== 'leader') {
    cores.node(2).tick();
    cores.node(3).raft.electionElapsed = 20; // it has not heard of the old one either
    cores.settle(({ block }) => block !== undefined);
  }
  heir.commitIndex = heir.termStartIndex; // as if its own entry were committed, and nothing applied yet
  assert.equal(heir.mayChangeMembership, false);
  heir.appliedIndex = lastIndex + 1;
  assert.equal(heir.mayChangeMembership, true);
});

test('scenario 38: no campaign over a change that is committed and not applied', () => {
  const cores = new RaftCluster(3);
  cores.elect(1);
  const { raft } = cores.node(2);
  const { lastIndex, lastTerm } = raft.log;
  raft.log.append(new BlockRef(lastIndex + 1, 1, lastTerm, lastTerm, undefined, 0, 0, BLOCK_CONFIG_CHANGE));
  raft.campaign();
  assert.equal(raft.role, 'pre-candidate', 'one that is only appended would lock out the survivors of a dead leader');
  cores.run(2);
  assert.equal(raft.role, 'follower', 'the leader is still there');
  raft.commitIndex = lastIndex + 1;
  raft.campaign();
  assert.equal(raft.role, 'follower');
  raft.step(Object.assign(cores.timeoutNow(1, 2), { term: raft.term }));
  assert.equal(raft.role, 'follower', 'nor for a leader that hands over');
  raft.applied(lastIndex + 1);
  assert.equal(raft.role, 'candidate', 'it takes over as soon as the change is applied');
});

test('scenario 39: a leader removes itself, hands over and stops, down to the last but one', async () => {
  const cluster = await clusterOf(3);
  const old = cluster.leaderOf(1);
  await cluster.propose(old, 1, 'before');
  const { term } = cluster.hosts.get(old)!.shardInfo(1);
  const before = cluster.world.nowMs();
  await cluster.settle(cluster.hosts.get(old)!.removeReplica(1, old));
  const rest = [1, 2, 3].filter((id) => id !== old);
  await cluster.ready(1, rest);
  assert.ok(cluster.world.nowMs() - before < 500, 'the shard waited for an election timeout');
  assert.equal(cluster.hosts.get(rest[0])!.shardInfo(1).term, term + 1);
  await untilRemoved(cluster, old);
  await cluster.propose(rest[0], 1, 'after');

  // The last but one goes, and nothing it says any more arrives.
  const last = cluster.leaderOf(1);
  const alone = rest.find((id) => id !== last)!;
  const removal = cluster.hosts.get(last)!.removeReplica(1, last);
  await cluster.settle(removal);
  isolate(cluster, alone);
  cluster.kill(last);
  await cluster.world.run(10_000);
  cluster.machines.network.heal();
  await cluster.open(last);
  await cluster.startReplica(last, 1); // it has not stopped before the other one knows
  await cluster.ready(1, [alone]);
  await untilRemoved(cluster, last);
  assert.deepEqual(cluster.hosts.get(alone)!.shardInfo(1).members, cluster.members(alone));
  await cluster.propose(alone, 1, 'alone');
  assert.deepEqual(cluster.lines(alone, 1), ['before', 'after', 'alone']);
  await cluster.close();
});

test('scenario 40: a follower that was removed while it was cut off disturbs nobody when it returns, and stops', async () => {
  const cluster = await clusterOf(4, 4);
  const gone = cluster.followerOf(1);
  isolate(cluster, gone);
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  await cluster.settle(host.removeReplica(1, gone));
  await cluster.world.run(20_000);
  const { term } = host.shardInfo(1);
  cluster.machines.network.heal();
  await untilRemoved(cluster, gone);
  for (let i = 0; i < 5; i++) await cluster.propose(leader, 1, `line ${i}`);
  assert.equal(cluster.leaderOf(1), leader);
  assert.equal(host.shardInfo(1).term, term);
  await cluster.close();
});

test('scenario 41: an id that was removed never comes back', async () => {
  const cluster = await clusterOf(5);
  const gone = cluster.followerOf(1);
  const host = leaderHost(cluster);
  await cluster.settle(host.removeReplica(1, gone));
  for (const role of ['voter', 'non-voting', 'witness'] as const) {
    const again = host.addReplica(1, gone, cluster.addressOf(4), { role });
    await assert.rejects(cluster.settle(again), { code: 'ERR_REPLICA_REMOVED', retryable: false });
  }
  const options = { shardId: 1, replicaId: gone, members: 'join' } as const;
  await cluster.settle(cluster.hosts.get(4)!.startReplica(options, cluster.machine));
  await cluster.world.run(5000);
  await assert.rejects(cluster.settle(cluster.hosts.get(4)!.propose(1, text('x'))), { code: 'ERR_NOT_MEMBER' });
  // Not after a snapshot and a restart of all either.
  for (const [id, node] of cluster.hosts) if (id <= 3 && id !== gone) await cluster.settle(node.requestSnapshot(1));
  const rest = [1, 2, 3].filter((id) => id !== gone);
  for (const id of rest) cluster.kill(id);
  for (const id of rest) await cluster.open(id);
  for (const id of rest) await cluster.startReplica(id, 1);
  await cluster.ready(1, rest);
  const again = leaderHost(cluster).addReplica(1, gone, cluster.addressOf(5));
  await assert.rejects(cluster.settle(again), { code: 'ERR_REPLICA_REMOVED' });
  await cluster.close();
});

test('scenario 42: an ordered change of a membership that is another one by now is refused', async () => {
  const cluster = await clusterOf(5);
  for (const caller of [cluster.leaderOf(1), cluster.followerOf(1)]) {
    const host = cluster.hosts.get(caller)!;
    const free = caller === cluster.leaderOf(1) ? 4 : 5;
    const { configChangeIndex } = await cluster.settle(host.membership(1));
    const stale = { configChangeIndex: configChangeIndex + 1 };
    const refused = host.addReplica(1, free, cluster.addressOf(free), stale);
    await assert.rejects(cluster.settle(refused), { code: 'ERR_CONFIG_CHANGE_STALE', outcome: 'not-applied' });
    // 0, of a shard that was never changed, says that it does not matter.
    const done = host.addReplica(1, free, cluster.addressOf(free), { configChangeIndex });
    assert.ok((await cluster.settle(done)).configChangeIndex > configChangeIndex);
  }
  await cluster.close();
});

test('scenario 43: the only voter cannot be removed, whoever else is there', async () => {
  const cluster = await clusterOf(3, 1);
  const host = cluster.hosts.get(1)!;
  await assert.rejects(cluster.settle(host.removeReplica(1, 1)), { code: 'ERR_CONFIG_CHANGE_REFUSED' });
  await cluster.startReplica(2, 1, 'join');
  await cluster.settle(host.addReplica(1, 2, cluster.addressOf(2), { role: 'non-voting' }));
  await cluster.startWitness(3, 1);
  await cluster.settle(host.addReplica(1, 3, cluster.addressOf(3), { role: 'witness' }));
  await assert.rejects(cluster.settle(host.removeReplica(1, 1)), { code: 'ERR_CONFIG_CHANGE_REFUSED' });
  await cluster.propose(1, 1, 'still there');
  await cluster.close();
});

test('scenario 44: 3, 2, 1, 3 replicas under load; of two both are needed', async () => {
  const cluster = await clusterOf(5);
  let isOver = false;
  let acknowledged = 0;
  const load = async (): Promise<void> => {
    for (let i = 0; !isOver; i++) {
      const host = leaderHost(cluster) ?? cluster.hosts.get(1)!;
      if ((await codeOf(host.propose(1, text(`load ${i}`), { timeoutMs: 1000 }))) === 'ok') acknowledged++;
      await new Promise<void>((resolve) => void cluster.world.schedule(5, resolve));
    }
  };
  const loads = Promise.all([load(), load()]);
  const change = (begin: () => Promise<unknown>): Promise<void> => untilDone(cluster, begin);
  const first = cluster.followerOf(1);
  await change(() => leaderHost(cluster).removeReplica(1, first));
  await untilRemoved(cluster, first);
  const [stays, goes] = [cluster.leaderOf(1), [1, 2, 3].find((id) => id !== first && id !== cluster.leaderOf(1))!];
  isolate(cluster, goes);
  await cluster.world.run(5000);
  assert.notEqual(
    await cluster.settle(codeOf(cluster.hosts.get(stays)!.propose(1, text('x'), { timeoutMs: 500 }))),
    'ok',
  );
  cluster.machines.network.heal();
  await cluster.ready(1, [stays, goes]);
  await change(() => leaderHost(cluster).removeReplica(1, goes));
  await untilRemoved(cluster, goes);
  const alone = acknowledged;
  await cluster.world.run(500);
  assert.ok(acknowledged > alone, 'one of one answers');
  for (const id of [4, 5]) {
    await cluster.startReplica(id, 1, 'join');
    await change(() => leaderHost(cluster).addReplica(1, id, cluster.addressOf(id)));
  }
  await cluster.ready(1, [stays, 4, 5]);
  isOver = true;
  await cluster.settle(loads);
  await cluster.assertEqual(1, [stays, 4, 5]);
  const lines = cluster.lines(stays, 1).filter((line) => line.startsWith('load'));
  assert.ok(lines.length >= acknowledged, 'an acknowledged write is gone');
  await cluster.close();
});

test('scenario 45: who does not vote counts for nothing, is promoted only once it has caught up, and may learn it from a snapshot', async () => {
  const cluster = await clusterOf(5, 3, { replica: { compactionOverhead: 0 } });
  for (const id of [4, 5]) {
    await cluster.startReplica(id, 1, 'join');
    await cluster.settle(cluster.hosts.get(1)!.addReplica(1, id, cluster.addressOf(id), { role: 'non-voting' }));
  }
  await cluster.ready(1);
  const followers = [1, 2, 3].filter((id) => id !== cluster.leaderOf(1));
  for (const id of followers) isolate(cluster, id);
  // Three of five are there, and one of three voters.
  const { commitIndex } = leaderHost(cluster).shardInfo(1);
  const calls = [4, 5, cluster.leaderOf(1)].map((id) => {
    const host = cluster.hosts.get(id)!;
    return codeOf(host.propose(1, text('x'), { timeoutMs: 3000 })).then(async (code) => [
      code,
      await codeOf(host.read(1, 'all', { timeoutMs: 500 })),
    ]);
  });
  for (const codes of await cluster.settle(Promise.all(calls))) assert.equal(codes.includes('ok'), false);
  await cluster.world.run(10_000);
  for (const id of [4, 5]) {
    const { role, commitIndex: known } = cluster.hosts.get(id)!.shardInfo(1);
    assert.equal(role, 'follower');
    assert.equal(known, commitIndex);
  }
  cluster.machines.network.heal();
  await cluster.ready(1);
  const host = leaderHost(cluster);
  await cluster.world.until(
    () => host.shardInfo(1).progress.some((member) => member.replicaId === 4 && member.isCaughtUp),
    30_000,
  );
  cluster.kill(4);
  await cluster.settle(host.promote(1, 4)); // it has not been missed yet
  for (let i = 0; i < 20; i++) await cluster.settle(host.propose(1, text(`line ${i}`)));
  for (const id of [1, 2, 3, 5]) await cluster.settle(cluster.hosts.get(id)!.requestSnapshot(1));
  await cluster.open(4);
  await cluster.startReplica(4, 1);
  await cluster.ready(1);
  assert.deepEqual(cluster.hosts.get(4)!.shardInfo(1).members, cluster.members(1, 2, 3, 4));
  assert.ok(cluster.hosts.get(4)!.shardInfo(1).snapshotIndex > 0);
  for (const id of [1, 2, 3].filter((each) => each !== cluster.leaderOf(1)).slice(0, 1)) cluster.kill(id);
  await cluster.propose(4, 1, 'three of four');
  await assert.rejects(cluster.settle(leaderHost(cluster).addReplica(1, 4, 'a:1', { role: 'non-voting' })), {
    code: 'ERR_CONFIG_CHANGE_REFUSED',
  });
  await cluster.close();
});

test('scenario 46: a witness votes and acknowledges, gets no entry and no state, and never leads', async () => {
  const cluster = await clusterOf(3, 2, { replica: { compactionOverhead: 0 } });
  await cluster.startWitness(3, 1);
  await cluster.settle(cluster.hosts.get(1)!.addReplica(1, 3, cluster.addressOf(3), { role: 'witness' }));
  await cluster.ready(1);
  for (let i = 0; i < 10; i++) await cluster.propose(1, 1, `secret ${i}`);
  const witness = cluster.hosts.get(3)!;
  const refused = { code: 'ERR_WITNESS', retryable: false, outcome: 'not-applied' };
  await assert.rejects(cluster.settle(witness.propose(1, text('x'))), refused);
  await assert.rejects(cluster.settle(witness.read(1, 'all')), refused);
  await assert.rejects(cluster.settle(witness.requestSnapshot(1)), refused);
  await assert.rejects(async () => cluster.settle(Promise.resolve(witness.staleRead(1, 'all'))), refused);
  await assert.rejects(cluster.settle(witness.queryLog(1, { firstIndex: 1 })), refused);
  assert.throws(() => witness.watch(1), refused);
  await assert.rejects(cluster.settle(leaderHost(cluster).transferLeader(1, 3)), { code: 'ERR_TRANSFER_ABORTED' });
  // Any one of the others may go, and the witness never leads.
  for (const away of [1, 2]) {
    const stays = 3 - away;
    await cluster.ready(1);
    await cluster.assertEqual(1, [1, 2]);
    cluster.kill(away);
    await cluster.ready(1, [stays]);
    await cluster.propose(stays, 1, `secret without ${away}`);
    assert.equal(witness.shardInfo(1).role, 'follower');
    await cluster.open(away);
    await cluster.startReplica(away, 1);
  }
  await cluster.ready(1);
  // One that lags behind what is compacted gets a snapshot without the state.
  cluster.kill(3);
  for (let i = 0; i < 10; i++) await cluster.propose(1, 1, `secret ${i}`);
  for (const id of [1, 2]) await cluster.settle(cluster.hosts.get(id)!.requestSnapshot(1));
  await cluster.open(3);
  await cluster.startWitness(3, 1);
  await cluster.ready(1);
  assert.ok(cluster.hosts.get(3)!.shardInfo(1).snapshotIndex > 0);
  assert.ok(contains(cluster, 1, 'secret') && contains(cluster, 2, 'secret'));
  assert.equal(contains(cluster, 3, 'secret'), false);
  // It starts again with what it promised.
  cluster.kill(3);
  await cluster.open(3);
  await cluster.startWitness(3, 1);
  cluster.kill(cluster.leaderOf(1));
  const stays = [1, 2].find((id) => cluster.hosts.has(id))!;
  await cluster.ready(1, [stays]);
  await cluster.propose(stays, 1, 'last');
  await cluster.close();
});

/** Whether the bytes of `needle` stand anywhere on the host's disk. */
function contains(cluster: TestCluster, id: number, needle: string): boolean {
  return [...cluster.machineOf.get(id)!.disk.images.values()].some(({ bytes }) => Buffer.from(bytes).includes(needle));
}

test('scenario 47: the membership in a snapshot is the one at its index', async () => {
  const cluster = await clusterOf(4, 3, { replica: { compactionOverhead: 0 } });
  const changes = [
    () => leaderHost(cluster).addReplica(1, 4, cluster.addressOf(4), { role: 'non-voting' }),
    () => leaderHost(cluster).removeReplica(1, 4),
  ];
  for (const change of changes) {
    const { configChangeIndex } = await cluster.settle(change());
    const follower = cluster.followerOf(1);
    await cluster.propose(follower, 1, 'behind it');
    const expected = cluster.hosts.get(follower)!.shardInfo(1).membership;
    assert.equal(expected.configChangeIndex, configChangeIndex);
    const { index } = await cluster.settle(cluster.hosts.get(follower)!.requestSnapshot(1));
    assert.ok(index >= configChangeIndex);
    cluster.kill(follower);
    isolate(cluster, follower); // what it knows, it knows from the snapshot
    await cluster.open(follower);
    await cluster.startReplica(follower, 1);
    assert.equal(cluster.hosts.get(follower)!.shardInfo(1).firstIndex, index + 1);
    assert.deepEqual(cluster.hosts.get(follower)!.shardInfo(1).membership, expected);
    cluster.machines.network.heal();
    await cluster.ready(1, [1, 2, 3]);
  }
  await cluster.close();
});
