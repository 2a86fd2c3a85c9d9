/** Classes of bugs that others found the hard way: each has a test, here or elsewhere, and this file knows which. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { BlockRef } from '../src/wire/block-ref.ts';
import { RaftLog } from '../src/raft/log.ts';
import { RaftCluster } from './raft/cluster.ts';
import { Journal, TestCluster, engineOf, replicaOf, text } from './support.ts';

/** The class, where it was met, and its test: a file from `test/` and the beginning of the name of a test, a case of a suite, or a row in a table. */
type Known = readonly [what: string, where: string, file: string, name: string];

const KNOWN: readonly Known[] = [
  // Dragonboat.
  ['applied before it was durable', 'dragonboat 15b4c40', 'raft/paper.test.ts', 'paper 20'],
  ['snapshot index and state differ', 'dragonboat 7d5dc73', 'rsm/rsm.test.ts', 'scenario 56'],
  [
    'a vote request sets the election timer back',
    'dragonboat 0045aa2',
    'raft/election.test.ts',
    'a request for votes leaves',
  ],
  [
    'compaction takes the snapshot about to be read',
    'dragonboat 703d68b',
    'rsm/snapshotter.test.ts',
    'the newest and the one',
  ],
  ['two snapshots race for a name', 'dragonboat 02aabd4', 'scenarios/hosts.test.ts', 'scenario 54'],
  [
    'files and records of snapshots drift apart',
    'dragonboat b980191',
    'rsm/snapshotter.test.ts',
    'at a start, what no record',
  ],
  ['a stopped replica is given updates', 'dragonboat 102c938', 'known-bugs.test.ts', 'what becomes durable after'],
  ['two incarnations of a replica', 'dragonboat 5934f84', 'bad-input.test.ts', 'scenario 71'],
  ['a request is recycled while in use', 'dragonboat cb8987d', 'engine/pending.test.ts', 'a slot that is used again'],
  ['live reads time out with their batch', 'dragonboat c11ea4b', 'engine/pending.test.ts', 'deadlines of reads'],
  ['a result is lost', 'dragonboat 98c7b52', 'engine/pending.test.ts', 'answers find their callers'],
  ['results of a batch go to the wrong entries', 'dragonboat cb80428', 'rsm/rsm.test.ts', 'thousands of commands'],
  ['the log in memory grows without bound', 'dragonboat c9edfab', 'known-bugs.test.ts', 'the log in memory'],
  ['a transfer that is passed on', 'dragonboat 175f332', 'raft/handover.test.ts', 'transfer asked of a follower'],
  [
    'a report about a snapshot from the wrong sender',
    'dragonboat 41bf7ac',
    'known-bugs.test.ts',
    'reports about strangers',
  ],
  ['the end of a snapshot is told too early', 'dragonboat fe4a42c', 'raft/flow.test.ts', 'snapshot: nothing is sent'],
  ['unreachable peers are told to other shards', 'dragonboat cd3d154', 'known-bugs.test.ts', 'a peer that is lost'],
  ['hosts behind one breaker', 'dragonboat#159', '../src/compliance/transport.ts', 'a peer that is not there'],
  ['an abort crashes', 'dragonboat#260', 'nodehost.test.ts', 'an abort signal ends'],
  ['the rate limiter holds back for ever', 'dragonboat#222', 'raft/pressure.test.ts', 'who died busy'],
  ['missed wake-ups', 'dragonboat d24d2ab', 'sim/simulate.test.ts', 'forty seeds'],
  ['an error of the log is ignored', 'dragonboat 8baee97', 'bad-input.test.ts', 'a disk that fails ends'],
  ['a state machine is closed twice', 'dragonboat 6101adb', 'known-bugs.test.ts', 'a state machine is closed once'],
  ['the transport does not stop', 'dragonboat dcf8c8c', '../src/compliance/transport.ts', 'the end of a host'],
  ['pre-vote breaks transfers', 'dragonboat 1c7ebd3', 'raft/handover.test.ts', 'transfer to a member in step'],
  ['large entries cannot be read back', 'dragonboat a83f853', 'known-bugs.test.ts', 'the largest command'],
  ['opening waits for gossip', 'dragonboat fa9e893', 'registry/gossip.test.ts', 'a host without the key'],
  [
    'a read’s answer carries another context',
    'dragonboat, by reading',
    'raft/handover.test.ts',
    'a read passed on says',
  ],
  ['no bound on what is under way', 'dragonboat, by reading', 'raft/flow.test.ts', 'replicate: a full window takes'],
  ['information that is never set', 'dragonboat, by reading', 'known-bugs.test.ts', 'the leader’s information'],
  // Safety elsewhere.
  ['index and data of a snapshot are not one', 'etcd#13766', 'sim/simulate.test.ts', 'a crash at file operations'],
  ['one voter acknowledges before its flush', 'etcd#14370', 'raft/raft.test.ts', 'scenario 10'],
  ['a committed write is lost in a power cut', 'etcd#14143', 'nodehost.test.ts', 'scenario 68'],
  ['a late answer confirms a newer read', 'etcd#20418', 'raft/raft.test.ts', 'scenario 59'],
  ['a read before the first commit of a term', 'etcd#7331', 'raft/raft.test.ts', 'scenario 7'],
  ['a vote of another term counts', 'openraft#1220', 'raft/election.test.ts', 'a response that carries another term'],
  ['a leader that cannot read spoils its follower', 'openraft#1795', 'known-bugs.test.ts', 'a leader that cannot read'],
  ['acknowledged entries are truncated', 'openraft#1385, hashicorp#695', 'raft/flow.test.ts', 'blocks in any order'],
  ['commit beyond what matches', 'hashicorp#695, dragonboat#256', 'scenarios/protocol.test.ts', 'scenario 26'],
  ['a snapshot meets a conflicting log', 'hashicorp#697', 'raft/handover.test.ts', 'a snapshot replaces a log'],
  ['rules of pre-vote', 'hashicorp#606, #609', 'raft/election.test.ts', 'pre-vote: an answer of yes'],
  ['pre-votes elect', 'hashicorp#605', 'raft/election.test.ts', 'pre-vote: what was said'],
  ['writes race a transfer', 'hashicorp#570, #581', 'scenarios/hosts.test.ts', "35, 'writes race transfers"],
  ['changes of leader are missed', 'hashicorp#384', 'log-access.test.ts', 'watchLeader gives'],
  [
    'asking for pre-votes gives the vote away',
    'canonical/raft#196',
    'raft/election.test.ts',
    'pre-vote: asking gives away',
  ],
  ['two leaders', 'camunda#1068', 'raft/raft.test.ts', 'two leaders at a time'],
  ['a leader whose log fails goes on', 'tarantool#9399', 'raft/raft.test.ts', 'a leader whose disk stands still'],
  // Liveness.
  ['partial partitions', 'Cloudflare 2020', 'scenarios/protocol.test.ts', 'scenario 17'],
  ['one-way partitions', 'decentralizedthoughts 2020', 'scenarios/protocol.test.ts', 'scenario 16'],
  ['a stuck candidate', 'etcd', 'raft/raft.test.ts', 'scenario 18'],
  ['a transfer to one that lost its tail', 'thesis §3.10', 'raft/handover.test.ts', 'transfer to one that lost'],
  ['the lease stops a transfer', 'etcd', 'raft/election.test.ts', 'a vote on behalf of a leader'],
  ['a disk that stalls keeps its leader', 'hashicorp#503, etcd#13527', 'limits.test.ts', 'F20'],
  ['reads of a follower wait instead of failing', 'tikv#15200', 'raft/handover.test.ts', 'a read asked of a follower'],
  // Disk and clock.
  ['a failed flush is tried again', 'fsyncgate', 'wal/recovery.test.ts', 'F5: a failed write'],
  ['what a failed flush left is believed', 'ATC 2020', 'wal/recovery.test.ts', 'F5: what recovery read'],
  ['a full disk', 'etcd#3068, consul#665', 'bad-input.test.ts', 'a leader on a full disk'],
  ['torn tails and damage', 'TigerBeetle', 'wal/recovery.test.ts', 'F2: damage in front'],
  ['clocks that jump', 'tikv#14518', 'scenarios/hosts.test.ts', 'scenario 21'],
  ['a process that stops and goes on', 'etcd#20418', 'scenarios/hosts.test.ts', 'scenario 20'],
  ['renames without a flush of the directory', 'many', 'wal/recovery.test.ts', 'F11'],
  ['a record before its snapshot', 'many', 'rsm/snapshotter.test.ts', 'scenario 49'],
  ['other first members at a restart', 'many', 'bad-input.test.ts', 'a wrong replica, other members'],
  // Membership.
  ['a promoted observer is restored wrongly', 'dragonboat#94', 'scenarios/membership.test.ts', 'scenario 45'],
  ['members before the applied index', 'dragonboat 73092ad', 'scenarios/membership.test.ts', 'scenario 47'],
  ['removal of data races', 'dragonboat 926cd3b', 'membership.test.ts', 'a removed replica stops by itself'],
  ['two changes across terms', 'Ongaro 2015', 'scenarios/membership.test.ts', 'scenario 36'],
  ['a change that was not counted as pending', 'etcd#12133', 'scenarios/membership.test.ts', 'scenario 37'],
  ['a transfer to a removed target', 'etcd', 'membership.test.ts', 'a transfer to a member that is removed'],
  ['witnesses', 'dragonboat ab68664, d9bc602, e71ae7d; braft', 'scenarios/membership.test.ts', 'scenario 46'],
  // State machines on disk.
  ['import and dummy snapshots', 'dragonboat#77, d393277', 'state-machines.test.ts', 'an import into on-disk'],
  ['applied index apart from the data', 'etcd#13766', 'rsm/on-disk.test.ts', 'F15: whatever was stored'],
  // What idle or awake shards share.
  ['coalesced heartbeats', 'cockroach#315', 'quiesce.test.ts', 'the heartbeats of many shards'],
  ['a transfer breaks the lease', 'tikv#1593', 'scenarios/protocol.test.ts', 'scenario 60'],
  ['one directory in two processes', 'many', 'bad-input.test.ts', 'a directory in use by another host'],
];

test('every known class of bugs has its test', () => {
  const sources = new Map<string, string>();
  for (const [what, , file, name] of KNOWN) {
    let source = sources.get(file);
    if (source === undefined) sources.set(file, (source = readFileSync(new URL(file, import.meta.url), 'utf8')));
    const isThere = ["test('", 'test(`', '[', "addConnected('", "add('"].some((start) =>
      source.includes(`${start}${name}`),
    );
    assert.ok(isThere, `${what}: there is no test "${name}…" in ${file}`);
  }
  assert.equal(new Set(KNOWN.map(([what]) => what)).size, KNOWN.length);
});

test('what becomes durable after a replica was stopped is nobody’s', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll([1, 2]);
  const host = cluster.hosts.get(1)!;
  const engine = engineOf(host);
  const old = engine.replicas.get(1)!;
  const writes = [1, 2, 3].map((i) => host.propose(1, text(`${i}`)).catch((error: unknown) => error));
  await cluster.settle(host.stopReplica(1));
  const { durableWrite, appliedIndex } = old.raft;
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  await cluster.propose(1, 1, 'new');
  await cluster.propose(1, 2, 'other');
  assert.deepEqual([old.raft.durableWrite, old.raft.appliedIndex], [durableWrite, appliedIndex]);
  for (const outcome of await cluster.settle(Promise.all(writes))) assert.ok(outcome !== undefined);
  assert.notEqual(engine.replicas.get(1), old);
  await cluster.close();
});

test('the log in memory gives up what is compacted, references and all', () => {
  const log = new RaftLog(0, 0, []);
  for (let index = 1; index <= 50_000; index++) {
    log.append(new BlockRef(index, 1, 1, 1, undefined, 0, 10));
    log.applied(index);
    log.trim(index);
    if (index % 100 === 0) log.compact(index - 10);
    assert.ok(log['refs'].length < 4096, `${log['refs'].length} references for ${index - log.compactedIndex} entries`);
  }
  assert.equal(log.unappliedBytes, 0);
  assert.equal([...log.blocks()].length, 10);
});

test('reports about strangers, and about members that no snapshot is sent to, change nothing', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  const before = JSON.stringify(leader.raft.members);
  leader.raft.reportSnapshot(9, true, 5);
  leader.raft.reportSnapshot(2, true, 5);
  leader.raft.reportSnapshot(2, false, 5);
  leader.raft.reportUnreachable(9);
  leader.raft.reportReachable(9);
  assert.equal(JSON.stringify(leader.raft.members), before);
});

test('a peer that is lost is told to the shards that have a member there, and to no others', async () => {
  const cluster = new TestCluster({ hosts: 4 });
  for (const id of [1, 2, 3, 4]) await cluster.open(id);
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  for (const id of [1, 2, 4]) await cluster.startReplica(id, 2, [1, 2, 4]);
  await cluster.ready(1, [1, 2, 3]);
  await cluster.ready(2, [1, 2, 4]);
  const reported: string[] = [];
  for (const replica of engineOf(cluster.hosts.get(1)!).replicas.values()) {
    const { raft, shardId } = replica;
    const report = raft.reportUnreachable.bind(raft);
    raft.reportUnreachable = (replicaId) => {
      reported.push(`shard ${shardId}: ${replicaId}`);
      report(replicaId);
    };
  }
  cluster.kill(4);
  await cluster.world.run(500);
  assert.deepEqual([...new Set(reported)], ['shard 2: 4']);
  await cluster.close();
});

test('a state machine is closed once, whatever ends its replica', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  const host = await cluster.open(1);
  const closed: number[] = [];
  class Closing extends Journal {
    private readonly shardId: number;

    constructor(shardId: number) {
      super();
      this.shardId = shardId;
    }

    close(): void {
      closed.push(this.shardId);
    }
  }
  for (const shardId of [1, 2, 3]) {
    const options = { shardId, replicaId: 1, members: cluster.members(1) };
    await cluster.settle(host.startReplica(options, () => new Closing(shardId)));
    await cluster.ready(shardId);
  }
  await cluster.settle(host.stopReplica(1));
  await assert.rejects(cluster.settle(host.propose(2, text('throw'))), { code: 'ERR_SHARD_FAILED' });
  await cluster.settle(host.close());
  await cluster.settle(host.close());
  cluster.hosts.delete(1);
  assert.deepEqual(
    closed.sort((a, b) => a - b),
    [1, 2, 3],
  );
});

test('the largest command goes everywhere and is read back, over a restart and for a follower that was away', async () => {
  const cluster = new TestCluster({ segmentBytes: 64 * 1024 * 1024 });
  await cluster.startAll();
  const away = cluster.followerOf(1);
  cluster.kill(away);
  const leader = cluster.leaderOf(1);
  const command = new Uint8Array(8 * 1024 * 1024).fill(120);
  assert.equal(await cluster.settle(cluster.hosts.get(leader)!.propose(1, command, { timeoutMs: 60_000 }), 90_000), 1);
  for (const id of [1, 2, 3]) if (id !== away) cluster.losePower(id);
  for (const id of [1, 2, 3]) {
    await cluster.open(id);
    await cluster.startReplica(id, 1);
  }
  await cluster.ready(1);
  await cluster.assertEqual(1);
  const { entries } = await cluster.settle(cluster.hosts.get(away)!.queryLog(1, { firstIndex: 2, maxEntries: 1 }));
  assert.equal(entries[0].bytes.length, command.length);
  await cluster.close();
});

test('the leader’s information says that it leads, and how far each follower is', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  await cluster.propose(leader, 1, 'x');
  await cluster.world.run(300);
  const info = cluster.hosts.get(leader)!.shardInfo(1);
  assert.deepEqual([info.role, info.leaderId, info.refusing], ['leader', leader, undefined]);
  assert.deepEqual(
    info.progress.map(({ state, matchIndex, isActive }) => [state, matchIndex, isActive]),
    [
      ['replicate', info.lastIndex, true],
      ['replicate', info.lastIndex, true],
    ],
  );
  const follower = cluster.hosts.get(cluster.followerOf(1))!.shardInfo(1);
  assert.deepEqual([follower.role, follower.leaderId, follower.progress], ['follower', leader, []]);
  await cluster.close();
});

test('a leader that cannot read its log for a follower fails by itself, and the follower’s log stays whole', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const away = cluster.followerOf(1);
  cluster.kill(away);
  for (let i = 0; i < 20; i++) await cluster.propose(leader, 1, `line ${i}`);
  const host = cluster.hosts.get(leader)!;
  // What stays in memory needs no disk.
  for (const ref of replicaOf(host, 1).raft.log.blocks()) if (ref.place !== undefined) ref.dropBytes();
  cluster.machineOf.get(leader)!.disk.fault = (operation, path) =>
    operation === 'read' && path.endsWith('.wal') ? Object.assign(new Error('EIO'), { code: 'EIO' }) : undefined;
  await cluster.open(away);
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => host.shardInfo(1).state === 'failed', 30_000);
  assert.equal(host.shardInfo(1).failure?.code, 'ERR_DISK_FAILED');
  await cluster.world.until(() => ![0, leader].includes(cluster.leaderOf(1)), 60_000);
  const others = [1, 2, 3].filter((id) => id !== leader);
  await cluster.propose(cluster.leaderOf(1), 1, 'after');
  await cluster.ready(1, others);
  await cluster.assertEqual(1, others);
  assert.equal(cluster.lines(away, 1).length, 21);
  await cluster.close();
});
