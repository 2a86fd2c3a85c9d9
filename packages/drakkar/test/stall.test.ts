/** A process that stood still must not take its own pause for the leader's: input that waits is handled before time goes on. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NodeHost } from 'drakkar';
import { Journal, TestCluster, text } from './support.ts';

for (const quiesce of [false, true]) {
  test(`a follower that was stopped for many election timeouts campaigns against nobody (quiesce ${quiesce})`, async () => {
    const cluster = new TestCluster({ replica: { quiesce } });
    await cluster.startAll([1, 2, 3]);
    const leaders = [1, 2, 3].map((shardId) => cluster.leaderOf(shardId));
    const terms = (): number[] => [1, 2, 3].map((shardId) => cluster.hosts.get(1)!.shardInfo(shardId).term);
    const before = terms();
    const changes: number[] = [];
    for (const host of cluster.hosts.values()) host.on('leaderChanged', ({ shardId }) => changes.push(shardId));
    const idle = [1, 2, 3].find((id) => !leaders.includes(id)) ?? cluster.followerOf(1);
    const follows = [1, 2, 3].filter((_, i) => leaders[i] !== idle);
    for (let times = 0; times < 5; times++) {
      cluster.machineOf.get(idle)!.process!.stop();
      await cluster.world.run(7000);
      cluster.machineOf.get(idle)!.process!.continue();
      await cluster.world.run(300);
    }
    const ofFollowed = changes.filter((shardId) => follows.includes(shardId));
    assert.deepEqual(ofFollowed, [], 'a leader that was there all the time was given up');
    for (const [i, term] of terms().entries()) if (follows.includes(i + 1)) assert.equal(term, before[i]);
    await cluster.close();
  });
}

test('event loops that stall for several election timeouts on a real machine elect nobody', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-stall-'));
  const members = { 1: '127.0.0.1:22301', 2: '127.0.0.1:22302', 3: '127.0.0.1:22303' };
  const hosts: NodeHost[] = [];
  try {
    for (const id of [1, 2, 3] as const) {
      const host = await NodeHost.open({ dir: join(dir, `${id}`), raftAddress: members[id], rttMs: 10 });
      hosts.push(host);
      // Long enough for a busy machine, short against the stalls.
      const options = { shardId: 1, replicaId: id, members, electionRtt: 60, heartbeatRtt: 5 };
      await host.startReplica(options, () => new Journal());
    }
    for (const host of hosts) await host.whenReady(1, { timeoutMs: 30_000 });
    await hosts[0].propose(1, text('before'));
    const { term } = hosts[0].shardInfo(1);
    for (let times = 0; times < 3; times++) {
      // All three hosts live on this loop: not one of them hears or ticks.
      const end = performance.now() + 1500;
      while (performance.now() < end);
      await hosts[times].propose(1, text(`after stall ${times}`), { timeoutMs: 30_000 });
    }
    for (const host of hosts) assert.equal(host.shardInfo(1).term, term, 'a stall was taken for a dead leader');
  } finally {
    for (const host of hosts) await host.close();
    rmSync(dir, { recursive: true, force: true });
  }
});
