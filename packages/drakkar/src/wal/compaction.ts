/**
 * Frees old segments, strictly oldest first. A segment is free when no live block and no newest state record stands in it. What
 * little of idle shards holds back an old segment is moved: copied behind the log's end with its original order, and the segment
 * is freed only when the copies are durable.
 *
 * Oldest first is what makes it safe to drop truncating blocks and resets: when one goes, everything that was written before it,
 * and that it made void, is gone already. A moved block is live when it is moved, so it was not void then; a truncation
 * that comes later also stands later.
 */
import type { BlockRef } from '../wire/block-ref.ts';
import {
  BLOCK_HEADER_WORDS,
  BlockHeader,
  blockFirstIndex,
  copyWords,
  readBlockHeader,
  writeBlockHeader,
} from '../wire/block.ts';
import { skipEntries } from '../wire/entry.ts';
import { FRAME_HEADER_BYTES, FRAME_HEADER_WORDS, FrameType, sealFrame } from '../wire/frame.ts';
import { putU53 } from '../wire/number.ts';
import { Slab } from '../wire/slab.ts';
import { MOVED_PREFIX_WORDS } from './replay.ts';
import type { Segment } from './segments.ts';
import type { Wal } from './wal.ts';

/** Segments that may stand behind the current one before live blocks are moved out of the oldest. */
const SEGMENTS_BEFORE_MOVING = 8;
/** A segment with more live bytes than this share stays, unless there are twice as many segments. */
const MOVE_BELOW_SHARE = 0.5;

export class Compaction {
  private readonly wal: Wal;
  private running: Promise<void> | undefined;
  private isStopped = false;

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
      });
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
        // State records alone are cheap to copy; blocks are moved when segments pile up.
        const mayMove =
          live.length === 0 || (behind > SEGMENTS_BEFORE_MOVING && isSparse) || behind > 2 * SEGMENTS_BEFORE_MOVING;
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
    for (const ref of live) {
      if (this.isStopped) return false;
      await this.moveBlock(ref);
    }
    for (const shardId of states) {
      const known = wal.states.get(shardId);
      // A newer record on its way must not be followed by a copy of an older one.
      if (known === undefined || known.epoch !== segment.epoch || wal.hasPendingState(shardId)) continue;
      await this.durably((done) => wal.pushState(known.state, 0, done));
    }
    return !this.isStopped && (await wal.allWritten());
  }

  private async moveBlock(ref: BlockRef): Promise<void> {
    const { wal } = this;
    const { place } = ref;
    if (place === undefined) return;
    const source = await wal.readFrame(place);
    const words = place.blockOffset >>> 2;
    const header = new BlockHeader();
    readBlockHeader(source.u32, words, header);
    // Given up while it was read: a copy behind the record that says so would bring it back.
    if (!isAmong(wal.liveBlocks(header.shardId), ref)) {
      source.release();
      return;
    }
    // Only what is live: the reference may cover less than the block on disk.
    const start = skipEntries(
      source.u32,
      words + BLOCK_HEADER_WORDS,
      ref.firstIndex - blockFirstIndex(source.u32, words),
    );
    const entryWords = skipEntries(source.u32, start, ref.count) - start;
    const lengthBytes = FRAME_HEADER_BYTES + ((MOVED_PREFIX_WORDS + BLOCK_HEADER_WORDS + entryWords) << 2);
    const slab = new Slab(lengthBytes);
    putU53(slab.u32, FRAME_HEADER_WORDS, place.orderEpoch);
    putU53(slab.u32, FRAME_HEADER_WORDS + 2, place.orderOffset);
    const block = FRAME_HEADER_WORDS + MOVED_PREFIX_WORDS;
    header.lengthBytes = (BLOCK_HEADER_WORDS + entryWords) << 2;
    header.count = ref.count;
    header.firstIndex = ref.firstIndex;
    header.prevTerm = ref.prevTerm;
    header.flags = 0;
    writeBlockHeader(slab.u32, block, header);
    copyWords(source.u32, start, slab.u32, block + BLOCK_HEADER_WORDS, entryWords);
    source.release();
    sealFrame(slab.u8, slab.u32, 0, lengthBytes, FrameType.Moved, 1);
    const shardId = header.shardId;
    await this.durably((done) =>
      wal.pushOwn(slab, lengthBytes, (segment, frameOffset) => {
        segment.blockShards.add(shardId);
        if (ref.place === place) {
          ref.place = {
            segmentEpoch: segment.epoch,
            frameOffset,
            frameBytes: lengthBytes,
            blockOffset: block << 2,
            orderEpoch: place.orderEpoch,
            orderOffset: place.orderOffset,
          };
        }
        wal.counters.blocksMoved++;
        done();
      }),
    );
  }

  private durably(push: (done: () => void) => void): Promise<void> {
    return new Promise((resolve) => {
      push(resolve);
      this.wal.flush();
    });
  }
}

function isAmong(refs: Iterable<BlockRef>, ref: BlockRef): boolean {
  for (const other of refs) if (other === ref) return true;
  return false;
}
