/** Elections beyond the paper: pre-vote (thesis §9.6), check-quorum and the lease it gives (§6.2), and who must not disturb whom. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Role } from '../../src/raft/raft.ts';
import { MESSAGE_REJECT, MESSAGE_TRANSFER, MessageType, type Message } from '../../src/wire/message.ts';
import { RaftCluster, messageOf, withLog, type Node } from './cluster.ts';

const PLAIN = { preVote: false, checkQuorum: false };
const rolesOf = (cluster: RaftCluster): Role[] => [...cluster.nodes.values()].map(({ raft }) => raft.role);
const termsOf = (cluster: RaftCluster): number[] => [...cluster.nodes.values()].map(({ raft }) => raft.term);
const sent = (cluster: RaftCluster, type: MessageType): Message[] =>
  cluster.parcels.flatMap(({ message }) => (message?.type === type ? [message] : []));

/** Nobody's lease holds back a vote any more. */
function forgetLeader(...nodes: Node[]): void {
  for (const { raft } of nodes) raft.electionElapsed = raft.config.electionTicks;
}

test('who leads with how many of the others away, with and without pre-vote', () => {
  for (const preVote of [false, true]) {
    for (const [size, away, leads] of [
      [1, [], true],
      [2, [2], false],
      [3, [2], true],
      [3, [2, 3], false],
      [4, [2], true],
      [4, [2, 3], false],
      [5, [2, 3], true],
      [5, [2, 3, 4], false],
    ] as const) {
      const cluster = new RaftCluster(size, 1, { preVote });
      for (const id of away) cluster.isolate(id);
      cluster.node(1).raft.campaign();
      cluster.settle();
      assert.equal(cluster.node(1).raft.role === 'leader', leads, `${size} without ${JSON.stringify(away)}`);
      // Who only asks whether it could win has not raised its term.
      if (!leads) assert.equal(cluster.node(1).raft.term, preVote ? 0 : 1);
    }
  }
});

test('every replica can become leader after every other', () => {
  for (const preVote of [false, true]) {
    const cluster = new RaftCluster(3, 1, { preVote, checkQuorum: false });
    for (const id of [1, 2, 3, 1, 3, 2]) {
      forgetLeader(...cluster.nodes.values());
      cluster.elect(id);
      assert.equal(cluster.leader!.id, id);
      assert.deepEqual(
        rolesOf(cluster).filter((role) => role === 'leader'),
        ['leader'],
      );
    }
  }
});

test('a vote is given from every role, when the request has a newer term', () => {
  for (const role of ['follower', 'pre-candidate', 'candidate', 'leader'] as const) {
    const cluster = new RaftCluster(3, 1, { checkQuorum: false, preVote: role === 'pre-candidate' });
    const node = cluster.node(1);
    if (role === 'leader') cluster.elect(1);
    else if (role !== 'follower') node.raft.campaign();
    assert.equal(node.raft.role, role);
    cluster.parcels.length = 0;
    const term = node.raft.term + 5;
    node.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term, logIndex: 9, logTerm: term - 1 }));
    node.flush();
    const [answer] = sent(cluster, MessageType.RequestVoteResponse);
    assert.deepEqual([answer.rejected, answer.term, node.raft.vote, node.raft.role], [false, term, 2, 'follower']);
  }
});

test('logs with newer, uncommitted entries are overwritten by a leader that a majority elects', () => {
  // Replica 1 led in term 1; 2 and 3 wrote entries of terms 2 and 3 that no majority has.
  const cluster = new RaftCluster(5, 1, PLAIN);
  withLog(cluster.node(1), [1], 1);
  withLog(cluster.node(2), [1], 1);
  withLog(cluster.node(3), [2], 2);
  withLog(cluster.node(4), [], 2, 3);
  withLog(cluster.node(5), [], 2, 3);
  cluster.node(1).raft.campaign();
  cluster.settle();
  assert.notEqual(cluster.node(1).raft.role, 'leader', 'its term had been used');
  cluster.node(1).raft.campaign();
  cluster.settle();
  assert.equal(cluster.node(1).raft.role, 'leader');
  assert.equal(cluster.node(1).raft.term, 3);
  cluster.run(5);
  for (const node of cluster.nodes.values()) assert.deepEqual(node.terms(), [1, 3]);
});

test('two candidates that cannot hear each other: the one with the longer log wins in the end', () => {
  for (const preVote of [false, true]) {
    const cluster = new RaftCluster(3, 1, { preVote, checkQuorum: false });
    cluster.cutOneWay(1, 3);
    cluster.cutOneWay(3, 1);
    cluster.elect(1);
    cluster.node(3).raft.campaign();
    cluster.settle();
    // Replica 2 has an entry more than 3 and refuses it.
    assert.notEqual(cluster.node(3).raft.role, 'leader');
    cluster.heal();
    cluster.run(40);
    assert.equal(new Set([...cluster.nodes.values()].map(({ raft }) => raft.leaderId)).size, 1);
    assert.notEqual(cluster.leader!.id, 0);
    if (preVote) assert.equal(cluster.leader!.id, 1, 'the loser did not disturb');
  }
});

test('pre-vote: a majority that says no ends the attempt without a new term; votes that are split elect later', () => {
  const cluster = new RaftCluster(3, 1, { checkQuorum: false });
  cluster.elect(1);
  const { term } = cluster.node(3).raft;
  withLog(cluster.node(3), [], term);
  const behind = cluster.node(3);
  behind.raft.campaign();
  assert.equal(behind.raft.role, 'pre-candidate');
  cluster.settle();
  assert.equal(behind.raft.role, 'follower');
  assert.equal(behind.raft.term, term);
  // Two at once: neither term nor leader is lost for ever.
  const split = new RaftCluster(3, 3);
  split.isolate(1);
  for (const id of [2, 3]) split.node(id).raft.campaign();
  split.settle();
  split.run(60);
  assert.notEqual(split.leader, undefined);
});

test('pre-vote: an answer of yes counts for the term that was asked for, and for no other', () => {
  const cluster = new RaftCluster(3);
  const node = cluster.node(1);
  node.raft.campaign();
  for (const term of [0, 2, 7]) {
    node.raft.step(messageOf({ type: MessageType.RequestPreVoteResponse, from: 2, term }));
    assert.equal(node.raft.role, 'pre-candidate');
  }
  node.raft.step(messageOf({ type: MessageType.RequestPreVoteResponse, from: 2, term: 1 }));
  assert.equal(node.raft.role, 'candidate');
});

test('pre-vote: what was said to the pre-candidate does not elect the candidate', () => {
  const cluster = new RaftCluster(3);
  const node = cluster.node(1);
  node.raft.campaign();
  node.raft.step(messageOf({ type: MessageType.RequestPreVoteResponse, from: 2, term: 1 }));
  assert.equal(node.raft.role, 'candidate');
  node.raft.step(messageOf({ type: MessageType.RequestPreVoteResponse, from: 3, term: 2 }));
  assert.equal(node.raft.role, 'candidate');
  node.flush();
  assert.equal(node.raft.role, 'candidate', 'its own vote alone');
  node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from: 3, term: 1 }));
  assert.equal(node.raft.role, 'leader');
});

test('pre-vote: asking gives away neither vote nor term, and leaves election timers alone', () => {
  const cluster = new RaftCluster(3, 1, { checkQuorum: false });
  const node = cluster.node(1);
  withLog(node, [1], 2, 3);
  node.raft.electionElapsed = 5;
  node.raft.step(messageOf({ type: MessageType.RequestPreVote, from: 2, term: 9, logIndex: 4, logTerm: 2 }));
  node.flush();
  const [answer] = sent(cluster, MessageType.RequestPreVoteResponse);
  assert.equal(answer.rejected, false);
  assert.deepEqual([node.raft.term, node.raft.vote, node.raft.electionElapsed], [2, 3, 5]);
});

test('a request for votes leaves the election timer alone, unless the vote is given', () => {
  const cluster = new RaftCluster(3, 1, PLAIN);
  const node = cluster.node(1);
  withLog(node, [1, 1], 1);
  node.raft.electionElapsed = 7;
  // A hopeless candidate with a newer term: were the timer set back each time, it would keep this one from ever campaigning.
  node.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 5, logIndex: 1, logTerm: 1 }));
  assert.equal(node.raft.electionElapsed, 7);
  node.raft.step(messageOf({ type: MessageType.RequestVote, from: 3, term: 5, logIndex: 2, logTerm: 1 }));
  assert.equal(node.raft.electionElapsed, 0);
});

test('check-quorum: with answers of a majority a leader stays, however long', () => {
  const cluster = new RaftCluster(5);
  const leader = cluster.elect(1);
  cluster.isolate(4);
  cluster.isolate(5);
  cluster.run(100);
  assert.equal(leader.raft.role, 'leader');
  cluster.isolate(3);
  cluster.run(25);
  assert.equal(leader.raft.role, 'follower');
});

test('check-quorum: a vote is refused while a leader was heard of within an election timeout, and given after', () => {
  const cluster = new RaftCluster(3, 1, { preVote: false });
  cluster.elect(1);
  const candidate = cluster.node(3);
  candidate.raft.campaign();
  cluster.settle();
  assert.equal(cluster.node(1).raft.role, 'leader');
  assert.equal(cluster.node(2).raft.vote, 1);
  cluster.isolate(1);
  forgetLeader(cluster.node(2));
  candidate.raft.campaign();
  cluster.settle();
  assert.equal(candidate.raft.role, 'leader');
});

test('check-quorum without pre-vote: whoever comes back with a higher term unseats the leader once, and then follows', () => {
  const cluster = new RaftCluster(3, 1, { preVote: false });
  cluster.elect(1);
  cluster.isolate(3);
  for (let i = 0; i < 60; i++) {
    cluster.node(3).tick();
    cluster.node(3).flush();
    cluster.node(1).tick();
    cluster.node(2).tick();
    cluster.settle();
  }
  assert.ok(cluster.node(3).raft.term > cluster.node(1).raft.term);
  cluster.heal();
  cluster.run(60);
  assert.equal(new Set(termsOf(cluster)).size, 1);
  assert.ok(cluster.leader !== undefined);
});

test('check-quorum with pre-vote: whoever comes back disturbs nobody', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.elect(1);
  const { term } = leader.raft;
  cluster.isolate(3);
  cluster.run(80);
  cluster.heal();
  cluster.run(40);
  assert.deepEqual(termsOf(cluster), [term, term, term]);
  assert.equal(cluster.leader!.id, 1);
});

test('a vote on behalf of a leader that hands over is given in spite of the lease', () => {
  const cluster = new RaftCluster(3);
  cluster.elect(1);
  const voter = cluster.node(2);
  cluster.parcels.length = 0;
  voter.raft.step(
    messageOf({
      type: MessageType.RequestVote,
      from: 3,
      to: 2,
      term: 2,
      logIndex: 1,
      logTerm: 1,
      flags: MESSAGE_TRANSFER,
    }),
  );
  voter.flush();
  assert.equal(sent(cluster, MessageType.RequestVoteResponse)[0]?.rejected, false);
});

test('a replica with a lower term takes part in elections as any other', () => {
  const cluster = new RaftCluster(3);
  cluster.isolate(3);
  cluster.elect(1);
  cluster.node(1).raft.transferLeader(2);
  cluster.run(3);
  assert.equal(cluster.leader!.id, 2);
  cluster.heal();
  cluster.isolate(2);
  cluster.run(80);
  assert.ok([1, 3].includes(cluster.leader!.id));
  assert.equal(cluster.node(1).raft.term, cluster.node(3).raft.term);
});

test('a refusal with a higher term makes a candidate, or a leader, a follower of that term', () => {
  for (const role of ['pre-candidate', 'candidate'] as const) {
    const cluster = new RaftCluster(3, 1, { preVote: role === 'pre-candidate' });
    const node = cluster.node(1);
    node.raft.campaign();
    const type = role === 'candidate' ? MessageType.RequestVoteResponse : MessageType.RequestPreVoteResponse;
    node.raft.step(messageOf({ type, from: 2, term: 8, flags: MESSAGE_REJECT }));
    assert.deepEqual([node.raft.role, node.raft.term, node.raft.vote], ['follower', 8, 0]);
  }
});

test('the answers of one voter count once, and its first is what counts', () => {
  const cluster = new RaftCluster(5, 1, PLAIN);
  const node = cluster.node(1);
  node.raft.campaign();
  node.flush();
  for (let i = 0; i < 5; i++) node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from: 2, term: 1 }));
  assert.equal(node.raft.role, 'candidate');
  node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from: 3, term: 1, flags: MESSAGE_REJECT }));
  node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from: 3, term: 1 }));
  assert.equal(node.raft.role, 'candidate');
});

test('a response that carries another term than the candidate’s grants nothing', () => {
  const cluster = new RaftCluster(3, 1, PLAIN);
  const node = cluster.node(1);
  withLog(node, [1], 3);
  node.raft.campaign();
  node.flush();
  node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from: 2, term: 3 }));
  assert.equal(node.raft.role, 'candidate');
  // A higher one is a newer term, whatever it says: it is followed, and elects nobody.
  node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from: 2, term: 9 }));
  assert.deepEqual([node.raft.role, node.raft.term], ['follower', 9]);
});

test('a lone voter leads without asking anybody, once its vote is durable', () => {
  for (const preVote of [false, true]) {
    const cluster = new RaftCluster(1, 1, { preVote });
    cluster.run(21);
    assert.equal(cluster.leader?.id, 1);
    assert.equal(cluster.node(1).raft.commitIndex, 1);
  }
});

test('who installs a snapshot, or whose disk stands still, does not campaign', () => {
  const cluster = new RaftCluster(3);
  const node = cluster.node(1);
  node.raft.isInstalling = true;
  node.tick(40);
  assert.equal(node.raft.role, 'follower');
  node.raft.isInstalling = false;
  node.raft.saveState();
  node.tick(40);
  assert.equal(node.raft.role, 'pre-candidate', 'the disk has an election timeout to answer');
  const stuck = cluster.node(2);
  stuck.raft.saveState();
  stuck.raft.stallTicks = 10;
  stuck.tick(60);
  assert.equal(stuck.raft.role, 'follower');
});
