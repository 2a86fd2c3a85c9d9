/** What is left of replicas on hosts that are rid of them: room goes back, at once and after restarts, and crashes leave nothing behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MemoryDisk } from 'drakkar/testing';
import { TestCluster, text } from './support.ts';

const SEGMENT = 64 * 1024;
const LINE = 'x'.repeat(2000);

/** Three hosts; shard 1 has filled segments of the log and taken snapshots, shard 2 is small and lives on. */
async function filled(): Promise<TestCluster> {
  const cluster = new TestCluster({
    segmentBytes: SEGMENT,
    replica: { snapshotEntries: 40, compactionOverhead: 1000, electionRtt: 12, heartbeatRtt: 2 },
  });
  await cluster.startAll([1, 2]);
  for (let line = 1; line <= 150; line++) await cluster.propose(1, 1, LINE);
  await cluster.propose(1, 2, 'small');
  await cluster.assertEqual(1);
  return cluster;
}

const diskOf = (cluster: TestCluster, id: number): MemoryDisk => cluster.machineOf.get(id)!.disk;
const images = (cluster: TestCluster, id: number): string[] =>
  diskOf(cluster, id)
    .paths()
    .filter((path) => path.startsWith('data/engine-0/snapshots/1'));
const segments = (cluster: TestCluster, id: number): number =>
  diskOf(cluster, id)
    .paths()
    .filter((path) => path.endsWith('.wal')).length;

async function removeFrom(cluster: TestCluster, id: number): Promise<void> {
  const host = cluster.hosts.get(id)!;
  let isRemoved = false;
  host.on('replicaRemoved', () => (isRemoved = true));
  const other = cluster.hosts.get(id === 1 ? 2 : 1)!;
  await cluster.settle(other.removeReplica(1, id, { timeoutMs: 30_000 }));
  await cluster.world.until(() => isRemoved, 30_000);
}

test('an ex-member gives the room back: images at once, segments of the log without another write', async () => {
  const cluster = await filled();
  await removeFrom(cluster, 3);
  const before = segments(cluster, 3);
  assert.ok(before >= 5, `${before} segments`);
  assert.ok(images(cluster, 3).length > 1);
  const usedBytes = diskOf(cluster, 3).usedBytes;
  await cluster.settle(cluster.hosts.get(3)!.removeData(1, 3));
  assert.deepEqual(images(cluster, 3), []);
  await cluster.world.until(() => segments(cluster, 3) <= 2, 30_000);
  assert.ok(diskOf(cluster, 3).usedBytes < usedBytes - 300_000, 'the disk is as full as before');
  assert.deepEqual(cluster.hosts.get(3)!.info().stopped, []);
  // And it stays so.
  await cluster.world.run(500);
  cluster.losePower(3, () => false);
  const host = await cluster.open(3);
  assert.deepEqual(
    host.info().stopped.map(({ shardId }) => shardId),
    [2],
  );
  assert.ok(segments(cluster, 3) <= 3);
  await cluster.startReplica(3, 2);
  await cluster.ready(2);
  assert.deepEqual(cluster.lines(3, 2), ['small']);
  await cluster.close();
});

test('an ex-member that was restarted before gives the room back, too', async () => {
  const cluster = await filled();
  await removeFrom(cluster, 3);
  cluster.losePower(3, () => false);
  const host = await cluster.open(3);
  assert.deepEqual(
    host.info().stopped.map(({ shardId, replicaId }) => [shardId, replicaId]),
    [
      [1, 3],
      [2, 3],
    ],
  );
  await cluster.settle(host.removeData(1, 3));
  await cluster.startReplica(3, 2);
  await cluster.ready(2);
  await cluster.world.until(() => segments(cluster, 3) <= 2, 30_000);
  assert.deepEqual(images(cluster, 3), []);
  await cluster.close();
});

for (const keeps of [false, true]) {
  test(`a power cut at any file operation of a removal leaves nothing that is not found again (unsynced data ${keeps ? 'kept' : 'lost'})`, async () => {
    let operations = Number.POSITIVE_INFINITY;
    let cuts = 0;
    for (let cut = 1; cut <= operations; cut++) {
      const cluster = await filled();
      await removeFrom(cluster, 3);
      const disk = diskOf(cluster, 3);
      let count = 0;
      let isCut = false;
      disk.fault = () => {
        if (++count === cut) {
          isCut = true;
          cluster.losePower(3, () => keeps);
        }
        return undefined;
      };
      const done = cluster.hosts.get(3)!.removeData(1, 3);
      let isDone = false;
      let isKnown = false;
      done.then(
        () => (isDone = true),
        () => {},
      );
      await cluster.world.until(() => isDone || isCut, 30_000);
      if (!isCut) await cluster.world.run(200); // segments go
      disk.fault = () => undefined;
      if (!isCut) operations = count;
      if (isCut) {
        cuts++;
        const host = await cluster.open(3);
        isKnown = host.info().stopped.some(({ shardId }) => shardId === 1);
        if (isKnown) await cluster.settle(host.removeData(1, 3));
      }
      assert.deepEqual(images(cluster, 3), [], `after a cut at operation ${cut}`);
      // Cut when the log had just forgotten it, the rest goes as the log goes on.
      if (!isCut || isKnown) await cluster.world.until(() => segments(cluster, 3) <= 3, 30_000);
      await cluster.close();
    }
    assert.ok(cuts >= 3, `${cuts} cuts`);
  });
}

test('images that nobody knows go at the next start; those of a damaged log stay', async () => {
  const cluster = await filled();
  cluster.kill(3);
  const disk = diskOf(cluster, 3);
  const fs = cluster.machineOf.get(3)!.boot().fs;
  await cluster.settle(fs.makeDirectory('data/engine-0/snapshots/77'));
  await cluster.settle(fs.makeDirectory('data/engine-0/snapshots/not-a-shard'));
  const known = images(cluster, 3);
  await cluster.open(3);
  assert.equal(disk.paths().includes('data/engine-0/snapshots/77'), false);
  assert.equal(disk.paths().includes('data/engine-0/snapshots/not-a-shard'), true);
  assert.deepEqual(images(cluster, 3), known);
  await cluster.close();
});

test('evenIfMember: what is here of a shard that is gone goes, and the replica never comes back', async () => {
  const cluster = await filled();
  const host = cluster.hosts.get(3)!;
  await assert.rejects(cluster.settle(host.removeData(1, 3)), { code: 'ERR_NOT_REMOVED', message: /set evenIfMember/ });
  await assert.rejects(cluster.settle(host.removeData(1, 3, { evenIfMember: true })), {
    code: 'ERR_SHARD_EXISTS',
    message: /stop its replica first/,
  });
  for (const each of cluster.hosts.values()) await cluster.settle(each.stopReplica(1));
  for (const id of [1, 2]) cluster.kill(id); // for good
  await cluster.settle(host.removeData(1, 3, { evenIfMember: true }));
  assert.deepEqual(images(cluster, 3), []);
  await cluster.world.until(() => segments(cluster, 3) <= 2, 30_000);
  for (const isAgain of [false, true]) {
    if (isAgain) {
      cluster.losePower(3, () => false);
      await cluster.open(3);
    }
    const now = cluster.hosts.get(3)!;
    for (const members of [undefined, [1, 2, 3], 'join'] as const)
      await assert.rejects(cluster.startReplica(3, 1, members), { code: 'ERR_REPLICA_REMOVED', message: /given up/ });
    await cluster.settle(now.removeData(1, 3)); // nothing is left to do
    await assert.rejects(cluster.settle(now.removeData(1, 4)), { code: 'ERR_SHARD_MISMATCH' });
  }
  await cluster.startReplica(3, 2);
  await cluster.open(1);
  await cluster.startReplica(1, 2);
  await cluster.ready(2);
  await cluster.close();
});

test('evenIfMember of one of three: the shard goes on, and can do without it', async () => {
  const cluster = await filled();
  const host = cluster.hosts.get(3)!;
  await cluster.settle(host.stopReplica(1));
  await cluster.settle(host.removeData(1, 3, { evenIfMember: true }));
  await cluster.ready(1, [1, 2]);
  await cluster.settle(cluster.hosts.get(1)!.propose(1, text('on')));
  await cluster.settle(cluster.hosts.get(1)!.removeReplica(1, 3, { timeoutMs: 30_000 }));
  await cluster.settle(cluster.hosts.get(2)!.propose(1, text('and on')));
  await cluster.close();
});
