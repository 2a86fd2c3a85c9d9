/**
 * A directory for the logs alone, on a disk of its own. It belongs to one host's directory for ever: a record in it names that one and the newest
 * start that took both, so that a directory that is empty (its disk is not mounted), another host's, or an older copy is never taken for the log.
 *
 *     LOCK             held while the process lives
 *     log-of.json      id of the host's directory, its newest start, checksum
 *     engine-0/wal/    the log
 *
 * The record is raised before the host's own, so that it is never behind it but in a copy, and at most one start ahead after a crash.
 */
import { DrakkarError } from '../errors.ts';
import type { DirectoryLock, FileSystem } from '../env/env.ts';
import { countOf } from './incarnation.ts';
import { checkMode, corrupt, isCount, isHex, readRecord, soundFields, writeRecord } from './record-file.ts';

export const LOG_OWNER_FILE = 'log-of.json';

/** What the host's directory says of its log. */
export interface LogPlace {
  readonly directoryId: string;
  readonly startCounter: number;
  /** Undefined: inside of the host's directory. */
  readonly walDir?: string;
}

interface LogOwner {
  readonly directoryId: string;
  readonly startCounter: number;
}

/** Takes the directory for the logs of `dir`. `known` is what `dir` says; undefined at its very first start. */
export async function takeWalDirectory(
  fs: FileSystem,
  dir: string,
  walDir: string | undefined,
  known: LogPlace | undefined,
  takeLock: (path: string) => Promise<DirectoryLock>,
): Promise<DirectoryLock | undefined> {
  checkPlace(dir, walDir, known);
  if (walDir === undefined) return undefined;
  if (known === undefined) await fs.makeDirectory(walDir);
  else if ((await fs.stat(walDir)) === undefined) throw lost(dir, walDir, known, 'it is not there');
  await checkMode(fs, walDir, 0o077);
  const lock = await takeLock(walDir);
  try {
    const owner = await readLogOwner(fs, walDir);
    if (known === undefined) await checkUnused(fs, dir, walDir);
    else checkOwner(dir, walDir, known, owner);
    return lock;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** From now on, durably, it is the log of this start of the host's directory. */
export function claimWalDirectory(fs: FileSystem, walDir: string, owner: LogOwner): Promise<void> {
  const { directoryId, startCounter } = owner;
  return writeRecord(fs, walDir, LOG_OWNER_FILE, { directoryId, startCounter });
}

async function readLogOwner(fs: FileSystem, walDir: string): Promise<LogOwner | undefined> {
  const path = `${walDir}/${LOG_OWNER_FILE}`;
  const record = await readRecord(fs, path);
  if (record === undefined) return undefined;
  const { directoryId, startCounter } = soundFields(path, record);
  if (!isHex(directoryId, 16) || !isCount(startCounter)) throw corrupt(path, 'a field is missing or of the wrong kind');
  return { directoryId, startCounter };
}

function checkPlace(dir: string, walDir: string | undefined, known: LogPlace | undefined): void {
  if (known === undefined || (known.walDir === undefined) === (walDir === undefined)) return;
  throw new DrakkarError(
    'ERR_DIR_FOREIGN',
    known.walDir === undefined
      ? `the log of ${dir} is inside of it, and not in walDir ${walDir}; leave walDir out`
      : `the log of ${dir} is in ${known.walDir}; open the host with that walDir`,
  );
}

/** A log that was begun belongs to a directory that is not this new one. One that a crash left without a log belongs to nobody. */
async function checkUnused(fs: FileSystem, dir: string, walDir: string): Promise<void> {
  if (!(await fs.list(walDir)).some((name) => /^engine-\d+$/.test(name))) return;
  throw new DrakkarError(
    'ERR_DIR_FOREIGN',
    `walDir ${walDir} holds the log of another directory than ${dir}, which is new; choose an empty walDir, or the dir that it belongs to`,
  );
}

function checkOwner(dir: string, walDir: string, known: LogPlace, owner: LogOwner | undefined): void {
  if (owner === undefined) throw lost(dir, walDir, known, 'it holds no log');
  if (owner.directoryId !== known.directoryId) {
    throw new DrakkarError(
      'ERR_DIR_FOREIGN',
      `walDir ${walDir} holds the log of another host than ${dir}; choose the one that belongs to it (last: ${known.walDir})`,
    );
  }
  const [inLog, inDir] = [countOf(owner.startCounter), countOf(known.startCounter)];
  if (inLog >= inDir && inLog <= inDir + 1) return;
  const [older, newer] = inLog < inDir ? [walDir, dir] : [dir, walDir];
  throw new DrakkarError(
    'ERR_DIR_CORRUPT',
    `${older} is older than ${newer}: it knows of start ${Math.min(inLog, inDir)}, the other of start ${Math.max(inLog, inDir)}; restore both together, or replace this host's replicas by new ones`,
  );
}

/** Begun anew, its shards would have forgotten what they promised. */
function lost(dir: string, walDir: string, { walDir: last }: LogPlace, why: string): DrakkarError {
  const where = last === walDir ? '' : ` (it was in ${last})`;
  return new DrakkarError(
    'ERR_DIR_CORRUPT',
    `walDir ${walDir} should hold the log of ${dir}${where}, but ${why}; is its disk mounted? Otherwise restore it, or replace this host's replicas by new ones`,
  );
}
