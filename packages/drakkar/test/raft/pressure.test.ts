/** Back-pressure among replicas: who is busy says so, is sent no more, and nothing gets stuck by it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isPaused } from '../../src/raft/pressure.ts';
import { MESSAGE_BUSY, MessageType } from '../../src/wire/message.ts';
import { RaftCluster, type Node, type Parcel } from './cluster.ts';

const LIMIT = 1000;

/** A cluster whose followers apply nothing unless told to; each entry has `ENTRY_BYTES`. */
const ENTRY_BYTES = 100;

function loadedCluster(): { cluster: RaftCluster; leader: Node } {
  const cluster = new RaftCluster(3, 1, { maxUnappliedBytes: LIMIT, entryBytes: ENTRY_BYTES });
  return { cluster, leader: cluster.elect(1) };
}

test('a follower that cannot apply tells its leader, which holds proposals back until less than 70 % wait', () => {
  const { cluster, leader } = loadedCluster();
  const follower = cluster.node(2);
  follower.appliesUpTo = 1;
  for (let i = 0; i < 10; i++) leader.propose();
  cluster.settle();
  assert.equal(leader.raft.heldBackBy, 0, 'at the limit, not above it');
  leader.propose();
  cluster.settle();
  assert.equal(leader.raft.heldBackBy, 2);
  cluster.run(3);
  assert.equal(leader.raft.heldBackBy, 2, 'it says so again with every answer');
  assert.equal(cluster.node(3).raft.leaderIsBusy, true, 'the other followers hear of it');
  follower.appliesUpTo = 4;
  follower.work();
  cluster.run(2);
  assert.equal(leader.raft.heldBackBy, 2, 'between the thresholds nothing changes');
  follower.appliesUpTo = 5;
  follower.work();
  cluster.run(2);
  assert.equal(leader.raft.heldBackBy, 0);
  assert.equal(cluster.node(3).raft.leaderIsBusy, false);
});

test('a busy follower is sent nothing more, and all it missed once it is not', () => {
  const { cluster, leader } = loadedCluster();
  const follower = cluster.node(2);
  follower.appliesUpTo = 1;
  for (let i = 0; i < 11; i++) leader.propose();
  cluster.settle();
  const { lastIndex } = follower.raft.log;
  for (let i = 0; i < 20; i++) leader.propose();
  cluster.run(20);
  assert.equal(follower.raft.log.lastIndex, lastIndex);
  assert.equal(leader.raft.commitIndex, 32, 'the others go on with what was taken');
  follower.appliesUpTo = Number.POSITIVE_INFINITY;
  follower.work();
  cluster.run(5);
  assert.equal(follower.raft.appliedIndex, 32);
});

test('who died busy holds back nobody', () => {
  const { cluster, leader } = loadedCluster();
  cluster.node(2).appliesUpTo = 1;
  for (let i = 0; i < 11; i++) leader.propose();
  cluster.settle();
  cluster.run(1);
  assert.equal(leader.raft.heldBackBy, 2);
  cluster.isolate(2);
  cluster.run(12);
  assert.equal(leader.raft.heldBackBy, 0);
});

test('a busy majority gets out of it, also over a change of leader', () => {
  const { cluster, leader } = loadedCluster();
  // Nothing is committed, so nothing can be applied: replica 3 takes more than it may hold, replica 2 four entries more.
  const isAck = ({ message }: Parcel): boolean => message?.type === MessageType.ReplicateResponse;
  for (let i = 0; i < 12; i++) leader.propose();
  cluster.settle(isAck);
  for (let i = 0; i < 4; i++) leader.propose();
  cluster.settle((parcel) => isAck(parcel) || (parcel.to === 3 && parcel.block !== undefined));
  cluster.isolate(1);
  cluster.parcels.length = 0;
  assert.ok(cluster.node(3).raft.log.unappliedBytes > LIMIT);
  const next = cluster.node(2);
  cluster.node(3).raft.electionElapsed = 20;
  cluster.elect(2);
  cluster.run(30);
  assert.equal(next.raft.commitIndex, 18);
  assert.equal(next.raft.heldBackBy, 0);
  assert.equal(cluster.node(3).raft.appliedIndex, 18);
});

test('entries that no leader has proven make nobody busy: they may have to be replaced before anything can be applied', () => {
  const { cluster, leader: old } = loadedCluster();
  cluster.isolate(1);
  for (let i = 0; i < 20; i++) old.propose();
  old.flush();
  cluster.run(40);
  cluster.heal();
  const flags: number[] = [];
  const next = cluster.leader!;
  assert.notEqual(next.id, 1);
  for (const node of cluster.nodes.values()) node.tick();
  cluster.settle(({ from, message }) => {
    if (from === 1 && message?.type === MessageType.HeartbeatResponse) flags.push(message.flags & MESSAGE_BUSY);
    return false;
  });
  cluster.run(10);
  assert.ok(flags.length > 0);
  assert.ok(flags.every((flag) => flag === 0));
  assert.deepEqual(old.terms(), next.terms());
});

test('a leader holds nothing back before its first own entry is committed: older ones could not be committed without it', () => {
  const cluster = new RaftCluster(3);
  const leader = cluster.node(1);
  leader.raft.campaign();
  cluster.settle(({ block }) => block !== undefined);
  assert.equal(leader.raft.role, 'leader');
  const member = leader.raft.memberOf(2)!;
  member.busyTicks = 5;
  assert.equal(isPaused(leader.raft, member), false);
  leader.work();
  cluster.settle(({ block }) => block !== undefined);
  assert.ok(leader.raft.termStartIndex > leader.raft.commitIndex);
  member.busyTicks = 5;
  assert.equal(isPaused(leader.raft, member), false);
  cluster.run(3);
  member.busyTicks = 5;
  assert.equal(isPaused(leader.raft, member), true);
});
