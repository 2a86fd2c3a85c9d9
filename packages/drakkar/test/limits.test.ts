/** Whole hosts under pressure: memory for entries, queues, payloads, disks that are full or stand still. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, type ReplicaOptions } from 'drakkar';
import { EntryType } from '../src/wire/entry.ts';
import { TestCluster, engineOf, replicaOf, text } from './support.ts';

const codeOf = (error: unknown): string => (DrakkarError.is(error) ? error.code : String(error));

/** Keeps the state machine of a replica from applying, as one does that cannot keep up. */
function hold(cluster: TestCluster, id: number, held: boolean): void {
  const replica = replicaOf(cluster.hosts.get(id)!, 1);
  replica.rsm.busy = held;
  replica.engine.markReady(replica);
}

test('maxInMemoryLogBytes: a follower that cannot apply makes every host refuse, until it has caught up', async () => {
  const cluster = new TestCluster({ segmentBytes: 1024 * 1024, replica: { maxInMemoryLogBytes: 16 * 1024 } });
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const slow = cluster.followerOf(1);
  const other = [1, 2, 3].find((id) => id !== leader && id !== slow)!;
  hold(cluster, slow, true);
  const line = 'x'.repeat(1000);
  const codes: string[] = [];
  let taken = 0;
  for (let i = 0; i < 60 && codes.length === 0; i++) {
    try {
      await cluster.propose(leader, 1, line);
      taken++;
    } catch (error) {
      codes.push(codeOf(error));
    }
    await cluster.world.run(5);
  }
  assert.deepEqual(codes, ['ERR_SYSTEM_BUSY']);
  assert.ok(taken >= 15 && taken < 40, `${taken} were taken`);
  const replica = replicaOf(cluster.hosts.get(slow)!, 1);
  assert.ok(replica.raft.log.unappliedBytes < 40 * 1024);
  await cluster.world.run(300);
  for (const id of [other, slow]) {
    await assert.rejects(cluster.propose(id, 1, line), { code: 'ERR_SYSTEM_BUSY', outcome: 'not-applied' });
  }
  assert.equal(cluster.hosts.get(leader)!.shardInfo(1).heldBackBy, slow);
  assert.ok(Array.isArray(await cluster.settle(cluster.hosts.get(leader)!.read(1, 'all'))), 'reads go on');
  hold(cluster, slow, false);
  await cluster.world.run(500);
  for (const id of [leader, other, slow]) await cluster.propose(id, 1, 'again');
  await cluster.assertEqual(1);
  await cluster.close();
});

test('a leader whose own state machine cannot keep up refuses, and its followers do with it', async () => {
  const cluster = new TestCluster({ segmentBytes: 1024 * 1024, replica: { maxInMemoryLogBytes: 16 * 1024 } });
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  hold(cluster, leader, true);
  const writes: Promise<unknown>[] = [];
  for (let i = 0; i < 20; i++) writes.push(host.propose(1, text('x'.repeat(1000))));
  await cluster.world.run(400);
  await assert.rejects(cluster.settle(host.propose(1, text('x'))), {
    code: 'ERR_SYSTEM_BUSY',
    message: /state machine cannot keep up/,
  });
  const follower = cluster.followerOf(1);
  await assert.rejects(cluster.propose(follower, 1, 'x'), { code: 'ERR_SYSTEM_BUSY', message: /its leader/ });
  hold(cluster, leader, false);
  await cluster.settle(Promise.all(writes));
  await cluster.world.run(300);
  await cluster.propose(follower, 1, 'again');
  await cluster.close();
});

test('maxPayloadBytes bounds a command, and a batch as a whole has a bound', async () => {
  const cluster = new TestCluster({ hosts: 1, segmentBytes: 32 * 1024 * 1024, replica: { maxPayloadBytes: 100 } });
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  await cluster.propose(1, 1, 'x'.repeat(100));
  await assert.rejects(cluster.propose(1, 1, 'x'.repeat(101)), { code: 'ERR_PAYLOAD_TOO_BIG', message: /101.*100/ });
  await assert.rejects(cluster.settle(host.proposeBatch(1, [text('x'), text('x'.repeat(101))])), {
    code: 'ERR_PAYLOAD_TOO_BIG',
  });
  await cluster.close();
  const roomy = new TestCluster({ hosts: 1, segmentBytes: 64 * 1024 * 1024 });
  await roomy.startAll();
  const command = new Uint8Array(8 * 1024 * 1024);
  await assert.rejects(roomy.settle(roomy.hosts.get(1)!.proposeBatch(1, Array(5).fill(command))), {
    code: 'ERR_SYSTEM_BUSY',
  });
  await roomy.close();
});

test('options of limits are checked', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  for (const options of [{ maxSendQueueBytes: 1 }, { maxReceiveQueueBytes: 1 }]) {
    await assert.rejects(cluster.open(1, options), { code: 'ERR_INVALID_OPTION' });
  }
  const host = await cluster.open(1, { maxSendQueueBytes: 24 * 1024 * 1024, maxReceiveQueueBytes: 1024 * 1024 });
  const bad: Partial<ReplicaOptions>[] = [{ maxInMemoryLogBytes: 1 }, { maxPayloadBytes: 9 * 1024 * 1024 }];
  for (const options of bad) {
    await assert.rejects(cluster.startReplica(1, 1, [1], options), { code: 'ERR_INVALID_OPTION' });
  }
  assert.equal(host.failed, undefined);
  await cluster.close();
});

test('maxReceiveQueueBytes: whoever cannot write what it receives stops reading, and goes on later', async () => {
  const cluster = new TestCluster({ segmentBytes: 16 * 1024 * 1024 });
  for (const id of [1, 2, 3]) await cluster.open(id, { maxReceiveQueueBytes: 1024 * 1024 });
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  await cluster.ready(1);
  const leader = cluster.leaderOf(1);
  const slow = cluster.followerOf(1);
  const engine = engineOf(cluster.hosts.get(slow)!);
  const { disk } = cluster.machineOf.get(slow)!;
  const latency = disk.latencyOf;
  disk.latencyOf = () => 3000;
  await cluster.world.run(20);
  for (let i = 0; i < 40; i++) {
    cluster.hosts.get(leader)!.proposeCallback(1, new Uint8Array(100_000), () => {});
    await cluster.world.run(5);
  }
  assert.ok(engine.connections['pausedSessions'].size > 0, 'nobody was paused');
  assert.ok(engine.log.pendingBytes < 2 * 1024 * 1024, `${engine.log.pendingBytes} bytes wait`);
  disk.latencyOf = latency;
  await cluster.world.run(10_000);
  assert.equal(engine.connections['pausedSessions'].size, 0);
  await cluster.assertEqual(1);
  await cluster.close();
});

// Disks.

test('F20: a leader whose disk stands still gives its leadership away; writes and reads there are told at once', async () => {
  const cluster = new TestCluster({ replica: { electionRtt: 12, heartbeatRtt: 2 } });
  await cluster.startAll();
  const stuck = cluster.leaderOf(1);
  const host = cluster.hosts.get(stuck)!;
  await cluster.propose(stuck, 1, 'before');
  const { disk } = cluster.machineOf.get(stuck)!;
  const latency = disk.latencyOf;
  disk.latencyOf = () => 60_000;
  const open = host.propose(1, text('under way'), { timeoutMs: 120_000 });
  const others = [1, 2, 3].filter((id) => id !== stuck);
  await cluster.world.until(() => others.includes(cluster.leaderOf(1)), 20_000);
  const next = cluster.leaderOf(1);
  await cluster.propose(next, 1, 'the others go on');
  await cluster.world.run(500);
  const before = cluster.world.nowMs();
  await assert.rejects(cluster.settle(host.propose(1, text('now'))), {
    code: 'ERR_DISK_STALLED',
    outcome: 'not-applied',
    retryable: true,
  });
  await assert.rejects(cluster.settle(host.read(1, 'all')), { code: 'ERR_DISK_STALLED' });
  assert.ok(cluster.world.nowMs() - before < 1000, 'they waited');
  assert.ok(Array.isArray(host.staleRead(1, 'all')));
  assert.ok(engineOf(host).counters.diskStalls > 0);
  disk.latencyOf = latency;
  await cluster.world.run(70_000);
  await cluster.settle(open);
  await cluster.ready(1);
  await cluster.propose(stuck, 1, 'after');
  await cluster.assertEqual(1);
  await cluster.close();
});

test('F10: what waits to be sealed when the disk becomes full is told that it was not applied', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  const { disk } = cluster.machineOf.get(1)!;
  const engine = engineOf(host);
  const replica = engine.replicas.get(1)!;
  await cluster.world.run(100);
  disk.capacityBytes = disk.usedBytes;
  let full = false;
  host.on('diskFull', () => (full = true));
  const codes = new Map<string, string>();
  for (let i = 0; i < 100 && !full; i++) {
    const write = host.propose(1, text(`${i} ${'x'.repeat(20_000)}`), { timeoutMs: 60_000 });
    write.then(
      () => codes.set(`${i}`, 'ok'),
      (error: unknown) => codes.set(`${i}`, `${codeOf(error)} ${(error as DrakkarError).outcome}`),
    );
    await cluster.world.run(5);
  }
  // The log notices when it needs the next segment; by then a proposal may have come in that very turn.
  const sequence = replica.pending.nextSequence;
  const late = new Promise((resolve, reject) => {
    replica.pending.addPromise(resolve, reject, engine.tickCount + 10_000);
    replica.openBlock.put(EntryType.Command, sequence, replica.nonce, text('late'));
  });
  engine.diskFull(new DrakkarError('ERR_DISK_FULL', 'full'));
  await assert.rejects(cluster.settle(late), { code: 'ERR_DISK_FULL', outcome: 'not-applied' });
  disk.capacityBytes = Number.POSITIVE_INFINITY;
  await cluster.world.run(3000);
  await cluster.ready(1);
  const lines = cluster.lines(1, 1);
  for (const [number, outcome] of codes) {
    const isThere = lines.some((line) => line.startsWith(`${number} `));
    if (outcome === 'ok') assert.ok(isThere);
    if (outcome.endsWith('not-applied')) assert.ok(!isThere);
  }
  assert.ok(!lines.includes('late'));
  await cluster.close();
});

test('a leader that was none for long passes its first entry on to nobody: connections stay up', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const id = cluster.followerOf(1);
  const replica = replicaOf(cluster.hosts.get(id)!, 1);
  const refused = (): number =>
    [...cluster.hosts.values()].reduce((sum, host) => sum + engineOf(host).transport.counters.refused.size, 0);
  // Elected and deposed within one turn: the entry of its term was never sealed.
  replica.raft.outbox.appendNoop();
  const write = cluster.propose(id, 1, 'passed on');
  await write;
  assert.equal(refused(), 0);
  await cluster.assertEqual(1);
  await cluster.close();
});

test('what waits in one session has a bound in bytes', async () => {
  const cluster = new TestCluster({ hosts: 1, segmentBytes: 64 * 1024 * 1024 });
  await cluster.startAll();
  const session = await cluster.settle(cluster.hosts.get(1)!.openSession(1));
  const command = new Uint8Array(8 * 1024 * 1024);
  const writes = Array.from({ length: 6 }, () => session.propose(command, { timeoutMs: 60_000 }));
  const outcomes = await cluster.settle(Promise.allSettled(writes), 120_000);
  const busy = outcomes.filter(({ status }) => status === 'rejected');
  assert.equal(busy.length, 2, 'four fit');
  for (const outcome of busy) assert.equal(codeOf((outcome as PromiseRejectedResult).reason), 'ERR_SYSTEM_BUSY');
  assert.equal(await cluster.settle(session.propose(text('x'))), 5);
  await cluster.close();
});
