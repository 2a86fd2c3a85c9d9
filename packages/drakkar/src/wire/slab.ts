/**
 * Slabs: the byte buffers that blocks and frames live in. One allocation serves thousands of entries; a slab is counted
 * by its holders (log blocks, sockets, writers) and goes back to its pool with the last release.
 *
 * A forgotten release only loses the recycling, the garbage collector takes the slab. A release too many would hand
 * out bytes that are still in use, so it is asserted.
 */
import { invariant } from '../errors.ts';

if (new Uint8Array(Uint32Array.of(1).buffer)[0] !== 1) {
  throw new Error('Drakkar needs a little-endian machine: its blocks are read in place');
}

/** The size that pools recycle, unless they are told another. Small enough that few of them stay in the cache (hot-path §5.3). */
export const SLAB_BYTES = 1024 * 1024;

export class Slab {
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly sizeBytes: number;
  /** Bytes in use from the front; kept by whoever fills the slab. A multiple of 4. */
  usedBytes = 0;
  private holders = 1;
  private readonly pool: SlabPool | undefined;

  constructor(sizeBytes: number, pool?: SlabPool, buffer = new ArrayBuffer(sizeBytes)) {
    this.u8 = new Uint8Array(buffer, 0, sizeBytes);
    this.u32 = new Uint32Array(buffer, 0, sizeBytes >>> 2);
    this.sizeBytes = sizeBytes;
    this.pool = pool;
  }

  get holderCount(): number {
    return this.holders;
  }

  retain(): void {
    invariant(this.holders > 0, 'a slab was retained after its last release');
    this.holders++;
  }

  release(): void {
    invariant(this.holders > 0, 'a slab was released more often than retained');
    if (--this.holders === 0) this.pool?.take(this);
  }

  /** Pool only. */
  revive(): void {
    this.holders = 1;
    this.usedBytes = 0;
  }
}

/** Most slabs that a pool keeps for whoever comes next. */
const FREE_SLABS_MAX = 32;

/** Recycles slabs of `slabBytes`; larger ones are made for one use. */
export class SlabPool {
  readonly slabBytes: number;
  private readonly free: Slab[] = [];
  /** Bytes of slabs that are out; the bound on pinned memory is checked against it. */
  pinnedBytes = 0;

  constructor(slabBytes = SLAB_BYTES) {
    this.slabBytes = slabBytes;
  }

  /** An empty slab of at least `minBytes`, held once by the caller. */
  acquire(minBytes = this.slabBytes): Slab {
    let slab: Slab | undefined;
    if (minBytes <= this.slabBytes) {
      slab = this.free.pop();
      if (slab === undefined) slab = new Slab(this.slabBytes, this);
      else slab.revive();
    } else {
      slab = new Slab((minBytes + 3) & ~3, this);
    }
    this.pinnedBytes += slab.sizeBytes;
    return slab;
  }

  /** Keeps but one free slab: nobody is busy. */
  shrink(): void {
    if (this.free.length > 1) this.free.length = 1;
  }

  take(slab: Slab): void {
    this.pinnedBytes -= slab.sizeBytes;
    if (slab.sizeBytes === this.slabBytes && this.free.length < FREE_SLABS_MAX) this.free.push(slab);
  }
}
