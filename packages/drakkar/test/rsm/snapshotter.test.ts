/** Snapshot files: whole or not at all, the last two kept, leftovers of crashes removed (F14). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryMachines, systemError } from 'drakkar/testing';
import { encodeImage } from '../../src/rsm/image.ts';
import { Snapshotter } from '../../src/rsm/snapshotter.ts';
import { text } from '../support.ts';

function setUp() {
  const machines = new MemoryMachines();
  const machine = machines.add('disk');
  const open = (): Snapshotter => new Snapshotter(machine.boot().fs, 'snapshots', 1);
  const settle = <T>(work: Promise<T>): Promise<T> => machines.world.settle(work);
  return { machine, open, settle };
}

async function* bytes(content: string): AsyncGenerator<Uint8Array> {
  yield text(content);
}

const image = (index: number, content: string): AsyncGenerator<Uint8Array> =>
  encodeImage({ shardId: 1, index, term: 2 }, [text(content)]);

const never = new AbortController().signal;

test('an image is there after a power cut once it was saved', async () => {
  const { machine, open, settle } = setUp();
  await settle(open().save(7, bytes('seven')));
  machine.losePower();
  const snapshotter = open();
  assert.deepEqual(await settle(snapshotter.list()), [7]);
  const opened = await settle(snapshotter.open(7));
  assert.equal(opened.sizeBytes, 5);
});

test('scenario 49: power may go at any operation: the image is whole, or not there', async () => {
  for (let point = 1, isOver = false; !isOver; point++) {
    const { machine, open, settle } = setUp();
    let operations = 0;
    let wasCut = false;
    machine.disk.fault = () => {
      if (++operations === point) {
        wasCut = true;
        machine.losePower(() => point % 2 === 0);
      }
      return undefined;
    };
    await settle(open().save(7, bytes('seven'))).catch(() => {});
    isOver = !wasCut;
    machine.disk.fault = () => undefined;
    const snapshotter = open();
    await settle(snapshotter.processOrphans(7));
    const left = machine.disk.paths().filter((path) => path.includes('.'));
    for (const path of left) assert.match(path, /\.snapshot$/);
    for (const index of await settle(snapshotter.list()))
      assert.equal((await settle(snapshotter.open(index))).sizeBytes, 5);
  }
});

test('the newest and the one before it are kept; one that is being read stays, too', async () => {
  const { open, settle } = setUp();
  const snapshotter = open();
  for (const index of [1, 2, 3, 4]) await settle(snapshotter.save(index, bytes('x')));
  await settle(snapshotter.open(1));
  await settle(snapshotter.retain(4));
  assert.deepEqual(await settle(snapshotter.list()), [1, 3, 4]);
});

test('at a start, what no record names goes', async () => {
  const { open, settle } = setUp();
  const snapshotter = open();
  for (const index of [3, 9]) await settle(snapshotter.save(index, bytes('x')));
  await settle(snapshotter.processOrphans(3));
  assert.deepEqual(await settle(snapshotter.list()), [3]);
});

test('scenario 52: a received image is verified before it has a name', async () => {
  const { machine, open, settle } = setUp();
  const snapshotter = open();
  await settle(snapshotter.receive(5, 2, image(5, 'good'), never));
  assert.deepEqual(await settle(snapshotter.list()), [5]);
  async function* damaged(): AsyncGenerator<Uint8Array> {
    for await (const piece of image(6, 'bad')) {
      const copy = piece.slice();
      copy[copy.length - 1] ^= 1;
      yield copy;
    }
  }
  await assert.rejects(settle(snapshotter.receive(6, 2, damaged(), never)), { code: 'ERR_SNAPSHOT_CORRUPT' });
  await assert.rejects(settle(snapshotter.receive(7, 2, image(6, 'of another index'), never)), {
    code: 'ERR_SNAPSHOT_CORRUPT',
  });
  assert.deepEqual(await settle(snapshotter.list()), [5]);
  assert.ok(machine.disk.paths().every((path) => !path.endsWith('.receiving')));
});

test('a full or failing disk is a typed error and leaves nothing behind', async () => {
  const { machine, open, settle } = setUp();
  const snapshotter = open();
  for (const [code, expected] of [
    ['ENOSPC', 'ERR_DISK_FULL'],
    ['EIO', 'ERR_DISK_FAILED'],
  ] as const) {
    machine.disk.fault = (operation, path) => (operation === 'write' ? systemError(code, path) : undefined);
    await assert.rejects(settle(snapshotter.save(3, bytes('x'))), { code: expected });
    machine.disk.fault = () => undefined;
  }
  assert.deepEqual(await settle(snapshotter.list()), []);
  await assert.rejects(settle(snapshotter.open(3)), { code: 'ERR_SNAPSHOT_CORRUPT' });
});
