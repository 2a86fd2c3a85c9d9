/**
 * Brings blocks whose bytes were given back into memory again: for the apply after a restart, and for followers that catch up.
 * One read per replica at a time; the core is asked again when it ends.
 */
import { DrakkarError, invariant } from '../errors.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import {
  BLOCK_HEADER_WORDS,
  blockCount,
  blockFirstIndex,
  blockIsSound,
  blockShardId,
  skipInBlock,
} from '../wire/block.ts';
import type { Slab } from '../wire/slab.ts';
import type { LogDb } from '../wal/logdb.ts';
import { READ_AHEAD_BYTES } from './limits.ts';
import type { Replica } from './replica.ts';

/** Reads consecutive blocks of `replica` from `fromIndex` on, until some read-ahead is filled. */
export async function fetchBlocks(log: LogDb, replica: Replica, fromIndex: number): Promise<void> {
  let bytes = 0;
  let index = fromIndex;
  while (bytes < READ_AHEAD_BYTES) {
    const ref = replica.raft.log.blockAt(index);
    if (ref === undefined) return;
    if (ref.slab === undefined) {
      const { place } = ref;
      invariant(place !== undefined, `entries from ${ref.firstIndex} are neither in memory nor in the log`);
      const slab = await log.readFrame(place);
      // The log may have been truncated or compacted while the read was under way.
      const current = replica.raft.log.blockAt(index);
      if (current !== ref || ref.slab !== undefined) slab.release();
      else attach(replica.shardId, ref, slab, place.blockOffset);
      if (current === undefined) return;
    }
    bytes += (ref.entriesEndWord - ref.entriesWord) << 2;
    index = ref.lastIndex + 1;
  }
}

/** Points `ref` at its entries in the frame that `slab` holds from its start. */
function attach(shardId: number, ref: BlockRef, slab: Slab, blockOffset: number): void {
  try {
    ref.entriesWord = locate(shardId, slab, blockOffset, ref.firstIndex, ref.lastIndex, ref.flags);
  } catch (error) {
    slab.release();
    throw error;
  }
  ref.entriesEndWord = skipInBlock(ref.flags, slab.u32, ref.entriesWord, ref.count);
  ref.slab = slab;
}

/** The word at which `firstIndex` stands in the block at `blockOffset`, which must be sound and hold entries up to `lastIndex`. */
export function locate(
  shardId: number,
  slab: Slab,
  blockOffset: number,
  firstIndex: number,
  lastIndex: number,
  flags: number,
): number {
  const word = blockOffset >>> 2;
  const { u32 } = slab;
  const found =
    blockIsSound(u32, word, slab.usedBytes >>> 2) &&
    blockShardId(u32, word) === shardId &&
    blockFirstIndex(u32, word) <= firstIndex &&
    blockFirstIndex(u32, word) + blockCount(u32, word) > lastIndex;
  if (!found) {
    throw new DrakkarError('ERR_LOG_CORRUPT', `the log holds something else where entries from ${firstIndex} were`);
  }
  return skipInBlock(flags, u32, word + BLOCK_HEADER_WORDS, firstIndex - blockFirstIndex(u32, word));
}
