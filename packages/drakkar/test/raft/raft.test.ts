/** What the protocol promises, scenario by scenario (Raft thesis; reliability scenarios where they have a number). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MESSAGE_REJECT, MESSAGE_TRANSFER, MessageType } from '../../src/wire/message.ts';
import { RaftCluster, messageOf } from './cluster.ts';

// Elections.

test('a cluster elects one leader by itself', () => {
  const cluster = new RaftCluster(5);
  cluster.run(60);
  assert.ok(cluster.leader !== undefined);
  for (const node of cluster.nodes.values()) assert.equal(node.raft.leaderId, cluster.leader.id);
  assert.equal(cluster.leaders.size, cluster.leader.raft.term);
});

test('scenario 10: a lone voter leads only when its vote is durable', () => {
  const cluster = new RaftCluster(1);
  const node = cluster.node(1);
  node.raft.campaign();
  assert.equal(node.raft.role, 'candidate');
  node.flush();
  assert.equal(node.raft.role, 'leader');
  node.flush();
  assert.equal(node.raft.commitIndex, 1);
});

test('scenario 3: F12: a vote leaves only when it is durable', () => {
  const cluster = new RaftCluster(3);
  const voter = cluster.node(1);
  voter.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 4 }));
  assert.equal(cluster.parcels.length, 0);
  voter.flush();
  assert.deepEqual(
    cluster.parcels.map(({ message }) => [message!.type, message!.rejected, message!.term]),
    [[MessageType.RequestVoteResponse, false, 4]],
  );
});

test('scenario 3: a vote is remembered over a crash: the other candidate of the term is refused', () => {
  const cluster = new RaftCluster(3);
  const voter = cluster.node(1);
  voter.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 4 }));
  voter.flush();
  voter.crash();
  cluster.parcels.length = 0;
  voter.raft.step(messageOf({ type: MessageType.RequestVote, from: 3, term: 4 }));
  voter.flush();
  assert.equal(cluster.parcels[0].message!.rejected, true);
});

test('a vote that was not durable at a crash was never given', () => {
  const cluster = new RaftCluster(3);
  const voter = cluster.node(1);
  voter.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 4 }));
  voter.crash();
  assert.equal(voter.raft.term, 0);
  assert.equal(cluster.parcels.length, 0);
});

test('scenario 1: nobody votes for a log that is behind: later last term wins, then length', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1).propose(2);
  cluster.settle();
  const voter = cluster.node(2);
  const ask = (logIndex: number, logTerm: number, term: number): boolean => {
    cluster.parcels.length = 0;
    const flags = MESSAGE_TRANSFER; // past the lease
    voter.raft.step(messageOf({ type: MessageType.RequestVote, from: 3, term, logIndex, logTerm, flags }));
    voter.flush();
    return !cluster.parcels.find(({ message }) => message?.type === MessageType.RequestVoteResponse)!.message!.rejected;
  };
  assert.equal(ask(2, 1, 5), false, 'shorter');
  assert.equal(ask(9, 0, 6), false, 'of an older term');
  assert.equal(ask(3, 1, 7), true, 'equal');
  assert.equal(ask(1, 2, 8), true, 'of a newer term, though shorter');
});

test('scenario 13: pre-vote: an isolated replica does not raise terms and does not disturb when it returns', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1);
  cluster.isolate(3);
  cluster.run(100);
  assert.equal(cluster.node(3).raft.term, 1);
  cluster.heal();
  cluster.run(30);
  assert.equal(cluster.node(1).raft.role, 'leader');
  assert.equal(cluster.node(1).raft.term, 1);
});

test('whoever hears a leader refuses candidates (lease), but not on behalf of a transfer', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1);
  const voter = cluster.node(2);
  voter.raft.step(messageOf({ type: MessageType.RequestVote, from: 3, term: 9, logIndex: 1, logTerm: 1 }));
  assert.equal(voter.raft.term, 1);
  voter.raft.step(
    messageOf({ type: MessageType.RequestVote, from: 3, term: 9, logIndex: 1, logTerm: 1, flags: MESSAGE_TRANSFER }),
  );
  assert.equal(voter.raft.term, 9);
});

test('check-quorum: a leader without a majority steps down', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1);
  cluster.isolate(1);
  cluster.run(25);
  assert.notEqual(cluster.node(1).raft.role, 'leader');
  assert.equal(cluster.node(1).raft.leaderId, 0);
});

test('two leaders at a time have different terms, and the older one commits nothing', () => {
  const cluster = new RaftCluster(3, 1, { checkQuorum: false });
  const old = cluster.elect(1);
  cluster.isolate(1);
  old.propose();
  cluster.run(60);
  const next = cluster.leader!;
  assert.notEqual(next.id, 1);
  assert.equal(old.raft.role, 'leader');
  assert.equal(old.raft.commitIndex, 1);
  assert.ok(next.raft.commitIndex >= 2);
  cluster.heal();
  cluster.run(10);
  assert.equal(old.raft.role, 'follower');
  assert.deepEqual(old.terms(), next.terms());
});

test('scenario 18: a stuck candidate at a higher term is freed by an answer with its term', () => {
  const cluster = new RaftCluster(3, 1, { preVote: false });
  cluster.elect(1);
  cluster.isolate(3);
  for (let i = 0; i < 60; i++) cluster.node(3).tick();
  cluster.node(3).flush();
  assert.ok(cluster.node(3).raft.term > 1);
  cluster.heal();
  cluster.run(60);
  assert.ok(cluster.leader !== undefined);
  assert.equal(cluster.node(3).raft.leaderId, cluster.leader.id);
});

// Replication and commit.

test('an entry is committed with a majority of durable copies, the own one counted only when durable', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  const index = leader.propose();
  for (const parcel of cluster.parcels.splice(0)) if (parcel.to === 2) cluster.node(2).receive(parcel);
  assert.equal(leader.raft.commitIndex, 1);
  cluster.node(2).flush();
  for (const parcel of cluster.parcels.splice(0)) if (parcel.to === 1) leader.receive(parcel);
  assert.equal(leader.raft.commitIndex, 1, 'one copy elsewhere, the own not durable yet');
  leader.flush();
  assert.equal(leader.raft.commitIndex, index);
});

test('scenario 11: two followers commit an entry whose leader has it not durable yet, and the leader applies it only then', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  const index = leader.propose();
  const own = leader.pending.splice(0);
  cluster.settle();
  assert.equal(leader.raft.commitIndex, index);
  assert.equal(leader.raft.applyLimit, index - 1);
  leader.pending.push(...own);
  leader.flush();
  assert.equal(leader.raft.applyLimit, index);
});

test('scenario 5: figure 8: entries of older terms are not committed by counting copies', () => {
  const cluster = new RaftCluster(5);
  cluster.elect(1);
  const old = cluster.node(1);
  old.propose();
  // Only replica 2 gets it.
  cluster.settle((parcel) => parcel.block !== undefined && parcel.to !== 2);
  cluster.isolate(1);
  cluster.parcels.length = 0;
  // Replica 2 leads in a new term and brings the old entry to a majority, but nothing of its own.
  const next = cluster.node(2);
  for (const id of [3, 4, 5]) for (let i = 0; i < 12; i++) cluster.node(id).raft.electionElapsed = 20;
  next.raft.electionElapsed = 20;
  next.raft.campaign();
  next.work();
  const isNew = (term: number): boolean => term === next.raft.term && term > 1;
  cluster.settle((parcel) => parcel.block !== undefined && isNew(parcel.block.term) && parcel.block.count > 0);
  assert.equal(next.raft.role, 'leader');
  const copies = cluster.ids.filter((id) => cluster.node(id).raft.log.lastIndex >= 2).length;
  assert.ok(copies >= 2);
  assert.equal(next.raft.commitIndex, 1, 'an entry of an older term was committed by counting');
  next.raft.reportReachable(3);
  cluster.run(5);
  assert.equal(next.raft.commitIndex, 3);
});

test('an acknowledgement is the lesser of what is durable and what the current leader has proven', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(3);
  const follower = cluster.node(2);
  for (const parcel of cluster.parcels.splice(0)) if (parcel.to === 2) follower.receive(parcel);
  const acks = (): number[] =>
    cluster.parcels
      .splice(0)
      .flatMap(({ message }) => (message?.type === MessageType.ReplicateResponse ? [message.logIndex] : []));
  assert.deepEqual(acks(), [], 'acknowledged before it was durable');
  follower.flush();
  assert.deepEqual(acks(), [4]);
  // A new leader has proven nothing yet: a durable entry is not acknowledged to it.
  follower.raft.step(messageOf({ type: MessageType.Heartbeat, from: 3, to: 2, term: 7 }));
  follower.flush();
  const [response] = cluster.parcels.flatMap(({ message }) =>
    message?.type === MessageType.HeartbeatResponse ? [message] : [],
  );
  assert.equal(response.logIndex, follower.raft.commitIndex);
});

test('a conflicting suffix is replaced, and its acknowledgements are void', () => {
  const cluster = new RaftCluster(3, 1, { checkQuorum: false });
  const old = cluster.elect(1);
  cluster.isolate(1);
  old.propose(5);
  old.flush();
  assert.equal(old.raft.durableIndex, 6);
  cluster.run(40);
  cluster.leader!.propose(2);
  cluster.settle();
  cluster.heal();
  cluster.run(10);
  assert.deepEqual(old.terms(), cluster.leader!.terms());
  assert.equal(old.raft.durableIndex, old.raft.log.lastIndex);
  old.crash();
  assert.deepEqual(old.terms(), cluster.leader!.terms(), 'the replaced entries came back after a crash');
});

test('a follower far behind with many terms is found in few questions', () => {
  const cluster = new RaftCluster(3, 1, { checkQuorum: false });
  cluster.elect(1);
  const lonely = cluster.node(1);
  cluster.isolate(1);
  for (let i = 0; i < 30; i++) lonely.propose();
  lonely.flush();
  cluster.run(40);
  for (let i = 0; i < 30; i++) cluster.leader!.propose();
  cluster.settle();
  cluster.heal();
  let refusals = 0;
  for (const node of cluster.nodes.values()) node.tick();
  cluster.settle(({ message }) => {
    if (message?.type === MessageType.ReplicateResponse && message.rejected) refusals++;
    return false;
  });
  cluster.run(5);
  assert.deepEqual(lonely.terms(), cluster.leader!.terms());
  assert.ok(refusals <= 2, `${refusals} refusals`);
});

test('a window bounds what is under way to a follower that does not answer; a heartbeat opens it a little', () => {
  const cluster = new RaftCluster(3, 1, { maxInflightBlocks: 4 });
  const leader = cluster.elect(1);
  for (let i = 0; i < 20; i++) {
    leader.propose();
    leader.work();
  }
  const sent = cluster.parcels.filter(({ to, block }) => to === 2 && block !== undefined).length;
  assert.equal(sent, 4);
  cluster.settle();
  cluster.run(3);
  assert.equal(cluster.node(2).raft.log.lastIndex, 21);
  assert.equal(leader.raft.commitIndex, 21);
});

test('scenario 24: lost and repeated blocks do no harm', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  for (let i = 0; i < 10; i++) leader.propose();
  let count = 0;
  cluster.settle(({ block }) => block !== undefined && ++count % 3 === 0);
  for (let i = 0; i < 10; i++) leader.propose();
  cluster.parcels.push(...cluster.parcels.filter(({ block }) => block !== undefined));
  cluster.settle();
  cluster.run(10);
  for (const node of cluster.nodes.values()) {
    assert.equal(node.raft.commitIndex, 21);
    assert.deepEqual(node.terms(), leader.terms());
  }
});

test('a follower learns the commit index without a new entry, also over a restart', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose();
  cluster.settle();
  assert.equal(cluster.node(2).raft.commitIndex, 2);
  leader.propose();
  cluster.settle(({ message }) => message?.type === MessageType.Heartbeat);
  const follower = cluster.node(2);
  assert.equal(follower.raft.commitIndex, 2);
  follower.crash();
  cluster.run(5);
  assert.equal(follower.raft.commitIndex, 3);
});

test('scenario 28: entries that the leader has compacted are sent as a snapshot, once, and replication goes on behind it', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.isolate(3);
  for (let i = 0; i < 10; i++) leader.propose();
  cluster.settle();
  leader.raft.compact(8);
  cluster.heal();
  cluster.run(5);
  assert.deepEqual(leader.snapshotsAsked, [3]);
  const away = cluster.node(3);
  assert.equal(away.raft.restore(8, 1, leader.raft.membership), true);
  away.raft.applied(8);
  away.flush();
  leader.raft.reportSnapshot(3, true, 8);
  leader.work();
  cluster.run(5);
  assert.equal(away.raft.commitIndex, 11);
  assert.equal(away.raft.restore(8, 1, leader.raft.membership), false, 'an old snapshot was installed');
});

test('F6: a follower that acknowledged more than it has is not counted any more', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(5);
  cluster.settle();
  cluster.run(2);
  leader.receive({
    from: 2,
    to: 1,
    block: undefined,
    message: messageOf({
      type: MessageType.HeartbeatResponse,
      from: 2,
      term: 1,
      logTerm: leader.raft.heartbeatNumber,
      hintHigh: 2,
      logIndex: 2,
    }),
  });
  assert.deepEqual(leader.regressed, [2]);
  const before = leader.raft.commitIndex;
  cluster.isolate(3);
  leader.propose();
  cluster.settle();
  assert.equal(leader.raft.commitIndex, before);
});

test('a leader whose disk stands still gives its leadership away and stops heartbeating', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose();
  const stuck = leader.pending.splice(0);
  for (let i = 0; i < 40; i++) {
    for (const node of cluster.nodes.values()) node.tick();
    for (const id of [2, 3]) cluster.node(id).flush();
    for (const parcel of cluster.parcels.splice(0)) cluster.node(parcel.to).receive(parcel);
  }
  assert.ok(stuck.length > 0);
  assert.notEqual(leader.raft.role, 'leader');
  assert.ok([2, 3].includes(cluster.leader?.id ?? 0));
});

// Reads.

test('scenario 7: reads wait for the first commit of the term, and are never lost for it', () => {
  const cluster = new RaftCluster(3);
  const node = cluster.node(1);
  node.raft.campaign();
  node.work();
  cluster.settle(({ block }) => block !== undefined);
  assert.equal(node.raft.role, 'leader');
  node.raft.readIndex(7);
  node.work();
  cluster.settle(({ block }) => block !== undefined);
  assert.deepEqual(node.served, []);
  cluster.run(5);
  assert.deepEqual(node.served, [{ context: 7, index: 1 }]);
});

test('all reads of a turn share a round, each is answered with its own context, also those of followers', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.settle();
  leader.raft.readIndex(1);
  cluster.node(2).raft.readIndex(40);
  cluster.node(3).raft.readIndex(50);
  let heartbeats = 0;
  cluster.settle(({ message }) => {
    if (message?.type === MessageType.Heartbeat && message.to === 2 && message.hint > 0) heartbeats++;
    return false;
  });
  leader.work();
  cluster.settle();
  assert.deepEqual(leader.served, [{ context: 1, index: 1 }]);
  assert.deepEqual(cluster.node(2).served, [{ context: 40, index: 1 }]);
  assert.deepEqual(cluster.node(3).served, [{ context: 50, index: 1 }]);
  assert.ok(heartbeats <= 3);
});

test('scenario 57: a leader that was replaced without knowing it answers no read', () => {
  const cluster = new RaftCluster(3, 1, { checkQuorum: false });
  const old = cluster.elect(1);
  cluster.isolate(1);
  cluster.run(40);
  cluster.leader!.propose();
  cluster.settle();
  old.raft.readIndex(9);
  old.work();
  cluster.run(20);
  assert.deepEqual(old.served, []);
  cluster.heal();
  cluster.run(20);
  assert.deepEqual(old.served, []);
  assert.deepEqual(old.droppedReads, [9]);
});

test('scenario 59: an answer to an older round does not confirm a newer read', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.raft.readIndex(1);
  leader.work();
  const late = cluster.parcels.splice(0).filter(({ message }) => message?.type === MessageType.Heartbeat);
  leader.raft.readIndex(2);
  leader.work();
  cluster.parcels.length = 0;
  for (const parcel of late) cluster.node(parcel.to).receive(parcel);
  for (const parcel of cluster.parcels.splice(0)) leader.receive(parcel);
  assert.deepEqual(
    leader.served.map(({ context }) => context),
    [1],
  );
});

// Handing over.

test('scenario 31: a transfer ends as done when the target leads', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose();
  leader.raft.transferLeader(3);
  assert.equal(leader.raft.canPropose, false, 'proposals during a transfer');
  cluster.settle();
  cluster.run(3);
  assert.equal(cluster.leader!.id, 3);
  assert.deepEqual(leader.transfers, [[3, 'done']]);
});

test('scenario 33: a transfer to nobody, to itself, to one that is away, or replaced by another, says how it ended', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.raft.transferLeader(9);
  leader.raft.transferLeader(1);
  cluster.isolate(3);
  leader.raft.transferLeader(3);
  leader.raft.transferLeader(2);
  assert.deepEqual(leader.transfers, [
    [9, 'target-invalid'],
    [1, 'target-invalid'],
    [3, 'superseded'],
  ]);
  cluster.settle();
  cluster.run(3);
  assert.equal(cluster.leader!.id, 2);
  const next = cluster.leader!;
  next.raft.transferLeader(3);
  cluster.run(15);
  assert.deepEqual(next.transfers, [[3, 'timeout']]);
  assert.equal(next.raft.canPropose, true);
});

test('scenario 32: a transfer waits until its target has caught up', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(3);
  cluster.parcels.length = 0;
  leader.raft.transferLeader(2);
  leader.work();
  assert.ok(!cluster.parcels.some(({ message }) => message?.type === MessageType.TimeoutNow));
  cluster.run(5);
  assert.equal(cluster.leader!.id, 2);
  assert.equal(cluster.leader!.raft.log.lastIndex, 5);
});

// Strangers and old messages.

test('messages of replicas that are no members change nothing', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  for (const type of [MessageType.RequestVote, MessageType.ReplicateResponse, MessageType.HeartbeatResponse]) {
    leader.raft.step(messageOf({ type, from: 9, term: 1, logIndex: 1, logTerm: 1 }));
  }
  assert.equal(leader.raft.role, 'leader');
  assert.equal(leader.raft.term, 1);
});

test('an old refusal does not move a follower back that has answered since', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(4);
  cluster.settle();
  const before = leader.raft.memberOf(2)!.nextIndex;
  leader.raft.step(
    messageOf({ type: MessageType.ReplicateResponse, from: 2, term: 1, flags: MESSAGE_REJECT, logIndex: 1, hint: 0 }),
  );
  assert.equal(leader.raft.memberOf(2)!.nextIndex, before);
});
