/** A host whose engine 0 failed: the other engines live on, and whoever starts later finds them all the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryMachines, systemError } from 'drakkar/testing';
import { Door } from '../src/engine/door.ts';
import { enginesOf } from '../src/inspect.ts';
import type { Peer, Transport } from '../src/transport/transport.ts';
import { TestCluster } from './support.ts';

/** Host `id` begins anew, knows nothing of the others' engines, and finds engine `engine` of host 1, where the leader of `shardId` is. */
async function finds(cluster: TestCluster, id: number, shardId: number, engine: number): Promise<void> {
  cluster.kill(id);
  const host = await cluster.open(id);
  await cluster.startReplica(id, shardId);
  const ways = (): Peer[] => [...enginesOf(host)].flatMap((each) => [...each.ways['inUse']]);
  const isMeant = (peer: Peer): boolean =>
    peer.address === cluster.addressOf(1) && peer.engine === engine && peer.connected;
  await cluster.world.until(() => ways().some(isMeant), 10_000);
  await cluster.ready(shardId, [id]);
  await cluster.propose(id, shardId, 'found');
  assert.equal(cluster.leaderOf(shardId), 1);
}

/** Makes host `id` lead. */
async function leads(cluster: TestCluster, id: number, shardId: number): Promise<void> {
  const leader = cluster.leaderOf(shardId);
  if (leader === id) return;
  await cluster.settle(cluster.hosts.get(leader)!.transferLeader(shardId, id));
  await cluster.world.until(() => cluster.leaderOf(shardId) === id);
}

test('whoever stands in for engine 0 is found by hosts that start later, and followed by the next when it fails, too', async () => {
  const cluster = new TestCluster({ engines: () => 3 });
  await cluster.startAll([1, 2, 3]);
  const { threads } = cluster.machineOf.get(1)!;
  assert.equal(cluster.hosts.get(1)!.shardInfo(3).engine, 2);
  for (const shardId of [2, 3]) await leads(cluster, 1, shardId);
  threads[0].crash(new Error('out of memory'));
  await cluster.world.run(10);
  await finds(cluster, 2, 2, 1);
  threads[1].crash(new Error('out of memory'));
  await cluster.world.run(10);
  await finds(cluster, 3, 3, 2);
  await cluster.close();
});

test('a shard that begins on a host without its engine 0 is found there', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1]);
  cluster.machineOf.get(1)!.threads[0].crash(new Error('out of memory'));
  await cluster.world.run(1000);
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 7, [1, 2, 3]);
  assert.equal(cluster.hosts.get(1)!.shardInfo(7).engine, 1);
  await cluster.ready(7);
  // Nothing is committed without host 1.
  cluster.kill(3);
  await cluster.propose(2, 7, 'with host 1');
  await cluster.assertEqual(7, [1, 2]);
  await cluster.close();
});

test('a log of engine 0 that fails leaves the others where they are found, in threads and without', async () => {
  for (const restartsWith of [2, 1]) {
    let count = 2;
    const cluster = new TestCluster({ engines: () => count });
    await cluster.startAll([1, 2]);
    cluster.kill(1);
    count = restartsWith;
    const host = await cluster.open(1);
    for (const shardId of [1, 2]) await cluster.startReplica(1, shardId);
    await cluster.ready(2);
    await leads(cluster, 1, 2);
    const failed: number[] = [];
    host.on('engineFailed', ({ engine }) => failed.push(engine));
    const { disk } = cluster.machineOf.get(1)!;
    disk.fault = (operation, path) =>
      operation === 'write' && path.includes('engine-0') ? systemError('EIO', path) : undefined;
    await cluster.propose(cluster.followerOf(1), 1, 'cannot be written on host 1').catch(() => {});
    await cluster.world.until(() => failed.length > 0);
    assert.deepEqual(failed, [0]);
    await finds(cluster, 3, 2, 1);
    assert.equal(host.failed, undefined);
    await cluster.close();
  }
});

/** What listens as far as `isFree` lets it, and notes what it is asked for. */
function listener(isFree: () => boolean, log: string[]): Transport {
  return {
    start: () => (isFree() ? (log.push('start'), Promise.resolve()) : (log.push('busy'), Promise.reject(new Error()))),
    announce: (engine: number, address: string, shardIds: readonly number[]) =>
      void log.push(`${engine} at ${address} has ${shardIds.join()}`),
    close: () => (log.push('close'), Promise.resolve()),
  } as Partial<Transport> as Transport;
}

test('a door opens once the address is free, and then tells all that was announced', async () => {
  const machines = new MemoryMachines();
  const env = machines.add('host1').boot();
  const log: string[] = [];
  let isFree = false;
  const door = new Door(env, () => listener(() => isFree, log));
  door.announce(1, 'a:1', [1, 2]);
  door.announce(2, 'a:2', []);
  await machines.world.until(() => log.length === 3);
  assert.deepEqual(log, ['busy', 'busy', 'busy']);
  door.announce(2, 'a:3', [2]);
  isFree = true;
  await machines.world.until(() => log.includes('start'));
  door.announce(2, 'a:3', [5]);
  await door.close();
  assert.deepEqual(log.slice(3), ['start', '1 at a:1 has 1', '2 at a:3 has 2', '2 at a:3 has 5', 'close']);
});

test('a door that is closed before it could open listens no more', async () => {
  const machines = new MemoryMachines();
  const env = machines.add('host1').boot();
  const log: string[] = [];
  const door = new Door(env, () => listener(() => false, log));
  await machines.world.until(() => log.length === 1);
  await door.close();
  await machines.world.run(10_000);
  assert.deepEqual(log, ['busy']);
  // And one that was about to lets go.
  const late = new Door(env, () => listener(() => true, log));
  await late.close();
  assert.deepEqual(log, ['busy', 'start', 'close']);
});
