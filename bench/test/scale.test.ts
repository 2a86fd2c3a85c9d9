/** The guard's verdict, the arithmetic of scale, and small runs of its questions; their figures are nobody's business here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Entry } from 'drakkar';
import { judgeGuard } from '../guard-verdict.ts';
import { measureDisk } from '../raw-disk.ts';
import { BlobStore } from '../scale/blob-store.ts';
import { growth } from '../scale/flatness.ts';
import { idleShards, recovery, snapshotStream, soak } from '../scale/questions.ts';

test('the guard holds down to 0.6 of what was recorded, and not below', () => {
  const record = { ratio: 0.1, date: '', machine: '' };
  assert.equal(judgeGuard(0.0601, record).isHeld, true);
  assert.equal(judgeGuard(0.0599, record).isHeld, false);
  assert.equal(judgeGuard(0.5, record).isHeld, true);
  assert.equal(judgeGuard(Number.NaN, record).isHeld, false);
  assert.throws(() => judgeGuard(0.1, { ...record, ratio: 0 }), /--record/);
});

test('growth is that of what stays, not of garbage', () => {
  assert.equal(growth([10, 90, 50, 80, 10, 70]), 0);
  assert.equal(growth([10, 20, 30, 40, 15, 20]), 0.5);
  assert.ok(Math.abs(growth([100, 100, 100, 90, 90, 90]) + 0.1) < 1e-9);
  assert.throws(() => growth([1, 2]), RangeError);
});

test('a blob comes back from pieces of any size', async () => {
  const store = new BlobStore();
  const command = BlobStore.grow(2);
  store.update([{ command } as Entry, { command: BlobStore.grow(1) } as Entry]);
  const image = Buffer.concat([...store.saveSnapshot()]);
  for (const size of [4099, 1 << 20, 777_777, image.length]) {
    const copy = new BlobStore();
    await copy.recoverFromSnapshot(
      (async function* () {
        for (let at = 0; at < image.length; at += size) yield image.subarray(at, at + size);
      })(),
    );
    assert.deepEqual([copy.applied, copy.lookup(), copy.hash()], [2, 3, store.hash()]);
  }
});

test('idle shards, recovery and snapshots are measured', async () => {
  const idle = await idleShards(5, 100);
  assert.equal(idle.shards, 5);
  assert.ok(idle.readyMs > 0 && idle.cpuPercent >= 0);
  const recovered = await recovery(2500, 3);
  assert.equal(recovered.digestsEqual, true);
  assert.ok(recovered.entriesPerSecond > 0);
  const streamed = await snapshotStream(3);
  assert.equal(streamed.digestsEqual, true);
  assert.ok(streamed.streamMibPerSecond > 0);
});

test('a soak looks at memory all along', async () => {
  const figures = await soak(1000, 500);
  assert.equal(figures.writesAddUp, true);
  assert.ok(figures.rssMib > 0 && Number.isFinite(figures.heapGrowth) && Number.isFinite(figures.rssGrowth));
});

test('the disk is measured with one writer and with three', async () => {
  const figures = await measureDisk(20);
  assert.deepEqual(
    figures.map(({ writers, groupBytes }) => `${writers}x${groupBytes}`),
    ['1x4096', '1x65536', '1x1048576', '3x4096', '3x65536', '3x1048576'],
  );
  for (const { groupsPerSecond, groupBytes, bytesPerSecond } of figures) {
    assert.ok(groupsPerSecond > 0);
    assert.equal(bytesPerSecond, groupsPerSecond * groupBytes);
  }
});
