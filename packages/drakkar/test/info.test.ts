/** What hosts and shards tell about themselves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MemberProgress } from 'drakkar';
import { TestCluster } from './support.ts';

test('a leader tells how far each member is, and a member that is away lags', async () => {
  const cluster = new TestCluster({ replica: { electionRtt: 11 } });
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const away = cluster.followerOf(1);
  const progress = (): MemberProgress => progressOf(cluster, leader, away);
  await cluster.world.until(() => progress().lagEntries === 0);
  assert.deepEqual(
    { ...progress(), inflightBlocks: 0, matchIndex: 0 },
    {
      replicaId: away,
      address: cluster.addressOf(away),
      isVoter: true,
      state: 'replicate',
      matchIndex: 0,
      lagEntries: 0,
      inflightBlocks: 0,
      isActive: true,
      isCaughtUp: false,
      hasRegressed: false,
    },
  );
  cluster.kill(away);
  for (let i = 0; i < 7; i++) await cluster.propose(leader, 1, `line ${i}`);
  assert.equal(progress().lagEntries, 7);
  await cluster.world.until(() => !progress().isActive, 10_000);
  assert.equal(progress().state, 'probe');
  const other = [1, 2, 3].find((id) => id !== leader && id !== away)!;
  assert.deepEqual(cluster.hosts.get(other)!.shardInfo(1).progress, [], 'a follower does not know');
  await cluster.close();
});

function progressOf(cluster: TestCluster, leader: number, member: number): MemberProgress {
  return cluster.hosts
    .get(leader)!
    .shardInfo(1)
    .progress.find(({ replicaId }) => replicaId === member)!;
}

test('a host tells what runs, what stands still, and why a replica failed', async () => {
  const cluster = new TestCluster({ hosts: 1, replica: { electionRtt: 11 } });
  await cluster.startAll([1, 2]);
  const host = cluster.hosts.get(1)!;
  assert.deepEqual(host.info().stopped, []);
  await cluster.settle(host.stopReplica(2));
  const info = host.info();
  assert.deepEqual(info.stopped, [{ shardId: 2, replicaId: 1, failure: undefined }]);
  assert.deepEqual(
    info.shards.map(({ shardId }) => shardId),
    [1],
  );
  assert.equal(info.dir, 'data');
  assert.equal(info.isDiskFull, false);
  assert.ok(info.uptimeMs > 0 && info.uptimeMs <= cluster.world.nowMs());
  const shard = host.shardInfo(1);
  assert.equal(shard.applyLagEntries, 0);
  assert.equal(shard.configChangeIndex, 0);
  assert.equal(shard.isSnapshotting, false);
  const session = await cluster.settle(host.openSession(1));
  assert.equal(host.shardInfo(1).sessions, 1);
  await cluster.settle(session.close());
  await assert.rejects(cluster.propose(1, 1, 'throw'), { code: 'ERR_SHARD_FAILED' });
  const failed = host.shardInfo(1);
  assert.equal(failed.state, 'failed');
  assert.equal(failed.failure?.code, 'ERR_STATE_MACHINE');
  assert.match(String(failed.failure?.cause), /a state machine that throws/);
  await cluster.close();
});
