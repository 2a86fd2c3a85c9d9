/** Flow control: what a leader sends to whom, when it waits, and how it finds out what was lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemberState, type Member } from '../../src/raft/member.ts';
import { MESSAGE_REJECT, MessageType } from '../../src/wire/message.ts';
import { RaftCluster, messageOf, withLog, type Node } from './cluster.ts';

const memberOf = (node: Node, id: number): Member => node.raft.memberOf(id)!;
const blocksTo = (cluster: RaftCluster, id: number): number =>
  cluster.parcels.filter(({ to, block }) => to === id && block !== undefined).length;

/** Replica 1 leads; what it sends is not delivered any more. */
function quietLeader(overrides: ConstructorParameters<typeof RaftCluster>[2] = {}) {
  const cluster = new RaftCluster(3, 1, overrides);
  const leader = cluster.elect(1);
  cluster.parcels.length = 0;
  return { cluster, leader };
}

const answer = (node: Node, from: number, fields: Parameters<typeof messageOf>[0]): void => {
  node.raft.step(messageOf({ ...fields, from, to: node.id, term: node.raft.term }));
  node.work();
};

test('probe: one block, then silence until an answer, however many entries come', () => {
  const { cluster, leader } = quietLeader();
  memberOf(leader, 2).becomeProbe(2);
  for (let i = 0; i < 5; i++) {
    leader.propose();
    leader.work();
  }
  assert.equal(blocksTo(cluster, 2), 1);
  assert.equal(memberOf(leader, 2).isWaiting, true);
  assert.equal(blocksTo(cluster, 3), 5, 'the other one is pipelined');
});

test('probe: the answer to a heartbeat lets one more block out, since the last may be lost', () => {
  const { cluster, leader } = quietLeader();
  memberOf(leader, 2).becomeProbe(2);
  leader.propose();
  leader.work();
  cluster.parcels.length = 0;
  for (let i = 0; i < 3; i++) {
    answer(leader, 2, { type: MessageType.HeartbeatResponse, logTerm: leader.raft.heartbeatNumber, hintHigh: 1 });
    assert.equal(blocksTo(cluster, 2), i + 1);
  }
});

test('probe: an acknowledgement begins the pipeline behind it', () => {
  const { leader } = quietLeader();
  memberOf(leader, 2).becomeProbe(2);
  leader.propose();
  leader.propose();
  leader.work();
  answer(leader, 2, { type: MessageType.ReplicateResponse, logIndex: 2, hintHigh: 2 });
  const { state, matchIndex, nextIndex } = memberOf(leader, 2);
  assert.deepEqual([state, matchIndex, nextIndex], [MemberState.Replicate, 2, 4]);
});

test('probe: a refusal moves back to where the logs may agree; an outdated one moves nothing', () => {
  const cluster = new RaftCluster(3);
  withLog(cluster.node(1), [1, 1, 3, 3, 3], 3);
  const leader = cluster.elect(1);
  cluster.parcels.length = 0;
  const member = memberOf(leader, 2);
  member.reset(6);
  leader.raft.lags = true;
  leader.work();
  // It has term 2 where the leader has 3: nothing above the last entry of at most term 2 can be equal.
  const refusal = { type: MessageType.ReplicateResponse, flags: MESSAGE_REJECT, hint: 5, logTerm: 2, hintHigh: 5 };
  answer(leader, 2, { ...refusal, logIndex: 4 });
  assert.equal(member.nextIndex, 6, 'an answer to another question');
  answer(leader, 2, { ...refusal, logIndex: 5 });
  assert.equal(member.nextIndex, 3);
});

test('replicate: the next index goes ahead of what is acknowledged', () => {
  const { leader } = quietLeader();
  const member = memberOf(leader, 2);
  assert.equal(member.state, MemberState.Replicate);
  leader.propose(3);
  assert.deepEqual([member.matchIndex, member.nextIndex], [1, 5]);
  leader.propose();
  assert.deepEqual([member.matchIndex, member.nextIndex, member.inflightBlocks], [1, 6, 2]);
});

test('replicate: a full window takes nothing; an acknowledgement frees all that came before it', () => {
  const { cluster, leader } = quietLeader({ maxInflightBlocks: 3 });
  for (let i = 0; i < 8; i++) {
    leader.propose();
    leader.work();
  }
  assert.equal(blocksTo(cluster, 2), 3);
  answer(leader, 2, { type: MessageType.ReplicateResponse, logIndex: 3, hintHigh: 4 });
  assert.equal(blocksTo(cluster, 2), 5, 'two had arrived');
  answer(leader, 2, { type: MessageType.ReplicateResponse, logIndex: 2, hintHigh: 4 });
  assert.equal(blocksTo(cluster, 2), 5, 'an old acknowledgement frees nothing');
});

test('replicate: a full window and answers to heartbeats: one more each, so that a lost acknowledgement stops nothing', () => {
  const { cluster, leader } = quietLeader({ maxInflightBlocks: 2 });
  for (let i = 0; i < 6; i++) {
    leader.propose();
    leader.work();
  }
  assert.equal(blocksTo(cluster, 2), 2);
  const { sentAtHeartbeat } = memberOf(leader, 2);
  for (let i = 1; i <= 3; i++) {
    // To a heartbeat from before the blocks left: says nothing of them.
    answer(leader, 2, { type: MessageType.HeartbeatResponse, logTerm: sentAtHeartbeat, logIndex: 1, hintHigh: 1 });
    assert.equal(blocksTo(cluster, 2), 2 + i);
  }
});

test('replicate: a window in bytes', () => {
  const { cluster, leader } = quietLeader({ maxInflightBytes: 1000, entryBytes: 400 });
  for (let i = 0; i < 6; i++) {
    leader.propose();
    leader.work();
  }
  assert.equal(blocksTo(cluster, 2), 3, 'the third goes over it, no further one');
});

test('replicate: a heartbeat sent after the blocks and answered without them: they are lost, and sent again', () => {
  const { cluster, leader } = quietLeader();
  leader.propose(2);
  leader.tick();
  cluster.parcels.length = 0;
  answer(leader, 2, {
    type: MessageType.HeartbeatResponse,
    logTerm: leader.raft.heartbeatNumber,
    logIndex: 1,
    hintHigh: 1,
  });
  assert.equal(memberOf(leader, 2).state, MemberState.Probe);
  assert.equal(blocksTo(cluster, 2), 1);
});

test('a member whose connection broke is probed from what it acknowledged, when it answers again', () => {
  const { cluster, leader } = quietLeader();
  leader.propose(4);
  leader.raft.reportUnreachable(2);
  const member = memberOf(leader, 2);
  assert.deepEqual([member.state, member.nextIndex], [MemberState.Probe, 2]);
  cluster.parcels.length = 0;
  leader.raft.reportReachable(2);
  leader.work();
  assert.equal(blocksTo(cluster, 2), 1);
});

test('snapshot: nothing is sent while one is under way; its end begins a probe behind it, its failure one from the old place', () => {
  const { cluster, leader } = quietLeader();
  leader.propose(9);
  leader.flush();
  answer(leader, 3, { type: MessageType.ReplicateResponse, logIndex: 10, hintHigh: 10 });
  leader.raft.compact(8);
  const member = memberOf(leader, 2);
  member.becomeProbe(2);
  leader.raft.lags = true;
  leader.work();
  assert.deepEqual(leader.snapshotsAsked, [2]);
  cluster.parcels.length = 0;
  leader.propose();
  answer(leader, 2, { type: MessageType.HeartbeatResponse, logTerm: leader.raft.heartbeatNumber, hintHigh: 1 });
  assert.equal(blocksTo(cluster, 2), 0);
  leader.raft.reportSnapshot(2, false, 8);
  assert.deepEqual([member.state, member.nextIndex], [MemberState.Probe, 2]);
  leader.work();
  assert.deepEqual(leader.snapshotsAsked, [2, 2], 'tried again');
  leader.raft.reportSnapshot(2, true, 8);
  assert.deepEqual([member.state, member.nextIndex], [MemberState.Probe, 9]);
});

test('snapshot: an acknowledgement that reaches what the leader still has ends the wait for the report', () => {
  const { leader } = quietLeader();
  leader.propose(9);
  leader.flush();
  answer(leader, 3, { type: MessageType.ReplicateResponse, logIndex: 10, hintHigh: 10 });
  leader.raft.compact(8);
  const member = memberOf(leader, 2);
  member.becomeSnapshot();
  answer(leader, 2, { type: MessageType.ReplicateResponse, logIndex: 5, hintHigh: 5 });
  assert.equal(member.state, MemberState.Snapshot, 'still behind what is here');
  answer(leader, 2, { type: MessageType.ReplicateResponse, logIndex: 8, hintHigh: 8 });
  assert.equal(member.state, MemberState.Replicate);
});

test('a new leader takes every member for unknown, and starts where its own log ends', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1).propose(5);
  cluster.settle();
  cluster.node(1).raft.transferLeader(2);
  cluster.settle(
    ({ from, message, block }) => block !== undefined || (from === 2 && message?.type === MessageType.Heartbeat),
  );
  const next = cluster.node(2);
  assert.equal(next.raft.role, 'leader');
  for (const id of [1, 3]) {
    const { state, matchIndex, nextIndex } = memberOf(next, id);
    assert.deepEqual([state, matchIndex, nextIndex], [MemberState.Probe, 0, 7]);
  }
});

test('one catch-up send is bounded in bytes, and goes on in the next turn', () => {
  const { cluster, leader } = quietLeader({ maxSendBytes: 1000, entryBytes: 400 });
  cluster.isolate(2);
  for (let i = 0; i < 12; i++) leader.propose();
  memberOf(leader, 2).becomeProbe(2);
  cluster.heal();
  cluster.parcels.length = 0;
  memberOf(leader, 2).matchIndex = 1;
  memberOf(leader, 2).becomeReplicate();
  leader.raft.catchUp();
  assert.equal(blocksTo(cluster, 2), 3);
  leader.raft.catchUp();
  assert.equal(blocksTo(cluster, 2), 6);
});

test('blocks in any order, twice, or never: a follower keeps what it acknowledged', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const cluster = new RaftCluster(3, seed);
    const leader = cluster.elect(1);
    for (let i = 0; i < 8; i++) leader.propose();
    const all = cluster.parcels.splice(0).filter(({ to }) => to === 2);
    const order = all.map((_, at) => (at * 5 + seed) % all.length);
    let acknowledged = 0;
    for (const at of [...order, ...order.reverse()]) {
      cluster.node(2).receive(all[at]);
      cluster.node(2).flush();
      for (const { message } of cluster.parcels.splice(0)) {
        if (message?.type !== MessageType.ReplicateResponse || message.rejected) continue;
        acknowledged = Math.max(acknowledged, message.logIndex);
      }
      assert.ok(cluster.node(2).raft.log.lastIndex >= acknowledged, 'what was acknowledged is gone');
    }
    cluster.run(10);
    assert.deepEqual(cluster.node(2).terms(), leader.terms());
  }
});
