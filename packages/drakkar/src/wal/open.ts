/**
 * Opening of a log: its segments are read from the oldest to the end, what a crash left half done is put right, and a new segment begins
 * behind it. What is damaged is left as it was found.
 */
import type { Env } from '../env/env.ts';
import { FIRST_FORMATS, type FormatRange } from '../wire/formats.ts';
import type { SlabPool } from '../wire/slab.ts';
import { PAGE_BYTES, SEGMENT_BYTES } from './layout.ts';
import { Replay } from './replay.ts';
import { scanSegments } from './scan.ts';
import { SegmentFiles, rewrite, type Segment } from './segments.ts';
import { Wal } from './wal.ts';

export interface WalOptions {
  readonly env: Env;
  readonly dir: string;
  readonly pool: SlabPool;
  /** Default 64 MiB. A multiple of 4096; at least 16 pages. */
  readonly segmentBytes?: number;
  /** What may be read, and what may be written at the moment. Default: what a new directory may hold. */
  readonly formats?: FormatRange;
}

/** Opens the log in `dir`: reads what is there, and begins a new segment behind it. A damaged one is only read. */
export async function openWal(options: WalOptions): Promise<Wal> {
  const { env, dir } = options;
  const files = new SegmentFiles(env, dir, options.segmentBytes ?? SEGMENT_BYTES);
  await env.fs.makeDirectory(dir);
  const segments: Segment[] = [];
  try {
    await files.openAll(segments);
    return await beginWal(options, files, segments);
  } catch (error) {
    for (const { file } of segments) await file.close().catch(() => {});
    throw error;
  }
}

async function beginWal(options: WalOptions, files: SegmentFiles, segments: Segment[]): Promise<Wal> {
  const { env, formats = FIRST_FORMATS } = options;
  const replay = new Replay();
  const { end, damage, unborn, tail } = await scanSegments(segments, replay.visit, formats.newest);
  if (damage !== undefined) {
    // Left as it is: a new segment would name the shortened end as the right one, and the next opening would find nothing wrong.
    const { recovered, stateEpochs } = replay.finish(damage);
    return new Wal(env, files, segments, recovered, stateEpochs, end, damage, formats);
  }
  if (unborn !== undefined) {
    segments.pop();
    await files.recycle(unborn);
  }
  if (tail !== undefined) await rewrite(tail.segment, tail.offset, tail.sizeBytes);
  const last = segments[segments.length - 1];
  if (last !== undefined) await rewrite(last, 0, PAGE_BYTES);
  const { recovered, stateEpochs } = replay.finish(undefined);
  const wal = new Wal(env, files, segments, recovered, stateEpochs, end, undefined, formats);
  await wal.begin();
  return wal;
}
