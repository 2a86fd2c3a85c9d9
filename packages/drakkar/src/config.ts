/** Options of a host and of a replica: what they mean, their defaults, and one table that checks them. */
import { DrakkarError } from './errors.ts';
import {
  IN_MEMORY_LOG_BYTES_MIN,
  LOG_QUERY_BYTES_MAX,
  LOG_QUERY_ENTRIES_MAX,
  SNAPSHOTS_AT_ONCE,
  SNAPSHOTS_AT_ONCE_MAX,
  SNAPSHOT_BYTES_PER_SECOND_MIN,
  WATCH_BUFFER_BYTES_MAX,
} from './engine/limits.ts';
import type { Env, Logger } from './env/env.ts';
import type { MemberRole } from './wire/config-change.ts';
import { FORMAT_NEWEST, FORMAT_OLDEST, FORMAT_REHEARSAL, type FormatRange } from './wire/formats.ts';
import { ADDRESS_MAX_BYTES, ENGINES_MAX, ENTRY_MAX_BYTES, FRAME_MAX_BYTES, MEMBERS_MAX } from './wire/limits.ts';
import type { SlabPool } from './wire/slab.ts';
import { CODEC_NAME_MAX, NO_COMPRESSION, isCodecName, type SnapshotCodec } from './rsm/codec.ts';
import { IMAGE_BLOCK_BYTES } from './rsm/image.ts';
import type { LogDb } from './wal/logdb.ts';
import type { GossipOptions } from './registry/gossip.ts';
import { META_MAX_BYTES, SEEDS_MAX } from './registry/limits.ts';
import type { Registry, RegistryContext } from './registry/registry.ts';
import { PEER_QUEUE_MAX_BYTES } from './transport/limits.ts';
import type { ReloadTlsOptions, TlsOptions } from './transport/security.ts';
import { isHostId } from './transport/target.ts';
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

export interface Rule {
  readonly required?: boolean;
  /** What is allowed, for the message. */
  readonly allowed: string;
  readonly accepts: (value: unknown) => boolean;
}

export const isInteger = (min: number, max: number): Rule => ({
  allowed: `a whole number from ${min} to ${max}`,
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
});
const isBoolean: Rule = { allowed: 'true or false', accepts: (value) => typeof value === 'boolean' };
export const isFunction: Rule = { allowed: 'a function', accepts: (value) => typeof value === 'function' };
export const isObject: Rule = { allowed: 'an object', accepts: (value) => typeof value === 'object' && value !== null };
export const isText: Rule = {
  allowed: 'a string that is not empty',
  accepts: (value) => typeof value === 'string' && value.length > 0 && !value.includes('\0'),
};
export const isAddress: Rule = {
  allowed: '"host:port" with a port from 0 to 65535',
  accepts: (value) => typeof value === 'string' && isHostPort(value),
};
const isLogger: Rule = {
  allowed: 'an object with debug, info, warn and error',
  accepts: (value) =>
    typeof value === 'object' &&
    value !== null &&
    ['debug', 'info', 'warn', 'error'].every(
      (level) => typeof (value as Record<string, unknown>)[level] === 'function',
    ),
};
export const isCodecs: Rule = {
  allowed: `codecs with a name each (1 to ${CODEC_NAME_MAX} of a-z, 0-9, -), compress and uncompress`,
  accepts: (value) =>
    Array.isArray(value) &&
    value.every(
      (codec: Partial<SnapshotCodec> | null) =>
        isCodecName(codec?.name) && typeof codec?.compress === 'function' && typeof codec.uncompress === 'function',
    ),
};
export const isMembers: Rule = {
  allowed: `replica ids from 1 with one distinct "host:port" or host id each, at most ${MEMBERS_MAX}`,
  accepts: (value) => {
    if (typeof value !== 'object' || value === null) return false;
    const pairs = Object.entries(value);
    return (
      pairs.length >= 1 &&
      pairs.length <= MEMBERS_MAX &&
      pairs.every(
        ([id, address]) =>
          /^[1-9]\d{0,15}$/.test(id) &&
          Number.isSafeInteger(Number(id)) &&
          typeof address === 'string' &&
          (isHostPort(address) || isHostId(address)),
      ) &&
      new Set(pairs.map(([, address]) => address)).size === pairs.length
    );
  },
};

const isTarget: Rule = {
  allowed: '"host:port" or a host id',
  accepts: (value) => typeof value === 'string' && (isHostPort(value) || isHostId(value)),
};
const isMembersOrJoin: Rule = {
  allowed: `'join', or ${isMembers.allowed}`,
  accepts: (value) => value === 'join' || isMembers.accepts(value),
};

function isHostPort(text: string): boolean {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):(\d{1,5})$/.exec(text);
  return match !== null && text.length <= ADDRESS_MAX_BYTES && Number(match[2]) <= 65535;
}

export const required = (rule: Rule): Rule => ({ ...rule, required: true });
const MAX_ID = Number.MAX_SAFE_INTEGER;

const HOST_RULES: Record<keyof NodeHostOptions, Rule> = {
  dir: required(isText),
  walDir: isText,
  raftAddress: required(isAddress),
  listenAddress: isAddress,
  deploymentId: isInteger(1, MAX_ID),
  rttMs: isInteger(1, 10_000),
  timeoutMs: isInteger(1, 86_400_000),
  maxSendQueueBytes: isInteger(FRAME_MAX_BYTES, MAX_ID),
  maxReceiveQueueBytes: isInteger(1024 * 1024, MAX_ID),
  maxSnapshotSendBytesPerSecond: isInteger(SNAPSHOT_BYTES_PER_SECOND_MIN, MAX_ID),
  maxSnapshotReceiveBytesPerSecond: isInteger(SNAPSHOT_BYTES_PER_SECOND_MIN, MAX_ID),
  maxSnapshotSends: isInteger(1, SNAPSHOTS_AT_ONCE_MAX),
  maxSnapshotReceives: isInteger(1, SNAPSHOTS_AT_ONCE_MAX),
  hostId: {
    allowed: '32 lower-case hex digits',
    accepts: (value) => typeof value === 'string' && isHostId(value),
  },
  snapshotCodecs: isCodecs,
  gossip: isObject,
  tls: isObject,
  newestFormat: {
    allowed: `a whole number from ${FORMAT_OLDEST} to ${FORMAT_NEWEST}, or ${FORMAT_REHEARSAL}`,
    accepts: (value) => value === FORMAT_REHEARSAL || isInteger(FORMAT_OLDEST, FORMAT_NEWEST).accepts(value),
  },
  registry: isFunction,
  engines: isInteger(1, ENGINES_MAX),
  enginePorts: {
    allowed: 'an array of ports from 0 to 65535',
    accepts: (value) =>
      Array.isArray(value) && value.every((port) => Number.isSafeInteger(port) && port >= 0 && port <= 65535),
  },
  logger: isLogger,
  env: isObject,
  logDb: isFunction,
  transport: isFunction,
};

const REPLICA_RULES: Record<keyof ReplicaOptions, Rule> = {
  shardId: required(isInteger(1, MAX_ID)),
  replicaId: required(isInteger(1, MAX_ID)),
  members: isMembersOrJoin,
  witness: isBoolean,
  electionRtt: isInteger(2, 1_000_000),
  heartbeatRtt: isInteger(1, 100_000),
  preVote: isBoolean,
  checkQuorum: isBoolean,
  quiesce: isBoolean,
  snapshotEntries: isInteger(0, MAX_ID),
  snapshotCompression: {
    allowed: "'none', 'zstd' or the name of one of snapshotCodecs",
    accepts: (value) => value === NO_COMPRESSION || isCodecName(value),
  },
  snapshotBlockBytes: isInteger(256, IMAGE_BLOCK_BYTES),
  compactionOverhead: isInteger(0, MAX_ID),
  maxInMemoryLogBytes: isInteger(IN_MEMORY_LOG_BYTES_MIN, MAX_ID),
  maxPayloadBytes: isInteger(1, ENTRY_MAX_BYTES),
};

const isKey = (value: unknown): boolean => value instanceof Uint8Array && value.length === 32;

const GOSSIP_RULES: Record<keyof GossipOptions, Rule> = {
  bindAddress: required(isAddress),
  advertiseAddress: isAddress,
  seeds: required({
    allowed: `at most ${SEEDS_MAX} of "host:port"`,
    accepts: (value) =>
      Array.isArray(value) &&
      value.length <= SEEDS_MAX &&
      value.every((seed) => typeof seed === 'string' && isHostPort(seed)),
  }),
  keys: required({
    allowed: 'one or more keys of 32 bytes',
    accepts: (value) => Array.isArray(value) && value.length > 0 && value.every(isKey),
  }),
  meta: {
    allowed: `text of at most ${META_MAX_BYTES} bytes`,
    accepts: (value) => typeof value === 'string' && new TextEncoder().encode(value).length <= META_MAX_BYTES,
  },
  periodMs: isInteger(10, 60_000),
};

const isPemOrPath: Rule = { ...isText, allowed: 'PEM text or the path of a file with it' };
const TLS_FILE_RULES = { ca: isPemOrPath, cert: isPemOrPath, key: isPemOrPath, crl: isPemOrPath };

const TLS_RULES: Record<keyof TlsOptions, Rule> = {
  ca: required(isPemOrPath),
  cert: required(isPemOrPath),
  key: required(isPemOrPath),
  crl: isPemOrPath,
  roles: {
    allowed: 'one or more URIs',
    accepts: (value) =>
      Array.isArray(value) && value.length > 0 && value.every((uri) => typeof uri === 'string' && URL.canParse(uri)),
  },
  connectionMaxAgeMs: isInteger(1000, 604_800_000),
  reloadIntervalMs: isInteger(0, 86_400_000),
};

const RELOAD_TLS_RULES: Record<keyof ReloadTlsOptions, Rule> = { ...TLS_FILE_RULES, disconnect: isBoolean };

const CALL_RULES: Record<keyof CallOptions, Rule> = {
  timeoutMs: isInteger(1, 86_400_000),
  signal: {
    allowed: 'an AbortSignal',
    accepts: (value) => typeof value === 'object' && value !== null && 'aborted' in value,
  },
};

const MEMBERSHIP_RULES: Record<keyof MembershipOptions, Rule> = {
  ...CALL_RULES,
  configChangeIndex: isInteger(0, MAX_ID),
};

const REMOVE_DATA_RULES: Record<keyof RemoveDataOptions, Rule> = { evenIfMember: isBoolean };

const ADD_RULES: Record<keyof AddReplicaOptions, Rule> = {
  ...MEMBERSHIP_RULES,
  role: { allowed: "'voter', 'non-voting' or 'witness'", accepts: isRole },
  autoPromote: isBoolean,
};

function isRole(value: unknown): boolean {
  return value === 'voter' || value === 'non-voting' || value === 'witness';
}

const SNAPSHOT_RULES: Record<keyof SnapshotOptions, Rule> = {
  ...CALL_RULES,
  exportTo: isText,
  compactionOverhead: isInteger(0, MAX_ID),
  compactToIndex: isInteger(0, MAX_ID),
};

const PROPOSE_RULES: Record<keyof ProposeOptions, Rule> = { ...CALL_RULES, onCommit: isFunction };

const LOG_QUERY_RULES: Record<keyof LogQueryOptions, Rule> = {
  ...CALL_RULES,
  firstIndex: required(isInteger(1, MAX_ID)),
  lastIndex: isInteger(1, MAX_ID),
  maxEntries: isInteger(1, LOG_QUERY_ENTRIES_MAX),
  maxBytes: isInteger(1, LOG_QUERY_BYTES_MAX),
};

const WATCH_RULES: Record<keyof WatchOptions, Rule> = {
  fromIndex: isInteger(1, MAX_ID),
  bufferBytes: isInteger(1024, WATCH_BUFFER_BYTES_MAX),
  signal: CALL_RULES.signal,
};

/** Never shown, not even in part, unless there is nothing in it. */
const SECRETS: ReadonlySet<string> = new Set(['key', 'keys']);

export function check(what: string, options: unknown, rules: Readonly<Record<string, Rule>>): void {
  if (typeof options !== 'object' || options === null) {
    throw new DrakkarError('ERR_INVALID_OPTION', `${what}: expected an object with options, got ${show(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (!(name in rules)) {
      const names = Object.keys(rules).join(', ');
      throw new DrakkarError('ERR_INVALID_OPTION', `${what}: there is no option ${name}; there are ${names}`);
    }
  }
  for (const [name, rule] of Object.entries(rules)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined && rule.required !== true) continue;
    if (value === undefined || !rule.accepts(value)) {
      throw new DrakkarError(
        'ERR_INVALID_OPTION',
        `${what}: ${name} is ${SECRETS.has(name) ? hide(value) : show(value)}; expected ${rule.allowed}`,
      );
    }
  }
}

function show(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  try {
    return (JSON.stringify(value) ?? String(value)).slice(0, 200);
  } catch {
    return String(value);
  }
}

function hide(value: unknown): string {
  return value === undefined || (Array.isArray(value) && value.length === 0) ? show(value) : 'something else';
}

export function checkHostOptions(options: NodeHostOptions): void {
  check('NodeHost.open', options, HOST_RULES);
  if (options.tls !== undefined) check('NodeHost.open: tls', options.tls, TLS_RULES);
  if (options.walDir === options.dir) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `NodeHost.open: walDir is ${options.dir}, which is dir; leave it out, or choose another`,
    );
  }
  if (options.gossip === undefined) return;
  check('NodeHost.open: gossip', options.gossip, GOSSIP_RULES);
  if (options.registry !== undefined) {
    throw new DrakkarError('ERR_INVALID_OPTION', 'NodeHost.open: both gossip and registry are given; expected one');
  }
}

/** What several engines need of the outside world, and cannot be given. */
export function checkThreads(options: NodeHostOptions, threads: Env['threads']): void {
  if ((options.engines ?? 1) === 1) return;
  if (threads === undefined) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `NodeHost.open: engines is ${options.engines}; this env has no threads`,
    );
  }
  if (threads.isInProcess) return;
  for (const name of ['env', 'logDb', 'transport', 'snapshotCodecs'] as const) {
    if (options[name] === undefined) continue;
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `NodeHost.open: ${name} cannot be handed to another thread; leave it out, or set engines to 1`,
    );
  }
}

export function checkReloadTlsOptions(options: ReloadTlsOptions): void {
  check('reloadTls', options, RELOAD_TLS_RULES);
}

export function checkReplicaOptions(options: ReplicaOptions): void {
  check('startReplica', options, REPLICA_RULES);
  const electionRtt = options.electionRtt ?? DEFAULTS.electionRtt;
  const heartbeatRtt = options.heartbeatRtt ?? DEFAULTS.heartbeatRtt;
  if (electionRtt <= 2 * heartbeatRtt) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `startReplica: electionRtt is ${electionRtt}; expected more than twice heartbeatRtt (${heartbeatRtt})`,
    );
  }
  const { members } = options;
  if (options.witness === true && members !== undefined && members !== 'join') {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `startReplica: witness is true and members is ${show(members)}; expected 'join': a new shard begins without witnesses`,
    );
  }
  if (members !== undefined && members !== 'join' && !(options.replicaId in members)) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `startReplica: members is ${show(members)}; expected replica ${options.replicaId} among them, or 'join' if it is to be added later`,
    );
  }
}

export function checkCallOptions(what: string, options: CallOptions): void {
  check(what, options, CALL_RULES);
}

export function checkSnapshotOptions(options: SnapshotOptions): void {
  check('requestSnapshot', options, SNAPSHOT_RULES);
  const { compactionOverhead, compactToIndex, exportTo } = options;
  if (compactionOverhead !== undefined && compactToIndex !== undefined) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      'requestSnapshot: both compactionOverhead and compactToIndex are given; expected one',
    );
  }
  if (exportTo !== undefined && (compactionOverhead ?? compactToIndex) !== undefined) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      'requestSnapshot: exportTo is given with compactionOverhead or compactToIndex; expected none: an export compacts nothing',
    );
  }
}

export function checkProposeOptions(what: string, options: ProposeOptions): void {
  check(what, options, PROPOSE_RULES);
}

export function checkLogQueryOptions(options: LogQueryOptions): void {
  check('queryLog', options, LOG_QUERY_RULES);
  const { firstIndex, lastIndex } = options;
  if (lastIndex !== undefined && lastIndex < firstIndex) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `queryLog: lastIndex is ${lastIndex}; expected firstIndex (${firstIndex}) or more`,
    );
  }
}

export function checkMembershipOptions(what: string, options: MembershipOptions): void {
  check(what, options, MEMBERSHIP_RULES);
}

export function checkRemoveDataOptions(options: RemoveDataOptions): void {
  check('removeData', options, REMOVE_DATA_RULES);
}

export function checkAddOptions(options: AddReplicaOptions): void {
  check('addReplica', options, ADD_RULES);
  if (options.autoPromote === true && options.role !== 'non-voting') {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `addReplica: autoPromote is true; expected role 'non-voting' with it, since only such a member can be promoted`,
    );
  }
}

export function checkWatchOptions(options: WatchOptions): void {
  check('watch', options, WATCH_RULES);
}

export function checkLeaderWatchOptions(options: LeaderWatchOptions): void {
  check('watchLeader', options, { signal: CALL_RULES.signal });
}

/** Of an argument that is no option. */
export function checkReplicaId(what: string, replicaId: unknown): void {
  check(what, { replicaId }, { replicaId: required(isInteger(1, MAX_ID)) });
}

export function checkTarget(what: string, address: unknown): void {
  check(what, { address }, { address: required(isTarget) });
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

/** A format that is to be enabled on a host that reads up to `newestFormat`. */
export function checkFormat(format: number, newestFormat: number): void {
  if (format === newestFormat || isInteger(FORMAT_OLDEST, Math.min(newestFormat, FORMAT_NEWEST)).accepts(format))
    return;
  throw new DrakkarError(
    'ERR_INVALID_OPTION',
    `enableFormat: there is no format ${String(format)} that this host reads, the newest is ${newestFormat}; upgrade it first`,
  );
}
