/** Images, compressed and not: what goes in comes out, whatever is damaged is noticed, and nothing becomes larger than it may. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { SIMPLE, simpleCodec } from '../../src/sim/codec.ts';
import { BUILT_IN_CODECS, codecNamed, codecsOf, type Codecs, type SnapshotCodec } from '../../src/rsm/codec.ts';
import { ImageReader, encodeImage, verifyImage, type Packing } from '../../src/rsm/image.ts';
import { zstd } from '../../src/rsm/zstd.ts';
import { text } from '../support.ts';

const INFO = { shardId: 7, index: 40, term: 3, flags: 2 };
const CODECS = codecsOf([simpleCodec()]);
const PACKINGS: [name: string, codec: SnapshotCodec | undefined][] = [
  ['none', undefined],
  ['zstd', zstd],
  [SIMPLE, simpleCodec()],
];

async function imageOf(payload: Uint8Array, packing: Packing): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of encodeImage(INFO, [payload], packing)) pieces.push(piece.slice());
  return Buffer.concat(pieces);
}

async function payloadOf(image: Uint8Array, codecs: Codecs = CODECS): Promise<Buffer> {
  const reader = new ImageReader([image], codecs);
  await reader.header();
  const pieces: Uint8Array[] = [];
  for await (const piece of reader.payload()) pieces.push(piece);
  return Buffer.concat(pieces);
}

for (const [name, codec] of PACKINGS) {
  test(`${name}: any payload in blocks of any size comes back, and its header says how it is written`, async () => {
    const runs = fc.sample(
      fc.tuple(
        fc.oneof(
          fc.uint8Array({ maxLength: 2000 }),
          fc.string({ maxLength: 4000 }).map((value) => text(value)),
          fc.integer({ min: 1, max: 600_000 }).map((size) => new Uint8Array(size).fill(65)),
        ),
        fc.oneof(fc.integer({ min: 256, max: 5000 }), fc.constant(256 * 1024)),
      ),
      60,
    );
    for (const [payload, blockBytes] of runs) {
      const image = await imageOf(payload, { codec, blockBytes });
      const info = await new ImageReader([image], CODECS).header();
      assert.deepEqual({ ...info, flags: info.flags & 7 }, codec === undefined ? INFO : { ...INFO, codec: name });
      assert.ok((await payloadOf(image)).equals(payload));
      await verifyImage([image], CODECS);
    }
  });

  test(`${name}: a byte that is changed, or an end that is missing, is noticed wherever it is`, async () => {
    const lines = Array.from({ length: 40 }, (_, i) => `line ${i % 7} of a state that repeats itself`).join('\n');
    const image = await imageOf(text(lines), { codec, blockBytes: 300 });
    for (let at = 0; at < image.length; at++) {
      const damaged = Buffer.from(image);
      damaged[at] ^= 1 << (at % 8);
      await assert.rejects(
        verifyImage([damaged], CODECS),
        { code: /^ERR_(SNAPSHOT_CORRUPT|DIR_FORMAT)$/ },
        `byte ${at}`,
      );
    }
    for (let length = 0; length < image.length; length += 7) {
      await assert.rejects(verifyImage([image.subarray(0, length)], CODECS), { code: 'ERR_SNAPSHOT_CORRUPT' });
    }
  });
}

test('text becomes smaller, noise does not become larger but for its lengths', async () => {
  const lines = text(Array.from({ length: 5000 }, (_, i) => `{"key":"user-${i}","value":${i * 3}}`).join('\n'));
  const plain = await imageOf(lines, {});
  const packed = await imageOf(lines, { codec: zstd });
  assert.ok(packed.length < plain.length / 3, `${packed.length} of ${plain.length}`);
  const noise = randomBytes(600_000);
  assert.equal((await imageOf(noise, { codec: zstd })).length, (await imageOf(noise, {})).length + 3 * 4);
});

test('a codec that is not known is named, before anything is read', async () => {
  const image = await imageOf(text('x'.repeat(1000)), { codec: simpleCodec() });
  await assert.rejects(new ImageReader([image]).header(), {
    code: 'ERR_SNAPSHOT_CODEC',
    message: /no codec simple.*snapshotCodecs/,
  });
  assert.throws(() => codecNamed(new Map(), 'zstd'), { code: 'ERR_SNAPSHOT_CODEC', message: /Node 22\.15/ });
  assert.equal(codecNamed(BUILT_IN_CODECS, 'zstd'), zstd);
});

test('a codec that throws, or is another one of the same name, ends with a code', async () => {
  const throwing: SnapshotCodec = {
    name: SIMPLE,
    compress() {
      throw new Error('no');
    },
    uncompress() {
      throw new Error('no');
    },
  };
  await assert.rejects(imageOf(text('x'), { codec: throwing }), { code: 'ERR_SNAPSHOT_CODEC' });
  const image = await imageOf(text('x'.repeat(1000)), { codec: simpleCodec() });
  await assert.rejects(payloadOf(image, codecsOf([throwing])), { code: 'ERR_SNAPSHOT_CODEC' });
  const short = { ...simpleCodec(), uncompress: () => new Uint8Array(3) };
  await assert.rejects(payloadOf(image, codecsOf([short])), { code: 'ERR_SNAPSHOT_CODEC' });
});

test('a block cannot become larger than it says, and cannot say more than a block holds', () => {
  const bomb = zstd!.compress(new Uint8Array(100_000_000));
  assert.ok(bomb.length < 20_000);
  assert.throws(() => zstd!.uncompress(bomb, 256 * 1024), /larger|length/i);
});
