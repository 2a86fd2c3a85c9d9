/** What a host and its shards can tell about themselves: plain values, made on demand. */
import type { Engine } from './engine/engine.ts';
import { countOf } from './engine/incarnation.ts';
import { describeMembership, type MembershipInfo } from './engine/membership.ts';
import type { Replica, ReplicaStatus } from './engine/replica.ts';
import type { DrakkarError } from './errors.ts';
import { MemberState } from './raft/member.ts';
import type { Role } from './raft/raft.ts';
import type { StateMachineKind } from './rsm/state-machine.ts';
import type { HostIdentity, Peer } from './transport/transport.ts';
import { UNKNOWN_MEMBERSHIP } from './wire/membership.ts';
import { FORMAT_OLDEST } from './wire/formats.ts';

/** How far a member is, as this leader knows it. */
export interface MemberProgress {
  readonly replicaId: number;
  readonly address: string | undefined;
  readonly isVoter: boolean;
  /** `probe`: where its log matches is being found out; `replicate`: entries flow; `snapshot`: it is sent one. */
  readonly state: 'probe' | 'replicate' | 'snapshot';
  /** Highest index known to be durable there. */
  readonly matchIndex: number;
  /** Entries that this replica has and it is not known to have. */
  readonly lagEntries: number;
  readonly inflightBlocks: number;
  /** Heard of within an election timeout. */
  readonly isActive: boolean;
  /** It does not vote and keeps up with the leader, so that it may be promoted. */
  readonly isCaughtUp: boolean;
  /** It lost what it had acknowledged: it counts for nothing until this term ends. */
  readonly hasRegressed: boolean;
}

export interface ShardInfo {
  readonly shardId: number;
  readonly replicaId: number;
  /** Which of the host's engines it lives in; 0 where there is one. */
  readonly engine: number;
  readonly state: ReplicaStatus;
  /** Of its state machine. */
  readonly kind: StateMachineKind;
  readonly failure: DrakkarError | undefined;
  readonly role: Role;
  /** Idle, and silent until somebody wants something. */
  readonly quiesced: boolean;
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
  /** Committed and not applied here. */
  readonly applyLagEntries: number;
  /** Bytes in the log that are not applied yet; see `maxInMemoryLogBytes`. */
  readonly unappliedBytes: number;
  /** Why proposals are refused here at the moment. */
  readonly refusing: DrakkarError | undefined;
  /** On the leader: the member that is too busy for more entries, 0 for none. */
  readonly heldBackBy: number;
  /** Change streams and leader watches that run here. */
  readonly watches: number;
  readonly sessions: number;
  /** A snapshot is taken, received or installed. */
  readonly isSnapshotting: boolean;
  /** The voters, witnesses not included. */
  readonly members: Readonly<Record<number, string>>;
  /** Index of the config change that made `members`; 0 for the initial ones. */
  readonly configChangeIndex: number;
  /** As applied here; `NodeHost.membership` asks linearizably. */
  readonly membership: MembershipInfo;
  /** On the leader: how far each other member is. Empty elsewhere. */
  readonly progress: readonly MemberProgress[];
}

/** A shard that the directory holds and that does not run here. */
export interface StoppedShardInfo {
  readonly shardId: number;
  readonly replicaId: number;
  /** Its part of the log is damaged: it cannot be started. */
  readonly failure: DrakkarError | undefined;
}

export interface PeerInfo {
  readonly address: string;
  readonly connected: boolean;
  readonly queuedBytes: number;
  /** The newest format that it reads; undefined while it is away. */
  readonly newestFormat: number | undefined;
  /** The newest format that is enabled there, as far as it has said. */
  readonly enabledFormat: number;
}

/** Numbers of formats (`enableFormat`). */
export interface FormatInfo {
  /** This release reads all from here … */
  readonly oldest: number;
  /** … to here. */
  readonly newest: number;
  /** May stand in the directory; grows. */
  readonly enabled: number;
  /** What is written now: enabled here and on every host that this one talks to. */
  readonly written: number;
}

/** Snapshots on their way; see `maxSnapshotSends` and `maxSnapshotReceives`. */
export interface SnapshotTraffic {
  readonly sending: number;
  /** Wait for their turn. */
  readonly sendsWaiting: number;
  readonly receiving: number;
  readonly receivesWaiting: number;
}

export interface HostInfo {
  readonly hostId: string;
  readonly dir: string;
  readonly raftAddress: string;
  /** `host:port` bound. */
  readonly listenAddress: string;
  readonly deploymentId: number;
  /** How often the directory was started. */
  readonly startCounter: number;
  readonly failure: DrakkarError | undefined;
  /** Milliseconds since `NodeHost.open`. */
  readonly uptimeMs: number;
  /** The disk is full: nothing is acknowledged until there is room. */
  readonly isDiskFull: boolean;
  readonly shards: readonly ShardInfo[];
  readonly stopped: readonly StoppedShardInfo[];
  readonly peers: readonly PeerInfo[];
  readonly formats: FormatInfo;
  readonly snapshots: SnapshotTraffic;
  /** Counters of the log, by name. */
  readonly log: Readonly<Record<string, number>>;
}

export function describeShard(replica: Replica): ShardInfo {
  const { raft } = replica;
  return {
    shardId: replica.shardId,
    replicaId: replica.replicaId,
    engine: replica.engine.number,
    state: replica.status,
    kind: replica.rsm.kind,
    failure: replica.failure,
    role: raft.role,
    quiesced: raft.isQuiesced,
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
    applyLagEntries: raft.commitIndex - raft.appliedIndex,
    unappliedBytes: raft.log.unappliedBytes,
    refusing: replica.heldOff,
    heldBackBy: raft.isLeader ? raft.heldBackBy : 0,
    watches: replica.knownOnlookers?.watchCount ?? 0,
    sessions: replica.rsm.sessionCount,
    isSnapshotting: replica.isSnapshotting,
    members: Object.fromEntries(replica.membership.voters),
    configChangeIndex: replica.membership.configChangeIndex,
    membership: describeMembership(replica.membership),
    progress: raft.isLeader ? progressOf(replica) : [],
  };
}

const STATE_NAMES = {
  [MemberState.Probe]: 'probe',
  [MemberState.Replicate]: 'replicate',
  [MemberState.Snapshot]: 'snapshot',
} as const;

function progressOf(replica: Replica): MemberProgress[] {
  const { raft, peers } = replica;
  const progress: MemberProgress[] = [];
  for (const [slot, member] of raft.members.entries()) {
    if (slot === raft.selfSlot) continue;
    progress.push({
      replicaId: member.replicaId,
      address: peers[slot]?.address,
      isVoter: member.isVoter,
      state: STATE_NAMES[member.state],
      matchIndex: member.matchIndex,
      lagEntries: raft.log.lastIndex - member.matchIndex,
      inflightBlocks: member.inflightBlocks,
      isActive: member.silentTicks <= raft.config.electionTicks,
      isCaughtUp: !member.isVoter && member.isCaughtUp,
      hasRegressed: member.hasRegressed,
    });
  }
  return progress;
}

/** What is left of a shard whose thread died: what only the thread knew stands at its zero. */
export function failedShard(shardId: number, replicaId: number, engine: number, failure: DrakkarError): ShardInfo {
  return {
    shardId,
    replicaId,
    kind: 'regular',
    engine,
    state: 'failed',
    failure,
    role: 'follower',
    quiesced: false,
    leaderId: 0,
    term: 0,
    commitIndex: 0,
    appliedIndex: 0,
    durableIndex: 0,
    firstIndex: 0,
    lastIndex: 0,
    snapshotIndex: 0,
    pendingProposals: 0,
    pendingReads: 0,
    applyLagEntries: 0,
    unappliedBytes: 0,
    refusing: undefined,
    heldBackBy: 0,
    watches: 0,
    sessions: 0,
    isSnapshotting: false,
    members: {},
    configChangeIndex: 0,
    membership: describeMembership(UNKNOWN_MEMBERSHIP),
    progress: [],
  };
}

/** The parts of a host as one: connections to the same host and counters are added up. */
export function mergeInfo(
  dir: string,
  identity: HostIdentity,
  parts: readonly HostInfo[],
  lost: readonly ShardInfo[],
  failure: DrakkarError | undefined,
): HostInfo {
  const peers = new Map<string, PeerInfo>();
  const log: Record<string, number> = {};
  for (const part of parts) {
    for (const peer of part.peers) addPeer(peers, peer);
    for (const [name, value] of Object.entries(part.log)) log[name] = (log[name] ?? 0) + value;
  }
  const shards = [...parts.flatMap((part) => part.shards), ...lost];
  return {
    hostId: identity.hostId,
    dir,
    raftAddress: identity.raftAddress,
    listenAddress: parts[0]?.listenAddress ?? identity.raftAddress,
    deploymentId: identity.deploymentId,
    startCounter: countOf(identity.startCounter),
    failure,
    uptimeMs: Math.max(0, ...parts.map((part) => part.uptimeMs)),
    isDiskFull: parts.some((part) => part.isDiskFull),
    stopped: parts.flatMap((part) => part.stopped),
    shards: shards.sort((a, b) => a.shardId - b.shardId),
    peers: [...peers.values()],
    formats: mergeFormats(identity, parts),
    snapshots: mergeTraffic(parts),
    log,
  };
}

/** Enabled is what any engine may have written, written what all of them may. */
function mergeFormats({ newestFormat: newest }: HostIdentity, parts: readonly HostInfo[]): FormatInfo {
  const all = parts.map(({ formats }) => formats);
  return {
    oldest: FORMAT_OLDEST,
    newest,
    enabled: Math.max(FORMAT_OLDEST, ...all.map(({ enabled }) => enabled)),
    written: Math.min(newest, ...all.map(({ written }) => written)),
  };
}

function addPeer(peers: Map<string, PeerInfo>, peer: PeerInfo): void {
  const known = peers.get(peer.address);
  if (known === undefined) {
    peers.set(peer.address, peer);
    return;
  }
  peers.set(peer.address, {
    address: peer.address,
    connected: peer.connected && known.connected,
    queuedBytes: peer.queuedBytes + known.queuedBytes,
    newestFormat: peer.newestFormat ?? known.newestFormat,
    enabledFormat: Math.min(peer.enabledFormat, known.enabledFormat),
  });
}

function mergeTraffic(parts: readonly HostInfo[]): SnapshotTraffic {
  const sum = (name: keyof SnapshotTraffic): number =>
    parts.reduce((total, { snapshots }) => total + snapshots[name], 0);
  return {
    sending: sum('sending'),
    sendsWaiting: sum('sendsWaiting'),
    receiving: sum('receiving'),
    receivesWaiting: sum('receivesWaiting'),
  };
}

export function describeHost(engine: Engine, identity: HostIdentity): HostInfo {
  const { sends } = engine.snapshots;
  const receives = engine.arrivals.places;
  const ways = new Set<Peer>();
  for (const replica of engine.replicas.values()) {
    for (const peer of replica.peers) if (peer !== undefined) ways.add(peer);
  }
  const peers = new Map<string, PeerInfo>();
  for (const way of ways) {
    const { address, connected, queuedBytes, identity: known } = way;
    const enabledFormat = engine.formats.enabledOn(way);
    addPeer(peers, { address, connected, queuedBytes, newestFormat: known?.newestFormat, enabledFormat });
  }
  return {
    hostId: identity.hostId,
    dir: engine.dir,
    raftAddress: identity.raftAddress,
    listenAddress: engine.transport.address,
    deploymentId: identity.deploymentId,
    startCounter: countOf(identity.startCounter),
    failure: engine.failure,
    uptimeMs: engine.env.clock.nowMs() - engine.startedMs,
    isDiskFull: engine.log.isFull,
    shards: [...engine.replicas.values()].map(describeShard),
    stopped: [...engine.parked].map(([shardId, { state, failure }]) => ({
      shardId,
      replicaId: state.replicaId,
      failure,
    })),
    peers: [...peers.values()],
    formats: { oldest: FORMAT_OLDEST, ...engine.formats.range, written: engine.outbound.format },
    snapshots: {
      sending: sends.takenCount,
      sendsWaiting: sends.waitingCount,
      receiving: receives.takenCount,
      receivesWaiting: receives.waitingCount,
    },
    log: { ...engine.log.counters, pendingBytes: engine.log.pendingBytes },
  };
}
