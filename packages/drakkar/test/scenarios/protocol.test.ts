/**
 * Scenarios of the protocol, numbered as in docs/testing.md: what must come of situations that have broken Raft implementations. Those
 * that other test files already play have their number in the name there.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RaftLog } from '../../src/raft/log.ts';
import { OutstandingWrites } from '../../src/raft/writes.ts';
import { BlockHeader } from '../../src/wire/block.ts';
import { BlockRef } from '../../src/wire/block-ref.ts';
import { initialMembership } from '../../src/wire/membership.ts';
import { MESSAGE_WORDS, MessageType, checkMessages, writeMessage } from '../../src/wire/message.ts';
import { RaftCluster, messageOf, withLog } from '../raft/cluster.ts';

const rolesOf = (cluster: RaftCluster): string[] => [...cluster.nodes.values()].map(({ raft }) => raft.role);

test('scenario 2: two candidates of one term: at most one leads, and a later term has one', () => {
  const cluster = new RaftCluster(4);
  for (const id of [1, 2]) {
    cluster.node(id).raft.campaign();
    cluster.node(id).work();
  }
  cluster.settle();
  assert.ok(rolesOf(cluster).filter((role) => role === 'leader').length <= 1);
  cluster.run(60);
  assert.notEqual(cluster.leader, undefined);
  assert.equal(new Set([...cluster.nodes.values()].map(({ raft }) => raft.leaderId)).size, 1);
});

test('scenario 4: answers of an older term that come late change nothing', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  for (const [from, to] of [
    [1, 2],
    [2, 1],
  ] as const) {
    cluster.node(from).raft.transferLeader(to);
    cluster.run(3);
    assert.equal(cluster.leader?.id, to);
  }
  const { term, commitIndex } = leader.raft;
  const { matchIndex } = leader.raft.memberOf(3)!;
  for (const type of [MessageType.ReplicateResponse, MessageType.HeartbeatResponse, MessageType.RequestVoteResponse]) {
    leader.raft.step(messageOf({ type, from: 3, to: 1, term: term - 2, logIndex: 99, hintHigh: 99 }));
  }
  assert.equal(leader.raft.role, 'leader');
  assert.equal(leader.raft.term, term);
  assert.equal(leader.raft.commitIndex, commitIndex);
  assert.equal(leader.raft.memberOf(3)!.matchIndex, matchIndex);
});

test('scenario 6: the six logs of figure 7 all become the leader’s', () => {
  const leaderLog = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
  const followers = [
    [1, 1, 1, 4, 4, 5, 5, 6, 6],
    [1, 1, 1, 4],
    [...leaderLog, 6],
    [...leaderLog, 7, 7],
    [1, 1, 1, 4, 4, 4, 4],
    [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
  ];
  const cluster = new RaftCluster(7);
  withLog(cluster.node(1), leaderLog, 7);
  for (const [i, terms] of followers.entries()) withLog(cluster.node(i + 2), terms, 7);
  const leader = cluster.elect(1);
  leader.propose();
  cluster.run(20);
  for (const node of cluster.nodes.values()) assert.deepEqual(node.terms(), leader.terms());
  assert.deepEqual(leader.terms().slice(0, 10), leaderLog);
  assert.equal(leader.raft.commitIndex, leader.raft.log.lastIndex);
});

test('scenario 8: two replicas need both, four need three: with too few nothing is committed and nobody elected', () => {
  for (const [size, down] of [
    [2, 1],
    [4, 2],
  ] as const) {
    const cluster = new RaftCluster(size);
    const leader = cluster.elect(1);
    for (let id = size; id > size - down; id--) cluster.isolate(id);
    const { commitIndex, term } = leader.raft;
    leader.propose();
    cluster.settle();
    assert.equal(leader.raft.commitIndex, commitIndex, `${size} replicas`);
    cluster.run(100);
    assert.ok(rolesOf(cluster).every((role) => role !== 'leader'));
    assert.equal(leader.raft.term, term, 'pre-votes do not raise the term');
  }
});

test('scenario 9: a term beyond 2^53 - 1 from a peer is refused', () => {
  const u32 = new Uint32Array(MESSAGE_WORDS);
  writeMessage(u32, 0, messageOf({ type: MessageType.Heartbeat, term: Number.MAX_SAFE_INTEGER }));
  checkMessages(u32, 0, MESSAGE_WORDS, 1);
  u32[9] = 0x20_0000; // the upper half of the term: 2^53
  assert.throws(() => checkMessages(u32, 0, MESSAGE_WORDS, 1), { code: 'ERR_FRAME' });
});

test('scenario 12: a storage acknowledgement of before a truncation does not count for what replaced it', () => {
  const writes = new OutstandingWrites(0);
  const block = (first: number, last: number, term: number): BlockRef =>
    new BlockRef(first, last - first + 1, term, term, undefined, 0, 0);
  const place = { segmentEpoch: 1, frameOffset: 0, frameBytes: 0, blockOffset: 0, orderEpoch: 1, orderOffset: 0 };
  writes.push(block(1, 10, 1), 10);
  writes.lowerTo(4);
  writes.push(block(5, 6, 2), 6);
  writes.pop(place);
  assert.equal(writes.durableIndex, 4, 'entries 5 to 10 of term 1 are void');
  writes.pop(place);
  assert.equal(writes.durableIndex, 6);
});

test('scenario 15: a replica that sends and never receives does not disturb the others', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  for (const from of [1, 2]) cluster.cutOneWay(from, 3);
  const { term } = leader.raft;
  for (let i = 0; i < 20; i++) {
    leader.propose();
    cluster.run(5);
  }
  assert.equal(leader.raft.role, 'leader');
  assert.equal(leader.raft.term, term);
  assert.equal(leader.raft.commitIndex, leader.raft.log.lastIndex);
});

test('scenario 16: a leader that sends and never receives steps down, and another one leads', () => {
  const cluster = new RaftCluster(3);
  const old = cluster.elect(1);
  for (const from of [2, 3]) cluster.cutOneWay(from, 1);
  cluster.run(80);
  assert.notEqual(old.raft.role, 'leader');
  cluster.heal();
  cluster.run(40);
  assert.notEqual(cluster.leader, undefined);
});

test('scenario 17: replicas that only some can reach do not unseat a leader whom a majority hears', () => {
  // 1, 2 and 3 reach one another; 4 reaches only 2, and 5 only 3.
  const cluster = new RaftCluster(5);
  for (const [a, b] of [
    [4, 1],
    [4, 3],
    [4, 5],
    [5, 1],
    [5, 2],
  ] as const) {
    cluster.cutOneWay(a, b);
    cluster.cutOneWay(b, a);
  }
  const leader = cluster.elect(2);
  const { term } = leader.raft;
  for (let i = 0; i < 20; i++) {
    leader.propose();
    cluster.run(10);
  }
  assert.equal(leader.raft.role, 'leader');
  assert.equal(leader.raft.term, term);
});

test('scenario 19: replicas with and without pre-vote elect a leader together', () => {
  for (const preVoters of [[1], [1, 2], [2, 3]]) {
    const cluster = new RaftCluster(3);
    for (const node of cluster.nodes.values()) {
      Object.assign(node.raft.config, { preVote: preVoters.includes(node.id) });
    }
    cluster.run(100);
    assert.notEqual(cluster.leader, undefined, `pre-vote on ${preVoters.join()}`);
    cluster.leader!.propose();
    cluster.settle();
    assert.equal(cluster.leader!.raft.commitIndex, cluster.leader!.raft.log.lastIndex);
  }
});

test('scenario 25: a truncation into what is committed, or compacted, is refused with an invariant', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(3);
  cluster.run(3);
  const follower = cluster.node(2).raft;
  const log = new RaftLog(5, 2, []);
  assert.throws(() => log.truncateFrom(5), { code: 'ERR_INVARIANT' });
  // A leader of a later term that denies a committed entry cannot be one.
  const lie = Object.assign(new BlockHeader(), { firstIndex: 1, count: 4, term: 9, senderTerm: 9, senderId: 3 });
  const { commitIndex } = follower;
  const verdict = follower.checkBlock(lie);
  assert.equal(verdict, 1, 'what is committed is never replaced: a duplicate at most');
  assert.equal(follower.commitIndex, commitIndex);
});

test('scenario 26: a heartbeat names no commit index beyond what its follower acknowledged', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.isolate(3);
  for (let i = 0; i < 5; i++) leader.propose();
  cluster.run(2);
  assert.equal(leader.raft.commitIndex, leader.raft.log.lastIndex);
  const match = leader.raft.memberOf(3)!.matchIndex;
  cluster.heal();
  leader.tick(2);
  const commits = cluster.parcels
    .filter(({ to, message }) => to === 3 && message?.type === MessageType.Heartbeat)
    .map(({ message }) => message!.commit);
  assert.ok(commits.length > 0 && commits.every((commit) => commit <= match), commits.join());
});

test('scenario 29: a window smaller than any entry still lets one through at a time', () => {
  const cluster = new RaftCluster(3, 1, { maxInflightBytes: 1 });
  const leader = cluster.elect(1);
  for (let i = 0; i < 10; i++) leader.propose();
  cluster.run(60);
  assert.equal(leader.raft.commitIndex, leader.raft.log.lastIndex);
  for (const node of cluster.nodes.values()) assert.equal(node.raft.log.lastIndex, leader.raft.log.lastIndex);
});

test('scenario 34: a higher term that comes during a transfer ends it, and says so', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.isolate(2);
  leader.raft.transferLeader(2);
  leader.receive({
    from: 3,
    to: 1,
    message: messageOf({ type: MessageType.Noop, from: 3, to: 1, term: 9 }),
    block: undefined,
  });
  assert.equal(leader.raft.role, 'follower');
  assert.equal(leader.raft.term, 9);
  cluster.heal();
  cluster.run(60);
  assert.equal(leader.transfers.length, 1, 'the transfer had one end');
  assert.notEqual(cluster.leader, undefined);
});

test('scenario 48: a snapshot keeps the log behind it when that matches, and replaces it when not', () => {
  for (const [term, isKept] of [
    [1, true],
    [2, false],
  ] as const) {
    const cluster = new RaftCluster(3);
    const node = cluster.node(2);
    withLog(node, [1, 1, 1, 1, 1], 2);
    assert.equal(node.raft.admitSnapshot(2, 1), true);
    const membership = initialMembership(cluster.ids.map((id) => [id, `host${id}:1`]));
    assert.equal(node.raft.restore(3, term, membership), true);
    assert.equal(node.raft.commitIndex, 3);
    assert.equal(node.raft.log.lastIndex, isKept ? 5 : 3);
  }
});

test('a leader that is offered a snapshot by a newer one follows it first: old acknowledgements must not count for a new log', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  for (let i = 0; i < 5; i++) leader.propose();
  cluster.run(2);
  const { raft } = leader;
  const { term } = raft;
  assert.equal(raft.admitSnapshot(term - 1, 2), false, 'of an older leader');
  assert.equal(raft.role, 'leader');
  assert.equal(raft.admitSnapshot(term + 1, 2), true);
  assert.equal(raft.role, 'follower');
  assert.equal(raft.term, term + 1);
  raft.isInstalling = true;
  raft.campaign();
  assert.equal(raft.role, 'follower', 'nobody campaigns while a snapshot is installed');
});

test('scenario 50: an old or repeated snapshot, or its acknowledgement, changes nothing', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  leader.propose(4);
  cluster.run(3);
  const follower = cluster.node(2).raft;
  const { commitIndex } = follower;
  assert.equal(follower.restore(commitIndex, 1, follower.membership), false);
  assert.equal(follower.restore(commitIndex - 1, 1, follower.membership), false);
  assert.equal(follower.log.lastIndex, leader.raft.log.lastIndex);
  const known = (): unknown => {
    const fields = Object.entries(leader.raft.memberOf(2)!).filter(([name]) => name !== 'limits');
    return structuredClone(Object.fromEntries(fields));
  };
  const before = known();
  leader.raft.reportSnapshot(2, true, 1);
  assert.deepEqual(known(), before);
});

test('scenario 58: a change of leader drops the reads that wait, each once', () => {
  const cluster = new RaftCluster(3);
  const old = cluster.elect(1);
  cluster.isolate(1);
  old.raft.readIndex(7);
  old.work();
  cluster.settle();
  assert.deepEqual(old.served, []);
  cluster.node(2).raft.campaign();
  cluster.run(80);
  cluster.heal();
  cluster.run(40);
  assert.deepEqual(old.served, [], 'a deposed leader answered a read');
  assert.deepEqual(old.droppedReads, [7]);
});

test('scenario 60: no read rests on a lease: a leader that was heard by all a moment ago asks a majority again', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  cluster.run(3);
  cluster.isolate(1);
  leader.raft.readIndex(7);
  leader.work();
  cluster.run(1);
  assert.equal(leader.raft.role, 'leader', 'its lease has not run out');
  assert.deepEqual(leader.served, []);
  cluster.heal();
  cluster.run(6);
  assert.deepEqual(
    leader.served.map(({ context }) => context),
    [7],
  );
});
