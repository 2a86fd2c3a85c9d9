/** Options of a host and of a replica: what they mean, and their defaults. */
import { SNAPSHOTS_AT_ONCE } from './engine/limits.ts';
import type { Env, Logger } from './env/env.ts';
import type { MemberRole } from './wire/config-change.ts';
import type { FormatRange } from './wire/formats.ts';
import { ENTRY_MAX_BYTES } from './wire/limits.ts';
import type { SlabPool } from './wire/slab.ts';
import type { SnapshotCodec } from './rsm/codec.ts';
import type { LogDb } from './wal/logdb.ts';
import type { GossipOptions } from './registry/gossip.ts';
import type { Registry, RegistryContext } from './registry/registry.ts';
import { PEER_QUEUE_MAX_BYTES } from './transport/limits.ts';
import type { TlsOptions } from './transport/security.ts';
import type { Transport, TransportContext } from './transport/transport.ts';

export interface NodeHostOptions {
  /** Directory of this host, for it alone. Made when missing. */
  readonly dir: string;
  /**
   * Directory for the logs alone, on a disk of its own; nobody else's. Made when missing. Decided at the first start: named at every later one,
   * and never another but the same directory at another path. Default: the logs are in `dir`.
   */
  readonly walDir?: string;
  /** `host:port` that the other hosts reach this one at. Part of the directory's identity. */
  readonly raftAddress: string;
  /** `host:port` to listen at. Default: `raftAddress`. */
  readonly listenAddress?: string;
  /** Hosts of other deployments are refused. Default 1. */
  readonly deploymentId?: number;
  /** Length of a tick in milliseconds; timeouts of replicas are counted in it. Default 20. */
  readonly rttMs?: number;
  /** Default timeout of calls, in milliseconds. Default 5000. */
  readonly timeoutMs?: number;
  /** 32 hex digits that this host goes by for ever. Default: random, made with the directory. */
  readonly hostId?: string;
  /** Bytes that wait to be sent to one other host; what comes on top is dropped, and the protocol sends it again. Default 64 MiB, at least 24 MiB. */
  readonly maxSendQueueBytes?: number;
  /** Bytes received that wait for the log; above it no connection is read until half of them are written. Default 16 MiB, at least 1 MiB. */
  readonly maxReceiveQueueBytes?: number;
  /**
   * Bytes per second that all snapshots to other hosts together may take, at least 4 KiB; messages and entries are not counted and not held up.
   * Default: no bound.
   */
  readonly maxSnapshotSendBytesPerSecond?: number;
  /** The same for snapshots that come from other hosts. Default: no bound. */
  readonly maxSnapshotReceiveBytesPerSecond?: number;
  /** Snapshots that are sent at the same time, of all shards; the others wait for their turn. Default 16, at most 64. */
  readonly maxSnapshotSends?: number;
  /** Snapshots that are received and installed at the same time; the others wait for their turn. Default 16, at most 64. */
  readonly maxSnapshotReceives?: number;
  /** Codecs for snapshots besides zstd, by their names; see `snapshotCompression`. */
  readonly snapshotCodecs?: readonly SnapshotCodec[];
  /** Hosts find one another by host id, so that their addresses may change: members are named by host ids then. */
  readonly gossip?: GossipOptions;
  /** Another way to find hosts by what members name them by. Instead of `gossip`. */
  readonly registry?: (context: RegistryContext) => Registry;
  /**
   * Engines: more than one run in threads of their own, each with its shards, log and sockets, and state machines are named by module
   * then. May change between starts, and differ between hosts. Default 1: everything in this thread.
   */
  readonly engines?: number;
  /** Ports of engines 1, 2, … to listen at. Default: free ones, which engine 0 tells the other hosts. */
  readonly enginePorts?: readonly number[];
  /** Certificates: every connection between hosts proves by them who it is. Default: plain connections, for trusted networks only. */
  readonly tls?: TlsOptions;
  /**
   * This host behaves as a release does whose newest format this is: it reads and enables none above it. Lower than the newest, it is an
   * older release; `FORMAT_REHEARSAL` makes it one to come, for rehearsals of an upgrade only. Default: `FORMAT_NEWEST`.
   */
  readonly newestFormat?: number;
  /** Any pino-shaped logger. Default: silence. */
  readonly logger?: Logger;
  /** The outside world; for tests and simulation. Default: this machine. */
  readonly env?: Env;
  /** Another log database. Default: the one in `wal/`. */
  readonly logDb?: (context: { env: Env; dir: string; pool: SlabPool; formats: FormatRange }) => Promise<LogDb>;
  /** Another transport; `transportCompliance` of `drakkar/compliance` holds it to its contract. Default: TCP. */
  readonly transport?: (context: TransportContext) => Transport;
}

export interface ReplicaOptions {
  /** The shard, the same on every host. 1 or more. */
  readonly shardId: number;
  /** This host's replica of it, unique in the shard for ever. 1 or more. */
  readonly replicaId: number;
  /** Replica ids of all initial members, with their hosts' addresses (or host ids: see `gossip`). Needed at the first start, the same on every host; optional later. */
  readonly members?: Readonly<Record<number, string>> | 'join';
  /** It votes and acknowledges, has no state machine and never leads; to be added with role `witness`. Only with `members: 'join'`. Default false. */
  readonly witness?: boolean;
  /** Ticks without a leader before an election; drawn from [n, 2n). Default 50. */
  readonly electionRtt?: number;
  /** Ticks between a leader's heartbeats. Default 5. */
  readonly heartbeatRtt?: number;
  /** Ask before raising the term (thesis §9.6). Default true. */
  readonly preVote?: boolean;
  /** A leader without contact to a majority steps down (thesis §6.2). Default true. */
  readonly checkQuorum?: boolean;
  /**
   * An idle shard falls silent: after twice the election timeout without a write or read it sends no heartbeats and costs no CPU, until
   * a proposal, a read, a message or the loss of a host wakes it. Hosts watch each other instead, so that a dead leader is
   * noticed as soon as ever. Off on one replica, the whole shard stays awake. Default true.
   */
  readonly quiesce?: boolean;
  /** A snapshot is taken automatically every so many applied entries; 0 for never. Default 100,000. */
  readonly snapshotEntries?: number;
  /**
   * What snapshots made here are compressed with, files and streams: 'zstd', which is built in, or the name of one of the host's `snapshotCodecs`.
   * Every host of the shard must know it; which one it uses itself may differ. Default 'none'.
   */
  readonly snapshotCompression?: string;
  /** Bytes of a snapshot that are compressed and checked as one. Default and most 256 KiB, at least 256 bytes. */
  readonly snapshotBlockBytes?: number;
  /** Entries kept in the log behind a snapshot, for followers that lag a little. Default 10,000. */
  readonly compactionOverhead?: number;
  /**
   * Bytes of entries that may wait to be applied. A replica above it tells its leader, which then refuses proposals with
   * `ERR_SYSTEM_BUSY` until less than 70 % of it wait there. Default 64 MiB, at least 4 KiB.
   */
  readonly maxInMemoryLogBytes?: number;
  /** Bytes of a command proposed here. Default, and most: 8 MiB. */
  readonly maxPayloadBytes?: number;
}

/** Every asynchronous call takes these. */
export interface CallOptions {
  /** Milliseconds until the call gives up. Default: the host's `timeoutMs`. */
  readonly timeoutMs?: number;
  /** Gives up early; the outcome of a write is unknown then. */
  readonly signal?: AbortSignal;
}

/** What `requestSnapshot` takes besides. */
export interface SnapshotOptions extends CallOptions {
  /**
   * A directory, empty or missing, for a copy of the state: a backup, or the source of an import after a majority was lost. The log is not
   * compacted, and the copy is nobody's but yours.
   */
  readonly exportTo?: string;
  /** Entries kept in the log behind this snapshot, in place of the replica's `compactionOverhead`. */
  readonly compactionOverhead?: number;
  /**
   * The log goes up to this entry, or to the snapshot where that is less; instead of `compactionOverhead`. What was compacted before stays
   * compacted. Followers that need what is gone are sent a snapshot.
   */
  readonly compactToIndex?: number;
}

/** Options of `propose`, of a host, a handle or a session. */
export interface ProposeOptions extends CallOptions {
  /**
   * Called once with the index of the entry when it is known here to be committed: it is decided that it will be applied. Always before
   * the call is answered; not at all when it fails before that. What it throws is logged.
   */
  readonly onCommit?: (index: number) => void;
}

/** Options of `queryLog`. */
export interface LogQueryOptions extends CallOptions {
  /** First entry asked for; 1 or more. */
  readonly firstIndex: number;
  /** Last entry asked for, inclusive. Default: the last that is known here to be committed. */
  readonly lastIndex?: number;
  /** Entries given at most. Default 100,000, which is also the most. */
  readonly maxEntries?: number;
  /** Bytes given at most, each entry counted with 64 for itself; one entry is given however large. Default 4 MiB, at most 64 MiB. */
  readonly maxBytes?: number;
}

/** Options of `watch`. */
export interface WatchOptions {
  /** First entry wanted; may be one that does not exist yet. Default: the first that is committed after the call. */
  readonly fromIndex?: number;
  /** Bytes kept for a consumer that is slower than the shard; what does not fit is read from the log again. Default 1 MiB. */
  readonly bufferBytes?: number;
  /** Ends the watch with `ERR_ABORTED`. */
  readonly signal?: AbortSignal;
}

/** Options of `watchLeader`. */
export type LeaderWatchOptions = Pick<WatchOptions, 'signal'>;

/** Calls that change a shard's membership. */
export interface MembershipOptions extends CallOptions {
  /** Only if the membership is still the one with this `configChangeIndex`; otherwise `ERR_CONFIG_CHANGE_STALE`. */
  readonly configChangeIndex?: number;
}

/** What `removeData` takes. */
export interface RemoveDataOptions {
  /**
   * The operator's word that the replica is of no use any more though this host has not heard of its removal: its shard is gone for good, or it
   * was removed while this host was away. The replica must be stopped; nothing of the shard can run on this host again. For a shard that
   * still counts it as a member it is what a lost disk is: remove it there, too. Default false.
   */
  readonly evenIfMember?: boolean;
}

export interface AddReplicaOptions extends MembershipOptions {
  /** What it is to be. `voter`: counts at once, also while it catches up. Default `voter`. */
  readonly role?: MemberRole;
  /** Becomes a voter by itself once it has caught up; only with role `non-voting`. Default false. */
  readonly autoPromote?: boolean;
}

export const DEFAULTS = {
  deploymentId: 1,
  engines: 1,
  rttMs: 20,
  timeoutMs: 5000,
  maxSendQueueBytes: PEER_QUEUE_MAX_BYTES,
  maxReceiveQueueBytes: 16 * 1024 * 1024,
  maxSnapshotSends: SNAPSHOTS_AT_ONCE,
  maxSnapshotReceives: SNAPSHOTS_AT_ONCE,
  electionRtt: 50,
  heartbeatRtt: 5,
  snapshotEntries: 100_000,
  compactionOverhead: 10_000,
  maxInMemoryLogBytes: 64 * 1024 * 1024,
  maxPayloadBytes: ENTRY_MAX_BYTES,
} as const;
