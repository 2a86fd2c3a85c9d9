/**
 * Cuts a stream of bytes into checked frames. What arrives is copied into slabs once; a frame is handed out where it stands.
 * Memory grows with the bytes that came, never with the length that a peer claims.
 */
import { DrakkarError } from '../errors.ts';
import { FRAME_CHECKED_BYTES, FRAME_HEADER_BYTES, checkFrame, isFrameLength, isHeaderSound } from '../wire/frame.ts';
import { FORMAT_NEWEST } from '../wire/formats.ts';
import { FRAME_MAX_BYTES, FRAME_MAX_BYTES_BEFORE_HELLO } from '../wire/limits.ts';
import { Slab, type SlabPool } from '../wire/slab.ts';

export class FrameReceiver {
  private maxFrameBytes: number = FRAME_MAX_BYTES_BEFORE_HELLO;
  private readonly pool: SlabPool;
  private readonly newestFormat: number;
  private readonly onFrame: (slab: Slab, offset: number, lengthBytes: number) => void;
  private slab: Slab | undefined;
  /** Where the frame that is being received starts, and how far it came. */
  private start = 0;
  private end = 0;
  private isClosed = false;

  constructor(
    pool: SlabPool,
    onFrame: (slab: Slab, offset: number, lengthBytes: number) => void,
    newestFormat: number = FORMAT_NEWEST,
  ) {
    this.pool = pool;
    this.newestFormat = newestFormat;
    this.onFrame = onFrame;
  }

  /** The peer has said who it is: from now on it may send all that peers send. */
  admit(): void {
    this.maxFrameBytes = FRAME_MAX_BYTES;
  }

  /** Bytes of a frame whose rest has not come. */
  get partialBytes(): number {
    return this.end - this.start;
  }

  /** Throws `ERR_FRAME`, or what `onFrame` throws; the connection is of no use after that. */
  push(bytes: Uint8Array, offset: number, length: number): void {
    const stop = offset + length;
    while (offset < stop && !this.isClosed) {
      const slab = this.room();
      const count = Math.min(slab.sizeBytes - this.end, stop - offset);
      slab.u8.set(bytes.subarray(offset, offset + count), this.end);
      this.end += count;
      offset += count;
      this.handOut(slab);
    }
  }

  private handOut(slab: Slab): void {
    while (this.end - this.start >= 4 && !this.isClosed) {
      const length = slab.u32[this.start >>> 2];
      if (!isFrameLength(length, this.maxFrameBytes)) {
        throw new DrakkarError(
          'ERR_FRAME',
          `a peer claims a frame of ${length} bytes; at most ${this.maxFrameBytes} are taken`,
        );
      }
      if (this.end - this.start >= FRAME_CHECKED_BYTES && !isHeaderSound(slab.u32, this.start >>> 2)) {
        throw new DrakkarError('ERR_FRAME', `a peer sent a garbled frame header (length ${length})`);
      }
      if (this.end - this.start < length) return;
      checkFrame(slab.u8, slab.u32, this.start, this.end, this.maxFrameBytes, this.newestFormat);
      const at = this.start;
      this.start += length;
      this.onFrame(slab, at, length);
    }
    // Nobody kept a frame of it: the same memory again, which is still in the cache.
    if (this.start === this.end && slab.holderCount === 1 && !this.isClosed) this.start = this.end = 0;
  }

  /** A slab with room behind `end`. */
  private room(): Slab {
    if (this.slab === undefined) {
      // A stranger gets no more than its HELLO may need: a megabyte for each would be a gift to whoever opens many connections.
      const isKnown = this.maxFrameBytes > FRAME_MAX_BYTES_BEFORE_HELLO;
      this.slab = isKnown ? this.pool.acquire() : new Slab(FRAME_MAX_BYTES_BEFORE_HELLO);
      this.start = this.end = 0;
      return this.slab;
    }
    const { slabBytes } = this.pool;
    if (this.end < this.slab.sizeBytes && this.slab.sizeBytes >= Math.min(this.maxFrameBytes, slabBytes))
      return this.slab;
    const old = this.slab;
    const partial = this.end - this.start;
    const claimed = partial >= FRAME_HEADER_BYTES ? old.u32[this.start >>> 2] : 0;
    // A frame larger than a slab: twice what came, until it fits.
    const size = claimed > slabBytes ? Math.min(claimed, Math.max(partial * 2, slabBytes)) : slabBytes;
    const slab = this.pool.acquire(Math.max(size, partial + 4));
    slab.u8.set(old.u8.subarray(this.start, this.end), 0);
    old.release();
    this.slab = slab;
    this.start = 0;
    this.end = partial;
    return slab;
  }

  close(): void {
    this.isClosed = true;
    this.slab?.release();
    this.slab = undefined;
  }
}
