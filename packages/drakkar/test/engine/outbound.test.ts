/** Frames for a peer that catches up, and for a leader elsewhere: whatever the sizes of their blocks, each arrives whole. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LogDb, Peer } from 'drakkar';
import { BlockBuffer } from '../../src/engine/open-block.ts';
import { Outbound } from '../../src/engine/outbound.ts';
import {
  BLOCK_HEADER_WORDS,
  BlockHeader,
  blockLengthBytes,
  checkBlocks,
  readBlockHeader,
  writeBlockHeader,
} from '../../src/wire/block.ts';
import { BlockRef } from '../../src/wire/block-ref.ts';
import { EntryType, payloadLengthBytes, putEntry } from '../../src/wire/entry.ts';
import { FRAME_HEADER_WORDS, FrameType, frameCount, frameType } from '../../src/wire/frame.ts';
import { FRAME_TARGET_BYTES } from '../../src/wire/limits.ts';
import { Slab, SlabPool } from '../../src/wire/slab.ts';

/** Sends blocks of one entry each with these payloads; gives the payload sizes that arrive, in order. */
function through(sizes: readonly number[]): number[] {
  const arrived: number[] = [];
  const peer = {
    index: 0,
    send(slab: Slab, offset: number, lengthBytes: number): boolean {
      let word = (offset >>> 2) + FRAME_HEADER_WORDS;
      checkBlocks(slab.u32, word, (offset + lengthBytes) >>> 2, frameCount(slab.u32, offset >>> 2));
      const header = new BlockHeader();
      for (let left = frameCount(slab.u32, offset >>> 2); left > 0; left--) {
        readBlockHeader(slab.u32, word, header);
        assert.equal(header.firstIndex, arrived.length + 1);
        arrived.push(payloadLengthBytes(slab.u32, word + BLOCK_HEADER_WORDS));
        word += blockLengthBytes(slab.u32, word) >>> 2;
      }
      return true;
    },
  } as unknown as Peer;
  const outbound = new Outbound(new SlabPool(), {} as LogDb, () => assert.fail('a frame was not taken'));
  for (const [i, size] of sizes.entries()) {
    const slab = new Slab((size + 64 + 3) & ~3);
    const end = putEntry(slab.u8, slab.u32, 0, EntryType.Command, i, 7, new Uint8Array(size).fill(i));
    const header = Object.assign(new BlockHeader(), { count: 1, shardId: 1, term: 1, firstIndex: i + 1, senderId: 1 });
    header.senderTerm = 1;
    outbound.addCatchUp(peer, header, new BlockRef(i + 1, 1, 1, 0, slab, 0, end), 0);
  }
  outbound.flush();
  return arrived;
}

test('a large block behind a small one', () => {
  assert.deepEqual(through([100, 200_000]), [100, 200_000]);
});

test('blocks of any sizes, in order', () => {
  const sizes = fc.array(fc.oneof(fc.nat(200), fc.nat(60_000), fc.nat(700_000)), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(sizes, (each) => assert.deepEqual(through(each), each)),
    { numRuns: 100 },
  );
});

function blockOf(sequence: number, size: number): BlockBuffer {
  const block = new BlockBuffer();
  block.reserve(size + 64);
  block.endWord = putEntry(block.u8, block.u32, block.endWord, EntryType.Command, sequence, 7, new Uint8Array(size));
  block.count = 1;
  const header = { lengthBytes: block.lengthBytes, count: 1, shardId: sequence, term: 1, firstIndex: 1, senderId: 1 };
  writeBlockHeader(block.u32, 0, Object.assign(new BlockHeader(), header, { senderTerm: 1 }));
  return block;
}

test('what is passed on to a host leaves in one frame, or its owners hear of it', () => {
  const sizes = fc.array(fc.oneof(fc.nat(200), fc.nat(60_000), fc.nat(700_000)), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(sizes, fc.nat(12), (each, taken) => {
      const arrived: number[] = [];
      let frames = 0;
      let left = 0;
      const peer = {
        index: 0,
        send(slab: Slab, offset: number, lengthBytes: number): boolean {
          if (frames >= taken) return false;
          frames++;
          assert.equal(frameType(slab.u32, offset >>> 2), FrameType.Forward);
          let word = (offset >>> 2) + FRAME_HEADER_WORDS;
          checkBlocks(slab.u32, word, (offset + lengthBytes) >>> 2, frameCount(slab.u32, offset >>> 2));
          for (let blocks = frameCount(slab.u32, offset >>> 2); blocks > 0; blocks--) {
            arrived.push(payloadLengthBytes(slab.u32, word + BLOCK_HEADER_WORDS));
            word += blockLengthBytes(slab.u32, word) >>> 2;
          }
          return true;
        },
      } as unknown as Peer;
      const refused: number[] = [];
      let recycled = 0;
      const forwarder = {
        notForwarded: (block: BlockBuffer): void =>
          void refused.push(payloadLengthBytes(block.u32, BLOCK_HEADER_WORDS)),
        recycleBlock: (): void => void recycled++,
      };
      const outbound = new Outbound(new SlabPool(), {} as LogDb, () => left++);
      for (const [i, size] of each.entries()) outbound.addForward(peer, blockOf(i + 1, size), forwarder);
      outbound.flush();
      assert.deepEqual([...arrived, ...refused], each);
      assert.equal(recycled, each.length);
      assert.equal(refused.length > 0, left > 0);
      const total = each.reduce((sum, size) => sum + size + 200, 0);
      if (total < FRAME_TARGET_BYTES) assert.ok(frames <= 1);
      outbound.flush();
      assert.equal(recycled, each.length);
    }),
    { numRuns: 100 },
  );
});
