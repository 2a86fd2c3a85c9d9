/** The options of a run's hosts and replicas, as its plan has drawn them. */
import type { NodeHostOptions, ReplicaOptions } from '../config.ts';
import type { MemberRole } from '../inspect.ts';
import { SIMPLE } from './codec.ts';
import type { Plan } from './plan.ts';

/** A replica that a host is told to run. */
export interface Placement {
  readonly replicaId: number;
  readonly members: Readonly<Record<number, string>> | 'join';
  readonly witness: boolean;
  /** What it is to be added as. */
  readonly role?: MemberRole;
}

/** As every host of the run starts its replica of the shard; `isNew`: its first members are named, as most programs do at every start. */
export function replicaOptionsOf(plan: Plan, shardId: number, placement: Placement, isNew: boolean): ReplicaOptions {
  const { replicaId, members, witness } = placement;
  return {
    shardId,
    replicaId,
    ...(isNew ? { members } : {}),
    ...(witness ? { witness } : {}),
    electionRtt: plan.electionRtt,
    heartbeatRtt: plan.heartbeatRtt,
    snapshotEntries: plan.snapshotEntries,
    compactionOverhead: plan.compactionOverhead,
    snapshotCompression: plan.compressesSnapshots ? SIMPLE : 'none',
    snapshotBlockBytes: plan.snapshotBlockBytes,
    preVote: plan.preVote,
    ...(plan.maxInMemoryLogBytes === 0 ? {} : { maxInMemoryLogBytes: plan.maxInMemoryLogBytes }),
    quiesce: plan.quiesce,
  };
}

/** Bounds of snapshots on their way; a plan's 0 is for none. */
export function snapshotBoundsOf(plan: Plan): Partial<NodeHostOptions> {
  const { snapshotSendBytesPerSecond: sent, snapshotReceiveBytesPerSecond: received } = plan;
  return {
    ...(sent === 0 ? {} : { maxSnapshotSendBytesPerSecond: sent }),
    ...(received === 0 ? {} : { maxSnapshotReceiveBytesPerSecond: received }),
    maxSnapshotSends: plan.maxSnapshotSends,
    maxSnapshotReceives: plan.maxSnapshotReceives,
  };
}
