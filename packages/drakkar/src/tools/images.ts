/** Snapshot images of a shard as files: which are there, and whether each is whole. */
import type { Env } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import type { Codecs } from '../rsm/codec.ts';
import { readFileChunks } from '../rsm/image-file.ts';
import { verifyImage } from '../rsm/image.ts';
import { problemOf, type Problem } from './problem.ts';

export interface ImageReport {
  readonly path: string;
  readonly index: number;
  readonly sizeBytes: number;
  /** Read to its end; false when it was only listed. */
  readonly isRead: boolean;
  readonly problem: Problem | undefined;
}

/** The images in `dir`, ascending by index; `reads`: each is read to its end and verified. */
export async function checkImages(
  env: Env,
  dir: string,
  shardId: number,
  reads: boolean,
  codecs: Codecs,
): Promise<ImageReport[]> {
  if ((await env.fs.stat(dir)) === undefined) return [];
  const reports: ImageReport[] = [];
  for (const name of await env.fs.list(dir)) {
    if (!/^[0-9a-f]{16}\.snapshot$/.test(name)) continue;
    const path = `${dir}/${name}`;
    const index = Number.parseInt(name, 16);
    const stat = await env.fs.stat(path);
    const problem = reads ? await check(env, path, index, shardId, codecs) : undefined;
    reports.push({ path, index, sizeBytes: stat?.sizeBytes ?? 0, isRead: reads, problem });
  }
  return reports;
}

async function check(
  env: Env,
  path: string,
  index: number,
  shardId: number,
  codecs: Codecs,
): Promise<Problem | undefined> {
  try {
    const info = await verifyImage(readFileChunks(env.fs, path), codecs);
    if (info.index === index && info.shardId === shardId) return undefined;
    const message = `${path} is of shard ${info.shardId} at ${info.index}`;
    return { code: 'ERR_SNAPSHOT_CORRUPT', message };
  } catch (error) {
    const { code, message } = problemOf(error);
    if (!DrakkarError.is(error)) throw error;
    return { code, message: `${path}: ${message}` };
  }
}
