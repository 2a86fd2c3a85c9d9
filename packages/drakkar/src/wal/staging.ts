/**
 * Where a group is put together before it is written. Its memory is such that it goes to the disk as it is (`FileSystem.allocate`), and
 * keeps the group until that is durable.
 */
import type { FileSystem } from '../env/env.ts';
import type { BlockPlace } from '../wire/block-ref.ts';
import { blockCount, blockFirstIndex, blockLengthBytes, blockShardId } from '../wire/block.ts';
import { FRAME_HEADER_WORDS, FrameType, frameCount, frameType } from '../wire/frame.ts';
import { Slab } from '../wire/slab.ts';
import { GROUP_HEADER_BYTES, PAGE_BYTES, pagesUp } from './layout.ts';
import type { LogSink, ShardState } from './logdb.ts';
import { RECORD_REMOVED, recordFlags, recordLengthBytes, recordShardId } from './records.ts';
import type { Segment } from './segments.ts';

/** A frame that waits to be written. */
export interface PendingFrame {
  readonly slab: Slab;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Written by the log for itself: told to `done`, not to the sink. */
  readonly done: ((segment: Segment, frameOffset: number) => void) | undefined;
  /** The newest state of a shard, for state frames. */
  readonly state: ShardState | undefined;
}

export class Staging {
  /** Of the group, its header included; what follows up to a whole page is zeros. */
  lengthBytes = 0;
  private readonly fs: FileSystem;
  private slab: Slab;

  /** `groupBytes`: of the frames of a group; a single frame may be longer. */
  constructor(fs: FileSystem, groupBytes: number) {
    this.fs = fs;
    this.slab = this.make(GROUP_HEADER_BYTES + groupBytes + PAGE_BYTES);
  }

  get u8(): Uint8Array {
    return this.slab.u8;
  }

  get u32(): Uint32Array {
    return this.slab.u32;
  }

  private make(sizeBytes: number): Slab {
    return new Slab(sizeBytes, undefined, this.fs.allocate(sizeBytes));
  }

  /** Copies the frames, of `bytes` together, behind the room of the header, and lets go of their slabs. */
  fill(frames: readonly PendingFrame[], bytes: number): void {
    const lengthBytes = GROUP_HEADER_BYTES + bytes;
    const padded = pagesUp(lengthBytes);
    if (padded > this.slab.sizeBytes) this.slab = this.make(padded);
    const { u8 } = this.slab;
    let at = GROUP_HEADER_BYTES;
    for (const frame of frames) {
      u8.set(frame.slab.u8.subarray(frame.offset, frame.offset + frame.lengthBytes), at);
      frame.slab.release();
      at += frame.lengthBytes;
    }
    u8.fill(0, lengthBytes, padded);
    this.lengthBytes = lengthBytes;
  }

  /** The frame at `at`, which stands at `frameOffset` of the segment, is durable. */
  tell(sink: LogSink | undefined, segment: Segment, at: number, frameOffset: number): void {
    const { u32 } = this.slab;
    const word = at >>> 2;
    const frameBytes = u32[word];
    let w = word + FRAME_HEADER_WORDS;
    if (frameType(u32, word) === FrameType.Records) {
      const end = (at + frameBytes) >>> 2;
      for (; w < end; w += recordLengthBytes(u32, w) >>> 2) {
        if ((recordFlags(u32, w) & RECORD_REMOVED) === 0) sink?.stateDurable(recordShardId(u32, w));
      }
      return;
    }
    for (let left = frameCount(u32, word); left > 0; left--) {
      const shardId = blockShardId(u32, w);
      segment.blockShards.add(shardId);
      const blockOffset = (w - word) << 2;
      const place: BlockPlace = {
        segmentEpoch: segment.epoch,
        frameOffset,
        frameBytes,
        blockOffset,
        orderEpoch: segment.epoch,
        orderOffset: frameOffset + blockOffset,
      };
      sink?.blockDurable(shardId, place, blockFirstIndex(u32, w), blockCount(u32, w));
      w += blockLengthBytes(u32, w) >>> 2;
    }
  }
}
