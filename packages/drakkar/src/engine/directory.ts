/**
 * The host's directory: locked for one process, and with a record of whose it is. The record's start counter is raised durably
 * before the first message leaves, so that peers can tell a directory that was wiped or rolled back (design §7.5).
 *
 *     LOCK             held while the process lives
 *     identity.json    format, deployment, ids, address, start counter and those before it, checksum
 *     engine-0/wal/    the log
 *     engine-0/snapshots/<shard>/
 *     engine-1/…       where there are several
 *
 * The logs may be in a directory of their own (`wal-directory.ts`), which the identity names.
 *
 * Which engine a shard lives in is recorded by the state record that its first start writes to that engine's log, and nowhere else: one
 * truth, as durable as the shard itself.
 */
import { DrakkarError } from '../errors.ts';
import { countOf, nextStart } from './incarnation.ts';
import { checkMode, corrupt, isCount, isHex, readRecord, soundFields, writeRecord } from './record-file.ts';
import { claimWalDirectory, takeWalDirectory } from './wal-directory.ts';
import type { DirectoryLock, Env, FileSystem } from '../env/env.ts';
import type { HostIdentity } from '../transport/transport.ts';
import { FORMAT_NEWEST, FORMAT_OLDEST } from '../wire/formats.ts';
import { EARLIER_STARTS_MAX, ENGINES_MAX } from '../wire/limits.ts';

const IDENTITY_FILE = 'identity.json';

export interface IdentityRecord {
  /** The newest that may stand anywhere in the directory. */
  readonly format: number;
  readonly deploymentId: number;
  readonly hostId: string;
  /** 64 random bits as 16 hex digits, made with the directory. */
  readonly directoryId: string;
  readonly raftAddress: string;
  readonly startCounter: number;
  /** The starts before it, oldest first; no more than `EARLIER_STARTS_MAX`. */
  readonly earlierStarts: readonly number[];
  /** Engines that may hold shards: the most there ever were. */
  readonly engines: number;
  /** A start of this directory that it does not remember, but a peer does: it was rolled back and is of no use any more. */
  readonly rolledBackFrom: number;
  /** Where its logs are; absent: inside of it. */
  readonly walDir?: string;
}

export interface EnginePaths {
  readonly number: number;
  readonly walDir: string;
  readonly snapshotsDir: string;
}

export interface HostDirectory {
  readonly identity: HostIdentity;
  /** Engines that may hold shards, by number: all of them must run, on however many threads. */
  readonly engines: readonly EnginePaths[];
  /** The newest format that may stand in it. */
  readonly format: number;
  /** From now on, for ever, a newer one may. */
  enableFormat(format: number): Promise<void>;
  /** Remembers for ever that the directory was rolled back. */
  condemn(newestStart: number): Promise<void>;
  release(): Promise<void>;
}

/** What a host says it is. */
export interface DirectoryOwner {
  readonly deploymentId: number;
  readonly raftAddress: string;
  /** Default: the one that the directory was made with, or a random one. */
  readonly hostId: string | undefined;
  /** Others find this host by its id, so that its address may be another one at every start. */
  readonly mayMove: boolean;
  /** The newest format that it reads. Default: that of this release. */
  readonly newestFormat?: number | undefined;
  /** A directory for the logs alone. Default: they are in the host's. */
  readonly walDir?: string | undefined;
}

/** Locks and checks the directory, making it when it is missing, and raises its start counter. */
export async function openDirectory(
  env: Env,
  dir: string,
  owner: DirectoryOwner,
  engineCount = 1,
): Promise<HostDirectory> {
  const { deploymentId, raftAddress, newestFormat = FORMAT_NEWEST, walDir } = owner;
  await env.fs.makeDirectory(dir);
  await checkMode(env.fs, dir, 0o077);
  const lock = await takeLock(env.fs, dir);
  let walLock: DirectoryLock | undefined;
  const release = async (): Promise<void> => {
    await walLock?.release();
    await lock.release();
  };
  try {
    const known = await readIdentity(env.fs, dir, newestFormat);
    if (known !== undefined) checkIdentity(dir, known, owner);
    walLock = await takeWalDirectory(env.fs, dir, walDir, known, (path) => takeLock(env.fs, path));
    let record: IdentityRecord = {
      format: known?.format ?? FORMAT_OLDEST,
      deploymentId,
      hostId: known?.hostId ?? owner.hostId ?? randomHex(env, 4),
      directoryId: known?.directoryId ?? randomHex(env, 2),
      raftAddress,
      startCounter: nextStart(known?.startCounter ?? 0, env.random),
      earlierStarts: known === undefined ? [] : [...known.earlierStarts, known.startCounter].slice(-EARLIER_STARTS_MAX),
      engines: known?.engines ?? 1,
      rolledBackFrom: 0,
      ...(walDir === undefined ? {} : { walDir }),
    };
    if (walDir !== undefined) await claimWalDirectory(env.fs, walDir, record);
    // One after the other: each is a change of the one before.
    let writing = writeRecord(env.fs, dir, IDENTITY_FILE, record);
    const change = (fields: Partial<IdentityRecord>): Promise<void> => {
      writing = writing
        .catch(() => {})
        .then(async () => {
          await writeRecord(env.fs, dir, IDENTITY_FILE, { ...record, ...fields });
          record = { ...record, ...fields };
        });
      return writing;
    };
    await writing;
    const engines: EnginePaths[] = [];
    for (let number = 0; number < Math.max(record.engines, engineCount); number++) {
      const paths = pathsOf(dir, walDir ?? dir, number);
      if (number > 0 && number < record.engines) await checkEngine(env.fs, dir, paths);
      await env.fs.makeDirectory(paths.walDir);
      await env.fs.makeDirectory(paths.snapshotsDir);
      engines.push(paths);
    }
    // Counted when they are there, so that one that is counted and missing was lost.
    if (engines.length > record.engines) {
      await change({ engines: engines.length });
    }
    return {
      identity: {
        deploymentId,
        hostId: record.hostId,
        raftAddress,
        directoryHigh: Number.parseInt(record.directoryId.slice(0, 8), 16),
        directoryLow: Number.parseInt(record.directoryId.slice(8), 16),
        startCounter: record.startCounter,
        earlierStarts: record.earlierStarts,
        newestFormat,
      },
      engines,
      get format() {
        return record.format;
      },
      enableFormat: (format) => (format > record.format ? change({ format }) : writing),
      condemn: (newestStart) => change({ rolledBackFrom: newestStart }),
      release,
    };
  } catch (error) {
    await release();
    throw error;
  }
}

function pathsOf(dir: string, logsDir: string, number: number): EnginePaths {
  return { number, walDir: `${logsDir}/engine-${number}/wal`, snapshotsDir: `${dir}/engine-${number}/snapshots` };
}

/** Begun anew, its shards would have forgotten what they promised. */
async function checkEngine(fs: FileSystem, dir: string, { number, walDir }: EnginePaths): Promise<void> {
  if ((await fs.stat(walDir)) !== undefined) return;
  throw new DrakkarError(
    'ERR_DIR_CORRUPT',
    `${walDir} is missing though ${dir} had an engine ${number}; restore it, or replace this host's replicas by new ones`,
  );
}

async function takeLock(fs: FileSystem, dir: string): Promise<DirectoryLock> {
  try {
    return await fs.lockDirectory(dir);
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== 'ELOCKED') throw cause;
    throw new DrakkarError(
      'ERR_DIR_LOCKED',
      `${dir} is in use by another process (${(cause as Error).message}); stop it, or choose another dir`,
      { cause },
    );
  }
}

/** What a host says of a directory that its peers know newer. */
export function rolledBack(dir: string, newestStart: number, ownStart: number): DrakkarError {
  return new DrakkarError(
    'ERR_DIR_CORRUPT',
    `${dir} was rolled back: peers know of start ${countOf(newestStart)}, it remembers ${countOf(ownStart)}; what it promised since may be lost; begin with an empty directory and a new replica id`,
  );
}

function checkIdentity(dir: string, known: IdentityRecord, owner: DirectoryOwner): void {
  const { deploymentId, raftAddress, hostId = known.hostId } = owner;
  if (known.rolledBackFrom > 0) throw rolledBack(dir, known.rolledBackFrom, known.startCounter);
  if (known.deploymentId !== deploymentId) {
    throw new DrakkarError(
      'ERR_DIR_FOREIGN',
      `${dir} belongs to deployment ${known.deploymentId}, not ${deploymentId}; choose another dir or set deploymentId`,
    );
  }
  if (known.hostId !== hostId) {
    throw new DrakkarError(
      'ERR_DIR_FOREIGN',
      `${dir} belongs to host ${known.hostId}, not ${hostId}; choose another dir or leave hostId out`,
    );
  }
  if (known.raftAddress !== raftAddress && !owner.mayMove) {
    throw new DrakkarError(
      'ERR_DIR_FOREIGN',
      `${dir} belongs to the host at ${known.raftAddress}, not ${raftAddress}; choose another dir or set raftAddress`,
    );
  }
}

/** Undefined when nothing is there. Throws when it is damaged, foreign or missing where a log is. */
export async function readIdentity(
  fs: FileSystem,
  dir: string,
  newestFormat: number = FORMAT_NEWEST,
): Promise<IdentityRecord | undefined> {
  const path = `${dir}/${IDENTITY_FILE}`;
  const stored = await readRecord(fs, path);
  if (stored === undefined) {
    // An identity that went missing must not turn into a new one over old data: it would vote twice (fault F19).
    const engine = await fs.stat(`${dir}/engine-0`);
    if (engine === undefined) return undefined;
    throw new DrakkarError('ERR_DIR_CORRUPT', `${path} is missing though ${dir} holds a log; restore it from a backup`);
  }
  if (!isCount(stored['format'])) throw corrupt(path, 'it has no format');
  if (stored['format'] > newestFormat) {
    throw new DrakkarError(
      'ERR_DIR_FORMAT',
      `${dir} has format ${stored['format']}, made by a newer version; this one knows up to ${newestFormat}; upgrade`,
    );
  }
  const record = soundFields(path, stored) as unknown as IdentityRecord;
  const sound =
    isCount(record.deploymentId) &&
    isHex(record.hostId, 32) &&
    isHex(record.directoryId, 16) &&
    typeof record.raftAddress === 'string' &&
    isCount(record.startCounter) &&
    Array.isArray(record.earlierStarts) &&
    record.earlierStarts.length <= EARLIER_STARTS_MAX &&
    record.earlierStarts.every(isCount) &&
    isCount(record.engines) &&
    record.engines <= ENGINES_MAX &&
    isCount(record.rolledBackFrom) &&
    (record.walDir === undefined || (typeof record.walDir === 'string' && record.walDir.length > 0));
  if (!sound) throw corrupt(path, 'a field is missing or of the wrong kind');
  return record;
}

function randomHex(env: Env, words: number): string {
  let hex = '';
  for (let i = 0; i < words; i++) hex += env.random.u32().toString(16).padStart(8, '0');
  return hex;
}
