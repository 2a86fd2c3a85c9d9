/**
 * How long the stages of an entry's way take. Sampled: at any time one entry and one proposal of a shard are followed, looked at once
 * a turn; so a busy shard pays a few comparisons and at most two readings of the clock a turn, and nothing for an entry.
 *
 * Knows of time what the engine's turn says, so that a duration is as exact as a turn is short.
 */
import type { Clock } from '../env/env.ts';
import type { Raft } from '../raft/raft.ts';
import { quorumOf } from '../raft/quorum.ts';
import { Histogram } from './histogram.ts';
import type { PendingRing } from './pending-ring.ts';

/** In the order of an entry's way; the histograms of one engine. */
export class Stages {
  /** From the call of `propose` on this host, leader or not, to its answer. */
  readonly propose = new Histogram();
  /** Leader: from the block that was sealed to its being durable in the own log, behind the write under way. */
  readonly append = new Histogram();
  /** One write of the log, whatever it holds. */
  readonly fsync = new Histogram();
  /** Leader: from the sealed block until so many others have it durably that with this replica they are a majority. */
  readonly replicate = new Histogram();
  /** Leader: from the sealed block to its commitment. */
  readonly commit = new Histogram();
  /** Leader: from the commitment to the end of the apply. */
  readonly apply = new Histogram();
  /** From the call of `read` to its answer, for the reads of a turn together. */
  readonly read = new Histogram();
}

/** What is being followed of one shard. */
export class StageSample {
  /** The proposal: its place among the callers that wait, -1 for none. */
  private sequence = -1;
  private askedMs = 0;
  private nextSequence: number;
  private isWaiting = false;
  /** The entry: 0 for none. */
  private index = 0;
  private term = 0;
  private sealedMs = 0;
  private committedMs = 0;
  private isDurable = false;
  private isReplicated = false;
  private isCommitted = false;

  /** Follows callers from that place on. */
  constructor(nextSequence: number) {
    this.nextSequence = nextSequence;
  }

  /** Once a turn, before proposals leave: those made since the last one began at `sinceMs` or a little later. */
  asked(pending: PendingRing, sinceMs: number): void {
    const next = pending.nextSequence;
    if (next === this.nextSequence) return;
    if (this.sequence < 0) {
      this.sequence = this.nextSequence;
      this.askedMs = sinceMs;
    }
    this.nextSequence = next;
  }

  /** The leader has given a block from `index` on to the log and to its peers. */
  sealed(index: number, term: number, nowMs: number): void {
    if (this.index !== 0) return;
    this.index = index;
    this.term = term;
    this.sealedMs = nowMs;
    this.isDurable = this.isReplicated = this.isCommitted = false;
  }

  /** At the beginning of a turn, before the apply. */
  look(raft: Raft, pending: PendingRing, nowMs: number, stages: Stages): void {
    if (this.sequence >= 0) {
      // Whoever stopped waiting without an apply got an error: that is no latency.
      this.isWaiting = pending.waits(this.sequence);
      if (!this.isWaiting) this.sequence = -1;
    }
    if (this.index === 0) return;
    if (!raft.isLeader || raft.term !== this.term) {
      this.index = 0;
      return;
    }
    const sinceMs = nowMs - this.sealedMs;
    if (!this.isDurable && raft.durableIndex >= this.index) {
      this.isDurable = true;
      stages.append.observe(sinceMs);
    }
    if (!this.isReplicated && raft.voterCount > 1 && isReplicated(raft, this.index)) {
      this.isReplicated = true;
      stages.replicate.observe(sinceMs);
    }
    if (!this.isCommitted && raft.commitIndex >= this.index) {
      this.isCommitted = true;
      this.committedMs = nowMs;
      stages.commit.observe(sinceMs);
    }
  }

  /** After the apply of a turn. */
  applied(raft: Raft, pending: PendingRing, clock: Clock, stages: Stages): void {
    if (this.index !== 0 && this.isCommitted && raft.appliedIndex >= this.index) {
      this.index = 0;
      stages.apply.observe(clock.nowMs() - this.committedMs);
    }
    if (this.sequence >= 0 && this.isWaiting && !pending.waits(this.sequence)) {
      this.sequence = -1;
      stages.propose.observe(clock.nowMs() - this.askedMs);
    }
  }
}

function isReplicated(raft: Raft, index: number): boolean {
  let others = 0;
  for (let slot = 0; slot < raft.members.length; slot++) {
    const member = raft.members[slot];
    if (slot !== raft.selfSlot && member.isVoter && member.matchIndex >= index) others++;
  }
  return others >= quorumOf(raft.voterCount) - 1;
}
