/**
 * From the frames of a log to the state of each shard: which blocks are live, which state record counts, and whether anything is
 * missing. The order is that of the first writing; blocks that were moved to a newer segment carry theirs with them.
 */
import { DrakkarError } from '../errors.ts';
import {
  BLOCK_TRUNCATES,
  LASTING_FLAGS,
  BlockHeader,
  blockIsSound,
  blockLengthBytes,
  readBlockHeader,
} from '../wire/block.ts';
import { BlockRef, type BlockPlace } from '../wire/block-ref.ts';
import { FRAME_HEADER_WORDS, FrameType, frameCount, frameType } from '../wire/frame.ts';
import { checkedU53 } from '../wire/number.ts';
import type { RecoveredShard, ShardState } from './logdb.ts';
import { RECORD_REMOVED, RECORD_RESETS_LOG, readRecord, recordFlags, recordLengthBytes } from './records.ts';
import type { Segment } from './segments.ts';

/** Words in front of each block of a moved frame: epoch and offset of its first writing. */
export const MOVED_PREFIX_WORDS = 4;

class ShardLog {
  /** As they were written; those that are given up are dropped on the way. */
  items: BlockRef[] = [];
  /** Those that replace entries; few. */
  truncating: Set<BlockRef> | undefined;
  hasMoved = false;
  state: ShardState | undefined;
  /** Segment of the newest state record. */
  stateEpoch = 0;
  commitIndex = 0;
}

export class Replay {
  private readonly shards = new Map<number, ShardLog>();
  private readonly header = new BlockHeader();

  /** One frame whose checksum holds. Throws `ERR_LOG_CORRUPT` for contents that this library never writes. */
  readonly visit = (segment: Segment, u8: Uint8Array, u32: Uint32Array, at: number, offset: number): void => {
    const word = at >>> 2;
    const end = (at + u32[word]) >>> 2;
    const start = word + FRAME_HEADER_WORDS;
    switch (frameType(u32, word)) {
      case FrameType.Blocks:
      case FrameType.Moved:
        this.visitBlocks(segment, u32, word, start, end, offset);
        break;
      case FrameType.Records:
        this.visitRecords(segment, u8, u32, start, end);
        break;
      default:
        throw new DrakkarError('ERR_LOG_CORRUPT', `${segment.path} holds a frame of unknown type at byte ${offset}`);
    }
  };

  private visitBlocks(
    segment: Segment,
    u32: Uint32Array,
    word: number,
    start: number,
    end: number,
    offset: number,
  ): void {
    const isMoved = frameType(u32, word) === FrameType.Moved;
    const frameBytes = u32[word];
    let at = start;
    for (let left = frameCount(u32, word); left > 0; left--) {
      const block = isMoved ? at + MOVED_PREFIX_WORDS : at;
      if (!blockIsSound(u32, block, end)) {
        throw new DrakkarError('ERR_LOG_CORRUPT', `${segment.path} holds a malformed block near byte ${offset}`);
      }
      const blockOffset = (block - word) << 2;
      const place: BlockPlace = {
        segmentEpoch: segment.epoch,
        frameOffset: offset,
        frameBytes,
        blockOffset,
        orderEpoch: isMoved ? checkedU53(u32, at, 'an epoch') : segment.epoch,
        orderOffset: isMoved ? checkedU53(u32, at + 2, 'an offset') : offset + blockOffset,
      };
      this.addBlock(segment, u32, block, place, isMoved);
      at = block + (blockLengthBytes(u32, block) >>> 2);
    }
  }

  private addBlock(segment: Segment, u32: Uint32Array, block: number, place: BlockPlace, isMoved: boolean): void {
    const { header } = this;
    readBlockHeader(u32, block, header);
    if (header.count === 0) return;
    const shard = this.shardOf(header.shardId);
    segment.blockShards.add(header.shardId);
    const { firstIndex, count, term, prevTerm } = header;
    const ref = new BlockRef(firstIndex, count, term, prevTerm, undefined, 0, 0, header.flags & LASTING_FLAGS);
    ref.sizeBytes = header.lengthBytes;
    ref.place = place;
    shard.items.push(ref);
    if ((header.flags & BLOCK_TRUNCATES) !== 0 && !isMoved) (shard.truncating ??= new Set()).add(ref);
    if (isMoved) shard.hasMoved = true;
    // A follower's commit index is never above what the block itself verified (design §7.2).
    shard.commitIndex = Math.max(shard.commitIndex, Math.min(header.commitIndex, header.lastIndex));
  }

  private visitRecords(segment: Segment, u8: Uint8Array, u32: Uint32Array, start: number, end: number): void {
    for (let at = start; at < end; at += recordLengthBytes(u32, at) >>> 2) {
      const state = readRecord(u8, u32, at, end);
      const flags = recordFlags(u32, at);
      const shard = this.shardOf(state.shardId);
      if ((flags & RECORD_REMOVED) !== 0) {
        this.shards.delete(state.shardId);
        continue;
      }
      if ((flags & RECORD_RESETS_LOG) !== 0) {
        shard.items = [];
        // An import may go back behind what the old members had committed.
        shard.commitIndex = 0;
      } else dropCompacted(shard, state.compactedIndex);
      shard.state = state;
      shard.stateEpoch = segment.epoch;
    }
  }

  private shardOf(shardId: number): ShardLog {
    let shard = this.shards.get(shardId);
    if (shard === undefined) {
      shard = new ShardLog();
      this.shards.set(shardId, shard);
    }
    return shard;
  }

  /** `damage` of the log at large fails every shard: which of them lost something cannot be told. */
  finish(damage: DrakkarError | undefined): {
    recovered: Map<number, RecoveredShard>;
    stateEpochs: Map<number, number>;
  } {
    const recovered = new Map<number, RecoveredShard>();
    const stateEpochs = new Map<number, number>();
    for (const [shardId, shard] of this.shards) {
      recovered.set(shardId, recoverShard(shardId, shard, damage));
      if (shard.state !== undefined) stateEpochs.set(shardId, shard.stateEpoch);
    }
    return { recovered, stateEpochs };
  }
}

/** Nothing truncates what is given up, which was committed: those in front play no part any more. */
function dropCompacted(shard: ShardLog, compactedIndex: number): void {
  const { items } = shard;
  let dropped = 0;
  while (dropped < items.length && items[dropped].lastIndex <= compactedIndex) {
    shard.truncating?.delete(items[dropped]);
    dropped++;
  }
  if (dropped > 0) shard.items = items.slice(dropped);
}

/** Not where it was first written. */
function isMoved({ place }: BlockRef): boolean {
  const { segmentEpoch, frameOffset, blockOffset, orderEpoch, orderOffset } = place!;
  return segmentEpoch !== orderEpoch || frameOffset + blockOffset !== orderOffset;
}

const byOrder = (a: BlockRef, b: BlockRef): number =>
  a.place!.orderEpoch - b.place!.orderEpoch ||
  a.place!.orderOffset - b.place!.orderOffset ||
  Number(isMoved(b)) - Number(isMoved(a));

function recoverShard(shardId: number, shard: ShardLog, damage: DrakkarError | undefined): RecoveredShard {
  const { state } = shard;
  let failure = damage;
  const fail = (why: string): void => {
    failure ??= new DrakkarError(
      'ERR_LOG_CORRUPT',
      `the log of shard ${shardId} is damaged: ${why}; replace this replica by a new one`,
    );
  };
  if (state === undefined) {
    fail('it has entries and no state record');
    return { state: noState(shardId), blocks: [], commitIndex: 0, failure };
  }
  const blocks = replayItems(shard, state.compactedIndex, fail);
  const lastIndex = blocks.length > 0 ? blocks[blocks.length - 1].lastIndex : state.compactedIndex;
  if (lastIndex < state.snapshotIndex) fail(`it ends at ${lastIndex}, below the snapshot at ${state.snapshotIndex}`);
  return { state, blocks, commitIndex: Math.max(shard.commitIndex, state.commitIndex), failure };
}

function replayItems(shard: ShardLog, compactedIndex: number, fail: (why: string) => void): BlockRef[] {
  const items = shard.hasMoved ? shard.items.sort(byOrder) : shard.items;
  let live: BlockRef[] = [];
  let last: number | undefined;
  let previous: BlockPlace | undefined;
  for (const item of items) {
    const place = item.place!;
    // A moved copy and its original have one order; the copy, which comes first, knows what was live.
    if (previous?.orderEpoch === place.orderEpoch && previous.orderOffset === place.orderOffset) continue;
    previous = place;
    // As it was written; a truncation shortens it below.
    const { lastIndex } = item;
    if (last === undefined || item.firstIndex > last + 1) {
      // Only what is given up anyway may be missing before it.
      if (item.firstIndex > compactedIndex + 1) {
        fail(
          `entries from ${last === undefined ? compactedIndex + 1 : last + 1} to ${item.firstIndex - 1} are missing`,
        );
      }
      live = [];
    } else if (item.firstIndex <= last) {
      if (shard.truncating?.has(item) === true) truncate(live, item.firstIndex);
      else if (lastIndex <= compactedIndex) continue;
      else fail(`entries from ${item.firstIndex} on stand in it twice`);
    }
    live.push(item);
    last = lastIndex;
  }
  return live.filter((ref) => ref.lastIndex > compactedIndex);
}

function truncate(live: BlockRef[], fromIndex: number): void {
  while (live.length > 0) {
    const ref = live[live.length - 1];
    if (ref.lastIndex < fromIndex) return;
    if (ref.firstIndex < fromIndex) {
      ref.count = fromIndex - ref.firstIndex;
      return;
    }
    live.pop();
  }
}

const noState = (shardId: number): ShardState => ({
  shardId,
  replicaId: 0,
  term: 0,
  vote: 0,
  commitIndex: 0,
  snapshotIndex: 0,
  snapshotTerm: 0,
  compactedIndex: 0,
  compactedTerm: 0,
  bootstrap: new Uint8Array(0),
  pins: [],
});
