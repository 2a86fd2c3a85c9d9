/** Frames for a peer that catches up: whatever the sizes of its blocks, each arrives whole. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LogDb, Peer } from 'drakkar';
import { Outbound } from '../../src/engine/outbound.ts';
import {
  BLOCK_HEADER_WORDS,
  BlockHeader,
  blockLengthBytes,
  checkBlocks,
  readBlockHeader,
} from '../../src/wire/block.ts';
import { BlockRef } from '../../src/wire/block-ref.ts';
import { EntryType, payloadLengthBytes, putEntry } from '../../src/wire/entry.ts';
import { FRAME_HEADER_WORDS, frameCount } from '../../src/wire/frame.ts';
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
