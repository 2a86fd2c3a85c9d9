/** Images that come in parts: what a broken stream or a crash leaves is gone on with as far as it is sound, and never for longer than it is of use. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryMachines, type MemoryDisk } from 'drakkar/testing';
import { encodeImage } from '../../src/rsm/image.ts';
import { Snapshotter } from '../../src/rsm/snapshotter.ts';
import { zstd } from '../../src/rsm/zstd.ts';
import { text } from '../support.ts';

const TERM = 2;
const never = new AbortController().signal;
const STATE = text(Array.from({ length: 400 }, (_, i) => `line ${i} of the state`).join('\n'));

async function imageOf(index: number, isCompressed = false, state: Uint8Array = STATE): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const packing = { blockBytes: 512, codec: isCompressed ? zstd : undefined };
  for await (const piece of encodeImage({ shardId: 1, index, term: TERM }, [state], packing))
    pieces.push(piece.slice());
  return Buffer.concat(pieces);
}

const digestOf = (image: Buffer): number => image.readUInt32LE(image.length - 12);

function setUp() {
  const machines = new MemoryMachines();
  const machine = machines.add('disk');
  const open = (): Snapshotter => new Snapshotter(machine.boot().fs, 'snapshots', 1);
  const settle = <T>(work: Promise<T>): Promise<T> => machines.world.settle(work);
  return { machine, disk: machine.disk, open, settle };
}

/** The bytes of a stream that breaks after `endBytes`. */
async function* broken(
  image: Buffer,
  offsetBytes: number,
  endBytes: number,
  chunkBytes = 100,
): AsyncGenerator<Uint8Array> {
  for (let at = offsetBytes; at < endBytes; at += chunkBytes)
    yield image.subarray(at, Math.min(endBytes, at + chunkBytes));
  if (endBytes < image.length) throw new Error('the stream broke');
}

const whole = (image: Buffer): AsyncGenerator<Uint8Array> => broken(image, 0, image.length);

const files = (disk: MemoryDisk): string[] =>
  disk
    .paths()
    .filter((path) => path.startsWith('snapshots/1/'))
    .map((path) => path.slice('snapshots/1/'.length));

async function receive(snapshotter: Snapshotter, index: number, image: Buffer, endBytes: number): Promise<number> {
  const part = await snapshotter.partOf(index, TERM, image.length, digestOf(image));
  await snapshotter.receive(index, TERM, broken(image, part.offsetBytes, endBytes), never, part);
  return part.offsetBytes;
}

for (const isCompressed of [false, true]) {
  test(`cut off anywhere, any number of times, an image is whole in the end (compressed: ${isCompressed})`, async () => {
    const image = await imageOf(9, isCompressed);
    for (const cuts of fc.sample(fc.array(fc.integer({ min: 0, max: image.length - 1 }), { maxLength: 6 }), 30)) {
      const { open, settle, disk } = setUp();
      const snapshotter = open();
      let most = 0;
      for (const cut of cuts) {
        const { offsetBytes } = await settle(snapshotter.partOf(9, TERM, image.length, digestOf(image)));
        assert.ok(offsetBytes <= most, 'more than came');
        assert.ok(most - offsetBytes <= 600, `${offsetBytes} of ${most} bytes were of use`);
        await assert.rejects(settle(receive(snapshotter, 9, image, Math.max(cut, offsetBytes))), /broke/);
        most = Math.max(offsetBytes, cut);
        assert.equal(snapshotter.hasPart, true);
      }
      await settle(receive(snapshotter, 9, image, image.length));
      assert.deepEqual(files(disk), ['0000000000000009.snapshot']);
      assert.equal(snapshotter.hasPart, false);
      assert.ok(Buffer.from(disk.images.get('snapshots/1/0000000000000009.snapshot')!.bytes).equals(image));
    }
  });
}

test('a part outlives its process and, as far as it reached the disk, a power cut', async () => {
  const image = await imageOf(9);
  for (const crash of ['killed', 'kept', 'torn'] as const) {
    const { machine, open, settle } = setUp();
    await settle(open().save(3, whole(await imageOf(3))));
    await assert.rejects(settle(receive(open(), 9, image, 5000)), /broke/);
    let asked = 0;
    if (crash === 'killed') machine.kill();
    else machine.losePower(() => crash === 'kept' || ++asked % 5 !== 4);
    const snapshotter = open();
    await settle(snapshotter.processOrphans(3));
    const { offsetBytes } = await settle(snapshotter.partOf(9, TERM, image.length, digestOf(image)));
    if (crash !== 'torn') assert.ok(offsetBytes > 4000, `${crash}: ${offsetBytes}`);
    await settle(receive(snapshotter, 9, image, image.length));
    assert.deepEqual(await settle(snapshotter.list()), [3, 9]);
  }
});

test('what is damaged in a part is sent again, with all that follows', async () => {
  const image = await imageOf(9);
  const { disk, open, settle } = setUp();
  const snapshotter = open();
  await assert.rejects(settle(receive(snapshotter, 9, image, 6000)), /broke/);
  disk.edit(`snapshots/1/${files(disk)[0]}`, (bytes) => (bytes[3000] ^= 1));
  const offset = await settle(receive(snapshotter, 9, image, image.length));
  assert.ok(offset > 2000 && offset <= 3000, String(offset));
  assert.deepEqual(files(disk), ['0000000000000009.snapshot']);
});

test('a part of another image is not gone on with: other index, size or digest', async () => {
  const image = await imageOf(9);
  const another = await imageOf(9, false, text(`${new TextDecoder().decode(STATE.subarray(0, -1))}!`));
  assert.equal(another.length, image.length);
  for (const [index, other] of [
    [9, another],
    [10, await imageOf(10)],
    [9, await imageOf(9, true)],
  ] as const) {
    const { disk, open, settle } = setUp();
    const snapshotter = open();
    await assert.rejects(settle(receive(snapshotter, 9, image, 6000)), /broke/);
    assert.equal(await settle(receive(snapshotter, index, other, other.length)), 0);
    assert.equal(files(disk).length, 1, 'the other part is gone');
  }
});

test('parts of two images under the same name: the whole does not verify, and nothing stays', async () => {
  const image = await imageOf(9);
  const another = await imageOf(9, false, text(`${new TextDecoder().decode(STATE.subarray(0, -1))}!`));
  const { disk, open, settle } = setUp();
  const snapshotter = open();
  await assert.rejects(settle(receive(snapshotter, 9, another, 6000)), /broke/);
  const name = `snapshots/1/${files(disk)[0]}`;
  // As if the digests of the two were the same.
  const renamed = name.replace(/\.[0-9a-f]{8}-/, `.${digestOf(image).toString(16).padStart(8, '0')}-`);
  disk.moveName(name, renamed);
  disk.edit(renamed, (bytes) => (bytes[200] ^= 0)); // durable
  const damaged = Buffer.from(image);
  damaged[7000] ^= 1; // and a chunk that was damaged behind it
  const part = await settle(snapshotter.partOf(9, TERM, image.length, digestOf(image)));
  assert.ok(part.offsetBytes > 5000);
  const rest = broken(damaged, part.offsetBytes, damaged.length);
  await assert.rejects(settle(snapshotter.receive(9, TERM, rest, never, part)), { code: 'ERR_SNAPSHOT_CORRUPT' });
  assert.deepEqual(files(disk), []);
});

test('a part goes with a full disk, with a newer snapshot, and at a start when it is not the newest or not of use', async () => {
  const { disk, open, settle } = setUp();
  const snapshotter = open();
  const image = await imageOf(9);
  await assert.rejects(settle(receive(snapshotter, 9, image, 6000)), /broke/);
  disk.capacityBytes = disk.usedBytes;
  await assert.rejects(settle(receive(snapshotter, 9, image, image.length)), { code: 'ERR_DISK_FULL' });
  assert.deepEqual(files(disk), []);
  disk.capacityBytes = Number.POSITIVE_INFINITY;
  await assert.rejects(settle(receive(snapshotter, 9, image, 6000)), /broke/);
  await settle(snapshotter.save(12, whole(await imageOf(12))));
  await settle(snapshotter.retain(12));
  assert.deepEqual(files(disk), ['000000000000000c.snapshot']);
  const part = '0000000000000014.00000001-64.receiving';
  const some = disk.images.get('snapshots/1/000000000000000c.snapshot')!;
  for (const name of ['000000000000000b', '0000000000000013', '0000000000000014'])
    disk.images.set(`snapshots/1/${name}.00000001-64.receiving`, some);
  await settle(open().processOrphans(12));
  assert.deepEqual(files(disk), ['000000000000000c.snapshot', part]);
  await settle(open().processOrphans(20));
  assert.deepEqual(files(disk), ['000000000000000c.snapshot']);
});
