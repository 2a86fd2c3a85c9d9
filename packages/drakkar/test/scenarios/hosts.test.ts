/** Scenarios on whole hosts, numbered as in docs/testing.md. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import { StoreWorkload, simulate, type FaultKind } from 'drakkar/sim';
import { TestCluster, text } from '../support.ts';

test('scenario 20: a leader that is stopped for three election timeouts acknowledges and reads nothing stale when it goes on', async () => {
  const cluster = new TestCluster({ replica: { electionRtt: 12, heartbeatRtt: 2 } });
  await cluster.startAll();
  const old = cluster.leaderOf(1);
  await cluster.propose(old, 1, 'before');
  const host = cluster.hosts.get(old)!;
  const write = host.propose(1, text('in flight'), { timeoutMs: 3000 }).catch((error: unknown) => error);
  const read = host.read(1, 'all', { timeoutMs: 3000 }).catch((error: unknown) => error);
  cluster.machineOf.get(old)!.process!.stop();
  const others = [1, 2, 3].filter((id) => id !== old);
  await cluster.world.until(() => others.some((id) => cluster.hosts.get(id)!.shardInfo(1).role === 'leader'), 20_000);
  const next = others.find((id) => cluster.hosts.get(id)!.shardInfo(1).role === 'leader')!;
  await cluster.propose(next, 1, 'meanwhile');
  cluster.machineOf.get(old)!.process!.continue();
  const lines = await cluster.settle(read);
  if (!DrakkarError.is(lines)) assert.ok((lines as string[]).includes('meanwhile'), 'a stale read');
  const written = await cluster.settle(write);
  await cluster.ready(1);
  await cluster.assertEqual(1);
  if (!DrakkarError.is(written)) assert.ok(cluster.lines(next, 1).includes('in flight'));
  await cluster.close();
});

test('scenario 21: a jump of a host’s clock by an hour has no effect', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const { term } = cluster.hosts.get(leader)!.shardInfo(1);
  for (const id of [1, 2, 3]) cluster.machineOf.get(id)!.process!.adjustClock(1, 3_600_000);
  for (let i = 0; i < 5; i++) await cluster.propose((i % 3) + 1, 1, `line ${i}`);
  await cluster.world.run(5000);
  assert.equal(cluster.leaderOf(1), leader);
  assert.equal(cluster.hosts.get(leader)!.shardInfo(1).term, term);
  await cluster.close();
});

test('scenario 22: a clock at half or double speed keeps everything safe, and one leader', async () => {
  for (const rate of [0.5, 2]) {
    const cluster = new TestCluster();
    await cluster.startAll();
    const { term } = cluster.hosts.get(1)!.shardInfo(1);
    for (const id of [1, cluster.followerOf(1)]) cluster.machineOf.get(id)!.process!.adjustClock(rate);
    await cluster.world.run(10_000);
    for (let i = 0; i < 5; i++) await cluster.propose((i % 3) + 1, 1, `line ${i}`);
    await cluster.ready(1);
    assert.ok(cluster.hosts.get(1)!.shardInfo(1).term <= term + 1, `rate ${rate}: leaders come and go`);
    await cluster.assertEqual(1);
    await cluster.close();
  }
});

test('scenario 27: a leader cut off from the others refuses more than it can keep, with a code', async () => {
  const cluster = new TestCluster({ segmentBytes: 16 * 1024 * 1024 });
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  for (const id of [1, 2, 3]) if (id !== leader) cluster.machines.network.cut(`host${leader}`, `host${id}`);
  const host = cluster.hosts.get(leader)!;
  const codes = new Map<string, number>();
  for (let i = 0; i < 70_000; i++) {
    host.proposeCallback(1, text('x'), (error) =>
      codes.set(error?.code ?? 'ok', (codes.get(error?.code ?? 'ok') ?? 0) + 1),
    );
  }
  await cluster.world.run(10);
  assert.ok((codes.get('ERR_SYSTEM_BUSY') ?? 0) > 1000, JSON.stringify([...codes]));
  assert.equal(codes.get('ok'), undefined);
  assert.ok(host.shardInfo(1).pendingProposals <= 65_536);
  cluster.machines.network.heal();
  await cluster.ready(1);
  await cluster.close();
});

test('scenario 54: two snapshots in quick succession, for a follower that needs them', async () => {
  const cluster = new TestCluster({ replica: { compactionOverhead: 0 } });
  await cluster.startAll();
  const away = cluster.followerOf(1);
  cluster.kill(away);
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  for (let i = 0; i < 30; i++) await cluster.propose(leader, 1, `line ${i}`);
  const first = host.requestSnapshot(1);
  await assert.rejects(cluster.settle(host.requestSnapshot(1)), { code: 'ERR_SYSTEM_BUSY' });
  await cluster.settle(first);
  await cluster.open(away);
  await cluster.startReplica(away, 1);
  for (let i = 30; i < 60; i++) await cluster.propose(leader, 1, `line ${i}`);
  await cluster.settle(host.requestSnapshot(1));
  await cluster.ready(1);
  assert.equal(cluster.lines(away, 1).length, 60);
  await cluster.assertEqual(1);
  await cluster.close();
});

/** Scenarios that are many situations at once: runs of the simulator with these faults alone. */
const SIMULATED: readonly (readonly [number, string, readonly FaultKind[], string])[] = [
  [23, 'links are clogged one by one and opened in another order', ['swizzle-clog'], 'fault swizzle-clog'],
  [35, 'writes race transfers: each is applied once or not at all', ['leader-transfer'], 'transfersDone'],
  [
    51,
    'snapshot streams break: they are begun again',
    ['connection-reset', 'crash', 'forced-snapshot'],
    'snapshotsInstalled',
  ],
  [55, 'leaders change while snapshots stream', ['isolate-leader', 'crash', 'slow-network'], 'snapshotsInstalled'],
  [
    66,
    'connections break under forwarded proposals: none is applied twice',
    ['connection-reset'],
    'fault connection-reset',
  ],
  [67, 'processes die again and again', ['crash'], 'recoveries'],
  [69, 'every host in turn is down for an election timeout', ['restart-storm'], 'recoveries'],
];

for (const [number, name, faults, reached] of SIMULATED) {
  test(`scenario ${number}: ${name}`, async () => {
    let count = 0;
    for (let seed = 1; seed <= 8; seed++) {
      const { failure, counters } = await simulate({
        seed: number * 1000 + seed,
        faults,
        workload: new StoreWorkload(),
      });
      assert.equal(failure, undefined, `npm run sim -- --seed ${number * 1000 + seed} --faults ${faults.join()}`);
      count += counters[reached] ?? 0;
    }
    assert.ok(count > 0, `${reached} was never reached`);
  });
}
