/**
 * Seeded walks through everything that can happen to the protocol cores of one shard: loss, repetition, reordering, crashes, disks that
 * are late. There is nothing around the cores, so that a walk takes milliseconds, and orders of events that whole hosts meet once in
 * thousands of runs are met every few walks. What is checked after every step must hold at every step. Also run by the hunt for planted
 * bugs, from a copy of the sources.
 */
import { seededRandom } from '../../src/testing.ts';
import { holds, Violation } from '../../src/sim/violation.ts';
import { RaftCluster, type Node, type Parcel } from './cluster.ts';

export const WALK_STEPS = 5000;
const LATE_MAX = 40;

export interface WalkCounters {
  elections: number;
  crashes: number;
  partitions: number;
  committed: number;
  lost: number;
  truncations: number;
  reads: number;
}

interface Asked {
  readonly node: Node;
  /** What was committed anywhere when the read was asked for. */
  readonly floor: number;
}

class Walk {
  readonly counters: WalkCounters = {
    elections: 0,
    crashes: 0,
    partitions: 0,
    committed: 0,
    lost: 0,
    truncations: 0,
    reads: 0,
  };
  private readonly cluster: RaftCluster;
  private readonly below: (limit: number) => number;
  private readonly size: number;
  private readonly lossPercent: number;
  private readonly crashes: number;
  /** What was ever seen committed: term by index. It must never change. */
  private readonly committed: number[] = [];
  private readonly reads = new Map<number, Asked>();
  /** How many answers of each replica were looked at. */
  private readonly seen = new Map<Node, number>();
  private readonly late: Parcel[] = [];
  private contexts = 0;

  constructor(seed: number) {
    const random = seededRandom(seed * 7919);
    const below = (limit: number): number => random.u32() % limit;
    this.below = below;
    this.size = 3 + 2 * below(2);
    this.cluster = new RaftCluster(this.size, seed, {
      checkQuorum: below(2) === 0,
      preVote: below(2) === 0,
      maxInflightBlocks: 1 + below(8),
    });
    this.lossPercent = below(30);
    this.crashes = below(3) === 0 ? 0 : 1 + below(3);
  }

  run(): void {
    for (let step = 0; step < WALK_STEPS; step++) {
      this.step(this.cluster.node(1 + this.below(this.size)));
      this.checkCommitted();
      this.checkReads();
      if (step % 10 > 0) continue;
      this.checkLeader();
      this.checkMatching();
    }
    this.counters.elections = this.cluster.leaders.size;
    this.heal();
    this.counters.committed = this.committed.length;
    for (const node of this.cluster.nodes.values()) this.counters.truncations += node.truncations;
  }

  private step(node: Node): void {
    const { below, counters } = this;
    const choice = below(1000);
    if (choice < 530) this.deliver();
    else if (choice < 700) node.tick(1 + below(3));
    else if (choice < 850) node.flush(below(node.pending.length + 1));
    else if (choice < 850 + this.crashes) {
      node.crash();
      counters.crashes++;
    } else if (choice < 856) this.cut(node.id);
    else if (choice < 880) this.read();
    else if (choice < 890) this.deliverLate();
    else if (node.raft.canPropose && node.raft.maySpeak && node.raft.termStartIndex > 0) {
      node.propose(1 + below(3));
      node.work();
    }
  }

  private cut(id: number): void {
    const { cluster, below } = this;
    this.counters.partitions++;
    const choice = below(3);
    if (choice === 0) cluster.cutOneWay(id, 1 + below(this.size));
    else cluster.heal();
    if (choice === 1) cluster.isolate(cluster.leader?.id ?? id);
  }

  /** Mostly in order, as connections are; sometimes not, as over several of them. */
  private deliver(): void {
    const { cluster, below } = this;
    const at = below(10) === 0 ? below(cluster.parcels.length || 1) : 0;
    const [parcel] = cluster.parcels.splice(at, 1);
    if (parcel === undefined) return;
    if (below(100) < this.lossPercent) {
      this.counters.lost++;
      return;
    }
    if (below(20) === 0) cluster.parcels.push(parcel);
    if (below(20) === 0 && this.late.length < LATE_MAX) this.late.push(parcel);
    else cluster.node(parcel.to).receive(parcel);
  }

  /** What was under way for long comes when nobody waits for it any more. */
  private deliverLate(): void {
    const [parcel] = this.late.splice(this.below(this.late.length || 1), 1);
    if (parcel !== undefined) this.cluster.node(parcel.to).receive(parcel);
  }

  /** Also of those who lead no more and do not know it yet. */
  private read(): void {
    const leaders = [...this.cluster.nodes.values()].filter(({ raft }) => raft.role === 'leader');
    const node = leaders[this.below(leaders.length || 1)];
    if (node === undefined) return;
    const context = ++this.contexts;
    this.reads.set(context, { node, floor: Math.max(0, this.committed.length - 1) });
    node.raft.readIndex(context);
    node.work();
  }

  private checkReads(): void {
    for (const node of this.cluster.nodes.values()) {
      const from = this.seen.get(node) ?? 0;
      if (node.served.length === from) continue;
      this.seen.set(node, node.served.length);
      for (const { context, index } of node.served.slice(from)) {
        // Its answer covers every read of the replica up to it.
        for (const [number, asked] of this.reads) {
          if (asked.node !== node || number > context) continue;
          this.reads.delete(number);
          this.counters.reads++;
          holds(index >= asked.floor, 'no read is stale', () => {
            return `replica ${node.id} answers at ${index} what was asked when ${asked.floor} was committed`;
          });
        }
      }
    }
  }

  private checkCommitted(): void {
    const { cluster, committed } = this;
    for (const node of cluster.nodes.values()) {
      const { commitIndex, log } = node.raft;
      holds(commitIndex <= log.lastIndex, 'the log has what is committed', () => `replica ${node.id}: ${commitIndex}`);
      for (let index = 1; index <= commitIndex; index++) {
        const term = log.termAt(index)!;
        if (committed[index] === undefined) this.commits(node, index, term);
        holds(term === committed[index], 'what is committed never changes', () => {
          return `replica ${node.id} committed an entry of term ${term} at ${index}, after one of ${committed[index]}`;
        });
      }
    }
  }

  private commits(node: Node, index: number, term: number): void {
    this.committed[index] = term;
    const having = [...this.cluster.nodes.values()].filter((each) => each.durableTermAt(index) === term);
    holds(having.length > this.size / 2, 'committed means durable on a majority', () => {
      return `entry ${index} of term ${term}, committed by ${node.id}, is durable on ${having.map(({ id }) => id).join(', ')} of ${this.size}`;
    });
  }

  private checkLeader(): void {
    const { leader } = this.cluster;
    // Only the newest one must hold everything: an older one may not know yet that it is none.
    const newest = Math.max(...[...this.cluster.nodes.values()].map(({ raft }) => raft.term));
    if (leader === undefined || leader.raft.term < newest) return;
    for (let index = 1; index < this.committed.length; index++) {
      holds(leader.raft.log.termAt(index) === this.committed[index], 'leader completeness', () => {
        return `leader ${leader.id} of term ${leader.raft.term} lacks what is committed at ${index}`;
      });
    }
  }

  private checkMatching(): void {
    const nodes = [...this.cluster.nodes.values()];
    for (const a of nodes) {
      for (const b of nodes) {
        if (a.id >= b.id) continue;
        let agree = false;
        for (let index = Math.min(a.raft.log.lastIndex, b.raft.log.lastIndex); index > 0; index--) {
          const isEqual = a.raft.log.termAt(index) === b.raft.log.termAt(index);
          if (isEqual) agree = true;
          else holds(!agree, 'log matching', () => `${a.id} and ${b.id} agree above ${index} and differ there`);
        }
      }
    }
  }

  private heal(): void {
    const { cluster } = this;
    const late = (what: string): Violation => new Violation('liveness', 'a healed cluster makes progress', what);
    cluster.heal();
    cluster.settle();
    cluster.run(120);
    if (cluster.leader === undefined) throw late('nobody is elected');
    const index = cluster.leader.propose();
    cluster.run(10);
    for (const node of cluster.nodes.values()) {
      if (node.raft.commitIndex < index) throw late(`replica ${node.id} does not catch up`);
    }
    this.checkCommitted();
    this.checkReads();
  }
}

/** Throws a `Violation`, or what the cores throw. */
export function walk(seed: number): WalkCounters {
  const run = new Walk(seed);
  run.run();
  return run.counters;
}
