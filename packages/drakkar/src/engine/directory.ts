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
 * Which engine a shard lives in is recorded by the state record that its first start writes to that engine's log, and nowhere else: one
 * truth, as durable as the shard itself.
 */
import { DrakkarError } from '../errors.ts';
import { countOf, nextStart } from './incarnation.ts';
import type { DirectoryLock, Env, FileSystem } from '../env/env.ts';
import type { HostIdentity } from '../transport/transport.ts';
import { checksum } from '../wire/checksum.ts';
import { FORMAT_NEWEST, FORMAT_OLDEST } from '../wire/formats.ts';
import { EARLIER_STARTS_MAX, ENGINES_MAX } from '../wire/limits.ts';

const IDENTITY_FILE = 'identity.json';
const IDENTITY_MAX_BYTES = 64 * 1024;

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
}

/** Locks and checks the directory, making it when it is missing, and raises its start counter. */
export async function openDirectory(
  env: Env,
  dir: string,
  owner: DirectoryOwner,
  engineCount = 1,
): Promise<HostDirectory> {
  const { deploymentId, raftAddress, newestFormat = FORMAT_NEWEST } = owner;
  await env.fs.makeDirectory(dir);
  await checkMode(env.fs, dir, 0o077);
  const lock = await takeLock(env.fs, dir);
  try {
    const known = await readIdentity(env.fs, dir, newestFormat);
    if (known !== undefined) checkIdentity(dir, known, owner);
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
    };
    // One after the other: each is a change of the one before.
    let writing = writeIdentity(env.fs, dir, record);
    const change = (fields: Partial<IdentityRecord>): Promise<void> => {
      writing = writing
        .catch(() => {})
        .then(async () => {
          await writeIdentity(env.fs, dir, { ...record, ...fields });
          record = { ...record, ...fields };
        });
      return writing;
    };
    await writing;
    const engines: EnginePaths[] = [];
    for (let number = 0; number < Math.max(record.engines, engineCount); number++) {
      if (number > 0 && number < record.engines) await checkEngine(env.fs, dir, number);
      const paths = pathsOf(dir, number);
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
      release: () => lock.release(),
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

function pathsOf(dir: string, number: number): EnginePaths {
  const engineDir = `${dir}/engine-${number}`;
  return { number, walDir: `${engineDir}/wal`, snapshotsDir: `${engineDir}/snapshots` };
}

/** Begun anew, its shards would have forgotten what they promised. */
async function checkEngine(fs: FileSystem, dir: string, number: number): Promise<void> {
  const { walDir } = pathsOf(dir, number);
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

async function checkMode(fs: FileSystem, path: string, forbidden: number): Promise<void> {
  const stat = await fs.stat(path);
  if (stat === undefined || (stat.mode & forbidden) === 0) return;
  throw new DrakkarError(
    'ERR_DIR_PERMISSIONS',
    `${path} has mode ${stat.mode.toString(8)}: others may reach it; expected at most ${(0o777 & ~forbidden).toString(8)}, run chmod`,
  );
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
  const stat = await fs.stat(path);
  if (stat === undefined) {
    // An identity that went missing must not turn into a new one over old data: it would vote twice (fault F19).
    const engine = await fs.stat(`${dir}/engine-0`);
    if (engine === undefined) return undefined;
    throw new DrakkarError('ERR_DIR_CORRUPT', `${path} is missing though ${dir} holds a log; restore it from a backup`);
  }
  await checkMode(fs, path, 0o077);
  if (stat.sizeBytes > IDENTITY_MAX_BYTES) throw corrupt(path, 'it is too long');
  const bytes = await readWhole(fs, path, stat.sizeBytes);
  let record: Partial<IdentityRecord>;
  try {
    record = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as Partial<IdentityRecord>;
  } catch (cause) {
    throw corrupt(path, 'it is not readable', cause);
  }
  if (typeof record !== 'object' || record === null || !isCount(record.format)) throw corrupt(path, 'it has no format');
  if (record.format > newestFormat) {
    throw new DrakkarError(
      'ERR_DIR_FORMAT',
      `${dir} has format ${record.format}, made by a newer version; this one knows up to ${newestFormat}; upgrade`,
    );
  }
  const { checksum: stored, ...fields } = record as IdentityRecord & { checksum?: unknown };
  if (stored !== checksumOf(fields)) throw corrupt(path, 'its checksum is wrong');
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
    isCount(record.rolledBackFrom);
  if (!sound) throw corrupt(path, 'a field is missing or of the wrong kind');
  return fields;
}

/** A flipped bit must not make another host, or an older start, of this one (F2). */
function checksumOf(record: IdentityRecord): string {
  return checksum(new TextEncoder().encode(JSON.stringify(record)))
    .toString(16)
    .padStart(8, '0');
}

async function readWhole(fs: FileSystem, path: string, sizeBytes: number): Promise<Uint8Array> {
  const file = await fs.open(path, 'read');
  try {
    const bytes = new Uint8Array(sizeBytes);
    await file.read(bytes, 0, sizeBytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isHex = (value: unknown, digits: number): value is string =>
  typeof value === 'string' && value.length === digits && /^[0-9a-f]+$/.test(value);

function corrupt(path: string, why: string, cause?: unknown): DrakkarError {
  return new DrakkarError('ERR_DIR_CORRUPT', `${path} is damaged: ${why}; restore it from a backup`, { cause });
}

/** Whole or not at all: temporary file, sync, rename, sync of the directory (fault F11). */
async function writeIdentity(fs: FileSystem, dir: string, record: IdentityRecord): Promise<void> {
  const path = `${dir}/${IDENTITY_FILE}`;
  const temporary = `${path}.new`;
  await fs.remove(temporary);
  const bytes = new TextEncoder().encode(
    `${JSON.stringify({ ...record, checksum: checksumOf(record) }, undefined, 2)}\n`,
  );
  const file = await fs.open(temporary, 'create');
  try {
    await new Promise<void>((resolve, reject) => {
      file.write(bytes, 0, bytes.length, 0, (error) => (error === null ? resolve() : reject(error)));
    });
    await file.sync();
  } finally {
    await file.close();
  }
  await fs.rename(temporary, path);
  await fs.syncDirectory(dir);
}

function randomHex(env: Env, words: number): string {
  let hex = '';
  for (let i = 0; i < words; i++) hex += env.random.u32().toString(16).padStart(8, '0');
  return hex;
}
