/**
 * The logs of a directory, opened for reading only: nothing is written, made, moved or removed but, while it is looked at, the lock of a
 * host's directory. A running host writes behind the reader's back, which looks like damage; so its directory is refused.
 */
import { DrakkarError } from '../errors.ts';
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

/** `dir` is a host's directory, of a stopped host or a copy, or a log's. Calls `work` with its logs and gives all files back. */
export async function withLogs<T>(env: Env, dir: string, work: (logs: LogFiles[]) => Promise<T>): Promise<T> {
  const isHost =
    (await env.fs.stat(`${dir}/identity.json`)) !== undefined || (await isDirectory(env, `${dir}/engine-0`));
  const lock = isHost ? await takeLock(env, dir) : undefined;
  const logs: LogFiles[] = [];
  try {
    if (isHost) {
      for (const name of await env.fs.list(dir)) {
        const match = /^engine-(\d+)$/.exec(name);
        if (match === null || !(await isDirectory(env, `${dir}/${name}/wal`))) continue;
        const snapshotsDir = `${dir}/${name}/snapshots`;
        logs.push({ engine: Number(match[1]), walDir: `${dir}/${name}/wal`, snapshotsDir, segments: [] });
      }
    } else if ((await isDirectory(env, dir)) && (await env.fs.list(dir)).some((name) => name.endsWith('.wal'))) {
      logs.push({ engine: 0, walDir: dir, snapshotsDir: undefined, segments: [] });
    }
    if (logs.length === 0) {
      throw new DrakkarError('ERR_INVALID_OPTION', `${dir} is neither a host's directory nor the directory of a log`);
    }
    for (const log of logs) await openSegments(env, log);
    return await work(logs);
  } finally {
    for (const { segments } of logs) for (const { file } of segments) await file.close().catch(() => {});
    await lock?.release();
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
