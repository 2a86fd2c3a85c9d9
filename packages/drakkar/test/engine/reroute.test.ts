/** A member that lives in another engine of its host than was known. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reroute } from '../../src/engine/reroute.ts';
import { enginesOf } from '../../src/inspect.ts';
import { TestCluster, engineOf, replicaOf } from '../support.ts';

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
  assert.equal(replica.peers, other.peers, 'one list, kept once');
  const elsewhere = { ...engine.transport.peer(address), engine: 1, connected: false };
  engine.transport.peer = () => elsewhere;
  reroute(engine, address, [1, 77]);
  assert.deepEqual(
    replica.peers.map((peer) => peer === elsewhere),
    before.map((peer) => peer?.address === address),
  );
  assert.equal(replica.sets, undefined);
  assert.ok(other.peers.length === others.length && others.every((peer, slot) => other.peers[slot] === peer));
  cluster.kill(leader);
  await cluster.close();
});

test('the way to engine 0 of a host stays as long as one to another of its engines: there it says where they are', async () => {
  const cluster = new TestCluster({ engines: (id) => (id === 3 ? 2 : 1) });
  await cluster.startAll([1, 2]);
  assert.equal(cluster.hosts.get(3)!.shardInfo(2).engine, 1);
  const [engine] = [engineOf(cluster.hosts.get(1)!)];
  const ways = (): string[] => [...engine.ways['inUse']].map((peer) => `${peer.address}#${peer.engine ?? 0}`).sort();
  assert.deepEqual(ways(), ['host2:7000#0', 'host3:7000#0', 'host3:7000#1']);
  // From now on no replica of host 1 has a member in engine 0 of host 3, nor on host 2.
  for (const id of [1, 2, 3]) await cluster.settle(cluster.hosts.get(id)!.stopReplica(1));
  await cluster.settle(cluster.hosts.get(1)!.removeReplica(2, 2));
  await cluster.world.run(60_000);
  assert.deepEqual(ways(), ['host3:7000#0', 'host3:7000#1']);
  // Its engine 1 listens elsewhere after a restart, and only engine 0 is where it always was.
  const portOf = (): string => [...enginesOf(cluster.hosts.get(3)!)][1].transport.address;
  const before = portOf();
  cluster.kill(3);
  await cluster.open(3);
  await cluster.startReplica(3, 2);
  assert.notEqual(portOf(), before);
  await cluster.ready(2, [1, 3]);
  await cluster.propose(1, 2, 'found again');
  await cluster.assertEqual(2, [1, 3]);
  // When the last way is given up, nothing is left.
  await cluster.settle(cluster.hosts.get(1)!.removeReplica(2, 3));
  await cluster.world.run(60_000);
  assert.deepEqual(ways(), []);
  await cluster.close();
});
