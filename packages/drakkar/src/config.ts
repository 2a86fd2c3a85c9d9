/** Options of a host and of a replica: what they mean, their defaults, and one table that checks them. */
import { DrakkarError } from './errors.ts';
import type { Env, Logger } from './env/env.ts';
import { ADDRESS_MAX_BYTES, ENGINES_MAX, MEMBERS_MAX } from './wire/limits.ts';
import type { SlabPool } from './wire/slab.ts';
import type { LogDb } from './wal/logdb.ts';
import type { GossipOptions } from './registry/gossip.ts';
import { META_MAX_BYTES, SEEDS_MAX } from './registry/limits.ts';
import type { Registry, RegistryContext } from './registry/registry.ts';
import { isHostId } from './transport/target.ts';
import type { HostIdentity, Resolve, Transport } from './transport/transport.ts';

export interface NodeHostOptions {
  /** Directory of this host, for it alone. Made when missing. */
  readonly dir: string;
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
  /** Any pino-shaped logger. Default: silence. */
  readonly logger?: Logger;
  /** The outside world; for tests and simulation. Default: this machine. */
  readonly env?: Env;
  /** Another log database. Default: the one in `wal/`. */
  readonly logDb?: (context: { env: Env; dir: string; pool: SlabPool }) => Promise<LogDb>;
  /** Another transport. Default: TCP. */
  readonly transport?: (context: {
    env: Env;
    identity: HostIdentity;
    listenAddress: string;
    pool: SlabPool;
    resolve: Resolve;
    /** The number of the engine it is for. */
    engine: number;
  }) => Transport;
}

export interface ReplicaOptions {
  /** The shard, the same on every host. 1 or more. */
  readonly shardId: number;
  /** This host's replica of it, unique in the shard for ever. 1 or more. */
  readonly replicaId: number;
  /** Replica ids of all initial members, with their hosts' addresses (or host ids: see `gossip`). Needed at the first start, the same on every host; optional later. */
  readonly members?: Readonly<Record<number, string>>;
  /** Ticks without a leader before an election; drawn from [n, 2n). Default 50. */
  readonly electionRtt?: number;
  /** Ticks between a leader's heartbeats. Default 5. */
  readonly heartbeatRtt?: number;
  /** Ask before raising the term (thesis §9.6). Default true. */
  readonly preVote?: boolean;
  /** A leader without contact to a majority steps down (thesis §6.2). Default true. */
  readonly checkQuorum?: boolean;
  /** A snapshot is taken automatically every so many applied entries; 0 for never. Default 100,000. */
  readonly snapshotEntries?: number;
  /** Entries kept in the log behind a snapshot, for followers that lag a little. Default 10,000. */
  readonly compactionOverhead?: number;
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

function isHostPort(text: string): boolean {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):(\d{1,5})$/.exec(text);
  return match !== null && text.length <= ADDRESS_MAX_BYTES && Number(match[2]) <= 65535;
}

export const required = (rule: Rule): Rule => ({ ...rule, required: true });
const MAX_ID = Number.MAX_SAFE_INTEGER;

const HOST_RULES: Record<keyof NodeHostOptions, Rule> = {
  dir: required(isText),
  raftAddress: required(isAddress),
  listenAddress: isAddress,
  deploymentId: isInteger(1, MAX_ID),
  rttMs: isInteger(1, 10_000),
  timeoutMs: isInteger(1, 86_400_000),
  hostId: {
    allowed: '32 lower-case hex digits',
    accepts: (value) => typeof value === 'string' && isHostId(value),
  },
  gossip: isObject,
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
  members: isMembers,
  electionRtt: isInteger(2, 1_000_000),
  heartbeatRtt: isInteger(1, 100_000),
  preVote: isBoolean,
  checkQuorum: isBoolean,
  snapshotEntries: isInteger(0, MAX_ID),
  compactionOverhead: isInteger(0, MAX_ID),
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

const CALL_RULES: Record<keyof CallOptions, Rule> = {
  timeoutMs: isInteger(1, 86_400_000),
  signal: {
    allowed: 'an AbortSignal',
    accepts: (value) => typeof value === 'object' && value !== null && 'aborted' in value,
  },
};

const SNAPSHOT_RULES: Record<keyof SnapshotOptions, Rule> = { ...CALL_RULES, exportTo: isText };

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
      throw new DrakkarError('ERR_INVALID_OPTION', `${what}: ${name} is ${show(value)}; expected ${rule.allowed}`);
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

export function checkHostOptions(options: NodeHostOptions): void {
  check('NodeHost.open', options, HOST_RULES);
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
  for (const name of ['env', 'logDb', 'transport'] as const) {
    if (options[name] === undefined) continue;
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `NodeHost.open: ${name} cannot be handed to another thread; leave it out, or set engines to 1`,
    );
  }
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
  if (options.members !== undefined && !(options.replicaId in options.members)) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      `startReplica: members is ${show(options.members)}; expected replica ${options.replicaId} among them`,
    );
  }
}

export function checkCallOptions(what: string, options: CallOptions): void {
  check(what, options, CALL_RULES);
}

export function checkSnapshotOptions(options: SnapshotOptions): void {
  check('requestSnapshot', options, SNAPSHOT_RULES);
}

export const DEFAULTS = {
  deploymentId: 1,
  engines: 1,
  rttMs: 20,
  timeoutMs: 5000,
  electionRtt: 50,
  heartbeatRtt: 5,
  snapshotEntries: 100_000,
  compactionOverhead: 10_000,
} as const;
