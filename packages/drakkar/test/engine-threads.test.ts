/** Whole hosts with several engines, in simulated threads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, NodeHost, type ErrorCode, type LogEntry } from 'drakkar';
import { MemoryHub, systemError } from 'drakkar/testing';
import { enginesOf } from '../src/inspect.ts';
import { STREAM_BATCH_BYTES, STREAM_BATCH_ENTRIES } from '../src/threads/limits.ts';
import { JOURNAL_MODULE, Journal, TestCluster, replicaOf, text } from './support.ts';

const SHARDS = [1, 2, 3, 4];

const is =
  (code: ErrorCode, message = /./) =>
  (error: unknown): boolean => {
    assert.ok(DrakkarError.is(error), String(error));
    assert.equal(error.code, code, error.stack);
    assert.match(error.message, message);
    return true;
  };

const enginesOn = (cluster: TestCluster, id: number): number[] =>
  cluster.hosts
    .get(id)!
    .info()
    .shards.map((shard) => shard.engine);

test('hosts with one, two and three engines replicate, read and agree', async () => {
  const cluster = new TestCluster({ engines: (id) => id });
  await cluster.startAll(SHARDS);
  for (const shardId of SHARDS) {
    for (let i = 1; i <= 12; i++) assert.equal(await cluster.propose((i % 3) + 1, shardId, `line ${i}`), i);
    for (const host of cluster.hosts.values()) assert.equal(await cluster.settle(host.read(shardId, 'count')), 12);
    await cluster.assertEqual(shardId);
  }
  assert.deepEqual(enginesOn(cluster, 1), [0, 0, 0, 0]);
  assert.deepEqual(enginesOn(cluster, 2), [0, 1, 0, 1]);
  assert.deepEqual(enginesOn(cluster, 3), [0, 1, 2, 0]);
  await cluster.close();
});

test('restarts with 1, 2, 1, 3 and 1 engines keep the data of every shard, and every shard its engine', async () => {
  let count = 1;
  const cluster = new TestCluster({ engines: () => count });
  await cluster.startAll([1]);
  const known = [1];
  let lines = 0;
  const expected: Record<number, number> = { 1: 0 };
  for (const [round, engines] of [2, 1, 3, 1].entries()) {
    for (const shardId of known) await cluster.propose((round % 3) + 1, shardId, `line ${lines++}`);
    const before = new Map<number, unknown>();
    for (const shardId of known) before.set(shardId, await cluster.settle(cluster.hosts.get(1)!.read(shardId, 'all')));
    for (const id of [1, 2, 3]) cluster.losePower(id);
    count = engines;
    for (const id of [1, 2, 3]) await cluster.open(id);
    for (const shardId of known) for (const id of [1, 2, 3]) await cluster.startReplica(id, shardId);
    for (const shardId of known) {
      await cluster.ready(shardId);
      assert.deepEqual(cluster.lines(2, shardId), before.get(shardId));
      assert.equal(cluster.hosts.get(3)!.shardInfo(shardId).engine, expected[shardId]);
    }
    // New ones go to the engines of this start only.
    for (const shardId of [known.length + 1, known.length + 2]) {
      for (const id of [1, 2, 3]) await cluster.startReplica(id, shardId, [1, 2, 3]);
      await cluster.ready(shardId);
      known.push(shardId);
      expected[shardId] = cluster.hosts.get(1)!.shardInfo(shardId).engine;
      assert.ok(expected[shardId] < engines, `shard ${shardId} began in engine ${expected[shardId]} of ${engines}`);
    }
  }
  assert.equal(new Set(Object.values(expected)).size, 3, 'not every engine had a shard');
  await cluster.close();
});

test('a thread that dies fails its shards with a typed error and events; the other engines live on', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1, 2]);
  const host = cluster.hosts.get(1)!;
  const events: string[] = [];
  host.on('replicaFailed', ({ shardId, error }) => events.push(`replica ${shardId} ${error.code}`));
  host.on('engineFailed', ({ engine, error }) => events.push(`engine ${engine} ${error.code}`));
  host.on('hostFailed', ({ error }) => events.push(`host ${error.code}`));
  const waiting = [host.propose(2, text('lost?')), host.read(2, 'count'), host.whenReady(2)];
  for (const call of waiting) call.catch(() => {});
  const handle = host.shard(2);
  await cluster.world.run(0.01);
  cluster.machineOf.get(1)!.threads[1].crash(new Error('out of memory'));
  await assert.rejects(cluster.settle(waiting[0]), is('ERR_SHARD_FAILED'));
  await assert.rejects(cluster.settle(waiting[1]), is('ERR_ENGINE_FAILED', /out of memory/));
  await assert.rejects(cluster.settle(waiting[2]), is('ERR_ENGINE_FAILED'));
  await cluster.world.run(1);
  assert.deepEqual(events, ['replica 2 ERR_ENGINE_FAILED', 'engine 1 ERR_ENGINE_FAILED']);
  await assert.rejects(handle.propose(text('later')), { code: 'ERR_SHARD_FAILED', outcome: 'not-applied' });
  await assert.rejects(host.read(2, 'count'), is('ERR_SHARD_FAILED'));
  await assert.rejects(host.requestSnapshot(2), is('ERR_SHARD_FAILED'));
  assert.throws(() => host.hash(2), is('ERR_SHARD_FAILED'));
  assert.equal(host.shardInfo(2).state, 'failed');
  is('ERR_ENGINE_FAILED')(host.info().shards.find(({ shardId }) => shardId === 2)!.failure);
  assert.equal(host.failed, undefined);
  // The other engine, and the shard on the other hosts.
  assert.equal(await cluster.propose(1, 1, 'goes on'), 1);
  await cluster.world.until(() => cluster.leaderOf(2) > 1, 20_000);
  await cluster.propose(cluster.leaderOf(2), 2, 'without host 1');
  // After both it is the host that failed.
  cluster.machineOf.get(1)!.threads[0].crash(new Error('out of memory'));
  await cluster.world.run(1);
  assert.equal(events.at(-1), 'host ERR_ENGINE_FAILED');
  is('ERR_ENGINE_FAILED')(host.failed);
  await cluster.settle(host.close());
  cluster.kill(1);
  await cluster.open(1);
  for (const shardId of [1, 2]) await cluster.startReplica(1, shardId);
  for (const shardId of [1, 2]) {
    await cluster.ready(shardId);
    await cluster.assertEqual(shardId);
  }
  await cluster.close();
});

test('a log that fails stops its engine only', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1, 2]);
  const victim = cluster.followerOf(2);
  const host = cluster.hosts.get(victim)!;
  const events: string[] = [];
  host.on('engineFailed', ({ engine, error }) => events.push(`engine ${engine} ${error.code}`));
  host.on('hostFailed', () => events.push('host'));
  cluster.machineOf.get(victim)!.disk.fault = (operation, path) =>
    operation === 'write' && path.includes('engine-1') ? systemError('EIO', path) : undefined;
  await cluster.propose(cluster.leaderOf(2), 2, 'cannot be written');
  await cluster.world.until(() => events.length > 0);
  await assert.rejects(cluster.settle(host.propose(2, text('x'))), is('ERR_DISK_FAILED'));
  assert.equal(await cluster.propose(victim, 1, 'goes on'), 1);
  assert.deepEqual(events, ['engine 1 ERR_DISK_FAILED']);
  await cluster.close();
});

test('a rolled-back directory ends all engines of its host, for ever', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1, 2]);
  const victim = cluster.followerOf(2);
  const machine = cluster.machineOf.get(victim)!;
  cluster.kill(victim);
  const copy = machine.disk.clone();
  await cluster.open(victim);
  for (const shardId of [1, 2]) await cluster.startReplica(victim, shardId);
  for (const shardId of [1, 2]) await cluster.ready(shardId);
  cluster.kill(victim);
  machine.disk.restore(copy);
  const host = await cluster.open(victim);
  // Only the shard of engine 1 is started: its peers know better.
  await cluster.startReplica(victim, 2);
  await cluster.world.until(() => host.failed !== undefined, 20_000);
  is('ERR_DIR_CORRUPT', /was rolled back/)(host.failed);
  cluster.kill(victim);
  await assert.rejects(cluster.open(victim), is('ERR_DIR_CORRUPT', /was rolled back/));
  await cluster.close();
});

test('back-pressure is there at once: what a shard cannot keep is refused in the same turn', async () => {
  const cluster = new TestCluster({ engines: () => 2, segmentBytes: 4 << 20 });
  await cluster.startAll([1]);
  const host = cluster.hosts.get(1)!;
  const codes: string[] = [];
  const shard = host.shard(1);
  for (let i = 0; i < 65_536; i++) shard.proposeCallback(text('x'), (error) => codes.push(error?.code ?? 'ok'));
  await assert.rejects(shard.propose(text('one too many')), { code: 'ERR_SYSTEM_BUSY', outcome: 'not-applied' });
  await assert.rejects(shard.propose(new Uint8Array(9 << 20)), is('ERR_PAYLOAD_TOO_BIG'));
  await cluster.world.until(() => codes.length === 65_536, 120_000);
  assert.equal((await cluster.propose(1, 1, 'room again')) !== undefined, true);
  await cluster.close();
});

test('what cannot be sent to another thread is refused to its caller alone', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1]);
  const host = cluster.hosts.get(2)!;
  const [bad, good] = [host.read(1, () => 'a function'), host.read(1, 'count')];
  await assert.rejects(cluster.settle(bad), is('ERR_INVALID_OPTION', /the query cannot be sent/));
  assert.equal(await cluster.settle(good), 0);
  const factory = (): Journal => new Journal();
  await assert.rejects(
    host.startReplica({ shardId: 5, replicaId: 2, members: cluster.members(2) }, factory),
    is('ERR_INVALID_OPTION', /with several engines .* got a function/),
  );
  const start = (machine: object): Promise<void> =>
    cluster.settle(host.startReplica({ shardId: 5, replicaId: 2, members: cluster.members(2) }, machine as never));
  await assert.rejects(start({ module: 'test:nothing' }), is('ERR_STATE_MACHINE', /could not be loaded/));
  await assert.rejects(
    start({ module: JOURNAL_MODULE, export: 'Nothing' }),
    is('ERR_STATE_MACHINE', /no function Nothing/),
  );
  await assert.rejects(start({ module: JOURNAL_MODULE, args: () => 1 }), is('ERR_INVALID_OPTION', /cannot be sent/));
  await assert.rejects(start({ module: './machine.ts' }), is('ERR_INVALID_OPTION', /new URL/));
  await start({ module: JOURNAL_MODULE });
  await cluster.close();
});

test('a module makes the state machine with one engine, too, and gets its arguments', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.open(1);
  const seen: unknown[] = [];
  cluster.machineOf.get(1)!.modules.set('test:args', {
    create(...args: unknown[]) {
      seen.push(...args);
      return new Journal();
    },
  });
  const host = cluster.hosts.get(1)!;
  const options = { shardId: 3, replicaId: 1, members: cluster.members(1) };
  await cluster.settle(host.startReplica(options, { module: 'test:args', export: 'create', args: { size: 7 } }));
  assert.deepEqual(seen, [3, 1, { size: 7 }]);
  await cluster.close();
});

test('answers of an earlier start of a shard are not taken for those of a later one', async () => {
  const cluster = new TestCluster({ engines: () => 2, hosts: 1 });
  await cluster.startAll([1]);
  const host = cluster.hosts.get(1)!;
  for (let round = 0; round < 5; round++) {
    const old = Array.from({ length: 50 }, (_, i) => host.propose(1, text(`old ${round} ${i}`)));
    const stopped = host.stopReplica(1);
    // These leave behind the order to stop, and are refused when the replica is gone.
    const late = Array.from({ length: 50 }, (_, i) => host.propose(1, text(`late ${round} ${i}`)));
    const settled = Promise.allSettled([...old, ...late]);
    await cluster.settle(stopped);
    const started = host.startReplica({ shardId: 1, replicaId: 1 }, { module: JOURNAL_MODULE });
    await cluster.settle(started);
    await cluster.ready(1);
    const answer = (await cluster.settle(host.propose(1, text('new')))) as number;
    assert.equal(cluster.lines(1, 1)[answer - 1], 'new');
    for (const result of await cluster.settle(settled)) {
      if (result.status === 'rejected')
        assert.match((result.reason as DrakkarError).code, /ERR_SHARD_(STOPPED|NOT_FOUND)/);
    }
  }
  await cluster.close();
});

test('a member in another engine gets its snapshot there', async () => {
  const cluster = new TestCluster({
    engines: (id) => (id === 1 ? 1 : 2),
    replica: { snapshotEntries: 50, compactionOverhead: 5 },
  });
  await cluster.startAll([1, 2]);
  const away = [2, 3].find((id) => id !== cluster.leaderOf(2))!;
  assert.equal(cluster.hosts.get(away)!.shardInfo(2).engine, 1);
  cluster.kill(away);
  await cluster.world.until(() => cluster.leaderOf(2) !== 0, 20_000);
  for (let i = 0; i < 150; i++) await cluster.propose(cluster.leaderOf(2), 2, `line ${i}`);
  const host = await cluster.open(away);
  let received = 0;
  host.on('snapshotRecovered', () => received++);
  await cluster.startReplica(away, 2);
  await cluster.ready(2);
  assert.equal(cluster.lines(away, 2).length, 150);
  assert.ok(received > 0, 'it caught up without a snapshot');
  await cluster.close();
});

test('an engine whose log is gone, or damaged, makes nobody begin anew', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1, 2]);
  for (let i = 0; i < 10; i++) await cluster.propose(1, 2, `line ${i}`);
  const victim = cluster.followerOf(2);
  cluster.kill(victim);
  const { disk } = cluster.machineOf.get(victim)!;
  const copy = disk.clone();
  disk.remove('data/engine-1');
  await assert.rejects(cluster.open(victim), is('ERR_DIR_CORRUPT', /engine-1\/wal is missing/));
  cluster.kill(victim);
  disk.restore(copy);
  // Damage in front of everything: the log does not know any more whom it held.
  disk.edit('data/engine-1/wal/0000000000000001.wal', (bytes) => {
    for (let at = 4096; at < 4096 * 8; at += 64) bytes[at] ^= 1;
  });
  for (const engines of [2, 1]) {
    await cluster.open(victim, { engines });
    await assert.rejects(cluster.startReplica(victim, 2, [1, 2, 3]), is('ERR_LOG_CORRUPT'));
    await cluster.startReplica(victim, 1, [1, 2, 3]);
    cluster.kill(victim);
  }
  await cluster.close();
});

test('a shard of an engine of an earlier start is not begun anew in another while that log is damaged', async () => {
  const cluster = new TestCluster({ engines: () => 3 });
  await cluster.startAll([1, 2, 3]);
  for (let i = 0; i < 10; i++) await cluster.propose(1, 3, `line ${i}`);
  const victim = cluster.followerOf(3);
  assert.equal(cluster.hosts.get(victim)!.shardInfo(3).engine, 2);
  cluster.kill(victim);
  cluster.machineOf.get(victim)!.disk.edit('data/engine-2/wal/0000000000000001.wal', (bytes) => {
    for (let at = 4096; at < 4096 * 8; at += 64) bytes[at] ^= 1;
  });
  await cluster.open(victim, { engines: 2 });
  await assert.rejects(cluster.startReplica(victim, 3, [1, 2, 3]), is('ERR_LOG_CORRUPT'));
  await cluster.startReplica(victim, 2);
  await cluster.close();
});

test('what a leader sends goes the new way at once, all of it', async () => {
  const cluster = new TestCluster({ engines: (id) => (id === 1 ? 1 : 2) });
  await cluster.startAll([1, 2]);
  for (const id of [1, 2, 3]) {
    for (let i = 0; i < 10; i++) await cluster.propose(id, 2, `line ${i}`);
    const replica = replicaOf(cluster.hosts.get(id)!, 2);
    for (const { peers } of replica.sets?.values() ?? []) {
      for (const peer of peers) assert.ok(replica.peers.includes(peer), `host ${id} still sends to ${peer.address}`);
    }
    assert.deepEqual(
      replica.peers.filter((peer) => peer !== undefined).map(({ engine }) => engine),
      id === 1 ? [1, 1] : [0, 1],
    );
  }
  await cluster.close();
});

test('a host that closes ends what waits, and one whose thread does not come to it ends all the same', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1]);
  const host = cluster.hosts.get(1)!;
  const calls = [host.propose(1, text('x')), host.read(1, 'count'), host.whenReady(1), host.requestSnapshot(1)];
  const settled = Promise.allSettled(calls);
  const closed = host.close();
  await assert.rejects(host.propose(1, text('late')), is('ERR_CLOSED'));
  await cluster.settle(closed);
  for (const result of await cluster.settle(settled)) {
    if (result.status === 'rejected') is('ERR_CLOSED')(result.reason);
  }
  assert.throws(() => host.shardInfo(1), is('ERR_CLOSED'));
  assert.deepEqual(host.info().shards, []);
  cluster.hosts.delete(1);
  await cluster.close();
});

test('a callback that throws keeps no other from its answer', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1]);
  const host = cluster.hosts.get(1)!;
  let answers = 0;
  for (let i = 0; i < 10; i++) {
    host.proposeCallback(1, text(`line ${i}`), () => {
      answers++;
      throw new Error('a callback that throws');
    });
  }
  await cluster.world.until(() => answers === 10);
  await cluster.close();
});

/** Methods that mean a shard: each is called here on a host whose shards live in threads, in this order. */
const OF_A_SHARD: Record<string, (host: NodeHost, cluster: TestCluster) => unknown> = {
  shardInfo: (host) => assert.equal(host.shardInfo(1).state, 'running'),
  knownShard: (host) => assert.deepEqual(host.knownShard(1)?.voters, { 1: 'host1:7000' }),
  whenReady: (host) => host.whenReady(1),
  propose: async (host) => assert.equal(await host.propose(1, text('one')), 1),
  proposeBatch: async (host) => assert.deepEqual(await host.proposeBatch(1, [text('two'), text('three')]), [2, 3]),
  proposeCallback: async (host) => {
    const result = await new Promise((resolve) => host.proposeCallback(1, text('four'), (...args) => resolve(args), 7));
    assert.deepEqual(result, [null, 4, 7]);
  },
  openSession: async (host) => assert.equal(await (await host.openSession(1)).propose(text('five')), 5),
  shard: async (host) => assert.equal(await host.shard(1).propose(text('six')), 6),
  read: async (host) => assert.equal(await host.read(1, 'count'), 6),
  staleRead: async (host) => assert.equal(await host.staleRead(1, 'count'), 6),
  hash: (host) => assert.ok(host.hash(1).appliedIndex > 6),
  queryLog: async (host) => assert.equal((await host.queryLog(1, { firstIndex: 1, lastIndex: 3 })).nextIndex, 4),
  watch: async (host) => {
    for await (const entry of host.watch(1, { fromIndex: 3 })) return assert.equal(entry.index, 3);
  },
  watchLeader: async (host) => {
    for await (const { leaderId } of host.watchLeader(1)) return assert.equal(leaderId, 1);
  },
  addReplica: (host) => host.addReplica(1, 9, 'host9:7000', { role: 'non-voting' }),
  membership: async (host) => assert.deepEqual(Object.keys((await host.membership(1)).nonVotings), ['9']),
  promote: (host) => assert.rejects(host.promote(1, 9), is('ERR_CONFIG_CHANGE_PENDING')), // it never catches up
  removeReplica: (host) => host.removeReplica(1, 9),
  removeData: (host) => assert.rejects(host.removeData(1, 1), is('ERR_NOT_REMOVED')),
  requestSnapshot: async (host) => assert.ok((await host.requestSnapshot(1)).index > 6),
  transferLeader: (host) => host.transferLeader(1, 1),
  stopReplica: (host) => host.stopReplica(1),
  startReplica: (host, { machine }) => host.startReplica({ shardId: 1, replicaId: 1 }, machine),
};
/** Of the whole host; what they do with several engines is tested elsewhere in this file. */
const OF_THE_HOST =
  'constructor on off id raftAddress failed knownHosts close info metrics reloadTls enableFormat knownShards'.split(
    ' ',
  );
/** Private. */
const HELPERS = 'served change attempt'.split(' ');

test('every method of NodeHost was thought of, and those that mean a shard reach it in its thread', async () => {
  const base = Object.getPrototypeOf(NodeHost.prototype) as object;
  const methods = [...new Set([NodeHost.prototype, base].flatMap((each) => Object.getOwnPropertyNames(each)))];
  const known = [...OF_THE_HOST, ...HELPERS, ...Object.keys(OF_A_SHARD)];
  assert.deepEqual(
    methods.filter((name) => !known.includes(name)),
    [],
    'a method of a shard must be passed on to its thread, see HostShards.ask; then call it above',
  );
  assert.deepEqual(
    known.filter((name) => !methods.includes(name)),
    [],
    'no such method any more',
  );
  const cluster = new TestCluster({ hosts: 1, engines: () => 2 });
  await cluster.startAll([7, 1]);
  assert.equal(cluster.hosts.get(1)!.shardInfo(1).engine, 1);
  assert.equal(cluster.hosts.get(1)!.knownShard(2), undefined);
  const views = cluster.hosts.get(1)!.knownShards();
  assert.deepEqual(
    views.map(({ shardId, leaderId }) => [shardId, leaderId]),
    [
      [7, 1],
      [1, 1],
    ],
  );
  for (const call of Object.values(OF_A_SHARD)) {
    await cluster.settle(Promise.resolve(call(cluster.hosts.get(1)!, cluster)));
  }
  await cluster.ready(1);
  await cluster.close();
});

/** All batches of streams that arrive from the thread of engine `number`, as the host takes them. */
function batchesFrom(cluster: TestCluster, number: number): LogEntry[][] {
  const batches: LogEntry[][] = [];
  const thread = cluster.machineOf.get(1)!.threads[number];
  const { onMessage } = thread;
  thread.onMessage = (message) => {
    const { kind, value } = message as { kind: string; value?: unknown };
    if (kind === 'answer' && Array.isArray(value) && value[0]?.term !== undefined) batches.push(value as LogEntry[]);
    onMessage(message);
  };
  return batches;
}

test('a change stream sends what its consumer asks for and one batch more, each within its bounds', async () => {
  const cluster = new TestCluster({ hosts: 1, engines: () => 2, segmentBytes: 4 << 20 });
  await cluster.startAll([7, 1]);
  const host = cluster.hosts.get(1)!;
  const line = text('x'.repeat(500));
  for (let i = 0; i < 3; i++) await cluster.settle(host.proposeBatch(1, new Array<Uint8Array>(1000).fill(line)));
  await cluster.settle(host.proposeBatch(1, new Array<Uint8Array>(3000).fill(text('short'))));
  const { commitIndex } = host.shardInfo(1);
  const batches = batchesFrom(cluster, 1);
  const stream = host.watch(1, { fromIndex: 1, bufferBytes: 4 << 20 });
  const iterator = stream[Symbol.asyncIterator]();
  await cluster.settle(iterator.next());
  await cluster.world.run(1000);
  assert.equal(batches.length, 2, 'the thread does not wait for its consumer');
  for (let index = 2; index <= commitIndex; index++) {
    assert.equal((await cluster.settle(iterator.next())).value.index, index);
  }
  for (const batch of batches) {
    const bytes = batch.reduce((sum, entry) => sum + entry.bytes.length, 0);
    assert.ok(batch.length <= STREAM_BATCH_ENTRIES && bytes <= STREAM_BATCH_BYTES, `${batch.length}, ${bytes} bytes`);
  }
  assert.ok(batches.length <= 14, `${batches.length} batches: each question was answered by next to nothing`);
  await cluster.settle(iterator.return!());
  await cluster.close();
});

test('a stream ends with its thread, behind the entries that are here; with the host it ends quietly', async () => {
  const cluster = new TestCluster({ hosts: 1, engines: () => 2 });
  await cluster.startAll([1, 2]);
  const host = cluster.hosts.get(1)!;
  for (let i = 0; i < 3; i++) await cluster.propose(1, 2, `line ${i}`);
  const { commitIndex } = host.shardInfo(2);
  const slow = host.watch(2, { fromIndex: 1 })[Symbol.asyncIterator]();
  assert.equal((await cluster.settle(slow.next())).value.index, 1);
  const waiting = [
    host.watch(2)[Symbol.asyncIterator]().next(),
    drained(host.watchLeader(2)[Symbol.asyncIterator]()),
    drained(host.watch(2, { fromIndex: commitIndex })[Symbol.asyncIterator]()),
  ];
  for (const call of waiting) call.catch(() => {});
  const quiet = drained(host.watch(1)[Symbol.asyncIterator]());
  await cluster.world.run(1);
  const unused = host.watch(2);
  cluster.machineOf.get(1)!.threads[1].crash(new Error('out of memory'));
  for (const call of waiting)
    await assert.rejects(cluster.settle<unknown>(call), is('ERR_ENGINE_FAILED', /out of memory/));
  for (let index = 2; index <= commitIndex; index++) {
    assert.equal((await cluster.settle(slow.next())).value.index, index);
  }
  await assert.rejects(cluster.settle(slow.next()), is('ERR_ENGINE_FAILED'));
  assert.equal((await cluster.settle(slow.next())).done, true);
  await assert.rejects(cluster.settle(unused[Symbol.asyncIterator]().next()), is('ERR_SHARD_FAILED'));
  assert.throws(() => host.watch(2), is('ERR_SHARD_FAILED'));
  assert.throws(() => host.watchLeader(2), is('ERR_SHARD_FAILED'));
  await cluster.close();
  assert.equal(await cluster.settle(quiet), 0);
});

async function drained(iterator: AsyncIterator<unknown>): Promise<number> {
  for (let count = 0; ; count++) if ((await iterator.next()).done === true) return count;
}

test('a command whose commit is told counts as others do, keeps its place, and is told of nothing once it failed', async () => {
  const cluster = new TestCluster({ hosts: 1, engines: () => 2, segmentBytes: 32 << 20 });
  await cluster.startAll([7, 1]);
  const host = cluster.hosts.get(1)!;
  const heard: number[] = [];
  const onCommit = (index: number): void => void heard.push(index);
  const first = host.propose(1, text('first'));
  assert.equal(await cluster.settle(host.propose(1, text('second'), { onCommit })), 2);
  assert.equal(await cluster.settle(first), 1);
  assert.deepEqual(heard, [host.shardInfo(1).commitIndex]);
  // 64 MiB are under way to the thread.
  const large = new Uint8Array((8 << 20) - 1024).fill(120);
  const many = Array.from({ length: 8 }, () => host.propose(1, large, { onCommit }));
  for (const call of many) call.catch(() => {});
  const late = { code: 'ERR_SYSTEM_BUSY', outcome: 'not-applied' };
  await assert.rejects(cluster.settle(host.propose(1, large, { onCommit })), late);
  await assert.rejects(cluster.settle(host.propose(1, large)), late);
  await cluster.settle(Promise.allSettled(many), 60_000);
  assert.equal((await cluster.propose(1, 1, 'room again')) !== undefined, true);
  // A command that is lost with its thread.
  const told = heard.length;
  const lost = host.propose(1, text('lost'), { onCommit });
  lost.catch(() => {});
  cluster.machineOf.get(1)!.threads[1].crash(new Error('out of memory'));
  await assert.rejects(cluster.settle(lost), { code: 'ERR_ENGINE_FAILED', outcome: 'unknown' });
  await assert.rejects(host.propose(1, text('x'), { onCommit }), { code: 'ERR_SHARD_FAILED', outcome: 'not-applied' });
  assert.equal(heard.length, told);
  await cluster.close();
});

test('an abort signal crosses to the thread, and one that was given too late sends nothing', async () => {
  const cluster = new TestCluster({ engines: () => 2 });
  await cluster.startAll([1]);
  for (const id of [2, 3]) cluster.kill(id);
  const host = cluster.hosts.get(1)!;
  const aborting = new AbortController();
  const waiting = host.whenReady(1, { signal: aborting.signal, timeoutMs: 60_000 });
  const change = host.removeReplica(1, 3, { signal: aborting.signal, timeoutMs: 60_000 });
  waiting.catch(() => {});
  change.catch(() => {});
  await cluster.world.run(100);
  aborting.abort();
  await assert.rejects(cluster.settle(waiting), is('ERR_ABORTED'));
  await assert.rejects(cluster.settle(change), { code: 'ERR_ABORTED', outcome: 'unknown' });
  const late = { code: 'ERR_ABORTED', outcome: 'not-applied' };
  await assert.rejects(host.removeReplica(1, 3, { signal: aborting.signal }), late);
  await assert.rejects(host.requestSnapshot(1, { signal: aborting.signal }), late);
  await cluster.close();
});

test('a query of the log behind a snapshot says across threads what is available', async () => {
  const cluster = new TestCluster({ hosts: 1, engines: () => 2, replica: { compactionOverhead: 5 } });
  await cluster.startAll([1]);
  const host = cluster.hosts.get(1)!;
  for (let i = 0; i < 20; i++) await cluster.propose(1, 1, `line ${i}`);
  const { index } = await cluster.settle(host.requestSnapshot(1));
  const { commitIndex } = host.shardInfo(1);
  const available = { firstIndex: index - 5 + 1, lastIndex: commitIndex };
  await assert.rejects(cluster.settle(host.queryLog(1, { firstIndex: 1 })), { code: 'ERR_LOG_COMPACTED', available });
  await assert.rejects(cluster.settle(host.queryLog(1, { firstIndex: commitIndex + 1 })), {
    code: 'ERR_LOG_OUT_OF_RANGE',
    available,
  });
  const { entries, nextIndex } = await cluster.settle(host.queryLog(1, available));
  assert.equal(nextIndex, commitIndex + 1);
  assert.equal(entries.length, 5);
  assert.deepEqual(entries.at(-1)!.bytes, text('line 19'));
  await cluster.close();
});

test('a replica that was removed gives its engine free: its data goes, and another one may live elsewhere', async () => {
  const cluster = new TestCluster({ hosts: 4, engines: (id) => (id === 4 ? 2 : 1) });
  for (const id of [1, 2, 3, 4]) await cluster.open(id);
  for (const shardId of [1, 2, 3]) for (const id of [1, 2, 3]) await cluster.startReplica(id, shardId, [1, 2, 3]);
  for (const shardId of [1, 2, 3]) await cluster.ready(shardId, [1, 2, 3]);
  const host = cluster.hosts.get(4)!;
  const engineOfShard = (shardId: number): number => host.shardInfo(shardId).engine;
  const join = async (shardId: number, replicaId: number): Promise<void> => {
    await cluster.settle(host.startReplica({ shardId, replicaId, members: 'join' }, cluster.machine));
    await cluster.settle(cluster.hosts.get(1)!.addReplica(shardId, replicaId, cluster.addressOf(4)));
    await cluster.ready(shardId);
  };
  await join(1, 4);
  await join(2, 4);
  assert.deepEqual([engineOfShard(1), engineOfShard(2)], [0, 1]);
  let removed = 0;
  host.on('replicaRemoved', () => removed++);
  const handle = host.shard(2);
  const waiting = host.propose(2, text('under way'));
  waiting.catch(() => {});
  await cluster.settle(cluster.hosts.get(1)!.removeReplica(2, 4));
  await cluster.world.until(() => removed > 0, 30_000);
  await assert.rejects(cluster.settle(handle.propose(text('x'))), is('ERR_REPLICA_REMOVED'));
  assert.throws(() => host.shardInfo(2), is('ERR_REPLICA_REMOVED'));
  await assert.rejects(cluster.settle(host.startReplica({ shardId: 2, replicaId: 4 }, cluster.machine)), {
    code: 'ERR_REPLICA_REMOVED',
  });
  await cluster.settle(host.removeData(2, 4));
  assert.throws(() => host.shardInfo(2), is('ERR_SHARD_NOT_FOUND'));
  await assert.rejects(cluster.settle(host.removeData(2, 4)), is('ERR_SHARD_NOT_FOUND'));
  await join(3, 4); // takes the room
  assert.equal(engineOfShard(3), 1);
  await cluster.settle(host.stopReplica(1));
  await join(2, 24); // both engines have one, so it is the first, where nobody looked for the shard before
  assert.equal(engineOfShard(2), 0);
  for (const id of [1, 2, 3, 4]) await cluster.propose(id, 2, `line ${id}`);
  await cluster.assertEqual(2);
  await cluster.close();
});

test('silence is between engines: what happens to one leaves the silent shards of the others asleep', async () => {
  const cluster = new TestCluster({ engines: (id) => id });
  await cluster.startAll(SHARDS);
  const ids = [1, 2, 3];
  const infos = (id: number) => cluster.hosts.get(id)!.info().shards;
  const isSilent = (id: number): boolean => infos(id).every(({ quiesced }) => quiesced);
  for (const shardId of SHARDS) await cluster.propose(cluster.followerOf(shardId), shardId, 'one');
  await cluster.world.until(() => ids.every(isSilent), 20_000);
  const terms = (): number[][] => ids.map((id) => infos(id).map(({ term }) => term));
  const before = terms();
  const bytesSent = (): number =>
    ids
      .flatMap((id) => [...enginesOf(cluster.hosts.get(id)!)])
      .reduce((sum, { transport }) => sum + transport.counters.bytesSent, 0);
  const sent = bytesSent();
  await cluster.world.run(30_000);
  assert.ok(ids.every(isSilent));
  assert.deepEqual(terms(), before, 'somebody was elected in the silence');
  // A message of 96 bytes every 100 ms on each way from engine to engine: fewer than all of six engines to all.
  assert.ok(bytesSent() - sent <= 301 * 96 * 24, `${bytesSent() - sent} bytes`);
  // A shard that wakes wakes no other.
  await cluster.propose(1, 2, 'two');
  for (const id of ids) for (const shardId of [1, 3, 4]) assert.ok(cluster.hosts.get(id)!.shardInfo(shardId).quiesced);
  await cluster.world.until(() => ids.every(isSilent), 20_000);
  // An engine that dies is missed by those whose leader lived in it, and the host's other engine is not.
  const lost = [2, 3].find((id) =>
    SHARDS.some((shardId) => cluster.leaderOf(shardId) === id && cluster.hosts.get(id)!.shardInfo(shardId).engine > 0),
  );
  const victim = lost ?? 3;
  const led = infos(victim).filter(({ engine }) => engine === 1);
  const spared = infos(victim).filter(({ engine }) => engine === 0);
  const sparedTerms = spared.map(({ term }) => term);
  cluster.machineOf.get(victim)!.threads[1].crash(new Error('out of memory'));
  const other = victim === 2 ? 3 : 2;
  const leads = (shardId: number): boolean =>
    ![0, victim].includes(cluster.hosts.get(other)!.shardInfo(shardId).leaderId);
  await cluster.world.until(() => led.every(({ shardId }) => leads(shardId)), 20_000);
  await cluster.world.run(5000);
  assert.deepEqual(
    infos(victim)
      .filter(({ engine }) => engine === 0)
      .map(({ term }) => term),
    sparedTerms,
  );
  for (const { shardId } of spared) assert.ok(cluster.hosts.get(victim)!.shardInfo(shardId).quiesced);
  // A host is connected when all its engines are.
  const { peers } = cluster.hosts.get(1)!.info();
  assert.deepEqual(
    peers.map(({ address, connected }) => [address, connected]),
    ['host2:7000', 'host3:7000'].map((address) => [address, address !== cluster.addressOf(victim)]),
  );
  await cluster.close();
});

test('two logs that hold the same shard are refused', async () => {
  const cluster = new TestCluster({ hosts: 1, engines: () => 2 });
  await cluster.startAll([1]);
  await cluster.settle(cluster.hosts.get(1)!.close());
  const { disk } = cluster.machineOf.get(1)!;
  cluster.kill(1);
  let first: Uint8Array | undefined;
  disk.edit('data/engine-0/wal/0000000000000001.wal', (bytes) => (first = bytes.slice()));
  disk.edit('data/engine-1/wal/0000000000000001.wal', (bytes) => bytes.set(first!));
  for (const engines of [1, 2])
    await assert.rejects(cluster.open(1, { engines }), is('ERR_DIR_CORRUPT', /both hold shard 1/));
  cluster.kill(1);
});

test('hosts that are found by id tell their threads where the others are', async () => {
  const cluster = new TestCluster({ engines: (id) => (id === 1 ? 1 : 2) });
  const idOf = (id: number): string => `${id}`.repeat(32);
  const members = Object.fromEntries([1, 2, 3].map((id) => [id, idOf(id)]));
  const open = (id: number, port: number): Promise<NodeHost> =>
    cluster.open(id, {
      raftAddress: `host${id}:${port}`,
      hostId: idOf(id),
      gossip: {
        bindAddress: `host${id}:${port + 1}`,
        seeds: ['host1:7001', 'host2:7001', 'host1:8001'],
        keys: [new Uint8Array(32).fill(7)],
      },
    });
  const start = async (id: number): Promise<void> => {
    for (const shardId of [1, 2]) {
      const options = { shardId, replicaId: id, members };
      await cluster.settle(cluster.hosts.get(id)!.startReplica(options, { module: JOURNAL_MODULE }));
    }
  };
  for (const id of [1, 2, 3]) await open(id, 7000);
  for (const id of [1, 2, 3]) await start(id);
  for (const shardId of [1, 2]) await cluster.ready(shardId);
  for (const id of [3, 1, 2]) {
    await cluster.settle(cluster.hosts.get(id)!.close());
    cluster.kill(id);
    await open(id, 8000);
    await start(id);
    for (const shardId of [1, 2]) await cluster.ready(shardId);
    for (const shardId of [1, 2]) await cluster.propose(id, shardId, `moved ${id}`);
  }
  // What their threads know of shards goes round, too.
  const isKnown = (id: number): boolean =>
    cluster.hosts
      .get(id)!
      .knownShards()
      .filter(({ voters }) => Object.keys(voters).length === 3).length === 2;
  await cluster.world.until(() => [1, 2, 3].every(isKnown), 60_000);
  assert.equal(replicaOf(cluster.hosts.get(2)!, 2).engine.number, 1);
  for (const shardId of [1, 2]) await cluster.assertEqual(shardId);
  await cluster.close();
});

test('hosts with several engines over the hub in memory', async () => {
  const cluster = new TestCluster({ engines: (id) => id });
  const hub = new MemoryHub();
  for (const id of [1, 2, 3]) await cluster.open(id, { transport: hub.createTransport });
  for (const shardId of SHARDS) for (const id of [1, 2, 3]) await cluster.startReplica(id, shardId, [1, 2, 3]);
  for (const shardId of SHARDS) {
    await cluster.ready(shardId);
    for (const id of [1, 2, 3]) await cluster.propose(id, shardId, `from ${id}`);
    await cluster.assertEqual(shardId);
  }
  await cluster.close();
});

test('an engine that cannot listen opens nothing, and leaves nothing behind', async () => {
  const cluster = new TestCluster({ hosts: 1, engines: () => 2 });
  const { network } = cluster.machineOf.get(1)!.boot();
  const taken = await cluster.settle(network.listen('host1:7001', () => {}));
  const env = cluster.machineOf.get(1)!.boot();
  const open = (): Promise<NodeHost> => cluster.open(1, { env, enginePorts: [7001] });
  await assert.rejects(open(), is('ERR_ADDRESS_IN_USE', /host1:7001/));
  await cluster.settle(taken.close());
  await open();
  assert.deepEqual([...cluster.machines.network.listeners.keys()].sort(), ['host1:7000', 'host1:7001']);
  await cluster.close();
});

test('options that cannot be kept are refused with their names', async () => {
  const machine = new TestCluster({ hosts: 1 }).machineOf.get(1)!;
  const { threads: _, ...env } = machine.boot();
  const options = { dir: 'data', raftAddress: 'host1:7000', env };
  await assert.rejects(NodeHost.open({ ...options, engines: 2 }), is('ERR_INVALID_OPTION', /this env has no threads/));
  await assert.rejects(NodeHost.open({ ...options, engines: 65 }), is('ERR_INVALID_OPTION', /engines is 65/));
  await assert.rejects(
    NodeHost.open({ ...options, enginePorts: [70_000] }),
    is('ERR_INVALID_OPTION', /enginePorts is \[70000\]/),
  );
});
