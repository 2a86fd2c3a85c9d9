/** Checks of what callers give: a table of rules for each kind of options, and what must hold between them. */
import {
  DEFAULTS,
  type NodeHostOptions,
  type ReplicaOptions,
  type CallOptions,
  type SnapshotOptions,
  type ProposeOptions,
  type LogQueryOptions,
  type WatchOptions,
  type LeaderWatchOptions,
  type MembershipOptions,
  type RemoveDataOptions,
  type AddReplicaOptions,
} from './config.ts';
import {
  type Rule,
  isInteger,
  isBoolean,
  isFunction,
  isObject,
  isText,
  isAddress,
  isLogger,
  isCodecs,
  isTarget,
  isMembersOrJoin,
  isHostPort,
  required,
  MAX_ID,
  check,
  show,
} from './option-rules.ts';
import { DrakkarError } from './errors.ts';
import {
  IN_MEMORY_LOG_BYTES_MIN,
  LOG_QUERY_BYTES_MAX,
  LOG_QUERY_ENTRIES_MAX,
  SNAPSHOTS_AT_ONCE_MAX,
  SNAPSHOT_BYTES_PER_SECOND_MIN,
  WATCH_BUFFER_BYTES_MAX,
} from './engine/limits.ts';
import type { Env } from './env/env.ts';
import { FORMAT_NEWEST, FORMAT_OLDEST, FORMAT_REHEARSAL } from './wire/formats.ts';
import { ENGINES_MAX, ENTRY_MAX_BYTES, FRAME_MAX_BYTES } from './wire/limits.ts';
import { NO_COMPRESSION, isCodecName } from './rsm/codec.ts';
import { IMAGE_BLOCK_BYTES } from './rsm/image.ts';
import type { GossipOptions } from './registry/gossip.ts';
import { META_MAX_BYTES, SEEDS_MAX } from './registry/limits.ts';
import type { ReloadTlsOptions, TlsOptions } from './transport/security.ts';
import { isHostId } from './transport/target.ts';

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

/** A format that is to be enabled on a host that reads up to `newestFormat`. */
export function checkFormat(format: number, newestFormat: number): void {
  if (format === newestFormat || isInteger(FORMAT_OLDEST, Math.min(newestFormat, FORMAT_NEWEST)).accepts(format))
    return;
  throw new DrakkarError(
    'ERR_INVALID_OPTION',
    `enableFormat: there is no format ${String(format)} that this host reads, the newest is ${newestFormat}; upgrade it first`,
  );
}
