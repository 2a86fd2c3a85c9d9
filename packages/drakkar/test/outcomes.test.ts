/** What calls are told, where it is easily told wrongly: not applied or unknown; and what reaches the state machine as it is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, type Entry, type HostEventMap, type StateMachine } from 'drakkar';
import { SESSIONS_MAX } from '../src/rsm/sessions.ts';
import { TestCluster, text } from './support.ts';

test('a proposal that a new leader replaced is dropped, its outcome unknown to the host that took it', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const old = cluster.leaderOf(1);
  const others = [1, 2, 3].filter((id) => id !== old);
  for (const other of others) cluster.machines.network.cut(`host${old}`, `host${other}`);
  const lost = cluster.hosts.get(old)!.propose(1, text('lost'), { timeoutMs: 60_000 });
  lost.catch(() => {});
  const leads = (id: number): boolean => cluster.hosts.get(id)!.shardInfo(1).role === 'leader';
  await cluster.world.until(() => others.some(leads), 20_000);
  await cluster.propose(others.find(leads)!, 1, 'kept');
  cluster.machines.network.heal();
  await assert.rejects(cluster.settle(lost), { code: 'ERR_DROPPED', outcome: 'unknown', retryable: true });
  await cluster.ready(1);
  assert.deepEqual(cluster.lines(old, 1), ['kept']);
  await cluster.close();
});

test('a proposal that could not leave for a leader that is gone is not applied', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(cluster.followerOf(1))!;
  cluster.kill(leader);
  await cluster.world.until(() => host.info().peers.some(({ connected }) => !connected));
  assert.equal(host.shardInfo(1).leaderId, leader, 'it is still taken for the leader');
  const refused = host.propose(1, text('nowhere'));
  await assert.rejects(cluster.settle(refused), { code: 'ERR_NOT_LEADER', outcome: 'not-applied', retryable: true });
  await cluster.close();
});

test('an evicted session says so, and whether its command was applied is unknown', async () => {
  const cluster = new TestCluster({ hosts: 1, segmentBytes: 4 * 1024 * 1024 });
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  const oldest = await cluster.settle(host.openSession(1));
  await cluster.settle(oldest.propose(text('one')));
  await cluster.settle(Promise.all(Array.from({ length: SESSIONS_MAX }, () => host.openSession(1))));
  assert.equal(host.shardInfo(1).sessions, SESSIONS_MAX);
  await assert.rejects(cluster.settle(oldest.propose(text('two'))), {
    code: 'ERR_SESSION_NOT_FOUND',
    outcome: 'unknown',
  });
  assert.deepEqual(cluster.lines(1, 1), ['one']);
  await cluster.close();
});

test('a session repeats a command that timed out within its deadline, and tells the truth when that passes', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  const session = await cluster.settle(host.openSession(1));
  for (const id of [1, 2, 3]) if (id !== leader) cluster.machines.network.cut(`host${leader}`, `host${id}`);
  const write = session.propose(text('cut off'), { timeoutMs: 3000 });
  write.catch(() => {});
  await assert.rejects(cluster.settle(write), (error) => DrakkarError.is(error) && error.outcome === 'unknown');
  cluster.machines.network.heal();
  await cluster.ready(1);
  // The next one goes on behind it; the first is there at most once.
  await cluster.settle(session.propose(text('next')));
  const lines = cluster.lines(leader, 1);
  assert.equal(lines.at(-1), 'next');
  assert.ok(lines.filter((line) => line === 'cut off').length <= 1);
  await cluster.close();
});

test('a command that waits in its session has the deadline of its call; when its turn comes too late it was not sent', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  const session = await cluster.settle(host.openSession(1));
  for (const id of [1, 2, 3]) if (id !== leader) cluster.machines.network.cut(`host${leader}`, `host${id}`);
  const before = cluster.world.nowMs();
  const controller = new AbortController();
  const first = session.propose(text('under way'), { timeoutMs: 2000 });
  const waiting = [1, 2, 3].map((i) => session.propose(text(`waits ${i}`), { timeoutMs: 2000 }));
  const aborted = session.propose(text('aborted'), { timeoutMs: 60_000, signal: controller.signal });
  for (const call of [first, ...waiting, aborted]) call.catch(() => {});
  controller.abort();
  await assert.rejects(cluster.settle(first), { outcome: 'unknown' });
  for (const call of waiting) await assert.rejects(cluster.settle(call), { outcome: 'not-applied' });
  await assert.rejects(cluster.settle(aborted), { code: 'ERR_ABORTED', outcome: 'not-applied' });
  assert.ok(cluster.world.nowMs() - before < 3000, 'they waited one behind the other');
  cluster.machines.network.heal();
  await cluster.ready(1);
  await cluster.settle(session.propose(text('next')));
  const lines = cluster.lines(leader, 1);
  assert.equal(lines.at(-1), 'next');
  assert.ok(
    lines.every((line) => line === 'next' || line === 'under way'),
    lines.join(),
  );
  await cluster.close();
});

test('an export of a replica that has applied nothing is refused, and can be tried again', async () => {
  const cluster = new TestCluster();
  await cluster.open(1);
  await cluster.startReplica(1, 1, [1, 2, 3]);
  const host = cluster.hosts.get(1)!;
  const early = host.requestSnapshot(1, { exportTo: 'backup' });
  await assert.rejects(cluster.settle(early), { code: 'ERR_SHARD_NOT_READY', outcome: 'not-applied', retryable: true });
  for (const id of [2, 3]) await cluster.open(id);
  for (const id of [2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  await cluster.ready(1);
  assert.ok((await cluster.settle(host.requestSnapshot(1, { exportTo: 'backup' }))).index > 0);
  await cluster.close();
});

test('every host of a shard tells of a change of its membership', async () => {
  const cluster = new TestCluster({ hosts: 4 });
  const told = new Map<number, HostEventMap['membershipChanged'][]>();
  for (const id of [1, 2, 3, 4]) {
    const host = await cluster.open(id);
    told.set(id, []);
    host.on('membershipChanged', (event) => told.get(id)!.push(event));
  }
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  await cluster.startReplica(4, 1, 'join');
  await cluster.ready(1, [1, 2, 3]);
  const host = cluster.hosts.get(1)!;
  const { configChangeIndex } = await cluster.settle(host.addReplica(1, 4, cluster.addressOf(4)));
  await cluster.ready(1);
  for (const [id, events] of told) {
    const { shardId, replicaId, membership } = events.at(-1)!;
    assert.deepEqual([shardId, replicaId, membership.configChangeIndex], [1, id, configChangeIndex]);
    assert.deepEqual(membership.voters, cluster.members(1, 2, 3, 4));
  }
  await cluster.close();
});

/** Gives back what it is asked, and answers each command with its length. */
class Echo implements StateMachine {
  update(entries: readonly Entry[]): void {
    for (const entry of entries) entry.result = entry.lengthBytes;
  }

  lookup(query: unknown): unknown {
    return query;
  }

  *saveSnapshot(): Iterable<Uint8Array> {}

  async recoverFromSnapshot(): Promise<void> {}
}

test('a query reaches the state machine as it is, bytes too, and so does its answer', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  const host = await cluster.open(1);
  await cluster.settle(host.startReplica({ shardId: 1, replicaId: 1, members: cluster.members(1) }, () => new Echo()));
  await cluster.ready(1);
  for (const query of [Uint8Array.of(1, 2, 3), { deep: ['object'] }, undefined]) {
    assert.equal(await cluster.settle(host.read(1, query)), query);
    assert.equal(host.staleRead(1, query), query);
  }
  await cluster.close();
});

test('an empty command is applied and answered as any other', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  const host = await cluster.open(1);
  await cluster.settle(host.startReplica({ shardId: 1, replicaId: 1, members: cluster.members(1) }, () => new Echo()));
  await cluster.ready(1);
  const commands = [text(''), text('abc'), text('')];
  assert.deepEqual(await cluster.settle(host.proposeBatch(1, commands)), [0, 3, 0]);
  cluster.kill(1);
  const again = await cluster.open(1);
  await cluster.settle(again.startReplica({ shardId: 1, replicaId: 1 }, () => new Echo()));
  await cluster.ready(1);
  const { entries } = await cluster.settle(again.queryLog(1, { firstIndex: 2, maxEntries: 3 }));
  assert.deepEqual(
    entries.map(({ bytes }) => bytes.length),
    [0, 3, 0],
  );
  await cluster.close();
});
