/** The log in use: groups, rolling, compaction, moving, reading back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockFirstIndex } from '../../src/wire/block.ts';
import { PENDING_BYTES_MAX } from '../../src/wal/wal.ts';
import { TestLog, describe, frameOf, stateOf } from './support.ts';

test('all that waits while a write is under way becomes one group', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  const before = log.sink.groups;
  log.append({ firstIndex: 1 });
  log.wal.flush();
  for (let index = 2; index <= 50; index++) {
    log.append({ firstIndex: index });
    log.wal.flush();
  }
  await log.drain();
  assert.equal(log.sink.groups - before, 2);
  assert.deepEqual(
    log.sink.durable.slice(1),
    Array.from({ length: 50 }, (_, i) => `1:${i + 1}+1`),
  );
});

test('the sink is told in the order of the appends, blocks and states alike', async () => {
  const log = new TestLog();
  await log.open();
  log.wal.appendState(stateOf(), false);
  log.append({ firstIndex: 1 }, { shardId: 2, firstIndex: 1 });
  log.wal.appendState(stateOf({ shardId: 2 }), false);
  log.append({ firstIndex: 2 });
  await log.drain();
  assert.deepEqual(log.sink.durable, ['1:state', '1:1+1', '2:1+1', '2:state', '1:2+1']);
});

test('a slab is given back when its bytes were copied', async () => {
  const log = new TestLog();
  await log.open();
  const { slab, lengthBytes } = frameOf({ firstIndex: 1 });
  log.wal.appendFrame(slab, 0, lengthBytes);
  assert.equal(slab.holderCount, 2);
  await log.drain();
  assert.equal(slab.holderCount, 1);
});

test('the log rolls over segments and is found again whole', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  for (let index = 1; index <= 60; index++) await log.write({ firstIndex: index, payloadBytes: 7000 });
  assert.ok(log.segments().length > 3);
  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.blocks.length, 60);
  assert.equal(recovered.get(1)!.failure, undefined);
});

/** Of each spare that is made from now on: whether it is filled with zeros. */
function watchSpares(log: TestLog): Map<string, boolean> {
  const spares = new Map<string, boolean>();
  log.machine.disk.fault = (operation, path) => {
    const isSpare = path.endsWith('.new');
    if (isSpare && operation === 'open') spares.set(path, false);
    if (isSpare && operation === 'write') spares.set(path, true);
    return undefined;
  };
  return spares;
}

test('while groups are large new segments are of holes, and filled again when they are small', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.machines.world.run(100); // the spare of the opening is there
  const spares = watchSpares(log);
  for (let index = 1; index <= 40; index++) await log.write({ firstIndex: index, payloadBytes: 28_000 });
  await log.machines.world.run(100);
  assert.ok(spares.size > 5);
  assert.deepEqual(new Set(spares.values()), new Set([false]));
  for (let index = 41; index <= 140; index++) await log.write({ firstIndex: index, payloadBytes: 8000 });
  assert.equal([...spares.values()].at(-1), true);
  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.failure, undefined);
  assert.equal(recovered.get(1)!.blocks.length, 140);
});

test('frames are read back verified; damage since is noticed', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1 }, { shardId: 2, firstIndex: 9 });
  const { place } = log.sink.live.get(2)![0];
  const slab = await log.machines.world.settle(log.wal.readFrame(place!));
  assert.equal(blockFirstIndex(slab.u32, place!.blockOffset >>> 2), 9);
  slab.release();
  log.losePower();
  const recovered = await log.open();
  const again = recovered.get(1)!.blocks[0].place!;
  log.machine.disk.edit(log.segments()[0], (bytes) => {
    bytes[again.frameOffset + 60] ^= 1;
  });
  await assert.rejects(log.machines.world.settle(log.wal.readFrame(again)), { code: 'ERR_LOG_CORRUPT' });
});

test('segments behind the compacted index are recycled, and the disk stops growing', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  let most = 0;
  for (let index = 1; index <= 400; index++) {
    await log.write({ firstIndex: index, payloadBytes: 7000 });
    if (index % 10 !== 0) continue;
    log.sink.compact(1, index - 5);
    await log.writeState({ snapshotIndex: index, snapshotTerm: 1, compactedIndex: index - 5, compactedTerm: 1 });
    log.wal.consider();
    await log.machines.world.run(100);
    most = Math.max(most, log.machine.disk.usedBytes);
  }
  assert.ok(log.wal.counters.segmentsFreed > 10);
  assert.ok(most < 8 * log.segmentBytes, `${most} bytes`);
  log.losePower();
  assert.equal(describe((await log.open()).get(1)).split(' ').length, 5);
});

test('blocks of an idle shard are moved out of old segments and do not hold them back', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.writeState({ shardId: 2, term: 5, vote: 2 });
  // The idle shard: two blocks, of the second only a part is live.
  await log.write({ shardId: 2, firstIndex: 1, count: 3, term: 5, prevTerm: 0 });
  await log.write({ shardId: 2, firstIndex: 4, count: 3, term: 5 });
  let index = 1;
  while (log.wal.counters.blocksMoved < 2) {
    await log.write({ firstIndex: index, payloadBytes: 7000 });
    if (index % 10 === 0) {
      log.sink.compact(1, index);
      await log.writeState({ snapshotIndex: index, snapshotTerm: 1, compactedIndex: index, compactedTerm: 1 });
      log.wal.consider();
      await log.machines.world.run(100);
    }
    assert.ok(++index < 2000, 'nothing was moved');
  }
  await log.machines.world.run(1000);
  const freed = log.wal.counters.segmentsFreed;
  assert.ok(freed > 0, 'the old segment was not freed');
  // The idle shard wakes up: what comes later must win over what was moved.
  await log.write({ shardId: 2, firstIndex: 6, count: 1, term: 6, prevTerm: 5, flags: 1 });
  log.losePower();
  const recovered = await log.open();
  assert.equal(describe(recovered.get(2)), '1-3@5 4-5@5 6-6@6');
  assert.equal(recovered.get(2)!.failure, undefined);
  assert.deepEqual([recovered.get(2)!.state.term, recovered.get(2)!.state.vote], [5, 2]);
  const slab = await log.machines.world.settle(log.wal.readFrame(recovered.get(2)!.blocks[0].place!));
  assert.equal(blockFirstIndex(slab.u32, recovered.get(2)!.blocks[0].place!.blockOffset >>> 2), 1);
});

test('a crash at any time while blocks are moved keeps them', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const log = new TestLog(seed, 64 * 1024);
    await log.open();
    await log.writeState();
    await log.writeState({ shardId: 2 });
    await log.write({ shardId: 2, firstIndex: 1, count: 3 });
    let index = 1;
    const stopAt = 60 + seed * 3;
    for (; index <= stopAt; index++) {
      await log.write({ firstIndex: index, payloadBytes: 6000 });
      if (index % 4 !== 0) continue;
      log.sink.compact(1, index);
      log.wal.appendState(
        stateOf({ snapshotIndex: index, snapshotTerm: 1, compactedIndex: index, compactedTerm: 1 }),
        false,
      );
      log.wal.flush();
      log.wal.consider();
      await log.machines.world.run((seed % 7) * 0.3);
    }
    log.losePower(() => log.machines.world.random.u32() % 2 === 0);
    const recovered = await log.open();
    assert.equal(describe(recovered.get(2)), '1-3@1', `seed ${seed}`);
    assert.equal(recovered.get(2)!.failure, undefined, `seed ${seed}`);
    assert.equal(recovered.get(1)!.failure, undefined, `seed ${seed}: ${recovered.get(1)!.failure?.message}`);
  }
});

test('closing waits for what is pending', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  for (let index = 1; index <= 20; index++) log.append({ firstIndex: index });
  await log.machines.world.settle(log.wal.close());
  log.losePower();
  assert.equal((await log.open()).get(1)!.blocks.length, 20);
});

test('more than the named bound of pending bytes, or a frame beyond half a segment, is refused', async () => {
  const log = new TestLog(1, 64 * 1024 * 1024);
  await log.open();
  const { slab } = frameOf({ firstIndex: 1 });
  assert.throws(() => log.wal.appendFrame(slab, 0, log.segmentBytes), { code: 'ERR_PAYLOAD_TOO_BIG' });
  const large = 30 * 1024 * 1024;
  for (let bytes = large; bytes < PENDING_BYTES_MAX; bytes += large) log.wal.appendFrame(slab, 0, large);
  assert.throws(() => log.wal.appendFrame(slab, 0, large), { code: 'ERR_SYSTEM_BUSY' });
  assert.equal(log.wal.pendingBytes <= PENDING_BYTES_MAX, true);
});

test('a segment is not freed before the record that makes it void is durable', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  for (let index = 1; log.segments().length < 4; index += 40)
    await log.write({ firstIndex: index, count: 40, payloadBytes: 200 });
  const last = log.sink.live.get(1)!.at(-1)!.lastIndex;
  log.machine.disk.latencyOf = (operation) => (operation === 'write' ? 1000 : 0.1);
  // The shard has given up its entries, and says so to the log; the disk is not that far yet.
  log.sink.compact(1, last);
  log.wal.appendState(stateOf({ snapshotIndex: last, snapshotTerm: 1, compactedIndex: last, compactedTerm: 1 }), false);
  log.wal.consider();
  await log.machines.world.run(500);
  log.losePower();
  const { failure, blocks } = (await log.open()).get(1)!;
  assert.equal(failure, undefined, 'entries are missing that no durable record gives up');
  assert.equal(blocks.at(-1)!.lastIndex, last);
});
