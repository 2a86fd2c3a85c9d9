/** More than a million mutated inputs: every decoder refuses with its typed error or gives what stays inside its bytes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, type ErrorCode } from 'drakkar';
import { seededRandom } from 'drakkar/testing';
import { BLOCK_HEADER_WORDS, blockCount, blockLengthBytes, checkBlocks } from '../../src/wire/block.ts';
import { EntryType, entryWords, payloadLengthBytes, putSessionEntry } from '../../src/wire/entry.ts';
import {
  FRAME_HEADER_BYTES,
  FRAME_HEADER_WORDS,
  FrameType,
  checkFrame,
  frameCount,
  sealFrame,
} from '../../src/wire/frame.ts';
import { ENTRY_MAX_BYTES } from '../../src/wire/limits.ts';
import { decodeMembership, encodeMembership } from '../../src/wire/membership.ts';
import { MESSAGE_WORDS, Message, checkMessages, readMessage, writeMessage } from '../../src/wire/message.ts';
import { Slab, SlabPool } from '../../src/wire/slab.ts';
import { FrameReceiver } from '../../src/transport/frame-receiver.ts';
import { decodeHello, encodeHello } from '../../src/transport/hello.ts';
import {
  checkEnd,
  decodeChunk,
  decodeSnapshotHeader,
  decodeStatus,
  encodeChunk,
  encodeEnd,
  encodeSnapshotHeader,
  encodeStatus,
} from '../../src/transport/snapshot-frames.ts';
import { Sessions } from '../../src/rsm/sessions.ts';
import { readRecord, recordBytes, writeRecord } from '../../src/wal/records.ts';
import { frameOf, stateOf } from '../wal/support.ts';
import { identityOf } from '../transport/compliance.ts';

const random = seededRandom(20_261);
const below = (limit: number): number => random.u32() % limit;

/** Values that decoders get wrong. */
const NASTY = [0, 1, 2, 3, 4, 0x7f, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, 0x1fffff, 0x200000, 0xfffffffe];

/** Changes one to four places: a bit, a byte, or a word. */
function mutate(bytes: Uint8Array): void {
  for (let left = 1 + below(4); left > 0; left--) {
    const at = below(bytes.length);
    const wordAt = Math.min(at & ~3, (bytes.length & ~3) - 4);
    switch (below(4)) {
      case 0:
        bytes[at] ^= 1 << below(8);
        break;
      case 1:
        bytes[at] = below(256);
        break;
      case 2:
        new DataView(bytes.buffer).setUint32(wordAt, NASTY[below(NASTY.length)], true);
        break;
      default:
        new DataView(bytes.buffer).setUint32(wordAt, random.u32(), true);
    }
  }
}

interface Outcome {
  accepted: number;
  refused: number;
}

/** Decodes `count` mutations of `valid`; every refusal has one of `codes`, and both outcomes are seen. */
function fuzz(
  valid: Uint8Array,
  count: number,
  codes: readonly ErrorCode[],
  decode: (bytes: Uint8Array) => void,
): Outcome {
  decode(valid.slice());
  const outcome: Outcome = { accepted: 0, refused: 0 };
  for (let i = 0; i < count; i++) {
    let bytes = valid.slice();
    mutate(bytes);
    if (below(8) === 0) bytes = bytes.slice(0, below(bytes.length) & ~3);
    try {
      decode(bytes);
      outcome.accepted++;
    } catch (error) {
      if (!DrakkarError.is(error) || !codes.includes(error.code)) {
        const input = Buffer.from(bytes).toString('hex');
        throw new Error(`input ${input} gave ${String(error)}`, { cause: error });
      }
      outcome.refused++;
    }
  }
  assert.ok(outcome.refused > count / 100, `only ${outcome.refused} of ${count} were refused`);
  return outcome;
}

const words = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.buffer, 0, bytes.length >>> 2);

/** Seals the bytes as a frame again, so that what stands behind the checksum is reached. */
function reseal(bytes: Uint8Array, type: FrameType): boolean {
  if (bytes.length < FRAME_HEADER_BYTES) return false;
  sealFrame(bytes, words(bytes), 0, bytes.length, type, words(bytes)[3]);
  return true;
}

function framed(slab: Slab): Uint8Array {
  return slab.u8.slice(0, slab.usedBytes);
}

/** Walks every accepted entry as the library would. */
function decodeBlocks(bytes: Uint8Array): void {
  const u32 = words(bytes);
  const end = bytes.length >>> 2;
  const count = frameCount(u32, 0);
  checkBlocks(u32, FRAME_HEADER_WORDS, end, count);
  let word = FRAME_HEADER_WORDS;
  for (let left = count; left > 0; left--) {
    const blockEnd = word + (blockLengthBytes(u32, word) >>> 2);
    let entry = word + BLOCK_HEADER_WORDS;
    for (let entries = blockCount(u32, word); entries > 0; entries--) {
      assert.ok(payloadLengthBytes(u32, entry) <= ENTRY_MAX_BYTES);
      entry += entryWords(u32, entry);
      assert.ok(entry <= blockEnd, 'an accepted entry reaches out of its block');
    }
    assert.equal(entry, blockEnd);
    word = blockEnd;
    assert.ok(word <= end, 'an accepted block reaches out of its frame');
  }
}

const message = new Message();

function decodeMessages(bytes: Uint8Array): void {
  const u32 = words(bytes);
  const end = bytes.length >>> 2;
  checkMessages(u32, FRAME_HEADER_WORDS, end, frameCount(u32, 0));
  for (let word = FRAME_HEADER_WORDS; word < end; word += MESSAGE_WORDS) {
    readMessage(u32, word, message);
    for (const value of [message.shardId, message.from, message.to, message.term, message.logIndex, message.hint]) {
      assert.ok(Number.isSafeInteger(value) && value >= 0);
    }
  }
}

const blocks = framed(
  frameOf(
    { firstIndex: 1, count: 3, payloadBytes: 5 },
    { shardId: 2, firstIndex: 7, count: 1, term: 3, payloadBytes: 0 },
  ).slab,
);

function sessionBlocks(): Uint8Array {
  const { slab } = frameOf({ firstIndex: 1, count: 1, payloadBytes: 40 });
  const word = FRAME_HEADER_WORDS + BLOCK_HEADER_WORDS;
  const fields = { clientHigh: 1, clientLow: 2, series: 3, respondedTo: 2 };
  // The payload is shorter by the longer header.
  putSessionEntry(slab.u8, slab.u32, word, EntryType.SessionCommand, 1, 7, fields, new Uint8Array(16));
  const bytes = framed(slab);
  const u32 = words(bytes);
  const length = (entryWords(u32, word) + BLOCK_HEADER_WORDS) << 2;
  u32[FRAME_HEADER_WORDS] = length;
  return bytes.slice(0, FRAME_HEADER_BYTES + length);
}

function messages(): Uint8Array {
  const slab = new Slab(FRAME_HEADER_BYTES + 3 * MESSAGE_WORDS * 4);
  for (let i = 0; i < 3; i++) {
    Object.assign(message, { type: 5 + i, flags: 0, shardId: 1, from: 1, to: 2, term: 9, logIndex: 40, hint: 3 });
    writeMessage(slab.u32, FRAME_HEADER_WORDS + i * MESSAGE_WORDS, message);
  }
  sealFrame(slab.u8, slab.u32, 0, slab.sizeBytes, FrameType.Messages, 3);
  return slab.u8;
}

const hello = framed(
  encodeHello({ purpose: 1, status: 0, identity: identityOf('host'), target: 'there:1', explanation: 'why not' }),
);
const snapshotHeader = framed(
  encodeSnapshotHeader({ shardId: 1, from: 1, to: 2, term: 3, index: 4, indexTerm: 2, imageBytes: 100 }),
);
const chunk = framed(encodeChunk(5, new Uint8Array(100).fill(7)));
const end = framed(encodeEnd(100, 1));
const status = framed(encodeStatus('it is not wanted here'));

/** Buffers come and go within it; a leak of one slab for each refused stream would be twenty gigabytes. */
const RSS_GROWTH_MAX_MIB = 300;
const rssAtStart = process.memoryUsage.rss();
let total = 0;
function decoder(
  name: string,
  count: number,
  valid: Uint8Array,
  codes: readonly ErrorCode[],
  decode: (bytes: Uint8Array) => void,
): void {
  test(`${name}: ${count} mutated inputs`, (context) => {
    const outcome = fuzz(valid, count, codes, decode);
    total += count;
    context.diagnostic(`${outcome.accepted} accepted, ${outcome.refused} refused, ${total} inputs so far`);
  });
}

decoder('frames', 200_000, blocks, ['ERR_FRAME'], (bytes) => {
  const u32 = words(bytes);
  checkFrame(bytes, u32, 0, bytes.length);
});
decoder('blocks', 250_000, blocks, ['ERR_FRAME'], decodeBlocks);
decoder('blocks of session entries', 100_000, sessionBlocks(), ['ERR_FRAME'], decodeBlocks);
decoder('messages', 150_000, messages(), ['ERR_FRAME'], decodeMessages);
decoder('HELLO', 100_000, hello, ['ERR_FRAME'], (bytes) => {
  if (reseal(bytes, FrameType.Hello)) decodeHello(bytes, words(bytes), 0, bytes.length);
});
decoder('memberships', 60_000, encodeMembership(decodeMembership(stateBootstrap())), ['ERR_FRAME'], (bytes) => {
  decodeMembership(bytes);
});
decoder('state records', 100_000, record(), ['ERR_LOG_CORRUPT'], (bytes) => {
  const state = readRecord(bytes, words(bytes), 0, bytes.length >>> 2);
  assert.ok(state.bootstrap.length <= bytes.length && state.pins.length <= 30);
});
decoder('snapshot headers', 30_000, snapshotHeader, ['ERR_FRAME'], (bytes) => {
  decodeSnapshotHeader(words(bytes), 0, bytes.length);
});
decoder('snapshot chunks', 30_000, chunk, ['ERR_FRAME'], (bytes) => {
  assert.ok(decodeChunk(bytes, words(bytes), 0, bytes.length, 5).length <= bytes.length);
});
decoder('snapshot ends', 20_000, end, ['ERR_FRAME'], (bytes) => {
  checkEnd(words(bytes), 0, bytes.length, 100, 1);
});
decoder('snapshot statuses', 20_000, status, ['ERR_FRAME'], (bytes) => {
  decodeStatus(bytes, words(bytes), 0, bytes.length);
});
decoder('sessions', 60_000, sessions(), ['ERR_SNAPSHOT_CORRUPT'], (bytes) => {
  const decoded = Sessions.decode(bytes);
  assert.ok(decoded.count <= 4096);
});

function stateBootstrap(): Uint8Array {
  return encodeMembership({
    configChangeIndex: 3,
    voters: new Map([
      [1, 'a:1'],
      [2, 'b:2'],
    ]),
    nonVotings: new Map(),
    witnesses: new Map([[4, 'd:4']]),
    autoPromoted: new Set(),
    removed: new Set([9]),
  });
}

function record(): Uint8Array {
  const pin = { replicaId: 2, directoryHigh: 1, directoryLow: 2, startCounter: 3 };
  const state = stateOf({ term: 5, vote: 2, pins: [pin], bootstrap: stateBootstrap() });
  const slab = new Slab(recordBytes(state));
  writeRecord(slab.u8, slab.u32, 0, state, 0);
  return slab.u8;
}

function sessions(): Uint8Array {
  const table = new Sessions();
  for (let client = 1; client <= 3; client++) {
    table.register(client, client * 2);
    const session = table.use(client, client * 2)!;
    session.keep(1, client);
    session.keep(2, new Uint8Array(client * 3));
  }
  return table.encode();
}

test('streams cut anywhere and mutated anywhere: a receiver hands out whole frames or ends, and gives its memory back', (context) => {
  const pool = new SlabPool();
  let handedOut = 0;
  let refused = 0;
  const stream = Buffer.concat([blocks, messages(), hello, chunk, blocks]);
  for (let round = 0; round < 20_000; round++) {
    const bytes = new Uint8Array(stream);
    if (round % 4 > 0) mutate(bytes);
    const receiver = new FrameReceiver(pool, (slab, offset, lengthBytes) => {
      handedOut++;
      checkFrame(slab.u8, slab.u32, offset, offset + lengthBytes);
    });
    try {
      for (let at = 0; at < bytes.length; ) {
        const length = Math.min(bytes.length - at, 1 + below(300));
        receiver.push(bytes, at, length);
        at += length;
      }
    } catch (error) {
      if (!DrakkarError.is(error, 'ERR_FRAME')) throw error;
      refused++;
    }
    receiver.close();
  }
  total += 20_000;
  context.diagnostic(`${handedOut} frames handed out, ${refused} streams refused`);
  assert.ok(handedOut > 20_000 && refused > 1000);
  assert.equal(pool.pinnedBytes, 0);
});

test('that was a million inputs, and memory stayed flat', (context) => {
  assert.ok(total >= 1_000_000, `only ${total}`);
  const growthMiB = (process.memoryUsage.rss() - rssAtStart) / 1024 / 1024;
  context.diagnostic(`memory grew by ${growthMiB.toFixed(0)} MiB`);
  assert.ok(growthMiB < RSS_GROWTH_MAX_MIB);
});
