/**
 * The Raft paper (Ongaro and Ousterhout, USENIX ATC 2014), §5.1 to §5.4.2, sentence by sentence: one test for each promise, in the
 * paper's order. Twenty-six of them, as the classic suites of Raft cores have. Without pre-vote and check-quorum, which the paper
 * does not know; a vote or acknowledgement leaves when it is durable, so that tests flush.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Role } from '../../src/raft/raft.ts';
import { MESSAGE_REJECT, MessageType, type Message } from '../../src/wire/message.ts';
import { RaftCluster, blockOf, messageOf, withLog, type Node } from './cluster.ts';

const PLAIN = { preVote: false, checkQuorum: false };
const ELECTION_TICKS = 10;

const newCluster = (size = 3, seed = 1): RaftCluster => new RaftCluster(size, seed, PLAIN);

/** Replica 1 of `size` in a role and term; the others never answer. */
function inRole(role: Role, term: number, size = 3): { cluster: RaftCluster; node: Node } {
  const cluster = newCluster(size);
  const node = cluster.node(1);
  withLog(node, [], role === 'follower' ? term : term - 1);
  if (role !== 'follower') {
    node.raft.campaign();
    node.flush();
  }
  if (role === 'leader') {
    for (let id = 2; id <= size; id++) vote(node, id);
    node.work();
  }
  assert.equal(node.raft.role, role);
  assert.equal(node.raft.term, term);
  cluster.parcels.length = 0;
  return { cluster, node };
}

const vote = (node: Node, from: number, flags = 0): void =>
  node.raft.step(messageOf({ type: MessageType.RequestVoteResponse, from, term: node.raft.term, flags }));

const acknowledge = (node: Node, from: number, logIndex: number): void => {
  node.raft.step(
    messageOf({ type: MessageType.ReplicateResponse, from, term: node.raft.term, logIndex, hintHigh: logIndex }),
  );
  node.work();
};

/** What left, of one type. */
const sent = (cluster: RaftCluster, type: MessageType): Message[] =>
  cluster.parcels.flatMap(({ message }) => (message?.type === type ? [message] : []));

const blocks = (cluster: RaftCluster) => cluster.parcels.flatMap(({ to, block }) => (block ? [{ to, block }] : []));

// §5.1

for (const [number, role] of [
  [1, 'follower'],
  [2, 'candidate'],
  [3, 'leader'],
] as const) {
  test(`paper ${number}, §5.1: a ${role} that hears of a larger term adopts it and is a follower`, () => {
    for (const speak of [
      (node: Node) => node.raft.step(messageOf({ type: MessageType.Heartbeat, from: 2, term: 5 })),
      (node: Node) =>
        node.receive({
          from: 2,
          to: 1,
          message: undefined,
          block: blockOf({ term: 5, firstIndex: 1, count: 1, senderId: 2 }),
        }),
      (node: Node) =>
        node.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 5, logIndex: 9, logTerm: 4 })),
      (node: Node) => node.raft.step(messageOf({ type: MessageType.ReplicateResponse, from: 2, term: 5 })),
    ]) {
      const { node } = inRole(role, 2);
      speak(node);
      assert.equal(node.raft.term, 5);
      assert.equal(node.raft.role, 'follower');
    }
  });
}

test('paper 4, §5.1: what comes with a stale term changes nothing', () => {
  const { cluster, node } = inRole('follower', 3);
  withLog(node, [1, 2, 3], 3);
  const before = node.terms();
  const stale = blockOf({ term: 2, prevTerm: 2, firstIndex: 3, count: 2, senderId: 2, senderTerm: 2 });
  node.receive({ from: 2, to: 1, message: undefined, block: stale });
  node.raft.step(messageOf({ type: MessageType.Heartbeat, from: 2, term: 2, commit: 3 }));
  node.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 2, logIndex: 9, logTerm: 2 }));
  node.flush();
  assert.deepEqual(node.terms(), before);
  assert.equal(node.raft.commitIndex, 0);
  assert.equal(node.raft.leaderId, 0);
  assert.equal(node.raft.vote, 0);
  const granted = sent(cluster, MessageType.RequestVoteResponse).filter(({ rejected }) => !rejected);
  assert.deepEqual(granted, []);
});

// §5.2

test('paper 5, §5.2: a server begins as a follower', () => {
  for (const node of newCluster(5).nodes.values()) assert.equal(node.raft.role, 'follower');
});

test('paper 6, §5.2: a leader sends heartbeats to all, each time the interval has passed', () => {
  const { cluster, node } = inRole('leader', 1);
  for (let i = 0; i < 4; i++) {
    cluster.parcels.length = 0;
    node.tick();
    assert.deepEqual(
      sent(cluster, MessageType.Heartbeat).map(({ to, term }) => [to, term]),
      [
        [2, 1],
        [3, 1],
      ],
    );
  }
});

for (const [number, role] of [
  [7, 'follower'],
  [8, 'candidate'],
] as const) {
  test(`paper ${number}, §5.2: a ${role} that hears nothing raises its term, votes for itself and asks the others`, () => {
    const { cluster, node } = inRole(role, 2);
    node.tick(2 * ELECTION_TICKS);
    assert.deepEqual(sent(cluster, MessageType.RequestVote), [], 'asked before its own vote was durable');
    node.flush();
    assert.equal(node.raft.role, 'candidate');
    assert.equal(node.raft.vote, 1);
    assert.ok(node.raft.term > 2);
    const asked = sent(cluster, MessageType.RequestVote).filter(({ term }) => term === node.raft.term);
    assert.deepEqual(
      asked.map(({ to }) => to),
      [2, 3],
    );
  });
}

/** Votes as they come: for, against, or none. */
const ELECTIONS: readonly (readonly [size: number, votes: readonly (boolean | undefined)[], outcome: Role])[] = [
  [1, [], 'leader'],
  [3, [true, true], 'leader'],
  [3, [true, undefined], 'leader'],
  [3, [undefined, true], 'leader'],
  [5, [true, true, true, true], 'leader'],
  [5, [true, true, undefined, undefined], 'leader'],
  [5, [true, false, true, false], 'leader'],
  // Refused by a majority: it knows that it lost.
  [3, [false, false], 'follower'],
  [5, [false, false, false, false], 'follower'],
  [5, [true, false, false, false], 'follower'],
  // Not decided.
  [3, [], 'candidate'],
  [3, [false, undefined], 'candidate'],
  [5, [true, undefined, undefined, undefined], 'candidate'],
  [5, [true, false, undefined, undefined], 'candidate'],
  [5, [false, false, undefined, undefined], 'candidate'],
];

test('paper 9, §5.2: a candidate wins with the votes of a majority, loses without, and waits meanwhile', () => {
  for (const [size, votes, outcome] of ELECTIONS) {
    const cluster = newCluster(size);
    const node = cluster.node(1);
    node.raft.campaign();
    node.flush();
    for (const [at, answer] of votes.entries()) {
      if (answer !== undefined) vote(node, at + 2, answer ? 0 : MESSAGE_REJECT);
    }
    assert.equal(node.raft.role, outcome, `${size} servers, ${JSON.stringify(votes)}`);
    assert.equal(node.raft.term, 1);
  }
});

test('paper 10, §5.2: a server votes for one candidate of a term, first come, first served, and for it again', () => {
  for (const [voted, candidate, granted] of [
    [0, 2, true],
    [0, 3, true],
    [2, 2, true],
    [3, 3, true],
    [2, 3, false],
    [3, 2, false],
  ] as const) {
    const cluster = newCluster();
    const node = cluster.node(1);
    withLog(node, [], 1, voted);
    node.raft.step(messageOf({ type: MessageType.RequestVote, from: candidate, term: 1 }));
    node.flush();
    const [answer] = sent(cluster, MessageType.RequestVoteResponse);
    assert.equal(!answer.rejected, granted, `voted for ${voted}, asked by ${candidate}`);
    assert.equal(node.raft.vote, voted || candidate);
  }
});

test('paper 11, §5.2: a candidate that hears a leader of its term, or of a later one, follows it', () => {
  for (const term of [1, 4]) {
    const { node } = inRole('candidate', 1);
    node.receive({
      from: 3,
      to: 1,
      message: undefined,
      block: blockOf({ term, firstIndex: 1, count: 1, senderId: 3 }),
    });
    assert.equal(node.raft.role, 'follower');
    assert.equal(node.raft.leaderId, 3);
    assert.equal(node.raft.term, term);
  }
});

/** Ticks after which a replica campaigns; the others are silent. */
function timeoutOf(role: 'follower' | 'candidate', node: Node): number {
  if (role === 'candidate') {
    node.raft.campaign();
    node.flush();
  }
  const { term } = node.raft;
  for (let ticks = 1; ; ticks++) {
    node.tick();
    if (node.raft.term !== term) return ticks;
  }
}

for (const [number, role] of [
  [12, 'follower'],
  [13, 'candidate'],
] as const) {
  test(`paper ${number}, §5.2: a ${role}'s election timeout is drawn anew each time, from one to two timeouts`, () => {
    const seen = new Set<number>();
    const cluster = newCluster(3, 7);
    for (let i = 0; i < 400; i++) {
      const node = cluster.node(1);
      node.crash();
      seen.add(timeoutOf(role, node));
    }
    const every = Array.from({ length: ELECTION_TICKS }, (_, i) => ELECTION_TICKS + i);
    assert.deepEqual(
      [...seen].sort((a, b) => a - b),
      every,
    );
  });
}

for (const [number, role] of [
  [14, 'follower'],
  [15, 'candidate'],
] as const) {
  test(`paper ${number}, §5.2: mostly a single ${role} times out first, so that votes are rarely split`, () => {
    let conflicts = 0;
    const rounds = 300;
    for (let round = 0; round < rounds; round++) {
      const cluster = newCluster(5, round + 1);
      const timeouts = [...cluster.nodes.values()].map((node) => timeoutOf(role, node));
      const first = Math.min(...timeouts);
      if (timeouts.filter((ticks) => ticks === first).length > 1) conflicts++;
    }
    // Five draws of ten: two share the smallest in a third of the rounds, about.
    assert.ok(conflicts < rounds * 0.5, `${conflicts} of ${rounds}`);
  });
}

// §5.3

/** A leader of three whose first entry is committed. */
function committedLeader(size = 3): { cluster: RaftCluster; node: Node } {
  const { cluster, node } = inRole('leader', 1, size);
  node.flush();
  for (let id = 2; id <= (size >>> 1) + 1; id++) acknowledge(node, id, 1);
  assert.equal(node.raft.commitIndex, 1);
  for (let id = 2; id <= size; id++) acknowledge(node, id, 1);
  cluster.parcels.length = 0;
  return { cluster, node };
}

test('paper 16, §5.3: a leader appends a command as a new entry and sends it to all, with what precedes it', () => {
  const { cluster, node } = committedLeader();
  assert.equal(node.propose(), 2);
  assert.equal(node.raft.log.lastIndex, 2);
  assert.equal(node.raft.commitIndex, 1);
  assert.deepEqual(
    blocks(cluster).map(({ to, block }) => [to, block.term, block.prevTerm, block.firstIndex, block.count]),
    [
      [2, 1, 1, 2, 1],
      [3, 1, 1, 2, 1],
    ],
  );
});

test('paper 17, §5.3: an entry is committed once a majority has it, applied, and the others are told', () => {
  const { cluster, node } = committedLeader();
  const index = node.propose();
  node.flush();
  cluster.parcels.length = 0;
  acknowledge(node, 2, index);
  assert.equal(node.raft.commitIndex, index);
  assert.equal(node.raft.appliedIndex, index);
  assert.deepEqual(
    sent(cluster, MessageType.Heartbeat).map(({ to, commit }) => [to, commit]),
    [[2, index]],
    'told to who has it; the others hear it with the next entries or heartbeat',
  );
});

test('paper 18, §5.3: which sets of acknowledgements commit an entry', () => {
  for (const [size, acks, isCommitted] of [
    [1, [], true],
    [3, [], false],
    [3, [2], true],
    [3, [2, 3], true],
    [5, [], false],
    [5, [2], false],
    [5, [2, 3], true],
    [5, [2, 3, 4], true],
    [5, [2, 3, 4, 5], true],
  ] as const) {
    const { node } = committedLeader(size);
    const index = node.propose();
    node.flush();
    for (const id of acks) acknowledge(node, id, index);
    assert.equal(node.raft.commitIndex >= index, isCommitted, `${size} servers, ${JSON.stringify(acks)}`);
  }
});

test('paper 19, §5.3: with an entry all that precede it are committed, also those of earlier leaders', () => {
  for (const terms of [[], [2], [1, 2], [1]]) {
    const cluster = newCluster();
    const node = cluster.node(1);
    withLog(node, terms, 2);
    node.raft.campaign();
    node.flush();
    vote(node, 2);
    node.work();
    const index = node.propose();
    node.flush();
    assert.equal(node.raft.commitIndex, 0);
    acknowledge(node, 2, index);
    assert.equal(node.raft.commitIndex, terms.length + 2, JSON.stringify(terms));
    assert.equal(node.raft.appliedIndex, terms.length + 2);
  }
});

test('paper 20, §5.3: a follower applies, in order, what it hears to be committed, as far as it has it', () => {
  for (const commitIndex of [0, 1, 2, 3]) {
    const { node } = inRole('follower', 1);
    const block = blockOf({ term: 1, firstIndex: 1, count: 2, senderId: 2, commitIndex });
    node.receive({ from: 2, to: 1, message: undefined, block });
    assert.equal(node.raft.appliedIndex, 0, 'applied before it was durable');
    node.flush();
    assert.equal(node.raft.commitIndex, Math.min(commitIndex, 2));
    assert.equal(node.raft.appliedIndex, Math.min(commitIndex, 2));
  }
});

test('paper 21, §5.3: a follower refuses entries whose predecessor it does not have, and says where to try', () => {
  for (const [previous, prevTerm, refused, hint] of [
    [0, 0, false, 0],
    [1, 1, false, 0],
    [2, 2, false, 0],
    // Another term there: the last own entry that the leader may have.
    [1, 2, true, 1],
    // Beyond the end.
    [3, 3, true, 2],
  ] as const) {
    const cluster = newCluster();
    const node = cluster.node(1);
    withLog(node, [1, 2], 2, 0, 0);
    const block = blockOf({
      term: 4,
      prevTerm,
      firstIndex: previous + 1,
      count: 1,
      senderId: 2,
      senderTerm: 4,
    });
    node.receive({ from: 2, to: 1, message: undefined, block });
    node.flush();
    const refusals = sent(cluster, MessageType.ReplicateResponse).filter(({ rejected }) => rejected);
    assert.equal(refusals.length === 1, refused, `previous ${previous} of term ${prevTerm}`);
    if (refused) {
      assert.equal(refusals[0].logIndex, previous);
      assert.equal(refusals[0].hint, hint);
    }
  }
});

test('paper 22, §5.3: a follower replaces what conflicts and everything behind it, and keeps what matches', () => {
  for (const [previous, prevTerm, terms, expected] of [
    [2, 2, [3], [1, 2, 3]],
    [1, 1, [3, 4], [1, 3, 4]],
    [0, 0, [1], [1, 2]],
    [0, 0, [3], [3]],
    [0, 0, [1, 2], [1, 2]],
    [1, 1, [2], [1, 2]],
  ] as const) {
    const node = newCluster().node(1);
    withLog(node, [1, 2], 2);
    for (const [at, term] of terms.entries()) {
      const block = blockOf({
        term,
        prevTerm: at === 0 ? prevTerm : terms[at - 1],
        firstIndex: previous + 1 + at,
        count: 1,
        senderId: 2,
        senderTerm: 5,
      });
      node.receive({ from: 2, to: 1, message: undefined, block });
    }
    node.flush();
    assert.deepEqual(node.terms(), expected, `${JSON.stringify(terms)} behind ${previous}`);
    node.crash();
    assert.deepEqual(node.terms(), expected, 'after a restart');
  }
});

test('paper 23, §5.3, figure 7: a leader makes the log of every follower its own', () => {
  const leaderLog = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
  const followers: readonly (readonly number[])[] = [
    [1, 1, 1, 4, 4, 5, 5, 6, 6],
    [1, 1, 1, 4],
    [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    [1, 1, 1, 4, 4, 4, 4],
    [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
  ];
  for (const log of followers) {
    const cluster = newCluster();
    withLog(cluster.node(1), leaderLog, 7);
    withLog(cluster.node(2), log, 7);
    // The third, who may vote for the leader whatever the second has.
    withLog(cluster.node(3), [1], 7);
    cluster.elect(1);
    cluster.run(6);
    assert.deepEqual(cluster.node(2).terms(), cluster.node(1).terms(), JSON.stringify(log));
    assert.deepEqual(cluster.node(2).terms(), [...leaderLog, 8]);
  }
});

// §5.4

test('paper 24, §5.4.1: a request for votes names the candidate’s term and last entry, and goes to everybody else', () => {
  for (const terms of [[1], [1, 2], [1, 2, 2]]) {
    const cluster = newCluster(5);
    const node = cluster.node(1);
    withLog(node, terms, 3);
    node.tick(2 * ELECTION_TICKS);
    node.flush();
    const asked = sent(cluster, MessageType.RequestVote).filter(({ term }) => term === node.raft.term);
    assert.deepEqual(
      asked.map(({ to, logIndex, logTerm }) => [to, logIndex, logTerm]),
      [2, 3, 4, 5].map((to) => [to, terms.length, terms[terms.length - 1]]),
    );
  }
});

test('paper 25, §5.4.1: a voter refuses a candidate whose log is less up to date than its own', () => {
  for (const [own, logTerm, logIndex, granted] of [
    // The same last term: the longer log is newer.
    [[1], 1, 1, true],
    [[1], 1, 2, true],
    [[1, 1], 1, 1, false],
    // A later last term wins, whatever the length.
    [[1], 2, 1, true],
    [[1], 2, 2, true],
    [[1, 1], 2, 1, true],
    [[2], 1, 1, false],
    [[2], 1, 2, false],
  ] as const) {
    const cluster = newCluster();
    const node = cluster.node(1);
    withLog(node, own, 2);
    node.raft.step(messageOf({ type: MessageType.RequestVote, from: 2, term: 3, logIndex, logTerm }));
    node.flush();
    const [answer] = sent(cluster, MessageType.RequestVoteResponse);
    assert.equal(!answer.rejected, granted, `${JSON.stringify(own)}: ${logIndex} of term ${logTerm}`);
  }
});

test('paper 26, §5.4.2: only entries of the leader’s own term are committed by counting copies', () => {
  for (const [acknowledged, commitIndex] of [
    [1, 0],
    [2, 0],
    [3, 3],
    [4, 4],
  ] as const) {
    const cluster = newCluster();
    const node = cluster.node(1);
    withLog(node, [1, 2], 2);
    node.raft.campaign();
    node.flush();
    vote(node, 2);
    node.work();
    node.propose();
    node.flush();
    acknowledge(node, 2, acknowledged);
    assert.equal(node.raft.commitIndex, commitIndex, `acknowledged ${acknowledged}`);
  }
});
