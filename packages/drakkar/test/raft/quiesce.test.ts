/** An idle shard falls silent together, and whatever makes that doubtful wakes it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as quiesce from '../../src/raft/quiesce.ts';
import { MESSAGE_QUIESCE, MessageType } from '../../src/wire/message.ts';
import { RaftCluster, messageOf } from './cluster.ts';

/** More than two election timeouts of ten ticks, and an offer. */
const IDLE_TICKS = 25;

function silent(size = 3): RaftCluster {
  const cluster = new RaftCluster(size, 1, { quiesce: true });
  cluster.elect(1);
  cluster.run(IDLE_TICKS);
  for (const node of cluster.nodes.values()) assert.ok(node.raft.isQuiesced, `replica ${node.id} is awake`);
  return cluster;
}

const awake = (cluster: RaftCluster): number[] => cluster.ids.filter((id) => !cluster.node(id).raft.isQuiesced);

test('an idle shard falls silent: no message, no election, however long', () => {
  const cluster = silent();
  const { term } = cluster.node(1).raft;
  for (let ticks = 0; ticks < 1000; ticks++) {
    for (const node of cluster.nodes.values()) node.tick();
    assert.deepEqual(cluster.parcels, [], 'a silent replica spoke');
  }
  assert.equal(cluster.node(1).raft.role, 'leader');
  assert.equal(cluster.node(1).raft.term, term);
});

test('a shard of one replica falls silent, too', () => {
  const cluster = new RaftCluster(1, 1, { quiesce: true });
  cluster.elect(1);
  cluster.run(IDLE_TICKS);
  assert.deepEqual(awake(cluster), []);
});

test('a proposal wakes all, is committed without an election, and all fall silent again', () => {
  const cluster = silent();
  const leader = cluster.node(1);
  const { term } = leader.raft;
  const index = leader.propose();
  cluster.settle();
  assert.deepEqual(awake(cluster), [1, 2, 3]);
  assert.equal(leader.raft.commitIndex, index);
  cluster.run(IDLE_TICKS);
  assert.deepEqual(awake(cluster), []);
  assert.equal(leader.raft.term, term);
  assert.deepEqual(leader.silences, ['quiesced', 'proposal', 'quiesced']);
});

test('a read on a follower wakes it and the leader, and is confirmed by a majority', () => {
  const cluster = silent();
  const follower = cluster.node(2);
  follower.raft.readIndex(7);
  follower.work();
  cluster.settle();
  cluster.run(2);
  assert.deepEqual(follower.served, [{ context: 7, index: 1 }]);
  assert.deepEqual(follower.silences, ['quiesced', 'read']);
  assert.equal(cluster.node(1).silences.at(-1), 'message');
});

test('one member that does not take part keeps the leader awake', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true });
  cluster.elect(1);
  Object.assign(cluster.node(3).raft.config, { quiesce: false });
  cluster.run(200);
  assert.ok(!cluster.node(1).raft.isQuiesced);
  assert.equal(cluster.node(3).raft.leaderId, 1);
  assert.equal(cluster.leaders.size, 1, 'somebody campaigned');
});

test('a follower that lacks an entry does not accept, and the leader goes on', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true });
  const leader = cluster.elect(1);
  cluster.cutOneWay(1, 3);
  leader.propose();
  cluster.settle();
  cluster.heal();
  // An offer that was made before the entry, delivered late.
  const { term } = leader.raft;
  const { raft } = cluster.node(3);
  raft.step(
    messageOf({ type: MessageType.Heartbeat, flags: MESSAGE_QUIESCE, from: 1, to: 3, term, commit: 2, logTerm: 1 }),
  );
  assert.ok(!raft.isQuiesced);
});

test('an offer whose answer is lost is made again; nobody campaigns meanwhile', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true });
  cluster.elect(1);
  let lost = 0;
  for (let ticks = 0; ticks < 40; ticks++) {
    for (const node of cluster.nodes.values()) node.tick();
    cluster.settle(({ from, message }) => {
      const isAnswer = from === 2 && message !== undefined && (message.flags & MESSAGE_QUIESCE) !== 0;
      return isAnswer && lost++ < 5;
    });
  }
  assert.ok(lost >= 5);
  assert.deepEqual(awake(cluster), []);
  assert.equal(cluster.leaders.size, 1);
});

test('a proposal between offer and answer: the answer is void, the leader stays awake', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true });
  const leader = cluster.elect(1);
  while (leader.raft.offeredFrom === 0) {
    for (const node of cluster.nodes.values()) node.tick();
    if (leader.raft.offeredFrom === 0) cluster.settle();
  }
  leader.propose();
  cluster.settle();
  cluster.run(3);
  assert.ok(!leader.raft.isQuiesced);
  assert.deepEqual(awake(cluster), [1, 2, 3]);
});

test('an answer to an offer that was withdrawn does not count for the next', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true });
  const leader = cluster.elect(1);
  cluster.run(15);
  leader.raft.idleTicks = 20;
  leader.tick();
  const first = leader.raft.heartbeatNumber;
  assert.equal(leader.raft.offeredFrom, first);
  quiesce.touch(leader.raft, 'read');
  leader.raft.idleTicks = 20;
  leader.tick();
  const { term, log } = leader.raft;
  const answer = (from: number, logTerm: number): void =>
    leader.raft.step(
      messageOf({
        type: MessageType.HeartbeatResponse,
        flags: MESSAGE_QUIESCE,
        from,
        term,
        logTerm,
        logIndex: log.lastIndex,
        hintHigh: log.lastIndex,
      }),
    );
  answer(2, first);
  answer(3, first);
  assert.ok(!leader.raft.isQuiesced, 'silent on answers to the first offer');
  answer(2, first + 1);
  answer(3, first + 1);
  assert.ok(leader.raft.isQuiesced);
});

test('a leader that is silent and a follower that is not: the follower asks, the leader wakes, no new term', () => {
  const cluster = silent();
  const { term } = cluster.node(1).raft;
  quiesce.wake(cluster.node(3).raft, 'message');
  cluster.run(60);
  assert.equal(cluster.node(1).raft.role, 'leader');
  assert.equal(cluster.node(1).raft.term, term, 'pre-vote let a healthy leader fall');
  assert.ok(cluster.node(1).silences.includes('message'));
  assert.deepEqual(awake(cluster), [], 'and all are silent again');
});

test('a follower that is silent behind a leader that is not is woken by the next heartbeat', () => {
  const cluster = silent();
  quiesce.wake(cluster.node(1).raft, 'message');
  cluster.run(2);
  assert.deepEqual(awake(cluster), [1, 2, 3]);
});

test('scenario 30: the leader dies while all are silent; those who watch its host wake, and elect', () => {
  const cluster = silent();
  cluster.isolate(1);
  cluster.run(100);
  assert.equal(cluster.leader?.id, 1, 'nobody can know yet');
  for (const id of [2, 3]) quiesce.hostLost(cluster.node(id).raft, 1, 10);
  cluster.run(60);
  assert.notEqual(cluster.leader?.id, 1);
  assert.deepEqual(cluster.node(2).silences, ['quiesced', 'host-lost', 'quiesced']);
});

test('the host of another follower dies: followers sleep on, the leader looks, and sleeps without it', () => {
  const cluster = silent();
  cluster.isolate(3);
  for (const id of [1, 2]) quiesce.hostLost(cluster.node(id).raft, 3, 10);
  assert.deepEqual(awake(cluster), [1]);
  cluster.run(2 * IDLE_TICKS);
  assert.deepEqual(awake(cluster), []);
  assert.equal(cluster.node(1).raft.role, 'leader');
  // It comes back, having begun anew.
  cluster.heal();
  cluster.node(3).crash();
  quiesce.hostBack(cluster.node(1).raft, 3);
  quiesce.hostBack(cluster.node(2).raft, 3);
  cluster.run(3);
  assert.equal(cluster.node(3).raft.leaderId, 1);
  cluster.run(2 * IDLE_TICKS);
  assert.deepEqual(awake(cluster), []);
});

test('a leader does not fall silent without a majority, and steps down as ever', () => {
  const cluster = silent();
  cluster.isolate(1);
  for (const id of [2, 3]) quiesce.hostLost(cluster.node(1).raft, id, 10);
  assert.ok(!cluster.node(1).raft.isQuiesced);
  for (let left = 12; left > 0; left--) cluster.node(1).tick();
  assert.equal(cluster.node(1).raft.role, 'follower', 'check-quorum trusted what it heard before the silence');
});

test('nobody falls silent behind a leader whose host is taken for dead', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true });
  cluster.elect(1);
  quiesce.hostLost(cluster.node(2).raft, 1, 0);
  cluster.run(100);
  assert.ok(!cluster.node(2).raft.isQuiesced);
  quiesce.hostBack(cluster.node(2).raft, 1);
  cluster.run(5);
  assert.deepEqual(awake(cluster), []);
});

test('another leader is elected while a replica sleeps: it follows the new one', () => {
  const cluster = silent();
  cluster.cutOneWay(2, 3);
  cluster.cutOneWay(1, 3);
  cluster
    .node(2)
    .raft.step(messageOf({ type: MessageType.TimeoutNow, from: 1, to: 2, term: cluster.node(1).raft.term }));
  cluster.settle();
  assert.equal(cluster.leader?.id, 2);
  assert.ok(cluster.node(3).raft.isQuiesced, 'it heard nothing');
  cluster.heal();
  cluster.run(IDLE_TICKS);
  assert.equal(cluster.node(3).raft.leaderId, 2);
  cluster.run(IDLE_TICKS);
  assert.deepEqual(awake(cluster), []);
});

test('a leader that is transferred away from while silent hands over', () => {
  const cluster = silent();
  cluster.node(1).raft.transferLeader(2);
  cluster.node(1).work();
  cluster.settle();
  assert.equal(cluster.leader?.id, 2);
  assert.deepEqual(cluster.node(1).silences.slice(0, 2), ['quiesced', 'operator']);
});

test('a replica that stops says farewell, so that those behind it wake', () => {
  const cluster = silent();
  quiesce.farewell(cluster.node(1).raft);
  cluster.settle();
  assert.deepEqual(awake(cluster), [2, 3]);
});

test('votes are held back for an election timeout after a wake, as a lease asks', () => {
  const cluster = silent();
  const { raft } = cluster.node(2);
  const { term, log } = raft;
  raft.step(
    messageOf({
      type: MessageType.RequestVote,
      from: 3,
      to: 2,
      term: term + 1,
      logIndex: log.lastIndex,
      logTerm: log.lastTerm,
    }),
  );
  assert.ok(!raft.isQuiesced);
  assert.equal(raft.term, term, 'a sleeper let its leader fall at the first word');
});

test('a leader that wakes has a whole election timeout to hear a majority', () => {
  const cluster = silent();
  const leader = cluster.node(1);
  leader.raft.electionElapsed = 9;
  leader.propose();
  leader.tick();
  assert.equal(leader.raft.role, 'leader', 'it was judged by what it had not heard while it slept');
  cluster.settle();
  cluster.run(3);
  assert.equal(leader.raft.commitIndex, 2);
});

test('without check-quorum a leader does not fall silent alone either', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true, checkQuorum: false });
  const leader = cluster.elect(1);
  cluster.isolate(1);
  for (const id of [2, 3]) quiesce.hostLost(leader.raft, id, 0);
  for (let left = 200; left > 0; left--) leader.tick();
  assert.equal(leader.raft.role, 'leader');
  assert.ok(!leader.raft.isQuiesced);
});

test('a block alone wakes a follower', () => {
  const cluster = silent();
  cluster.node(1).propose();
  const parcel = cluster.parcels.find(({ to, block }) => to === 2 && block !== undefined)!;
  cluster.node(2).receive(parcel);
  assert.ok(!cluster.node(2).raft.isQuiesced);
  assert.deepEqual(cluster.node(2).silences, ['quiesced', 'message']);
});

test('a leader that holds proposals back does not fall silent before its followers know that it is over', () => {
  const cluster = new RaftCluster(3, 1, { quiesce: true, maxUnappliedBytes: 300, entryBytes: 100 });
  const leader = cluster.elect(1);
  cluster.node(2).appliesUpTo = 1;
  for (let i = 0; i < 5; i++) leader.propose();
  cluster.run(3);
  assert.equal(leader.raft.heldBackBy, 2);
  cluster.run(2 * IDLE_TICKS);
  assert.ok(!leader.raft.isQuiesced);
  cluster.node(2).appliesUpTo = Number.POSITIVE_INFINITY;
  cluster.node(2).work();
  cluster.run(2 * IDLE_TICKS);
  assert.deepEqual(awake(cluster), []);
  for (const node of cluster.nodes.values()) assert.equal(node.raft.leaderIsBusy, false, `replica ${node.id} refuses`);
});
