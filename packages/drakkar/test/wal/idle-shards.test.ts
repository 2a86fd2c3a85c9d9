/** Ten thousand idle shards beside a busy one: what they cost the log stays small and bounded, and nothing of them is lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestLog, frameOf, stateOf } from './support.ts';

const SHARDS = 10_000;
const SEGMENT_BYTES = 4 * 1024 * 1024;
const BUSY = SHARDS + 1;

test('old segments are emptied of idle shards in few groups, seldom, and each shard is found again', async () => {
  const log = new TestLog(1, SEGMENT_BYTES);
  await log.open();
  const { wal } = log;
  for (let shardId = 1; shardId <= BUSY; shardId++) wal.appendState(stateOf({ shardId }), false);
  for (let from = 1; from <= SHARDS; from += 1000) {
    const specs = Array.from({ length: 1000 }, (_, i) => ({ shardId: from + i, firstIndex: 1 }));
    const { slab, lengthBytes } = frameOf(...specs);
    wal.appendFrame(slab, 0, lengthBytes);
  }
  await log.drain();
  const idleGroups = wal.counters.groups;
  let index = 0;
  let writes = 0;
  while (wal.counters.segmentsFreed < 30) {
    await log.write({ shardId: BUSY, firstIndex: ++index, payloadBytes: 500_000 });
    writes++;
    if (index % 8 !== 0) continue;
    log.sink.compact(BUSY, index);
    const compactedTo = { snapshotIndex: index, snapshotTerm: 1, compactedIndex: index, compactedTerm: 1 };
    await log.writeState({ shardId: BUSY, ...compactedTo });
    writes++;
    wal.consider();
    await log.machines.world.run(200);
    assert.ok(index < 5000, 'nothing is freed');
  }
  const { groups, blocksMoved, statesMoved, segmentsFreed, bytes } = wal.counters;
  const extra = groups - idleGroups - writes;
  assert.ok(blocksMoved >= SHARDS && statesMoved >= SHARDS, `${blocksMoved} blocks, ${statesMoved} records`);
  // Every shard is moved once while eight segments pile up, not with each of them.
  const cycles = segmentsFreed / 8 + 1;
  assert.ok(blocksMoved <= SHARDS * cycles, `${blocksMoved} blocks moved for ${segmentsFreed} segments`);
  assert.ok(statesMoved <= (SHARDS + 1) * cycles + segmentsFreed, `${statesMoved} records moved`);
  assert.ok(extra <= 20 * cycles, `${extra} groups for ${cycles} cycles`);
  assert.ok(bytes < 1.3 * index * 500_000, `${bytes} bytes for ${index * 500_000}`);

  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.size, BUSY);
  for (let shardId = 1; shardId <= SHARDS; shardId++) {
    const shard = recovered.get(shardId)!;
    assert.equal(shard.failure, undefined);
    assert.equal(shard.blocks.length, 1, `shard ${shardId}`);
  }
});
