/**
 * Frees old segments, strictly oldest first. A segment is free when no live block and no newest state record stands in it. What
 * little of idle shards holds back an old segment is moved: copied behind the log's end with its original order, and the segment
 * is freed only when the copies are durable.
 *
 * Oldest first is what makes it safe to drop truncating blocks and resets: when one goes, everything that was written before it,
 * and that it made void, is gone already. A moved block is live when it is moved, so it was not void then; a truncation
 * that comes later also stands later.
 */
import type { BlockPlace, BlockRef } from '../wire/block-ref.ts';
import {
  BLOCK_HEADER_WORDS,
  BlockHeader,
  blockFirstIndex,
  copyWords,
  readBlockHeader,
  skipInBlock,
  writeBlockHeader,
} from '../wire/block.ts';
import { FRAME_HEADER_BYTES, FRAME_HEADER_WORDS, FrameType, sealFrame } from '../wire/frame.ts';
import { putU53 } from '../wire/number.ts';
import { Slab } from '../wire/slab.ts';
import { recordBytes } from './records.ts';
import { MOVED_PREFIX_WORDS } from './replay.ts';
import type { Segment } from './segments.ts';
import type { Wal } from './wal.ts';

/** Segments that may stand behind the current one before live blocks are moved out of the oldest. */
const SEGMENTS_BEFORE_MOVING = 8;
/** A segment with more live bytes than this share stays, unless there are twice as many segments. */
const MOVE_BELOW_SHARE = 0.5;
/** State records below this share of a segment are moved at once. */
const STATES_SHARE = 1 / 16;
/** Bytes of copies that may wait for the disk: many in one group, and room for what callers write. */
const MOVING_BYTES_MAX = 1024 * 1024;

/** A live block on its way out of an old segment. */
interface Copy {
  readonly ref: BlockRef;
  readonly place: BlockPlace;
  readonly count: number;
  readonly shardId: number;
  /** Order, header and entries. */
  readonly words: Uint32Array;
}

export class Compaction {
  private readonly wal: Wal;
  private running: Promise<void> | undefined;
  private isStopped = false;
  /** Room is wanted now: what little holds back a segment is moved before segments pile up. */
  private isWanted = false;

  constructor(wal: Wal) {
    this.wal = wal;
  }

  consider(): void {
    // After damage nothing is deleted: it may be needed for a repair.
    if (this.running !== undefined || this.wal.damage !== undefined || this.isStopped) return;
    this.running = this.run()
      .catch((error: unknown) => {
        this.wal.env.logger.warn({ err: error, dir: this.wal.files.dir }, 'freeing old segments of the log failed');
      })
      .finally(() => {
        this.running = undefined;
        this.isWanted = false;
      });
  }

  reclaim(): void {
    if (this.isStopped) return;
    if (this.running !== undefined) {
      void this.running.then(() => this.reclaim());
      return;
    }
    this.isWanted = true;
    this.consider();
  }

  /** Waits for the copy that is under way, unless the log will never make it durable. */
  async stop(): Promise<void> {
    this.isStopped = true;
    if (!this.wal.isStuck) await this.running;
  }

  private async run(): Promise<void> {
    while (!this.isStopped && this.wal.segments.length > 1) {
      const segment = this.wal.segments[0];
      const live = this.liveIn(segment);
      const states = this.statesIn(segment);
      if (live.length > 0 || states.length > 0) {
        const behind = this.wal.segments.length - 1;
        const liveBytes = live.reduce((sum, ref) => sum + ref.sizeBytes, 0);
        const isSparse = liveBytes < segment.offset * MOVE_BELOW_SHARE;
        // A few state records are cheap to copy; those of thousands of shards, and blocks, when segments pile up.
        const isCheap = live.length === 0 && this.stateBytes(states) <= segment.offset * STATES_SHARE;
        const isLate = behind > SEGMENTS_BEFORE_MOVING || this.isWanted;
        const mayMove = isCheap || (isLate && isSparse) || behind > 2 * SEGMENTS_BEFORE_MOVING;
        if (!mayMove || !(await this.moveOut(segment, live, states))) return;
        if (this.liveIn(segment).length > 0 || this.statesIn(segment).length > 0) return;
      }
      // What makes its blocks void (a compaction, a reset, a truncation) may be on its way to the disk only (F14).
      if (!(await this.wal.allWritten()) || segment.readers > 0 || this.isStopped) return;
      this.wal.segments.shift();
      await this.wal.files.recycle(segment);
      this.wal.counters.segmentsFreed++;
      this.wal.spaceFreed();
    }
  }

  private liveIn(segment: Segment): BlockRef[] {
    const live: BlockRef[] = [];
    for (const shardId of segment.blockShards) {
      for (const ref of this.wal.liveBlocks(shardId)) if (ref.place?.segmentEpoch === segment.epoch) live.push(ref);
    }
    return live;
  }

  private statesIn(segment: Segment): number[] {
    const shards: number[] = [];
    for (const [shardId, { epoch }] of this.wal.states) if (epoch === segment.epoch) shards.push(shardId);
    return shards;
  }

  /** Copies blocks and state records behind the log's end; true when all copies are durable. */
  private async moveOut(segment: Segment, live: readonly BlockRef[], states: readonly number[]): Promise<boolean> {
    const { wal } = this;
    // A frame must fit into half a segment.
    const mostBytes = Math.min(MOVING_BYTES_MAX, wal.files.segmentBytes >>> 3);
    let bytes = 0;
    let copies: Copy[] = [];
    for (const ref of live) {
      if (this.isStopped) return false;
      const copy = await this.copyOf(ref);
      if (copy === undefined) continue;
      if (copies.length > 0 && bytes + copy.words.byteLength > mostBytes) {
        this.pushCopies(copies);
        copies = [];
        bytes = 0;
        if (!(await wal.allWritten())) return false;
      }
      copies.push(copy);
      bytes += copy.words.byteLength;
    }
    this.pushCopies(copies);
    let pending = wal.pendingStates();
    for (const shardId of states) {
      const known = wal.states.get(shardId);
      // A newer record on its way must not be followed by a copy of an older one.
      if (known === undefined || known.epoch !== segment.epoch || pending.has(shardId)) continue;
      wal.pushState(known.state, 0, () => {});
      wal.counters.statesMoved++;
      bytes += recordBytes(known.state);
      if (bytes < mostBytes) continue;
      bytes = 0;
      if (!(await wal.allWritten()) || this.isStopped) return false;
      pending = wal.pendingStates();
    }
    return !this.isStopped && (await wal.allWritten());
  }

  private stateBytes(shardIds: readonly number[]): number {
    let bytes = 0;
    for (const shardId of shardIds) bytes += recordBytes(this.wal.states.get(shardId)!.state);
    return bytes;
  }

  /** What is live of the block, as it stands in a frame of moved ones. */
  private async copyOf(ref: BlockRef): Promise<Copy | undefined> {
    const { place } = ref;
    if (place === undefined) return undefined;
    const source = await this.wal.readFrame(place);
    const { u32 } = source;
    const at = place.blockOffset >>> 2;
    const header = new BlockHeader();
    readBlockHeader(u32, at, header);
    // The reference may cover less than the block on disk.
    const start = skipInBlock(ref.flags, u32, at + BLOCK_HEADER_WORDS, ref.firstIndex - blockFirstIndex(u32, at));
    const entryWords = skipInBlock(ref.flags, u32, start, ref.count) - start;
    const words = new Uint32Array(MOVED_PREFIX_WORDS + BLOCK_HEADER_WORDS + entryWords);
    putU53(words, 0, place.orderEpoch);
    putU53(words, 2, place.orderOffset);
    header.lengthBytes = (BLOCK_HEADER_WORDS + entryWords) << 2;
    header.count = ref.count;
    header.firstIndex = ref.firstIndex;
    header.prevTerm = ref.prevTerm;
    header.flags = ref.flags;
    writeBlockHeader(words, MOVED_PREFIX_WORDS, header);
    copyWords(u32, start, words, MOVED_PREFIX_WORDS + BLOCK_HEADER_WORDS, entryWords);
    source.release();
    return { ref, place, count: ref.count, shardId: header.shardId, words };
  }

  /** Queues one frame with those that are still live: a copy behind the record that gave its entries up would bring them back. */
  private pushCopies(all: readonly Copy[]): void {
    const { wal } = this;
    const copies = all.filter(({ ref, place, count, shardId }) => {
      return ref.place === place && ref.count === count && isAmong(wal.liveBlocks(shardId), ref);
    });
    if (copies.length === 0) return;
    const frameBytes = copies.reduce((sum, { words }) => sum + words.byteLength, FRAME_HEADER_BYTES);
    const slab = new Slab(frameBytes);
    let at = FRAME_HEADER_WORDS;
    for (const { words } of copies) {
      slab.u32.set(words, at);
      at += words.length;
    }
    sealFrame(slab.u8, slab.u32, 0, frameBytes, FrameType.Moved, copies.length, wal.formats.enabled);
    wal.pushOwn(slab, frameBytes, (segment, frameOffset) => {
      let blockOffset = (FRAME_HEADER_WORDS + MOVED_PREFIX_WORDS) << 2;
      for (const { ref, place, shardId, words } of copies) {
        segment.blockShards.add(shardId);
        const { orderEpoch, orderOffset } = place;
        if (ref.place === place)
          ref.place = { segmentEpoch: segment.epoch, frameOffset, frameBytes, blockOffset, orderEpoch, orderOffset };
        blockOffset += words.byteLength;
      }
      wal.counters.blocksMoved += copies.length;
    });
  }
}

function isAmong(refs: Iterable<BlockRef>, ref: BlockRef): boolean {
  for (const other of refs) if (other === ref) return true;
  return false;
}
