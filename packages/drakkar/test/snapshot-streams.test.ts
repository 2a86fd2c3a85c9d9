/** Snapshots on their way between hosts: what they may take, and what becomes of those that break. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeHost, NodeHostOptions } from 'drakkar';
import { TestCluster } from './support.ts';

const REPLICA = { electionRtt: 11, compactionOverhead: 0 };

/** Three hosts; one of them was away while each shard got `lines` lines, and all logs were compacted. */
async function awayFrom(
  shardIds: readonly number[],
  lines: readonly string[],
  options: Partial<NodeHostOptions> = {},
): Promise<{ cluster: TestCluster; away: number; others: NodeHost[] }> {
  const cluster = new TestCluster({ replica: REPLICA });
  const away = 3;
  for (const id of [1, 2, 3]) await cluster.open(id, options);
  for (const shardId of shardIds) for (const id of [1, 2, 3]) await cluster.startReplica(id, shardId, [1, 2, 3]);
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
