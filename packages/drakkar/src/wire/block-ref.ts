/**
 * A reference to consecutive entries of one block: where its bytes are in memory, where they are in the log, or both. The
 * in-memory log of a shard is a list of these; there is no object per entry.
 *
 * A reference may cover only a part of the block it was made from (a suffix that was new, a prefix that survived a
 * truncation); `firstIndex` and `count` say which.
 */
import { BLOCK_CONFIG_CHANGE, BLOCK_HOLLOW } from './block.ts';
import type { Slab } from './slab.ts';

/** Where a block stands in the log: enough to read and to verify the frame around it. */
export interface BlockPlace {
  /** Epoch of the segment: unique for the life of the log. */
  readonly segmentEpoch: number;
  /** Byte offset of the frame in the segment, and its length. */
  readonly frameOffset: number;
  readonly frameBytes: number;
  /** Byte offset of the block's header inside the frame. */
  readonly blockOffset: number;
  /** Segment and byte offset where the block was first written: its write number on disk, kept when it is moved. */
  readonly orderEpoch: number;
  readonly orderOffset: number;
}

export class BlockRef {
  readonly firstIndex: number;
  /** Lowered by a truncation. */
  count: number;
  readonly term: number;
  /** Term of the entry at `firstIndex - 1`. */
  readonly prevTerm: number;
  /** Of `LASTING_FLAGS`. */
  readonly flags: number;
  /** Undefined when the bytes were given back; then `place` is known. Held once by this reference. */
  slab: Slab | undefined;
  /** Words of the entries inside the slab: `[entriesWord, entriesEndWord)`. */
  entriesWord: number;
  entriesEndWord: number;
  /** Size of the entries; an estimate after a truncation. */
  sizeBytes: number;
  /** Known once the log has made the block durable. */
  place: BlockPlace | undefined;

  constructor(
    firstIndex: number,
    count: number,
    term: number,
    prevTerm: number,
    slab: Slab | undefined,
    entriesWord: number,
    entriesEndWord: number,
    flags = 0,
  ) {
    this.firstIndex = firstIndex;
    this.count = count;
    this.term = term;
    this.prevTerm = prevTerm;
    this.flags = flags;
    this.slab = slab;
    this.entriesWord = entriesWord;
    this.entriesEndWord = entriesEndWord;
    this.sizeBytes = (entriesEndWord - entriesWord) << 2;
    this.place = undefined;
  }

  get lastIndex(): number {
    return this.firstIndex + this.count - 1;
  }

  get isConfigChange(): boolean {
    return (this.flags & BLOCK_CONFIG_CHANGE) !== 0;
  }

  get isHollow(): boolean {
    return (this.flags & BLOCK_HOLLOW) !== 0;
  }

  /** Gives the bytes back; they are read from the log again when needed. */
  dropBytes(): void {
    this.slab?.release();
    this.slab = undefined;
  }
}
