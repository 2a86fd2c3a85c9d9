/** Snapshots on their way between hosts: what they may take, and what becomes of those that break. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import type { NodeHost, NodeHostOptions, ReplicaOptions, SnapshotCodec } from 'drakkar';
import { TestCluster, engineOf } from './support.ts';

const REPLICA = { electionRtt: 11, compactionOverhead: 0 };

/** Three hosts; one of them was away while each shard got `lines` lines, and all logs were compacted. */
async function awayFrom(
  shardIds: readonly number[],
  lines: readonly string[],
  options: Partial<NodeHostOptions> = {},
  replica: Partial<ReplicaOptions> = {},
): Promise<{ cluster: TestCluster; away: number; others: NodeHost[] }> {
  const cluster = new TestCluster({ replica: REPLICA });
  const away = 3;
  for (const id of [1, 2, 3]) await cluster.open(id, options);
  for (const shardId of shardIds)
    for (const id of [1, 2, 3]) await cluster.startReplica(id, shardId, [1, 2, 3], replica);
  for (const shardId of shardIds) await cluster.ready(shardId);
  cluster.kill(away);
  const others = [1, 2].map((id) => cluster.hosts.get(id)!);
  for (const shardId of shardIds) {
    await cluster.ready(shardId, [1, 2]);
    for (const line of lines) await cluster.propose(1, shardId, line);
    await cluster.settle(others[1].whenReady(shardId));
    for (const host of others) await cluster.settle(host.requestSnapshot(shardId));
  }
  return { cluster, away, others };
}

for (const side of ['maxSnapshotSendBytesPerSecond', 'maxSnapshotReceiveBytesPerSecond'] as const) {
  test(`${side}: a snapshot takes its time, and nothing else waits for it`, async () => {
    const line = 'x'.repeat(10_000);
    const lines = Array.from({ length: 20 }, () => line);
    const { cluster, away, others } = await awayFrom([1], lines, { [side]: 20_000 });
    const host = await cluster.open(away, { [side]: 20_000 });
    let recoveredMs = 0;
    host.on('snapshotRecovered', () => (recoveredMs = cluster.world.nowMs()));
    const beganMs = cluster.world.nowMs();
    const terms = others.map((each) => each.shardInfo(1).term);
    await cluster.startReplica(away, 1);
    await cluster.world.until(() => others.some((each) => each.info().snapshots.sending === 1), 10_000);
    await cluster.world.run(1000);
    const writeMs = cluster.world.nowMs();
    for (let i = 0; i < 20; i++) await cluster.propose(1, 1, 'meanwhile');
    assert.ok(cluster.world.nowMs() - writeMs < 1000, 'writes waited for the snapshot');
    assert.equal(host.info().snapshots.receiving, 1);
    await cluster.world.until(() => recoveredMs > 0, 60_000);
    const tookMs = recoveredMs - beganMs;
    assert.ok(tookMs > 9000 && tookMs < 15_000, `200,000 bytes at 20,000 a second took ${tookMs} ms`);
    assert.deepEqual(
      others.map((each) => each.shardInfo(1).term),
      terms,
      'heartbeats were held up',
    );
    await cluster.ready(1);
    await cluster.assertEqual(1);
    await cluster.close();
  });
}

for (const side of ['maxSnapshotSends', 'maxSnapshotReceives'] as const) {
  test(`${side}: so many at once, the others wait and come after`, async () => {
    const shardIds = [1, 2, 3, 4, 5, 6];
    const limits = { [side]: 2, maxSnapshotSendBytesPerSecond: 50_000 };
    const { cluster, away, others } = await awayFrom(shardIds, ['x'.repeat(20_000)], limits);
    const host = await cluster.open(away, limits);
    let most = 0;
    let waited = 0;
    const look = (): boolean => {
      for (const each of [...others, host]) {
        const { sending, sendsWaiting, receiving, receivesWaiting } = each.info().snapshots;
        most = Math.max(most, side === 'maxSnapshotSends' ? sending : receiving);
        waited = Math.max(waited, side === 'maxSnapshotSends' ? sendsWaiting : receivesWaiting);
      }
      return shardIds.every((shardId) => host.info().shards.some((s) => s.shardId === shardId && s.snapshotIndex > 0));
    };
    for (const shardId of shardIds) await cluster.startReplica(away, shardId);
    await cluster.world.until(look, 120_000);
    assert.equal(most, 2);
    assert.ok(waited > 0, 'nobody waited');
    for (const shardId of shardIds) {
      await cluster.ready(shardId);
      await cluster.assertEqual(shardId);
    }
    const none = { sending: 0, sendsWaiting: 0, receiving: 0, receivesWaiting: 0 };
    for (const each of [...others, host]) assert.deepEqual(each.info().snapshots, none);
    await cluster.close();
  });
}

/** A codec that is not built in, and what it was asked for. */
function deflate(calls: string[]): SnapshotCodec {
  return {
    name: 'deflate',
    compress(bytes) {
      calls.push('compress');
      return deflateRawSync(bytes);
    },
    uncompress(bytes, sizeBytes) {
      calls.push('uncompress');
      return inflateRawSync(bytes, { maxOutputLength: sizeBytes });
    },
  };
}

test('an image that could not be sent is given up once newer ones replaced it', async () => {
  const { cluster, away, others } = await awayFrom([1], ['line']);
  await cluster.open(away);
  let failed = 0;
  for (const each of others) {
    each.on('snapshotSendAborted', () => failed++);
    engineOf(each).transport.sendSnapshot = () => Promise.reject(new Error('not at all'));
  }
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => failed > 1);
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 3; i++) await cluster.propose(cluster.leaderOf(1), 1, `line ${round} ${i}`);
    await cluster.settle(cluster.hosts.get(cluster.leaderOf(1))!.requestSnapshot(1));
  }
  const { disk } = cluster.machineOf.get(cluster.leaderOf(1))!;
  assert.equal(disk.paths().filter((path) => path.endsWith('.snapshot')).length, 2);
  await cluster.close();
});

test('compressed snapshots: smaller on the disk and on the way, and every host reads them whatever it writes itself', async () => {
  const lines = Array.from({ length: 100 }, (_, i) => `line ${i} of a state that repeats itself again and again`);
  const sizes = new Map<string, number>();
  for (const compression of ['none', 'zstd'] as const) {
    const { cluster, away } = await awayFrom([1], lines, {}, { snapshotCompression: compression });
    const path = cluster.machineOf
      .get(1)!
      .disk.paths()
      .find((name) => name.endsWith('.snapshot'))!;
    const bytes = cluster.machineOf.get(1)!.disk.images.get(path)!.sizeBytes;
    sizes.set(compression, bytes);
    await cluster.open(away);
    // It does not compress itself.
    await cluster.startReplica(away, 1, undefined, { snapshotCompression: 'none' });
    await cluster.ready(1);
    await cluster.assertEqual(1);
    const copy = cluster.machineOf.get(away)!.disk.images.get(path)!;
    assert.equal(copy.sizeBytes, bytes, 'it was sent as it was');
    await cluster.world.until(() => !cluster.hosts.get(away)!.shardInfo(1).isSnapshotting);
    await cluster.settle(cluster.hosts.get(away)!.requestSnapshot(1, { exportTo: 'backup' }));
    for (const id of [1, 2, 3]) {
      cluster.losePower(id);
      await cluster.open(id);
      await cluster.startReplica(id, 1);
    }
    await cluster.ready(1);
    await cluster.assertEqual(1);
    await cluster.close();
  }
  assert.ok(sizes.get('zstd')! < sizes.get('none')! / 3, JSON.stringify([...sizes]));
});

test('a codec of one’s own; a host that does not know it says so to the sender and stays as it was', async () => {
  const calls: string[] = [];
  const snapshotCodecs = [deflate(calls)];
  const { cluster, away, others } = await awayFrom(
    [1],
    ['x'.repeat(2000)],
    { snapshotCodecs },
    { snapshotCompression: 'deflate' },
  );
  assert.ok(calls.includes('compress'));
  const errors: string[] = [];
  for (const each of others) each.on('snapshotSendAborted', ({ error }) => errors.push(error.message));
  const strange = await cluster.open(away);
  await assert.rejects(cluster.startReplica(away, 1, undefined, { snapshotCompression: 'deflate' }), {
    code: 'ERR_SNAPSHOT_CODEC',
    message: /there is no codec deflate here/,
  });
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => errors.length > 0);
  assert.match(errors[0], /ERR_SNAPSHOT_CODEC.*give it in snapshotCodecs/);
  assert.equal(strange.shardInfo(1).state, 'running');
  await cluster.settle(strange.close());
  await cluster.open(away, { snapshotCodecs });
  await cluster.startReplica(away, 1);
  await cluster.ready(1);
  assert.ok(calls.includes('uncompress'));
  await cluster.assertEqual(1);
  await cluster.close();
});

const LARGE = Array.from({ length: 60 }, (_, i) => `${i} `.padEnd(10_000, 'x'));
const SLOW = { maxSnapshotSendBytesPerSecond: 200_000 };
const BLOCKS = { snapshotBlockBytes: 4096 };
/** What all counters of that name together say. */
const total = (cluster: TestCluster, name: 'snapshotsResumed' | 'snapshotBytesNotSentAgain'): number =>
  [...cluster.hosts.values()].reduce((sum, host) => sum + engineOf(host).counters[name], 0);
/** Bytes of the part that a host has received. */
function partBytes(cluster: TestCluster, id: number): number {
  const { disk } = cluster.machineOf.get(id)!;
  const path = disk.paths().find((name) => name.endsWith('.receiving'));
  return path === undefined ? 0 : disk.images.get(path)!.sizeBytes;
}

test('scenario 51: a stream that breaks goes on where it broke off, as often as it breaks', async () => {
  const { cluster, away, others } = await awayFrom([1], LARGE, SLOW, BLOCKS);
  const host = await cluster.open(away, SLOW);
  const before = others.reduce((sum, each) => sum + engineOf(each).transport.counters.bytesSent, 0);
  await cluster.startReplica(away, 1);
  for (let round = 1; round <= 4; round++) {
    await cluster.world.until(() => partBytes(cluster, away) > round * 100_000, 30_000);
    for (const id of [1, 2]) cluster.machines.network.reset(`host${id}`, `host${away}`);
    await cluster.world.run(50);
    assert.equal(host.info().snapshots.receiving, 0, 'the stream ended');
  }
  await cluster.ready(1);
  const sent = others.reduce((sum, each) => sum + engineOf(each).transport.counters.bytesSent, 0) - before;
  assert.equal(engineOf(host).counters.snapshotsResumed, 4);
  assert.ok(engineOf(host).counters.snapshotBytesNotSentAgain > 900_000);
  assert.ok(sent < 1_000_000, `${sent} bytes were sent, of an image of 600,000`);
  await cluster.assertEqual(1);
  await cluster.close();
});

test('a stream goes on when its receiver was started anew, and after a power cut with what had reached the disk', async () => {
  for (const end of ['kill', 'losePower'] as const) {
    const { cluster, away } = await awayFrom([1], LARGE, SLOW, BLOCKS);
    await cluster.open(away, SLOW);
    await cluster.startReplica(away, 1);
    await cluster.world.until(() => partBytes(cluster, away) > 300_000, 30_000);
    cluster[end](away);
    const host = await cluster.open(away, SLOW);
    await cluster.startReplica(away, 1);
    await cluster.ready(1);
    assert.equal(engineOf(host).counters.snapshotsResumed, end === 'kill' ? 1 : 0);
    await cluster.assertEqual(1);
    assert.equal(partBytes(cluster, away), 0);
    await cluster.close();
  }
});

test('scenario 55: after a change of leader the stream begins anew, in its term, and goes on if the image is the same', async () => {
  const { cluster, away } = await awayFrom([1], LARGE, SLOW, BLOCKS);
  await cluster.open(away, SLOW);
  const leader = cluster.leaderOf(1);
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => partBytes(cluster, away) > 300_000, 30_000);
  // The state machine is deterministic, and so is its image: who sends it makes no difference.
  await cluster.settle(cluster.hosts.get(leader)!.transferLeader(1, leader === 1 ? 2 : 1));
  await cluster.ready(1);
  assert.notEqual(cluster.leaderOf(1), leader);
  await cluster.assertEqual(1);
  assert.ok(total(cluster, 'snapshotsResumed') > 0);
  await cluster.close();
});

test('a newer snapshot in the meantime: what had come of the old one is of no use, and goes', async () => {
  const { cluster, away, others } = await awayFrom([1], LARGE, SLOW, BLOCKS);
  const host = await cluster.open(away, SLOW);
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => partBytes(cluster, away) > 300_000, 30_000);
  const [old] = cluster.machineOf
    .get(away)!
    .disk.paths()
    .filter((path) => path.endsWith('.receiving'));
  await cluster.propose(1, 1, 'newer');
  for (const each of others) await cluster.settle(each.requestSnapshot(1));
  for (const id of [1, 2]) cluster.machines.network.reset(`host${id}`, `host${away}`);
  await cluster.world.run(50);
  await cluster.ready(1);
  assert.equal(engineOf(host).counters.snapshotsResumed, 0);
  assert.ok(!cluster.machineOf.get(away)!.disk.paths().includes(old));
  await cluster.assertEqual(1);
  await cluster.close();
});

test('what a broken stream left is kept for an hour', async () => {
  const { cluster, away } = await awayFrom([1], LARGE, SLOW, BLOCKS);
  const host = await cluster.open(away, SLOW);
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => partBytes(cluster, away) > 300_000, 30_000);
  for (const id of [1, 2]) cluster.kill(id);
  await cluster.world.until(() => host.info().snapshots.receiving === 0);
  await cluster.world.run(3_500_000);
  assert.ok(partBytes(cluster, away) > 300_000);
  await cluster.world.run(200_000);
  assert.equal(partBytes(cluster, away), 0);
  await cluster.close();
});
