/**
 * The logs of a directory, opened for reading only: nothing is written, made, moved or removed but, while it is looked at, the lock of a
 * host's directory. A running host writes behind the reader's back, which looks like damage; so its directory is refused.
 */
import { DrakkarError } from '../errors.ts';
import { readIdentity } from '../engine/directory.ts';
import { LOG_OWNER_FILE } from '../engine/wal-directory.ts';
import type { DirectoryLock, Env } from '../env/env.ts';
import { PAGE_BYTES } from '../wal/layout.ts';
import { Segment, readSegmentHeaderOf } from '../wal/segments.ts';

/** The log of one engine. */
export interface LogFiles {
  /** Number of the engine, 0 for a bare log. */
  readonly engine: number;
  readonly walDir: string;
  /** Undefined for a bare log. */
  readonly snapshotsDir: string | undefined;
  /** Oldest first. */
  readonly segments: Segment[];
}

/** Where logs are looked for. */
export interface LogsOptions {
  /** A stopped host's directory, a copy of one, its `walDir` alone, or the directory of a log. */
  readonly dir: string;
  /** Where a host's logs are that has a `walDir`. Default: where its directory says, which of a copy is not the copy's. */
  readonly walDir?: string;
}

/** Calls `work` with the logs and gives all files back. */
export async function withLogs<T>(
  env: Env,
  { dir, walDir }: LogsOptions,
  work: (logs: LogFiles[]) => Promise<T>,
): Promise<T> {
  const isHost =
    (await env.fs.stat(`${dir}/identity.json`)) !== undefined || (await isDirectory(env, `${dir}/engine-0`));
  const locks: (DirectoryLock | undefined)[] = [];
  const logs: LogFiles[] = [];
  try {
    if (isHost) {
      locks.push(await takeLock(env, dir));
      const root = walDir ?? (await recordedWalDir(env, dir)) ?? dir;
      if (root !== dir && (await isDirectory(env, root))) locks.push(await takeLock(env, root));
      // A walDir by itself has no snapshots.
      const hasSnapshots = (await env.fs.stat(`${dir}/${LOG_OWNER_FILE}`)) === undefined;
      for (const name of (await isDirectory(env, root)) ? await env.fs.list(root) : []) {
        const match = /^engine-(\d+)$/.exec(name);
        if (match === null || !(await isDirectory(env, `${root}/${name}/wal`))) continue;
        const snapshotsDir = hasSnapshots ? `${dir}/${name}/snapshots` : undefined;
        logs.push({ engine: Number(match[1]), walDir: `${root}/${name}/wal`, snapshotsDir, segments: [] });
      }
    } else if ((await isDirectory(env, dir)) && (await env.fs.list(dir)).some((name) => name.endsWith('.wal'))) {
      logs.push({ engine: 0, walDir: dir, snapshotsDir: undefined, segments: [] });
    }
    if (logs.length === 0) throw noLogs(dir, isHost, walDir ?? (await recordedWalDir(env, dir)));
    for (const log of logs) await openSegments(env, log);
    return await work(logs);
  } finally {
    for (const { segments } of logs) for (const { file } of segments) await file.close().catch(() => {});
    for (const lock of locks) await lock?.release();
  }
}

function noLogs(dir: string, isHost: boolean, walDir: string | undefined): DrakkarError {
  const why =
    isHost && walDir !== undefined
      ? `the log of ${dir} should be in ${walDir}, and is not; is its disk mounted? Or name the walDir where it is now`
      : `${dir} is neither a host's directory nor the directory of a log`;
  return new DrakkarError('ERR_INVALID_OPTION', why);
}

/** Whoever asks for more of the identity hears what is wrong with it. */
async function recordedWalDir(env: Env, dir: string): Promise<string | undefined> {
  try {
    return (await readIdentity(env.fs, dir))?.walDir;
  } catch {
    return undefined;
  }
}

async function isDirectory(env: Env, path: string): Promise<boolean> {
  return (await env.fs.stat(path))?.isDirectory === true;
}

/** A directory that cannot be written to has no host that runs in it. */
async function takeLock(env: Env, dir: string): Promise<DirectoryLock | undefined> {
  try {
    return await env.fs.lockDirectory(dir);
  } catch (cause) {
    const code = (cause as { code?: unknown }).code;
    if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') return undefined;
    if (code !== 'ELOCKED') throw cause;
    throw new DrakkarError(
      'ERR_DIR_LOCKED',
      `${dir} is in use by a host (${(cause as Error).message}); stop it, or look at a copy`,
      { cause },
    );
  }
}

async function openSegments(env: Env, { walDir, segments }: LogFiles): Promise<void> {
  for (const name of await env.fs.list(walDir)) {
    const match = /^([0-9a-f]{16})\.wal$/.exec(name);
    if (match === null) continue;
    const path = `${walDir}/${name}`;
    const epoch = Number.parseInt(match[1], 16);
    const file = await env.fs.open(path, 'read');
    const header = await readSegmentHeaderOf(file);
    segments.push(new Segment(epoch, path, file, header?.epoch === epoch ? header : undefined, PAGE_BYTES));
  }
  segments.sort((a, b) => a.epoch - b.epoch);
}
