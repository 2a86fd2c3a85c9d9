/** What a host and its shards can tell about themselves: plain values, made on demand. */
import type { Engine } from './engine/engine.ts';
import { countOf } from './engine/incarnation.ts';
import type { Replica, ReplicaStatus } from './engine/replica.ts';
import type { DrakkarError } from './errors.ts';
import type { Role } from './raft/raft.ts';
import type { HostIdentity } from './transport/transport.ts';

export interface ShardInfo {
  readonly shardId: number;
  readonly replicaId: number;
  readonly state: ReplicaStatus;
  readonly failure: DrakkarError | undefined;
  readonly role: Role;
  /** 0: none known. */
  readonly leaderId: number;
  readonly term: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly durableIndex: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly snapshotIndex: number;
  readonly pendingProposals: number;
  readonly pendingReads: number;
  readonly members: Readonly<Record<number, string>>;
}

export interface PeerInfo {
  readonly address: string;
  readonly connected: boolean;
  readonly queuedBytes: number;
}

export interface HostInfo {
  readonly hostId: string;
  readonly raftAddress: string;
  readonly deploymentId: number;
  /** How often the directory was started. */
  readonly startCounter: number;
  readonly failure: DrakkarError | undefined;
  readonly shards: readonly ShardInfo[];
  readonly peers: readonly PeerInfo[];
  /** Counters of the log, by name. */
  readonly log: Readonly<Record<string, number>>;
}

export function describeShard(replica: Replica): ShardInfo {
  const { raft } = replica;
  return {
    shardId: replica.shardId,
    replicaId: replica.replicaId,
    state: replica.status,
    failure: replica.failure,
    role: raft.role,
    leaderId: raft.leaderId,
    term: raft.term,
    commitIndex: raft.commitIndex,
    appliedIndex: raft.appliedIndex,
    durableIndex: raft.durableIndex,
    firstIndex: raft.log.firstIndex,
    lastIndex: raft.log.lastIndex,
    snapshotIndex: replica.snapshotIndex,
    pendingProposals: replica.pending.count,
    pendingReads: replica.reads.count,
    members: Object.fromEntries(replica.membership.voters),
  };
}

export function describeHost(engine: Engine, identity: HostIdentity): HostInfo {
  const peers = new Map<string, PeerInfo>();
  for (const replica of engine.replicas.values()) {
    for (const peer of replica.peers) {
      if (peer === undefined) continue;
      const { address, connected, queuedBytes } = peer;
      peers.set(address, { address, connected, queuedBytes });
    }
  }
  return {
    hostId: identity.hostId,
    raftAddress: identity.raftAddress,
    deploymentId: identity.deploymentId,
    startCounter: countOf(identity.startCounter),
    failure: engine.failure,
    shards: [...engine.replicas.values()].map(describeShard),
    peers: [...peers.values()],
    log: { ...engine.log.counters, pendingBytes: engine.log.pendingBytes },
  };
}
