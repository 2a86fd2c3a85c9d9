/** Leadership on request, snapshots, and reads: what must hold when they meet elections, losses and one another. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MessageType, type Message } from '../../src/wire/message.ts';
import { RaftCluster, blockOf, messageOf, withLog } from './cluster.ts';

const sent = (cluster: RaftCluster, type: MessageType): Message[] =>
  cluster.parcels.flatMap(({ message }) => (message?.type === type ? [message] : []));

// Transfers.

test('transfer to a member in step: asked at once, done within a round trip, lease or not', () => {
  for (const checkQuorum of [false, true]) {
    const cluster = new RaftCluster(3, 1, { checkQuorum });
    const leader = cluster.elect(1);
    leader.raft.transferLeader(2);
    assert.deepEqual(
      sent(cluster, MessageType.TimeoutNow).map(({ to }) => to),
      [2],
    );
    cluster.settle();
    assert.equal(cluster.leader!.id, 2);
    cluster.run(2);
    assert.deepEqual(leader.transfers, [[2, 'done']]);
  }
});

test('transfer there and back', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1).raft.transferLeader(3);
  cluster.run(3);
  cluster.node(3).raft.transferLeader(1);
  cluster.run(3);
  assert.equal(cluster.leader!.id, 1);
  assert.deepEqual(cluster.node(3).transfers, [[1, 'done']]);
});

test('transfer asked of a follower goes to the leader', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1);
  assert.equal(cluster.node(2).raft.transferLeader(3), true);
  cluster.run(3);
  assert.equal(cluster.leader!.id, 3);
  const lonely = new RaftCluster(3).node(1);
  assert.equal(lonely.raft.transferLeader(2), false, 'no leader is known');
});

test('transfer to the same target again changes nothing, and its clock is not set back', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.isolate(2);
  leader.raft.transferLeader(2);
  cluster.run(6);
  leader.raft.transferLeader(2);
  cluster.run(5);
  assert.deepEqual(leader.transfers, [[2, 'timeout']]);
  assert.equal(leader.raft.canPropose, true);
});

test('transfer to a member that needs a snapshot waits for it', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.isolate(3);
  leader.propose(9);
  cluster.settle();
  leader.raft.compact(9);
  cluster.heal();
  leader.raft.transferLeader(3);
  cluster.run(4);
  assert.deepEqual(leader.snapshotsAsked, [3]);
  assert.equal(leader.raft.role, 'leader');
  const away = cluster.node(3);
  away.raft.restore(9, 1, leader.raft.membership);
  away.raft.applied(9);
  away.flush();
  leader.raft.reportSnapshot(3, true, 9);
  leader.work();
  cluster.run(3);
  assert.equal(cluster.leader!.id, 3);
});

test('a TimeoutNow of an older term is ignored, and one to a leader, too', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.raft.transferLeader(2);
  const late = sent(cluster, MessageType.TimeoutNow)[0];
  cluster.run(3);
  assert.equal(cluster.leader!.id, 2);
  cluster.node(2).raft.transferLeader(3);
  cluster.run(3);
  const { term } = cluster.leader!.raft;
  cluster.node(2).receive({ from: 1, to: 2, message: late, block: undefined });
  cluster.leader!.raft.step(messageOf({ type: MessageType.TimeoutNow, from: 1, to: 3, term }));
  cluster.run(3);
  assert.equal(cluster.leader!.id, 3);
  assert.equal(cluster.leader!.raft.term, term);
});

test('transfer to one that lost the end of its log cannot make it leader', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(4);
  cluster.settle();
  withLog(cluster.node(2), [1], 1, 1, 1);
  leader.raft.transferLeader(2);
  cluster.run(30);
  assert.notEqual(cluster.leader!.id, 2);
  assert.ok(cluster.leader!.raft.commitIndex >= 5);
});

test('a leader that stepped down keeps no transfer in mind', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.isolate(3);
  leader.raft.transferLeader(3);
  leader.raft.step(messageOf({ type: MessageType.Heartbeat, from: 2, to: 1, term: 5 }));
  assert.deepEqual(leader.transfers, [[3, 'stepped-down']]);
  cluster.parcels.length = 0;
  assert.equal(leader.raft.transferTarget, 0);
});

// Snapshots.

test('a snapshot older than what is committed, or of the same index, is ignored', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(5);
  cluster.run(2);
  const follower = cluster.node(2);
  const before = follower.terms();
  for (const index of [1, 4, follower.raft.commitIndex]) {
    assert.equal(follower.raft.restore(index, 1, leader.raft.membership), false);
  }
  assert.deepEqual(follower.terms(), before);
});

test('a snapshot replaces a log that does not match it, and what was acknowledged of that log is void', () => {
  const cluster = new RaftCluster(3);
  const node = cluster.node(1);
  withLog(node, [1, 1, 2, 2, 2], 2);
  assert.equal(node.raft.restore(4, 3, node.raft.membership), true);
  assert.deepEqual([node.raft.log.firstIndex, node.raft.log.lastIndex, node.raft.commitIndex], [5, 4, 4]);
  assert.equal(node.raft.log.termAt(4), 3);
  assert.ok(node.raft.durableIndex < 4, 'durable before its record is');
  node.flush();
  assert.equal(node.raft.durableIndex, 4);
});

test('blocks behind a snapshot are taken, blocks inside it are acknowledged as known', () => {
  const cluster = new RaftCluster(3);
  const node = cluster.node(1);
  node.raft.step(messageOf({ type: MessageType.Heartbeat, from: 2, to: 1, term: 3 }));
  node.raft.restore(4, 3, node.raft.membership);
  node.raft.applied(4);
  node.flush();
  cluster.parcels.length = 0;
  const old = blockOf({ term: 2, prevTerm: 1, firstIndex: 2, count: 2, senderId: 2, senderTerm: 3 });
  node.receive({ from: 2, to: 1, message: undefined, block: old });
  assert.equal(sent(cluster, MessageType.ReplicateResponse)[0].rejected, false);
  // Begins inside and ends behind: only what is behind is new.
  const over = blockOf({ term: 3, prevTerm: 2, firstIndex: 4, count: 3, senderId: 2, senderTerm: 3, commitIndex: 6 });
  node.receive({ from: 2, to: 1, message: undefined, block: over });
  node.flush();
  assert.deepEqual([node.raft.log.lastIndex, node.raft.commitIndex], [6, 6]);
});

test('compaction does not go beyond what is applied', () => {
  const node = new RaftCluster(3).node(1);
  withLog(node, [1, 1, 1], 1);
  assert.throws(() => node.raft.compact(2), { code: 'ERR_INVARIANT' });
});

// Reads.

test('a read is answered with the commit index of when it was asked, or later, never before a majority was heard', () => {
  for (const size of [1, 2, 3, 4, 5]) {
    const cluster = new RaftCluster(size);
    const leader = cluster.elect(1);
    leader.propose();
    cluster.settle();
    const { commitIndex } = leader.raft;
    leader.raft.readIndex(5);
    leader.work();
    if (size > 1) assert.deepEqual(leader.served, [], `${size}: served alone`);
    const answers: number[] = [];
    cluster.settle(({ message }) => {
      if (message?.type === MessageType.HeartbeatResponse && message.hint > 0 && leader.served.length === 0)
        answers.push(1);
      return false;
    });
    assert.deepEqual(leader.served, [{ context: 5, index: commitIndex }]);
    assert.ok(answers.length >= size >>> 1, `${size}: ${answers.length} answers`);
  }
});

test('reads of several turns are answered once each, in whatever order answers come', () => {
  const cluster = new RaftCluster(5);
  const leader = cluster.elect(1);
  for (let context = 1; context <= 4; context++) {
    leader.raft.readIndex(context);
    leader.work();
  }
  const first = cluster.parcels.splice(0).reverse();
  cluster.parcels.push(...first);
  cluster.settle();
  cluster.run(3);
  assert.deepEqual(
    leader.served.map(({ context }) => context).sort((a, b) => a - b),
    [1, 2, 3, 4],
  );
});

test('the answers of one follower, repeated, confirm nothing by themselves', () => {
  const cluster = new RaftCluster(5);
  const leader = cluster.elect(1);
  leader.raft.readIndex(3);
  leader.work();
  cluster.parcels.length = 0;
  for (let i = 0; i < 4; i++) {
    leader.raft.step(
      messageOf({ type: MessageType.HeartbeatResponse, from: 2, to: 1, term: 1, hint: leader.raft.reads.round }),
    );
  }
  assert.deepEqual(leader.served, []);
});

test('a read asked of a follower without a leader is refused at once; one asked of a leader that dies is dropped', () => {
  const cluster = new RaftCluster(3);
  assert.equal(cluster.node(2).raft.readIndex(1), false);
  cluster.elect(1);
  assert.equal(cluster.node(2).raft.readIndex(2), true);
  cluster.isolate(1);
  cluster.parcels.length = 0;
  cluster.run(60);
  assert.deepEqual(cluster.node(2).droppedReads, [2]);
  assert.deepEqual(cluster.node(2).served, []);
});

test('a read passed on says whose it is: the answer carries the follower’s own context', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1);
  for (const [id, context] of [
    [2, 70],
    [3, 70],
    [2, 71],
  ] as const) {
    cluster.node(id).raft.readIndex(context);
  }
  cluster.settle();
  cluster.run(2);
  assert.deepEqual(
    cluster.node(2).served.map(({ context }) => context),
    [70, 71],
  );
  assert.deepEqual(
    cluster.node(3).served.map(({ context }) => context),
    [70],
  );
});
