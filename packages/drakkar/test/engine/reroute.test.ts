/** A member that lives in another engine of its host than was known. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reroute } from '../../src/engine/reroute.ts';
import { TestCluster, replicaOf } from '../support.ts';

test('whatever was prepared for the old way is forgotten, for this member and this shard only', async () => {
  const cluster = new TestCluster();
  await cluster.startAll([1, 2]);
  const leader = cluster.leaderOf(1);
  for (const shardId of [1, 2]) await cluster.propose(leader, shardId, 'line');
  const [replica, other] = [1, 2].map((shardId) => replicaOf(cluster.hosts.get(leader)!, shardId));
  const { engine } = replica;
  const address = cluster.addressOf(cluster.followerOf(1));
  const before = [...replica.peers];
  const others = [...other.peers];
  assert.ok(replica.sets !== undefined);
  const elsewhere = { ...engine.transport.peer(address), engine: 1, connected: false };
  engine.transport.peer = () => elsewhere;
  reroute(engine, address, [1, 77]);
  assert.deepEqual(
    replica.peers.map((peer) => peer === elsewhere),
    before.map((peer) => peer?.address === address),
  );
  assert.equal(replica.sets, undefined);
  assert.deepEqual(other.peers, others);
  cluster.kill(leader);
  await cluster.close();
});
