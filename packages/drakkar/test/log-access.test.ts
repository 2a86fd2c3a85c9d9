/** Queries of the log, change streams, leader watches, notices of commits: what callers see of the log. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, type LogEntry, type NodeHost } from 'drakkar';
import type { Wal } from '../src/wal/wal.ts';
import { TestCluster, replicaOf, text } from './support.ts';

const untext = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const linesOf = (entries: readonly LogEntry[]): string[] =>
  entries.filter(({ kind }) => kind === 'command').map(({ bytes }) => untext(bytes));
const numbered = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => `line ${from + i}`);

async function clusterWith(lines: number, options: ConstructorParameters<typeof TestCluster>[0] = {}) {
  const cluster = new TestCluster(options);
  await cluster.startAll();
  for (let i = 1; i <= lines; i++) await cluster.propose(cluster.leaderOf(1), 1, `line ${i}`);
  await cluster.ready(1);
  return cluster;
}

/** What the log has read for shard 1 is not in memory any more. */
function forgetFrames(host: NodeHost): void {
  (replicaOf(host, 1).engine.log as Wal)['reader'].close();
}

/** The first `count` entries of an iteration. */
async function take(stream: AsyncIterable<LogEntry>, count: number): Promise<LogEntry[]> {
  const entries: LogEntry[] = [];
  if (count === 0) return entries;
  for await (const entry of stream) if (entries.push(entry) === count) break;
  return entries;
}

// Queries.

test('queryLog gives committed entries of a range on every host, with their terms and kinds', async () => {
  const cluster = await clusterWith(20);
  for (const [id, host] of cluster.hosts) {
    const { commitIndex } = host.shardInfo(1);
    const all = await cluster.settle(host.queryLog(1, { firstIndex: 1 }));
    assert.deepEqual(
      all.entries.map(({ index }) => index),
      Array.from({ length: commitIndex }, (_, i) => i + 1),
      `host ${id}`,
    );
    assert.equal(all.nextIndex, commitIndex + 1);
    assert.equal(all.entries[0].kind, 'noop');
    assert.deepEqual(linesOf(all.entries), numbered(1, 20));
    assert.ok(all.entries.every(({ term }) => term >= 1 && term <= host.shardInfo(1).term));
    const some = await cluster.settle(host.queryLog(1, { firstIndex: 5, lastIndex: 9 }));
    assert.deepEqual(some.entries, all.entries.slice(4, 9));
  }
  await cluster.close();
});

test('queryLog after a restart reads from the disk', async () => {
  const cluster = await clusterWith(10, { hosts: 1 });
  cluster.losePower(1);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  const { entries } = await cluster.settle(cluster.hosts.get(1)!.queryLog(1, { firstIndex: 1 }));
  assert.deepEqual(linesOf(entries), numbered(1, 10));
  await cluster.close();
});

test('queryLog keeps its bounds in entries and bytes, gives one entry however large, and says where to go on', async () => {
  const cluster = await clusterWith(12, { hosts: 1 });
  const host = cluster.hosts.get(1)!;
  const three = await cluster.settle(host.queryLog(1, { firstIndex: 2, maxEntries: 3 }));
  assert.deepEqual(linesOf(three.entries), numbered(1, 3));
  assert.equal(three.nextIndex, 5);
  const next = await cluster.settle(host.queryLog(1, { firstIndex: three.nextIndex, maxBytes: 2 * (64 + 6) }));
  assert.deepEqual(linesOf(next.entries), numbered(4, 5));
  await cluster.propose(1, 1, 'x'.repeat(5000));
  const { commitIndex } = host.shardInfo(1);
  const large = await cluster.settle(host.queryLog(1, { firstIndex: commitIndex, maxBytes: 1 }));
  assert.equal(large.entries[0].bytes.length, 5000);
  await cluster.close();
});

test('queryLog of what is compacted, or not committed, names what there is', async () => {
  const cluster = await clusterWith(30, { hosts: 1, replica: { compactionOverhead: 5 } });
  const host = cluster.hosts.get(1)!;
  const { commitIndex } = host.shardInfo(1);
  await assert.rejects(cluster.settle(host.queryLog(1, { firstIndex: 3, lastIndex: commitIndex + 1 })), {
    code: 'ERR_LOG_OUT_OF_RANGE',
    retryable: true,
    available: { firstIndex: 1, lastIndex: commitIndex },
  });
  await assert.rejects(cluster.settle(host.queryLog(1, { firstIndex: commitIndex + 1 })), {
    code: 'ERR_LOG_OUT_OF_RANGE',
  });
  const { index } = await cluster.settle(host.requestSnapshot(1));
  const available = { firstIndex: index - 5 + 1, lastIndex: commitIndex };
  await assert.rejects(cluster.settle(host.queryLog(1, { firstIndex: index - 5 })), {
    code: 'ERR_LOG_COMPACTED',
    available,
  });
  const rest = await cluster.settle(host.queryLog(1, available));
  assert.equal(rest.entries.length, 5);
  await cluster.close();
});

test('queryLog ends with its signal and its deadline while the disk stands still, and only so many run', async () => {
  const cluster = await clusterWith(5, { hosts: 1 });
  cluster.losePower(1);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  const host = cluster.hosts.get(1)!;
  const { disk } = cluster.machineOf.get(1)!;
  const latency = disk.latencyOf;
  disk.latencyOf = (operation, length) => (operation === 'read' ? 60_000 : latency(operation, length));
  await cluster.world.run(1);
  const controller = new AbortController();
  const queries = Array.from({ length: 16 }, () => host.queryLog(1, { firstIndex: 1, timeoutMs: 100 }));
  for (const query of queries) query.catch(() => {});
  await assert.rejects(cluster.settle(host.queryLog(1, { firstIndex: 1 })), { code: 'ERR_SYSTEM_BUSY' });
  for (const query of queries) {
    await assert.rejects(cluster.settle(query), { code: 'ERR_TIMEOUT', outcome: 'not-applied' });
  }
  await cluster.world.run(70_000);
  forgetFrames(host);
  const aborted = host.queryLog(1, { firstIndex: 1, signal: controller.signal });
  aborted.catch(() => {});
  controller.abort(new Error('enough'));
  await assert.rejects(cluster.settle(aborted), { code: 'ERR_ABORTED', outcome: 'not-applied' });
  disk.latencyOf = latency;
  await cluster.close();
});

// Change streams.

test('watch gives what was committed from an index on and goes on with what comes, on leader and follower', async () => {
  const cluster = await clusterWith(10);
  const leader = cluster.leaderOf(1);
  const total = cluster.hosts.get(leader)!.shardInfo(1).commitIndex + 5;
  const streams = [leader, cluster.followerOf(1)].map((id) => {
    return take(cluster.hosts.get(id)!.watch(1, { fromIndex: 1 }), total);
  });
  for (let i = 11; i <= 15; i++) await cluster.propose(leader, 1, `line ${i}`);
  for (const stream of streams) {
    const entries = await cluster.settle(stream);
    assert.deepEqual(
      entries.map(({ index }) => index),
      Array.from({ length: total }, (_, i) => i + 1),
    );
    assert.deepEqual(linesOf(entries), numbered(1, 15));
  }
  await cluster.close();
});

test('watch without an index begins with what is committed next, and from an index ahead waits for it', async () => {
  const cluster = await clusterWith(3, { hosts: 1 });
  const host = cluster.hosts.get(1)!;
  const { commitIndex } = host.shardInfo(1);
  const next = take(host.watch(1), 1);
  const ahead = take(host.watch(1, { fromIndex: commitIndex + 3 }), 1);
  for (let i = 4; i <= 6; i++) await cluster.propose(1, 1, `line ${i}`);
  assert.deepEqual(linesOf(await cluster.settle(next)), ['line 4']);
  assert.deepEqual(linesOf(await cluster.settle(ahead)), ['line 6']);
  await cluster.close();
});

test('a slow consumer costs its buffer and no more, and misses nothing', async () => {
  const cluster = await clusterWith(1, { hosts: 1, segmentBytes: 4 * 1024 * 1024 });
  const host = cluster.hosts.get(1)!;
  const iterator = host.watch(1, { fromIndex: 1, bufferBytes: 1024 })[Symbol.asyncIterator]();
  await cluster.settle(iterator.next());
  const line = 'x'.repeat(100);
  for (let i = 0; i < 200; i++) await cluster.propose(1, 1, `${i} ${line}`);
  const [watch] = replicaOf(host, 1).onlookers['logWatches'];
  assert.ok(watch['list'].bytes <= 1024, `${watch['list'].bytes} bytes are kept`);
  const indexes: number[] = [];
  while (indexes.length < 200) {
    const { value } = await cluster.settle(iterator.next());
    indexes.push((value as LogEntry).index);
    // What comes while it reads.
    if (indexes.length % 50 === 0) await cluster.propose(1, 1, 'more');
  }
  assert.deepEqual(
    indexes,
    Array.from({ length: 200 }, (_, i) => i + 2),
  );
  await cluster.settle(iterator.return!());
  await cluster.close();
});

test('what is committed while old entries are read from a slow disk comes behind them', async () => {
  const cluster = await clusterWith(5, { hosts: 1 });
  cluster.losePower(1);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  const host = cluster.hosts.get(1)!;
  // Nothing is in memory: the frames that the apply has read are given back, and forgotten.
  forgetFrames(host);
  const { disk } = cluster.machineOf.get(1)!;
  const latency = disk.latencyOf;
  disk.latencyOf = (operation, length) => (operation === 'read' ? 100 : latency(operation, length));
  const stream = take(host.watch(1, { fromIndex: 1 }), 9);
  await cluster.world.run(10);
  // Somebody else has the first of them read, too: they are in memory now, and still the stream's own read comes first.
  const replica = replicaOf(host, 1);
  replica.engine.fetch(replica, 1);
  await cluster.world.run(140);
  await cluster.propose(1, 1, 'line 6');
  await cluster.propose(1, 1, 'line 7');
  const entries = await cluster.settle(stream);
  assert.deepEqual(
    entries.map(({ index }) => index),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  assert.deepEqual(linesOf(entries), numbered(1, 7));
  await cluster.close();
});

test('a slow consumer holds back no compaction, and is told what it missed', async () => {
  const cluster = await clusterWith(1, { hosts: 1, segmentBytes: 128 * 1024, replica: { compactionOverhead: 10 } });
  const host = cluster.hosts.get(1)!;
  const iterator = host.watch(1, { fromIndex: 1, bufferBytes: 1024 })[Symbol.asyncIterator]();
  await cluster.settle(iterator.next());
  const line = 'x'.repeat(2000);
  for (let i = 0; i < 300; i++) await cluster.propose(1, 1, `${i} ${line}`);
  const { index } = await cluster.settle(host.requestSnapshot(1));
  await cluster.world.run(1000);
  assert.ok(Number(host.info().log['segmentsFreed']) > 0, 'segments are pinned');
  const drain = async (): Promise<void> => {
    for (;;) await iterator.next();
  };
  await assert.rejects(cluster.settle(drain()), (error: unknown) => {
    assert.ok(DrakkarError.is(error, 'ERR_LOG_COMPACTED'));
    assert.equal(error.available?.firstIndex, index - 10 + 1);
    return true;
  });
  const { firstIndex } = host.shardInfo(1);
  const entries = await cluster.settle(take(host.watch(1, { fromIndex: firstIndex }), 5));
  assert.equal(entries[0].index, firstIndex);
  await cluster.close();
});

test('a stream ends with its replica: quietly when it is stopped, with the reason when it fails', async () => {
  const cluster = await clusterWith(3, { hosts: 1 });
  const host = cluster.hosts.get(1)!;
  const drain = async (stream: AsyncIterable<LogEntry>): Promise<number> => {
    let count = 0;
    for await (const entry of stream) count = entry.index;
    return count;
  };
  const { commitIndex } = host.shardInfo(1);
  const quiet = drain(host.watch(1, { fromIndex: 1 }));
  await cluster.world.run(50);
  await cluster.settle(host.stopReplica(1));
  assert.equal(await cluster.settle(quiet), commitIndex);
  assert.throws(() => host.watch(1), { code: 'ERR_SHARD_NOT_FOUND' });
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  const failing = drain(host.watch(1));
  failing.catch(() => {});
  await cluster.world.run(1);
  await assert.rejects(cluster.propose(1, 1, 'throw'), { code: 'ERR_SHARD_FAILED' });
  await assert.rejects(cluster.settle(failing), { code: 'ERR_SHARD_FAILED' });
  await cluster.settle(host.close());
});

test('a watch ends at once with its signal, and with return, also while it waits; nothing is left of it', async () => {
  const cluster = await clusterWith(3, { hosts: 1 });
  const host = cluster.hosts.get(1)!;
  const { onlookers } = replicaOf(host, 1);
  const controller = new AbortController();
  const waiting = host.watch(1, { signal: controller.signal })[Symbol.asyncIterator]().next();
  waiting.catch(() => {});
  await cluster.world.run(1);
  assert.equal(onlookers['logWatches'].size, 1);
  controller.abort(new Error('enough'));
  await assert.rejects(cluster.settle(waiting), (error: unknown) => {
    assert.ok(DrakkarError.is(error, 'ERR_ABORTED'));
    return (error.cause as Error).message === 'enough';
  });
  const iterator = host.watch(1)[Symbol.asyncIterator]();
  const next = iterator.next();
  await cluster.world.run(1);
  await cluster.settle(iterator.return!());
  assert.equal((await cluster.settle(next)).done, true);
  await cluster.world.run(1);
  assert.equal(onlookers['logWatches'].size, 0);
  assert.equal(onlookers.wantsCommits, false);
  await cluster.close();
});

test('only so many streams of a shard run', async () => {
  const cluster = await clusterWith(1, { hosts: 1 });
  const host = cluster.hosts.get(1)!;
  const iterators = Array.from({ length: 64 }, () => host.watch(1, { fromIndex: 1 })[Symbol.asyncIterator]());
  for (const iterator of iterators) await cluster.settle(iterator.next());
  await assert.rejects(cluster.settle(take(host.watch(1), 1)), { code: 'ERR_SYSTEM_BUSY' });
  await cluster.settle(iterators[0].return!());
  assert.equal((await cluster.settle(take(host.watch(1, { fromIndex: 1 }), 1)))[0].index, 1);
  for (const iterator of iterators) await cluster.settle(iterator.return!());
  await cluster.close();
});

test('retries of a session command stand in the stream with their series, and so can be told apart', async () => {
  const cluster = await clusterWith(0);
  const host = cluster.hosts.get(cluster.followerOf(1))!;
  const stream = take(host.watch(1), 3);
  const session = await cluster.settle(host.openSession(1));
  await cluster.settle(session.propose(text('once')));
  await cluster.settle(session.close());
  const entries = await cluster.settle(stream);
  assert.deepEqual(
    entries.map(({ kind, session: of }) => [kind, of?.series]),
    [
      ['session-open', 0],
      ['command', 1],
      ['session-close', 0],
    ],
  );
  assert.equal(new Set(entries.map(({ session: of }) => of!.clientId)).size, 1);
  assert.match(entries[0].session!.clientId, /^[0-9a-f]{16}$/);
  await cluster.close();
});

// Leaders.

test('watchLeader gives the leader of now first, then each change', async () => {
  const cluster = await clusterWith(1);
  const first = cluster.leaderOf(1);
  const [observer] = [1, 2, 3].filter((id) => id !== first);
  const host = cluster.hosts.get(observer)!;
  const iterator = host.watchLeader(1)[Symbol.asyncIterator]();
  const seen = await cluster.settle(iterator.next());
  assert.deepEqual(seen.value, { leaderId: first, term: host.shardInfo(1).term });
  const changes = (async () => {
    for (;;) {
      const { value } = await iterator.next();
      if (value !== undefined && value.leaderId !== first && value.leaderId !== 0) return value;
    }
  })();
  cluster.kill(first);
  const next = await cluster.settle(changes, 60_000);
  assert.equal(next.leaderId, cluster.leaderOf(1));
  assert.equal(next.term, host.shardInfo(1).term);
  // What came and went while nobody listened is not told; what is, is.
  const last = iterator.next();
  await cluster.settle(host.stopReplica(1));
  assert.equal((await cluster.settle(last)).done, true);
  await cluster.close();
});

// Commits.

test('onCommit is called with the index, before the answer, on leader and follower, and with sessions once', async () => {
  const cluster = await clusterWith(1);
  for (const id of [cluster.leaderOf(1), cluster.followerOf(1)]) {
    const host = cluster.hosts.get(id)!;
    const heard: string[] = [];
    const onCommit = (index: number): void => void heard.push(`committed ${index}`);
    await cluster.settle(host.propose(1, text('a'), { onCommit }).then(() => heard.push('answered')));
    assert.deepEqual(heard, [`committed ${host.shardInfo(1).commitIndex}`, 'answered']);
    const session = await cluster.settle(host.openSession(1));
    heard.length = 0;
    await cluster.settle(session.propose(text('b'), { onCommit }).then(() => heard.push('answered')));
    assert.deepEqual(heard, [`committed ${host.shardInfo(1).commitIndex}`, 'answered']);
    assert.equal(replicaOf(host, 1).onlookers.wantsCommits, false);
  }
  await cluster.close();
});

test('onCommit comes before the apply when that waits for the own disk, and never for what fails', async () => {
  const cluster = await clusterWith(1, { replica: { electionRtt: 500 } });
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  const { disk } = cluster.machineOf.get(leader)!;
  const latency = disk.latencyOf;
  disk.latencyOf = () => 500;
  const heard: string[] = [];
  const write = host.propose(1, text('slow'), { onCommit: () => void heard.push('committed') });
  write.then(
    () => heard.push('answered'),
    () => {},
  );
  await cluster.world.run(300);
  assert.deepEqual(heard, ['committed']);
  disk.latencyOf = latency;
  await cluster.settle(write);
  assert.deepEqual(heard, ['committed', 'answered']);
  for (const id of [1, 2, 3]) if (id !== leader) cluster.machines.network.cut(`host${leader}`, `host${id}`);
  const lost = host.propose(1, text('lost'), { timeoutMs: 200, onCommit: () => void heard.push('never') });
  await assert.rejects(cluster.settle(lost));
  assert.deepEqual(heard, ['committed', 'answered']);
  assert.equal(replicaOf(host, 1).onlookers.wantsCommits, false);
  cluster.machines.network.heal();
  await cluster.close();
});

test('a commit listener that throws is logged, and the proposal goes on', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  const errors: string[] = [];
  const logger = { debug() {}, info() {}, warn() {}, error: (_: object, message: string) => void errors.push(message) };
  const env = cluster.machineOf.get(1)!.boot(logger);
  await cluster.open(1, { env });
  await cluster.startReplica(1, 1, [1]);
  await cluster.ready(1);
  const write = cluster.hosts.get(1)!.propose(1, text('x'), {
    onCommit: () => {
      throw new Error('mine');
    },
  });
  assert.equal(await cluster.settle(write), 1);
  assert.deepEqual(errors, ['a commit listener threw']);
  await cluster.close();
});

test('bad options of the log’s calls are refused before anything happens', async () => {
  const cluster = await clusterWith(1, { hosts: 1 });
  const host = cluster.hosts.get(1)!;
  const bad = { code: 'ERR_INVALID_OPTION' };
  for (const options of [{}, { firstIndex: 0 }, { firstIndex: 3, lastIndex: 2 }, { firstIndex: 1, maxBytes: 0 }]) {
    await assert.rejects(host.queryLog(1, options as never), bad);
  }
  for (const options of [{ fromIndex: 0 }, { bufferBytes: 1 }, { timeoutMs: 5 }]) {
    assert.throws(() => host.watch(1, options), bad);
  }
  assert.throws(() => host.watchLeader(1, { fromIndex: 1 } as never), bad);
  await assert.rejects(host.propose(1, text('x'), { onCommit: 1 } as never), bad);
  await assert.rejects(host.proposeBatch(1, [text('x')], { onCommit: () => {} } as never), bad);
  await assert.rejects(host.queryLog(9, { firstIndex: 1 }), { code: 'ERR_SHARD_NOT_FOUND' });
  await cluster.close();
});

test('whenReady ends at once with its signal, also in the middle of a try', async () => {
  const cluster = await clusterWith(1);
  const id = cluster.followerOf(1);
  for (const other of [1, 2, 3]) if (other !== id) cluster.machines.network.cut(`host${id}`, `host${other}`);
  const controller = new AbortController();
  const host = cluster.hosts.get(id)!;
  const ready = host.whenReady(1, { timeoutMs: 30_000, signal: controller.signal });
  ready.catch(() => {});
  await cluster.world.run(10);
  const { world } = cluster;
  const before = world.nowMs();
  controller.abort();
  await assert.rejects(cluster.settle(ready), { code: 'ERR_ABORTED' });
  assert.ok(world.nowMs() - before < 1000);
  cluster.machines.network.heal();
  await cluster.close();
});
