/** Seeded walks through everything that can happen to the cores: loss, repetition, reordering, crashes, slow disks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from 'drakkar/testing';
import { RaftCluster } from './cluster.ts';

const SEEDS = 300;
const STEPS = 1500;

/** What was ever seen committed: term by index. It must never change. */
function checkCommitted(cluster: RaftCluster, committed: number[], seed: number): void {
  for (const node of cluster.nodes.values()) {
    const { commitIndex, log } = node.raft;
    assert.ok(commitIndex <= log.lastIndex, `seed ${seed}: commit beyond the end of the log`);
    for (let index = 1; index <= commitIndex; index++) {
      const term = log.termAt(index)!;
      if (committed[index] === undefined) committed[index] = term;
      assert.equal(term, committed[index], `seed ${seed}: replica ${node.id} committed another entry at ${index}`);
    }
  }
}

function checkLeader(cluster: RaftCluster, committed: readonly number[], seed: number): void {
  const leader = cluster.leader;
  // Only the newest one must hold everything: an older one may not know yet that it is none.
  const newest = Math.max(...[...cluster.nodes.values()].map(({ raft }) => raft.term));
  if (leader === undefined || leader.raft.term < newest) return;
  for (let index = 1; index < committed.length; index++) {
    assert.equal(
      leader.raft.log.termAt(index),
      committed[index],
      `seed ${seed}: leader ${leader.id} misses committed ${index}`,
    );
  }
}

function checkMatching(cluster: RaftCluster, seed: number): void {
  const nodes = [...cluster.nodes.values()];
  for (const a of nodes) {
    for (const b of nodes) {
      if (a.id >= b.id) continue;
      let agree = false;
      for (let index = Math.min(a.raft.log.lastIndex, b.raft.log.lastIndex); index > 0; index--) {
        const isEqual = a.raft.log.termAt(index) === b.raft.log.termAt(index);
        if (isEqual) agree = true;
        else assert.ok(!agree, `seed ${seed}: logs ${a.id} and ${b.id} agree above ${index} and differ there`);
      }
    }
  }
}

test(`${SEEDS} walks of ${STEPS} steps keep every promise, and a healed cluster goes on`, (context) => {
  const seen = { elections: 0, crashes: 0, partitions: 0, committed: 0, lost: 0 };
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed * 7919);
    const below = (limit: number): number => random.u32() % limit;
    const size = 3 + 2 * below(2);
    const cluster = new RaftCluster(size, seed, {
      checkQuorum: below(2) === 0,
      preVote: below(2) === 0,
      maxInflightBlocks: 1 + below(8),
    });
    const committed: number[] = [];
    const lossPercent = below(30);
    const crashes = below(3) === 0 ? 0 : 1 + below(4);
    for (let step = 0; step < STEPS; step++) {
      const node = cluster.node(1 + below(size));
      const choice = below(100);
      if (choice < 50) {
        // Mostly in order, as connections are; sometimes not, as over several of them.
        const at = below(10) === 0 ? below(cluster.parcels.length || 1) : 0;
        const [parcel] = cluster.parcels.splice(at, 1);
        if (parcel !== undefined) {
          if (below(100) < lossPercent) seen.lost++;
          else {
            if (below(20) === 0) cluster.parcels.push(parcel);
            cluster.node(parcel.to).receive(parcel);
          }
        }
      } else if (choice < 72) node.tick(1 + below(4));
      else if (choice < 88) node.flush(below(node.pending.length + 1));
      else if (choice < 88 + crashes) {
        node.crash();
        seen.crashes++;
      } else if (choice < 96) {
        if (below(3) === 0) cluster.heal();
        else if (below(2) === 0) cluster.isolate(node.id);
        else cluster.cutOneWay(node.id, 1 + below(size));
        seen.partitions++;
      } else if (node.raft.canPropose && node.raft.maySpeak && node.raft.termStartIndex > 0) {
        node.propose(1 + below(3));
        node.work();
      }
      checkCommitted(cluster, committed, seed);
      if (step % 10 === 0) {
        checkLeader(cluster, committed, seed);
        checkMatching(cluster, seed);
      }
    }
    seen.elections += cluster.leaders.size;
    const before = committed.length;
    cluster.heal();
    cluster.settle();
    cluster.run(120);
    assert.ok(cluster.leader !== undefined, `seed ${seed}: a healed cluster elects nobody`);
    const index = cluster.leader.propose();
    cluster.run(10);
    for (const node of cluster.nodes.values()) {
      assert.ok(node.raft.commitIndex >= index, `seed ${seed}: replica ${node.id} does not catch up`);
    }
    checkCommitted(cluster, committed, seed);
    assert.ok(committed.length >= before);
    seen.committed += committed.length;
  }
  context.diagnostic(JSON.stringify(seen));
  for (const [what, count] of Object.entries(seen)) assert.ok(count > SEEDS, `${what}: only ${count}`);
});
