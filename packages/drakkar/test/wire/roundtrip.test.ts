/** What is encoded is decoded the same, and the bounds are where they are said to be. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  BLOCK_HEADER_WORDS,
  BlockHeader,
  blockIsSound,
  readBlockHeader,
  writeBlockHeader,
} from '../../src/wire/block.ts';
import {
  EntryType,
  entryType,
  entryWords,
  keyNonce,
  keySequence,
  payloadLengthBytes,
  putEntry,
  putSessionEntry,
  skipEntries,
} from '../../src/wire/entry.ts';
import { FRAME_HEADER_BYTES, FrameType, checkFrame, frameIsIntact, sealFrame } from '../../src/wire/frame.ts';
import { decodeMembership, encodeMembership } from '../../src/wire/membership.ts';
import { MESSAGE_WORDS, Message, messageIsSound, readMessage, writeMessage } from '../../src/wire/message.ts';
import { checkedU53, getU53, isU53, putU53 } from '../../src/wire/number.ts';
import { SLAB_BYTES, Slab, SlabPool } from '../../src/wire/slab.ts';

const u53 = fc.maxSafeNat();
const u32 = fc.integer({ min: 0, max: 0xffffffff });

test('numbers up to 2^53 - 1 survive two words; above they are refused', () => {
  const words = new Uint32Array(2);
  fc.assert(
    fc.property(u53, (value) => {
      putU53(words, 0, value);
      return getU53(words, 0) === value && isU53(words, 0) && checkedU53(words, 0, 'it') === value;
    }),
  );
  words.set([0, 0x200000]);
  assert.equal(isU53(words, 0), false);
  assert.throws(() => checkedU53(words, 0, 'a term'), { code: 'ERR_FRAME', message: /a term exceeds 2\^53 - 1/ });
});

test('messages', () => {
  const words = new Uint32Array(MESSAGE_WORDS);
  const fields = {
    shardId: u53,
    from: u53,
    to: u53,
    term: u53,
    logIndex: u53,
    logTerm: u53,
    commit: u53,
    hint: u53,
    hintHigh: u53,
  };
  const message = fc.record({
    type: fc.integer({ min: 0, max: 12 }),
    flags: fc.integer({ min: 0, max: 7 }),
    ...fields,
  });
  fc.assert(
    fc.property(message, (given) => {
      writeMessage(words, 0, Object.assign(new Message(), given));
      assert.ok(messageIsSound(words, 0));
      const read = new Message();
      readMessage(words, 0, read);
      assert.deepEqual(read, Object.assign(new Message(), given));
    }),
  );
});

test('blocks of entries of all kinds', () => {
  const payloads = fc.array(fc.tuple(fc.uint8Array({ maxLength: 400 }), fc.boolean(), u32, u32), { maxLength: 20 });
  fc.assert(
    fc.property(payloads, u53, (entries, shardId) => {
      const slab = new Slab(64 * 1024);
      let word = BLOCK_HEADER_WORDS;
      const starts: number[] = [];
      for (const [payload, isSession, sequence, nonce] of entries) {
        starts.push(word);
        const fields = { clientHigh: nonce, clientLow: sequence, series: 7, respondedTo: 6 };
        word = isSession
          ? putSessionEntry(slab.u8, slab.u32, word, EntryType.SessionCommand, sequence, nonce, fields, payload)
          : putEntry(slab.u8, slab.u32, word, EntryType.Command, sequence, nonce, payload);
      }
      const header = Object.assign(new BlockHeader(), {
        lengthBytes: word << 2,
        count: entries.length,
        shardId,
        term: 3,
        senderTerm: 4,
        firstIndex: 9,
        prevTerm: 2,
        senderId: 5,
      });
      writeBlockHeader(slab.u32, 0, header);
      assert.ok(blockIsSound(slab.u32, 0, word));
      assert.ok(!blockIsSound(slab.u32, 0, word - 1), 'a block that is cut off');
      const read = new BlockHeader();
      readBlockHeader(slab.u32, 0, read);
      assert.deepEqual(read, header);
      for (const [i, [payload, isSession, sequence, nonce]] of entries.entries()) {
        const at = skipEntries(slab.u32, BLOCK_HEADER_WORDS, i);
        assert.equal(at, starts[i]);
        assert.equal(entryType(slab.u32, at), isSession ? EntryType.SessionCommand : EntryType.Command);
        assert.deepEqual([keySequence(slab.u32, at), keyNonce(slab.u32, at)], [sequence, nonce]);
        assert.equal(payloadLengthBytes(slab.u32, at), payload.length);
        const start = (at + entryWords(slab.u32, at)) * 4 - ((payload.length + 3) & ~3);
        assert.deepEqual(slab.u8.slice(start, start + payload.length), payload);
      }
    }),
  );
});

test('frames verify, and every single flipped bit is noticed', () => {
  const slab = new Slab(FRAME_HEADER_BYTES + 40);
  for (let i = FRAME_HEADER_BYTES; i < slab.sizeBytes; i++) slab.u8[i] = i;
  sealFrame(slab.u8, slab.u32, 0, slab.sizeBytes, FrameType.Messages, 2);
  checkFrame(slab.u8, slab.u32, 0, slab.sizeBytes);
  for (let bit = 32; bit < slab.sizeBytes * 8; bit++) {
    slab.u8[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(frameIsIntact(slab.u8, slab.u32, 0), false, `bit ${bit}`);
    slab.u8[bit >> 3] ^= 1 << (bit & 7);
  }
});

test('memberships', () => {
  const members = fc
    .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 1e9 }), fc.string({ maxLength: 50 })), {
      selector: ([id]) => id,
      maxLength: 10,
    })
    .map((pairs) => new Map(pairs));
  const membership = fc.record({
    configChangeIndex: u53,
    voters: members,
    nonVotings: members,
    witnesses: members,
    autoPromoted: fc.constant(new Set([5])),
    removed: fc.constant(new Set([3, 8])),
  });
  fc.assert(
    fc.property(membership, (given) => assert.deepEqual(decodeMembership(encodeMembership(given)), { ...given })),
  );
});

test('a slab goes back to its pool with its last release, and not twice', () => {
  const pool = new SlabPool();
  const slab = pool.acquire();
  slab.retain();
  slab.release();
  assert.equal(pool.pinnedBytes, SLAB_BYTES);
  slab.release();
  assert.equal(pool.pinnedBytes, 0);
  assert.throws(() => slab.release(), { code: 'ERR_INVARIANT' });
  assert.throws(() => slab.retain(), { code: 'ERR_INVARIANT' });
  assert.equal(pool.acquire(), slab, 'it is used again');
  const large = pool.acquire(SLAB_BYTES * 3);
  large.release();
  assert.notEqual(pool.acquire(SLAB_BYTES * 3), large, 'large ones are made for one use');
});
