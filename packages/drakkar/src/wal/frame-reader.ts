/**
 * Reads frames back from segments, verified, for catch-up and for the apply after a restart. Many shards read the same frame
 * one after the other, so the newest few are kept.
 */
import { DrakkarError } from '../errors.ts';
import type { BlockPlace } from '../wire/block-ref.ts';
import { FrameType, frameIsIntact, frameType } from '../wire/frame.ts';
import { Slab } from '../wire/slab.ts';
import type { Segment } from './segments.ts';

const CACHE_BYTES = 8 * 1024 * 1024;
/** Reads at the same time; more wait their turn. */
const READS_MAX = 8;
const WAITING_MAX = 100_000;

export class FrameReader {
  private readonly cache = new Map<string, Slab>();
  private cachedBytes = 0;
  private readonly reading = new Map<string, Promise<Slab>>();
  private active = 0;
  private readonly waiting: (() => void)[] = [];

  /** The frame at `place`, held once for the caller. */
  async read(segment: Segment | undefined, place: BlockPlace): Promise<Slab> {
    if (segment === undefined) {
      throw new DrakkarError('ERR_LOG_COMPACTED', 'the segment that held these entries was given up meanwhile');
    }
    const key = `${place.segmentEpoch}/${place.frameOffset}`;
    const known = this.cache.get(key);
    if (known !== undefined) {
      known.retain();
      return known;
    }
    let read = this.reading.get(key);
    if (read === undefined) {
      read = this.load(segment, place, key).finally(() => this.reading.delete(key));
      this.reading.set(key, read);
    }
    const slab = await read;
    slab.retain();
    return slab;
  }

  private async load(segment: Segment, place: BlockPlace, key: string): Promise<Slab> {
    segment.readers++;
    try {
      await this.enter();
      try {
        const slab = await loadFrame(segment, place);
        this.remember(key, slab);
        return slab;
      } finally {
        this.leave();
      }
    } finally {
      segment.readers--;
    }
  }

  private async enter(): Promise<void> {
    if (this.active < READS_MAX) {
      this.active++;
      return;
    }
    if (this.waiting.length >= WAITING_MAX) throw new DrakkarError('ERR_SYSTEM_BUSY', 'too many reads of the log wait');
    await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  private leave(): void {
    const next = this.waiting.shift();
    if (next === undefined) this.active--;
    else next();
  }

  /** The cache holds a slab once; so long as it does, it can be given out again. */
  private remember(key: string, slab: Slab): void {
    this.cache.set(key, slab);
    this.cachedBytes += slab.sizeBytes;
    for (const [oldest, old] of this.cache) {
      if (this.cachedBytes <= CACHE_BYTES || oldest === key) break;
      this.cache.delete(oldest);
      this.cachedBytes -= old.sizeBytes;
      old.release();
    }
  }

  close(): void {
    for (const slab of this.cache.values()) slab.release();
    this.cache.clear();
    this.cachedBytes = 0;
  }
}

async function loadFrame(segment: Segment, place: BlockPlace): Promise<Slab> {
  // Of its own size: read-ahead must not pin a megabyte for a small frame.
  const slab = new Slab(place.frameBytes);
  let read: number;
  try {
    read = await segment.file.read(slab.u8, 0, place.frameBytes, place.frameOffset);
  } catch (cause) {
    throw new DrakkarError('ERR_DISK_FAILED', `${segment.path} cannot be read at byte ${place.frameOffset}`, { cause });
  }
  const type = frameType(slab.u32, 0);
  const isThere =
    read === place.frameBytes &&
    slab.u32[0] === place.frameBytes &&
    (type === FrameType.Blocks || type === FrameType.Moved) &&
    frameIsIntact(slab.u8, slab.u32, 0);
  if (!isThere) {
    throw new DrakkarError(
      'ERR_LOG_CORRUPT',
      `${segment.path} is damaged at byte ${place.frameOffset}: a frame does not verify`,
    );
  }
  slab.usedBytes = place.frameBytes;
  return slab;
}
