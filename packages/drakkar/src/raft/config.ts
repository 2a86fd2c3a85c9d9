/** What a replica's protocol core needs to be told. Times are in ticks; who ticks decides how long one is. */
import type { BlockRef } from '../wire/block-ref.ts';
import type { Membership } from '../wire/membership.ts';

/** The same for many shards of a host, and kept once for all of them. */
export interface RaftConfig {
  readonly replicaId: number;
  /** Election timeout; drawn anew from [n, 2n) at every change of role. */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  /** May fall silent when idle; needs somebody who tells of hosts that are lost. */
  readonly quiesce: boolean;
  /** Blocks and bytes under way to one follower before the leader waits for an acknowledgement. */
  readonly maxInflightBlocks: number;
  readonly maxInflightBytes: number;
  /** Most bytes a single catch-up send hands out for one member. */
  readonly maxSendBytes: number;
  /** Bytes of entries that may wait to be applied before the replica says that it is busy. */
  readonly maxUnappliedBytes: number;
  /** Uniform in [0, 2^32). */
  readonly random: () => number;
}

/** What the replica knew when it was last here. */
export interface RaftStart {
  readonly shardId: number;
  readonly term: number;
  readonly vote: number;
  readonly commitIndex: number;
  /** Index of the snapshot that the state machine starts from. */
  readonly appliedIndex: number;
  readonly compactedIndex: number;
  readonly compactedTerm: number;
  /** Recovered and durable. */
  readonly blocks: readonly BlockRef[];
  readonly membership: Membership;
}

export const DEFAULT_MAX_INFLIGHT_BLOCKS = 256;
export const DEFAULT_MAX_INFLIGHT_BYTES = 8 * 1024 * 1024;
export const DEFAULT_MAX_SEND_BYTES = 1024 * 1024;
