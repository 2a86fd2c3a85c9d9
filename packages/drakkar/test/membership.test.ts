/** Changes of membership on whole hosts in memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, type HostEventMap, type MemberProgress, type NodeHost } from 'drakkar';
import { TestCluster, text } from './support.ts';

/** Three hosts with the shard, and more that may join. */
async function clusterOf(hosts: number, voters = 3, seed = 1): Promise<TestCluster> {
  const cluster = new TestCluster({ hosts, seed });
  const ids = [...cluster.machineOf.keys()];
  for (const id of ids) await cluster.open(id);
  for (const id of ids.slice(0, voters)) await cluster.startReplica(id, 1, ids.slice(0, voters));
  await cluster.ready(1, ids.slice(0, voters));
  return cluster;
}

function progressOf(leader: NodeHost, replicaId: number): MemberProgress {
  return leader.shardInfo(1).progress.find((member) => member.replicaId === replicaId)!;
}

async function join(cluster: TestCluster, id: number): Promise<void> {
  await cluster.startReplica(id, 1, 'join');
}

test('a replica that joins is added, catches up from the beginning of the log, and votes', async () => {
  const cluster = await clusterOf(4);
  for (let i = 0; i < 20; i++) await cluster.propose((i % 3) + 1, 1, `line ${i}`);
  await join(cluster, 4);
  const newcomer = cluster.hosts.get(4)!;
  await assert.rejects(cluster.settle(newcomer.propose(1, text('x'))), { code: 'ERR_NOT_MEMBER', retryable: true });
  await assert.rejects(cluster.settle(newcomer.read(1, 'all')), { code: 'ERR_NOT_MEMBER' });
  const before = cluster.hosts.get(1)!.shardInfo(1).membership;
  const { configChangeIndex } = await cluster.settle(cluster.hosts.get(1)!.addReplica(1, 4, cluster.addressOf(4)));
  assert.ok(configChangeIndex > before.configChangeIndex);
  await cluster.ready(1);
  await cluster.assertEqual(1);
  for (const id of [1, 2, 3, 4]) {
    const membership = await cluster.settle(cluster.hosts.get(id)!.membership(1));
    assert.deepEqual(membership.voters, cluster.members(1, 2, 3, 4));
    assert.equal(membership.configChangeIndex, configChangeIndex);
  }
  // Two of four are no majority, three are.
  const [first, second] = [1, 2, 3].filter((id) => id !== cluster.leaderOf(1));
  cluster.kill(first);
  await cluster.propose(cluster.leaderOf(1), 1, 'three of four');
  assert.ok(cluster.lines(4, 1).length >= 20);
  cluster.kill(second);
  await assert.rejects(cluster.propose(4, 1, 'two of four', 500), (error) => DrakkarError.is(error));
  await cluster.close();
});

test('changes work on any host, a follower or the newcomer’s own included', async () => {
  const cluster = await clusterOf(5);
  await join(cluster, 4);
  const follower = cluster.followerOf(1);
  await cluster.settle(cluster.hosts.get(follower)!.addReplica(1, 4, cluster.addressOf(4)));
  await cluster.ready(1, [1, 2, 3, 4]);
  await join(cluster, 5);
  await cluster.settle(cluster.hosts.get(4)!.addReplica(1, 5, cluster.addressOf(5)));
  await cluster.ready(1);
  await cluster.settle(cluster.hosts.get(5)!.removeReplica(1, follower));
  await assert.rejects(cluster.settle(cluster.hosts.get(4)!.removeReplica(1, follower)), {
    code: 'ERR_REPLICA_REMOVED',
  });
  await assert.rejects(cluster.settle(cluster.hosts.get(4)!.removeReplica(1, 77)), {
    code: 'ERR_CONFIG_CHANGE_REFUSED',
  });
  await cluster.close();
});

test('a removed replica stops by itself, says why, gives its room back, and another one joins in its place', async () => {
  const cluster = await clusterOf(3);
  const events: HostEventMap['replicaRemoved'][] = [];
  const gone = cluster.followerOf(1);
  const host = cluster.hosts.get(gone)!;
  host.on('replicaRemoved', (event) => events.push(event));
  await assert.rejects(cluster.settle(host.removeData(1, gone)), { code: 'ERR_NOT_REMOVED' });
  const leader = cluster.hosts.get(cluster.leaderOf(1))!;
  await cluster.settle(leader.removeReplica(1, gone));
  await cluster.world.until(() => events.length > 0, 30_000);
  assert.deepEqual(events, [{ shardId: 1, replicaId: gone }]);
  await assert.rejects(async () => cluster.settle(host.propose(1, text('x'))), { code: 'ERR_REPLICA_REMOVED' });
  assert.throws(() => host.shardInfo(1), { code: 'ERR_REPLICA_REMOVED' });
  await assert.rejects(cluster.startReplica(gone, 1), { code: 'ERR_REPLICA_REMOVED' });
  // Also after its process was there anew.
  cluster.kill(gone);
  const again = await cluster.open(gone);
  await assert.rejects(cluster.startReplica(gone, 1, [1, 2, 3]), { code: 'ERR_REPLICA_REMOVED' });
  await assert.rejects(cluster.settle(again.removeData(1, 9)), { code: 'ERR_SHARD_MISMATCH' });
  await cluster.settle(again.removeData(1, gone));
  await assert.rejects(cluster.settle(again.removeData(1, gone)), { code: 'ERR_SHARD_NOT_FOUND' });
  const options = { shardId: 1, replicaId: 14, members: 'join' } as const;
  await cluster.settle(again.startReplica(options, cluster.machine));
  await cluster.settle(leader.addReplica(1, 14, cluster.addressOf(gone)));
  await cluster.ready(1);
  await cluster.propose(gone, 1, 'from the newcomer');
  await cluster.assertEqual(1);
  await cluster.close();
});

test('an error says whether this is a new shard, a restart, or a replica that joins', async () => {
  const cluster = await clusterOf(4);
  await assert.rejects(cluster.startReplica(4, 1), (error: DrakkarError) => {
    return error.code === 'ERR_SHARD_NOT_BOOTSTRAPPED' && /never run/.test(error.message) && /join/.test(error.message);
  });
  await assert.rejects(cluster.startReplica(4, 1, [1, 2, 3]), /or 'join' if it is to be added/);
  await join(cluster, 4);
  await cluster.settle(cluster.hosts.get(1)!.addReplica(1, 4, cluster.addressOf(4)));
  await cluster.ready(1);
  for (const id of [1, 4]) await cluster.settle(cluster.hosts.get(id)!.stopReplica(1));
  await assert.rejects(cluster.startReplica(4, 1, [1, 2, 3, 4]), {
    code: 'ERR_SHARD_MISMATCH',
    message: /joined.*restart/,
  });
  await assert.rejects(cluster.startReplica(1, 1, 'join'), {
    code: 'ERR_SHARD_MISMATCH',
    message: /restart.*nothing to join/,
  });
  await join(cluster, 4);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  await cluster.close();
});

test('a newcomer that only a snapshot can help gets one, and the membership in it is the one at its index', async () => {
  const cluster = new TestCluster({ hosts: 4, replica: { compactionOverhead: 0 } });
  for (const id of [1, 2, 3, 4]) await cluster.open(id);
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  await cluster.ready(1, [1, 2, 3]);
  for (let i = 0; i < 20; i++) await cluster.propose(1, 1, `line ${i}`);
  for (const id of [1, 2, 3]) await cluster.settle(cluster.hosts.get(id)!.requestSnapshot(1));
  await join(cluster, 4);
  await cluster.settle(cluster.hosts.get(2)!.addReplica(1, 4, cluster.addressOf(4)));
  await cluster.ready(1);
  assert.equal(cluster.lines(4, 1).length, 20);
  // All start again from their snapshots alone.
  await cluster.propose(1, 1, 'last');
  await cluster.assertEqual(1);
  for (const id of [1, 2, 3, 4]) await cluster.settle(cluster.hosts.get(id)!.requestSnapshot(1));
  for (const id of [1, 2, 3, 4]) cluster.kill(id);
  for (const id of [1, 2, 3, 4]) await cluster.open(id);
  for (const id of [1, 2, 3, 4]) await cluster.startReplica(id, 1);
  await cluster.ready(1);
  for (const id of [1, 2, 3, 4]) {
    assert.deepEqual(cluster.hosts.get(id)!.shardInfo(1).membership.voters, cluster.members(1, 2, 3, 4));
  }
  await cluster.close();
});

test('the way to a host ends when the last replica there is removed', async () => {
  const cluster = await clusterOf(3);
  const gone = cluster.followerOf(1);
  const leader = cluster.hosts.get(cluster.leaderOf(1))!;
  await cluster.settle(leader.removeReplica(1, gone));
  await cluster.world.until(() => !cluster.runs(gone, 1), 30_000);
  await cluster.world.run(60_000);
  const dialled = [...cluster.machines.network.sockets].filter(({ local, remote }) =>
    [local, remote].includes(`host${gone}`),
  );
  assert.deepEqual(dialled, []);
  await cluster.close();
});

test('a non-voting member catches up, tells how far it is, and is promoted by hand once it has', async () => {
  const cluster = await clusterOf(4);
  for (let i = 0; i < 10; i++) await cluster.propose(1, 1, `line ${i}`);
  const leader = cluster.hosts.get(cluster.leaderOf(1))!;
  const options = { role: 'non-voting' } as const;
  await cluster.settle(leader.addReplica(1, 4, cluster.addressOf(4), options));
  await assert.rejects(cluster.settle(leader.promote(1, 4)), { code: 'ERR_CONFIG_CHANGE_PENDING', retryable: true });
  assert.equal(progressOf(leader, 4).isActive, true); // not yet known to be away
  await cluster.world.run(5000);
  assert.deepEqual(progressOf(leader, 4).isCaughtUp, false);
  assert.equal(progressOf(leader, 4).isActive, false);
  assert.ok(progressOf(leader, 4).lagEntries > 10);
  await join(cluster, 4);
  await cluster.ready(1);
  assert.equal(await cluster.propose(4, 1, 'from a member that does not vote'), 11);
  await cluster.world.until(() => progressOf(leader, 4).isCaughtUp, 30_000);
  assert.equal(progressOf(leader, 4).lagEntries, 0);
  await cluster.settle(leader.promote(1, 4));
  await assert.rejects(cluster.settle(leader.promote(1, 4)), { code: 'ERR_CONFIG_CHANGE_REFUSED' });
  const membership = await cluster.settle(leader.membership(1));
  assert.deepEqual(membership.voters, cluster.members(1, 2, 3, 4));
  assert.deepEqual(membership.nonVotings, {});
  await cluster.close();
});

test('a member that is to be promoted by itself is, also by a leader that did not add it', async () => {
  const cluster = await clusterOf(4);
  const leader = cluster.leaderOf(1);
  const options = { role: 'non-voting', autoPromote: true } as const;
  await cluster.settle(cluster.hosts.get(leader)!.addReplica(1, 4, cluster.addressOf(4), options));
  const next = [1, 2, 3].find((id) => id !== leader)!;
  await cluster.settle(cluster.hosts.get(leader)!.transferLeader(1, next));
  await join(cluster, 4);
  const isVoter = (): boolean => 4 in cluster.hosts.get(next)!.shardInfo(1).membership.voters;
  await cluster.world.until(isVoter, 30_000);
  await cluster.ready(1);
  await cluster.close();
});

test('both sides must agree on who is a witness', async () => {
  const cluster = await clusterOf(5);
  const host = cluster.hosts.get(1)!;
  const failed: string[] = [];
  for (const id of [4, 5]) cluster.hosts.get(id)!.on('replicaFailed', ({ error }) => failed.push(error.code));
  await join(cluster, 4);
  await cluster.settle(host.addReplica(1, 4, cluster.addressOf(4), { role: 'witness' }));
  await cluster.world.until(() => failed.length === 1, 30_000);
  await cluster.settle(host.removeReplica(1, 4));
  await cluster.startWitness(5, 1);
  await cluster.settle(host.addReplica(1, 5, cluster.addressOf(5)));
  await cluster.world.until(() => failed.length === 2, 30_000);
  assert.deepEqual(failed, ['ERR_SHARD_MISMATCH', 'ERR_SHARD_MISMATCH']);
  const options = { shardId: 1, replicaId: 5, witness: true } as const;
  await assert.rejects(host.startReplica({ ...options, members: { 5: 'a:1' } }), { code: 'ERR_INVALID_OPTION' });
  await assert.rejects(host.startReplica(options, cluster.machine), { code: 'ERR_INVALID_OPTION' });
  await cluster.close();
});

test('wrong arguments of the calls are named', async () => {
  const cluster = await clusterOf(1, 1);
  const host = cluster.hosts.get(1)!;
  await assert.rejects(host.addReplica(1, 0, 'a:1'), { code: 'ERR_INVALID_OPTION', message: /replicaId is 0/ });
  await assert.rejects(host.addReplica(1, 2, 'nowhere'), {
    code: 'ERR_INVALID_OPTION',
    message: /address is "nowhere"/,
  });
  await assert.rejects(host.addReplica(1, 2, 'a:1', { role: 'king' as 'voter' }), { message: /role is "king"/ });
  await assert.rejects(host.addReplica(1, 2, 'a:1', { autoPromote: true }), { message: /expected role 'non-voting'/ });
  await assert.rejects(host.removeReplica(1, 2, { role: 'voter' } as object), { message: /there is no option role/ });
  await assert.rejects(host.promote(1, 2, { configChangeIndex: -1 }), { message: /configChangeIndex is -1/ });
  const aborted = { signal: AbortSignal.abort() };
  await assert.rejects(host.removeReplica(1, 2, aborted), { code: 'ERR_ABORTED', outcome: 'not-applied' });
  await cluster.close();
});

test('who does not vote learns of its removal, too, when it was cut off', async () => {
  const cluster = await clusterOf(5);
  const host = cluster.hosts.get(1)!;
  await join(cluster, 4);
  await cluster.settle(host.addReplica(1, 4, cluster.addressOf(4), { role: 'non-voting' }));
  await cluster.startWitness(5, 1);
  await cluster.settle(host.addReplica(1, 5, cluster.addressOf(5), { role: 'witness' }));
  await cluster.ready(1);
  for (const id of [4, 5]) {
    cluster.kill(id); // not even what is under way arrives
    await cluster.world.run(100);
    await cluster.settle(host.removeReplica(1, id));
  }
  for (const id of [4, 5]) await cluster.open(id);
  await cluster.startReplica(4, 1);
  await cluster.startWitness(5, 1);
  const isGone = (id: number): boolean => !cluster.runs(id, 1);
  await cluster.world.until(() => isGone(4) && isGone(5), 60_000);
  await cluster.close();
});

test('the host of a replica that was removed and has stopped tells others that its removal is committed', async () => {
  const cluster = await clusterOf(4, 4);
  const { network } = cluster.machines;
  const leader = cluster.leaderOf(1);
  const [gone, ...rest] = [1, 2, 3, 4].filter((id) => id !== leader);
  const host = cluster.hosts.get(leader)!;
  const removal = host.removeReplica(1, gone);
  await cluster.world.until(() => host.shardInfo(1).membership.removed.length > 0);
  // The others have the change; that it is committed does not reach them.
  for (const id of rest) for (const other of [leader, gone]) network.cut(`host${id}`, `host${other}`);
  await cluster.settle(removal);
  await cluster.world.until(() => !cluster.runs(gone, 1), 60_000);
  cluster.kill(leader);
  await cluster.world.run(5000);
  // Two of four elect nobody, two of three do.
  for (const id of rest) assert.equal(cluster.hosts.get(id)!.shardInfo(1).membership.removed.length, 0);
  network.heal();
  await cluster.ready(1, rest);
  for (const id of rest) assert.deepEqual(cluster.hosts.get(id)!.shardInfo(1).membership.removed, [gone]);
  await cluster.close();
});

test('a transfer to a member that is removed meanwhile ends, and proposals go on', async () => {
  const cluster = await clusterOf(4, 4);
  const leaderId = cluster.leaderOf(1);
  const leader = cluster.hosts.get(leaderId)!;
  const target = [1, 2, 3, 4].find((id) => id !== leaderId)!;
  cluster.kill(target);
  const outcome = leader.transferLeader(1, target).then(
    () => 'done',
    (error: unknown) => (DrakkarError.is(error) ? error.code : String(error)),
  );
  const removal = leader.removeReplica(1, target).then(
    () => 'removed',
    (error: unknown) => (DrakkarError.is(error) ? error.code : String(error)),
  );
  assert.notEqual(await cluster.settle(outcome), 'done');
  if ((await cluster.settle(removal)) !== 'removed') await cluster.settle(leader.removeReplica(1, target));
  await assert.rejects(cluster.settle(leader.transferLeader(1, target)), { code: 'ERR_TRANSFER_ABORTED' });
  await cluster.propose(leaderId, 1, 'goes on');
  await cluster.close();
});
