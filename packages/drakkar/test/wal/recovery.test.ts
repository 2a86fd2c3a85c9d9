/** What a log finds again after crashes and damage (fault rows of docs/wal-format.md). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemError } from 'drakkar/testing';
import type { FileSystem } from '../../src/env/env.ts';
import { openWal } from '../../src/wal/open.ts';
import { BLOCK_TRUNCATES } from '../../src/wire/block.ts';
import { SlabPool } from '../../src/wire/slab.ts';
import { DIR, TestLog, describe, frameOf } from './support.ts';

const PAGE = 4096;

test('what was acknowledged is found again after a power cut; what was not may be missing', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 3 }, { shardId: 2, firstIndex: 1 });
  await log.writeState({ shardId: 2, term: 4, vote: 3 });
  log.append({ firstIndex: 4 });
  log.losePower();
  const recovered = await log.open();
  assert.equal(describe(recovered.get(1)), '1-3@1');
  assert.equal(describe(recovered.get(2)), '1-1@1');
  const { state } = recovered.get(2)!;
  assert.deepEqual([state.term, state.vote], [4, 3]);
  assert.equal(recovered.get(1)!.failure, undefined);
});

test('F1: a torn tail is left out, and it cannot come back at a later opening', async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const log = new TestLog(seed);
    await log.open();
    await log.writeState();
    await log.write({ firstIndex: 1, count: 2 });
    log.append({ firstIndex: 3, count: 20, payloadBytes: 700 });
    log.wal.flush();
    log.losePower(() => log.machines.world.random.u32() % 3 > 0);
    let recovered = await log.open();
    const first = describe(recovered.get(1));
    assert.ok(first === '1-2@1' || first === '1-2@1 3-22@1', `seed ${seed}: ${first}`);
    assert.equal(recovered.get(1)!.failure, undefined, `seed ${seed}`);
    const next = recovered.get(1)!.blocks.at(-1)!.lastIndex + 1;
    await log.write({ firstIndex: next, term: 2, prevTerm: 1 });
    log.losePower();
    recovered = await log.open();
    assert.equal(describe(recovered.get(1)), `${first} ${next}-${next}@2`, `seed ${seed}`);
  }
});

test('F2: damage in front of acknowledged groups fails the shards and deletes nothing', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  for (let index = 1; index <= 6; index++) await log.write({ firstIndex: index });
  const [segment] = log.segments();
  log.machine.kill();
  log.machine.disk.edit(segment, (bytes) => {
    bytes[PAGE * 4 + 100] ^= 1;
  });
  const before = log.segments();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.failure?.code, 'ERR_LOG_CORRUPT');
  assert.match(recovered.get(1)!.failure!.message, /damaged at byte 16384/);
  assert.deepEqual(log.segments().slice(0, before.length), before);
});

test('F2: every flipped byte of an acknowledged group is noticed', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 4 });
  await log.write({ firstIndex: 5 });
  const [segment] = log.segments();
  log.machine.kill();
  const { lengthBytes } = frameOf({ firstIndex: 1, count: 4 });
  const group = PAGE * 2;
  for (let at = group; at < group + 48 + lengthBytes; at++) {
    log.machine.disk.edit(segment, (bytes) => {
      bytes[at] ^= 0x10;
    });
    const recovered = await log.open();
    assert.equal(recovered.get(1)?.failure?.code, 'ERR_LOG_CORRUPT', `byte ${at - group} of the group`);
    log.machine.kill();
    for (const path of log.segments().slice(1)) log.machine.disk.remove(path);
    log.machine.disk.edit(segment, (bytes) => {
      bytes[at] ^= 0x10;
    });
  }
});

test('F2: a damaged segment header in front of a later segment is damage; of a segment that was never used it is not', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1 });
  log.losePower();
  await log.open();
  const [first, second] = log.segments();
  log.machine.kill();
  const spoil = (path: string): void =>
    log.machine.disk.edit(path, (bytes) => {
      bytes[8] ^= 1;
    });
  spoil(second);
  let recovered = await log.open();
  assert.equal(recovered.get(1)!.failure, undefined);
  assert.equal(describe(recovered.get(1)), '1-1@1');
  log.machine.kill();
  recovered = await log.open();
  assert.equal(recovered.get(1)!.failure, undefined, 'the unused segment was held against a later opening');
  log.machine.kill();
  spoil(first);
  recovered = await log.open();
  assert.equal(recovered.get(1)?.failure?.code ?? 'no shard', 'no shard');
});

test('F3: a tail of zeros, as a file system leaves it, is a torn tail', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1 });
  await log.write({ firstIndex: 2 });
  const [segment] = log.segments();
  log.machine.kill();
  log.machine.disk.edit(segment, (bytes) => bytes.fill(0, PAGE * 3));
  const recovered = await log.open();
  assert.equal(describe(recovered.get(1)), '1-1@1');
  assert.equal(recovered.get(1)!.failure, undefined);
});

test('F4: no acknowledged byte is ever written again', async () => {
  const log = new TestLog();
  const written = new Map<string, number>();
  log.machine.disk.fault = (operation, path, position, length) => {
    if (operation !== 'write' || !path.endsWith('.wal')) return undefined;
    assert.ok(position >= (written.get(path) ?? 0), `${path}: ${position} was written before`);
    written.set(path, position + length);
    return undefined;
  };
  await log.open();
  await log.writeState();
  for (let index = 1; index <= 30; index++) await log.write({ firstIndex: index, payloadBytes: 5000 });
  assert.ok(written.size > 1, 'the log did not roll');
});

test('F5: a failed write ends the log; nothing is acknowledged any more and nothing is written again', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  let writes = 0;
  log.machine.disk.fault = (operation, path) => {
    if (operation !== 'write' || !path.endsWith('.wal')) return undefined;
    writes++;
    return systemError('EIO', path);
  };
  await log.write({ firstIndex: 1 });
  assert.equal(log.sink.failure?.code, 'ERR_DISK_FAILED');
  log.append({ firstIndex: 2 });
  log.wal.flush();
  await log.machines.world.run(10_000);
  assert.equal(writes, 1, 'a failed write was tried again');
  assert.deepEqual(log.sink.durable, ['1:state']);
});

test('F5: what recovery read is made durable before anything is promised on it', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  log.append({ firstIndex: 1 });
  log.wal.flush();
  // Killed while the write is under way: the bytes are in the page cache only.
  log.machine.kill();
  const recovered = await log.open();
  assert.equal(describe(recovered.get(1)), '1-1@1');
  log.losePower();
  assert.equal(describe((await log.open()).get(1)), '1-1@1');
});

test('F8: a group that stands in another place than it was written to does not count', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  for (let index = 1; index <= 3; index++) await log.write({ firstIndex: index });
  const [segment] = log.segments();
  log.machine.kill();
  log.machine.disk.edit(segment, (bytes) => bytes.copyWithin(PAGE * 4, PAGE * 3, PAGE * 4));
  const recovered = await log.open();
  assert.equal(describe(recovered.get(1)), '1-1@1 2-2@1');
});

test('F9: what a recycled segment held before does not come back', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  let index = 1;
  while (log.wal.counters.segmentsFreed < 3) {
    await log.write({ firstIndex: index, payloadBytes: 8000 });
    log.sink.compact(1, index - 1);
    if (index % 5 === 0)
      await log.writeState({ snapshotIndex: index, snapshotTerm: 1, compactedIndex: index - 1, compactedTerm: 1 });
    log.wal.consider();
    await log.machines.world.run(50);
    index++;
    assert.ok(index < 500, 'no segment was freed');
  }
  const compacted = index - 2;
  await log.writeState({ snapshotIndex: compacted, snapshotTerm: 1, compactedIndex: compacted, compactedTerm: 1 });
  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.failure, undefined);
  assert.equal(describe(recovered.get(1)), `${index - 1}-${index - 1}@1`);
});

test('F10: a full disk holds everything back and loses nothing; with room the log goes on by itself', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.machines.world.run(100);
  log.machine.disk.capacityBytes = log.machine.disk.usedBytes;
  for (let index = 1; index <= 60; index++) log.append({ firstIndex: index, payloadBytes: 8000 });
  log.wal.flush();
  await log.machines.world.until(() => log.sink.fullCount > 0);
  assert.equal(log.wal.isFull, true);
  const durable = log.sink.durable.length;
  await log.machines.world.run(5000);
  assert.equal(log.sink.durable.length, durable, 'something was acknowledged on a full disk');
  assert.equal(log.sink.failure, undefined);
  log.machine.disk.capacityBytes = Number.POSITIVE_INFINITY;
  await log.drain();
  assert.ok(log.sink.roomCount > 0);
  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.blocks.at(-1)!.lastIndex, 60);
});

test('F10: a disk that fills while segments are of holes loses nothing, and begins no segments that it has no room for', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  let index = 0;
  while (log.segments().length < 5) await log.write({ firstIndex: ++index, payloadBytes: 28_000 });
  const { disk } = log.machine;
  disk.capacityBytes = disk.usedBytes + 64 * 1024; // half of a segment
  for (let i = 0; i < 20; i++) log.append({ firstIndex: ++index, payloadBytes: 28_000 });
  log.wal.flush();
  await log.machines.world.until(() => log.sink.fullCount > 0);
  const durable = log.sink.durable.length;
  await log.machines.world.run(30_000);
  assert.deepEqual([log.wal.isFull, log.sink.failure, log.sink.durable.length], [true, undefined, durable]);
  assert.equal(log.segments().length, 6, 'the spare that was there, and no more');
  disk.capacityBytes = Number.POSITIVE_INFINITY;
  await log.drain();
  assert.deepEqual([log.wal.isFull, log.sink.roomCount], [false, 1]);
  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.failure, undefined);
  assert.equal(recovered.get(1)!.blocks.at(-1)!.lastIndex, index);
});

/** A write into the current segment, whose room was reserved, finds none, as on thin or copying file systems. */
function refuseGroups(log: TestLog, isRefused: () => boolean): void {
  log.machine.disk.fault = (operation, path, position) =>
    operation === 'write' && path.endsWith('.wal') && position > 0 && isRefused()
      ? systemError('ENOSPC', path)
      : undefined;
}

test('F10: room that was reserved is refused; the segment is left, and the group goes to the next one', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  for (let index = 1; index <= 3; index++) await log.write({ firstIndex: index, payloadBytes: 3000 });
  let refused = 0;
  let hasRoom = false;
  refuseGroups(log, () => !hasRoom && ++refused > 0);
  for (let index = 4; index <= 6; index++) log.append({ firstIndex: index, payloadBytes: 3000 });
  log.wal.flush();
  await log.machines.world.until(() => log.sink.fullCount > 0);
  const durable = log.sink.durable.length;
  log.append({ firstIndex: 7, payloadBytes: 3000 });
  await log.machines.world.run(5000);
  assert.ok(refused > 2, 'it was tried once');
  assert.ok(log.segments().length <= 14, `${log.segments().length} segments for one group`);
  assert.deepEqual([log.wal.isFull, log.sink.failure, log.sink.fullCount], [true, undefined, 1]);
  assert.equal(log.sink.durable.length, durable, 'something was acknowledged on a full disk');
  hasRoom = true;
  await log.drain();
  assert.deepEqual([log.wal.isFull, log.sink.roomCount], [false, 1]);
  assert.equal(log.sink.durable.length, durable + 4);
  log.losePower();
  const recovered = await log.open();
  assert.equal(recovered.get(1)!.failure, undefined);
  assert.equal(recovered.get(1)!.blocks.at(-1)!.lastIndex, 7);
  // The frames that were moved to another segment are found where the log says they are.
  for (const { place } of recovered.get(1)!.blocks)
    (await log.machines.world.settle(log.wal.readFrame(place!))).release();
});

test('F10: whatever of a refused group is on the disk, and whenever power goes, what was acknowledged is found and nothing else is wrong', async () => {
  let cuts = 0;
  for (let seed = 1; seed <= 120; seed++) {
    const log = new TestLog(seed);
    const draw = (below: number): number => log.machines.world.random.u32() % below;
    await log.open();
    await log.writeState();
    const { disk } = log.machine;
    disk.keepOnError = () => draw(2) === 0;
    const cutAt = 5 + draw(60);
    let operations = 0;
    let isCut = false;
    let roomy = 0;
    disk.fault = (operation, path, position) => {
      if (++operations === cutAt) {
        isCut = true;
        log.losePower(() => draw(2) === 0);
      }
      const isGroup = operation === 'write' && path.endsWith('.wal') && position > 0;
      if (isGroup && roomy-- <= 0) {
        if (draw(3) === 0) roomy = draw(4);
        return systemError('ENOSPC', path);
      }
      return undefined;
    };
    let next = 1;
    for (; next <= 12 && !isCut; next++) {
      log.append({ firstIndex: next, payloadBytes: 1000 + draw(9000) });
      log.wal.flush();
      await log.machines.world.run(draw(3) === 0 ? 1200 : 2);
    }
    disk.fault = () => undefined;
    if (!isCut) await log.drain();
    else cuts++;
    assert.equal(log.sink.failure, undefined);
    const acknowledged = log.sink.durable.filter((line) => !line.endsWith('state')).length;
    if (!isCut) log.losePower(() => draw(2) === 0);
    const recovered = await log.open();
    const shard = recovered.get(1)!;
    assert.equal(log.wal.damage, undefined, `seed ${seed}`);
    assert.equal(shard.failure, undefined, `seed ${seed}`);
    const last = shard.blocks.at(-1)?.lastIndex ?? 0;
    assert.ok(
      last >= acknowledged && last < next,
      `seed ${seed}: ${acknowledged} acknowledged of ${next - 1}, ${last} found`,
    );
    await log.write({ firstIndex: last + 1 });
    log.losePower();
    assert.equal((await log.open()).get(1)!.blocks.at(-1)!.lastIndex, last + 1, `seed ${seed}`);
  }
  assert.ok(cuts > 30, `${cuts} cuts`);
});

test('F11: power may go at any operation of opening and rolling; what was acknowledged is found again', async () => {
  let points = 0;
  for (let point = 1; ; point++) {
    const log = new TestLog(point);
    let operations = 0;
    let isOver = false;
    log.machine.disk.fault = () => {
      if (++operations === point) {
        isOver = true;
        log.losePower(() => log.machines.world.random.u32() % 2 === 0);
      }
      return undefined;
    };
    const work = async (): Promise<void> => {
      await log.open();
      await log.writeState();
      for (let index = 1; index <= 24; index++) await log.write({ firstIndex: index, payloadBytes: 9000 });
    };
    let isDone = false;
    // After the cut nothing of the work goes on, so that it never settles: the race is with the cut.
    work().then(
      () => (isDone = true),
      () => {},
    );
    for (let step = 0; step < 3000 && !isOver && !isDone; step++) await log.machines.world.run(0.1);
    if (!isOver) break;
    points++;
    const acknowledged = log.sink.durable.filter((line) => !line.endsWith('state')).length;
    const hadState = log.sink.durable.includes('1:state');
    log.machine.disk.fault = () => undefined;
    const recovered = await log.open();
    const shard = recovered.get(1);
    if (hadState) assert.equal(shard!.failure, undefined, `point ${point}: ${shard!.failure?.message}`);
    assert.ok(
      (shard?.blocks.length ?? 0) >= acknowledged,
      `point ${point}: ${acknowledged} acknowledged, ${describe(shard)}`,
    );
  }
  assert.ok(points > 50, `only ${points} crash points`);
});

test('a truncation is the flag on the block: what it replaced stays away, also in several steps', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 5 });
  await log.write({ firstIndex: 6, count: 5 });
  await log.write({ firstIndex: 4, count: 2, term: 2, prevTerm: 1, flags: BLOCK_TRUNCATES });
  await log.write({ firstIndex: 6, term: 2 });
  await log.write({ firstIndex: 5, term: 3, prevTerm: 2, flags: BLOCK_TRUNCATES });
  log.losePower();
  const recovered = await log.open();
  assert.equal(describe(recovered.get(1)), '1-3@1 4-4@2 5-5@3');
  assert.equal(recovered.get(1)!.failure, undefined);
});

test('a lower first index without the flag is damage, never a truncation', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 5 });
  await log.write({ firstIndex: 3, term: 2, prevTerm: 1 });
  log.losePower();
  assert.equal((await log.open()).get(1)!.failure?.code, 'ERR_LOG_CORRUPT');
});

test('a gap in front of live entries is damage', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 3 });
  log.losePower();
  assert.match((await log.open()).get(1)!.failure!.message, /entries from 1 to 2 are missing/);
});

test('a reset voids what was before it; the log begins behind the snapshot', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 5 });
  await log.writeState(
    { snapshotIndex: 100, snapshotTerm: 3, compactedIndex: 100, compactedTerm: 3, commitIndex: 100 },
    true,
  );
  await log.write({ firstIndex: 101, term: 3 });
  log.losePower();
  const recovered = await log.open();
  assert.equal(describe(recovered.get(1)), '101-101@3');
  assert.equal(recovered.get(1)!.commitIndex, 100);
  assert.equal(recovered.get(1)!.failure, undefined);
});

test('the commit index is the greatest of blocks and records, and never beyond what its block verified', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState({ commitIndex: 2 });
  await log.write({ firstIndex: 1, count: 5, commitIndex: 3 });
  await log.write({ firstIndex: 6, commitIndex: 50 });
  log.losePower();
  assert.equal((await log.open()).get(1)!.commitIndex, 6);
});

test('a removed shard is forgotten, durably', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.writeState({ shardId: 2 });
  await log.write({ firstIndex: 1 });
  await log.machines.world.settle(log.wal.removeShard(1));
  log.losePower();
  assert.deepEqual([...(await log.open()).keys()], [2]);
});

test('a log of a newer format is refused as it is', async () => {
  const log = new TestLog();
  await log.open();
  const [segment] = log.segments();
  log.machine.kill();
  const { readSegmentHeader, writeSegmentHeader } = await import('../../src/wal/layout.ts');
  log.machine.disk.edit(segment, (bytes) => {
    const page = bytes.slice(0, PAGE);
    writeSegmentHeader(page, { ...readSegmentHeader(page)!, format: 9 });
    bytes.set(page);
  });
  await assert.rejects(log.open(), { code: 'ERR_DIR_FORMAT' });
});

test('an opening that fails leaves no file open, whatever it failed at', async () => {
  const log = new TestLog();
  await log.open();
  for (let i = 1; i <= 40; i++) await log.write({ firstIndex: i, payloadBytes: 8000 });
  assert.ok(log.segments().length > 1);
  log.machine.kill();
  const whole = log.machine.disk.clone();
  let failures = 0;
  for (let failAt = 0, isOver = false; !isOver; failAt++) {
    log.machine.disk.restore(whole);
    const env = log.machine.boot();
    let operations = 0;
    log.machine.disk.fault = (_operation, path) => (operations++ === failAt ? systemError('EIO', path) : undefined);
    const open = new Set<string>();
    const opening = openWal({ env: { ...env, fs: counting(env.fs, open) }, dir: DIR, pool: new SlabPool() });
    await log.machines.world.settle(
      opening.then(
        (wal) => {
          isOver = true;
          return wal.close();
        },
        () => failures++,
      ),
    );
    assert.deepEqual([...open], [], `failed at operation ${failAt}`);
  }
  log.machine.disk.fault = () => undefined;
  assert.ok(failures > 10, `${failures} openings failed`);
});

/** Notes which files are open. */
function counting(fs: FileSystem, open: Set<string>): FileSystem {
  const counted: FileSystem = Object.create(fs) as FileSystem;
  counted.open = async (path, mode, options) => {
    const file = await fs.open(path, mode, options);
    const name = `${path} #${open.size}`;
    open.add(name);
    const close = file.close.bind(file);
    file.close = () => {
      open.delete(name);
      return close();
    };
    return file;
  };
  return counted;
}

test('a segment that others may read is refused', async () => {
  const log = new TestLog();
  await log.open();
  log.machine.kill();
  log.machine.disk.setMode(log.segments()[0], 0o644);
  await assert.rejects(log.open(), { code: 'ERR_DIR_PERMISSIONS' });
});

test('a disk that cannot be read at the opening is named', async () => {
  const log = new TestLog();
  await log.open();
  log.machine.kill();
  log.machine.disk.fault = (operation, path) =>
    operation === 'read' && path.startsWith(DIR) ? systemError('EIO', path) : undefined;
  await assert.rejects(log.open(), /EIO/);
});

test('a damaged log says so, also to shards that it does not mention any more', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 3 });
  await log.write({ firstIndex: 4, count: 3 });
  log.losePower();
  log.machine.disk.edit(log.segments()[0], (bytes) => bytes.fill(0, PAGE, PAGE * 2));
  const recovered = await log.open();
  assert.equal(recovered.size, 0, 'the shard was in the group that is gone');
  assert.equal(log.wal.damage?.code, 'ERR_LOG_CORRUPT');
  // And it says so again at every opening, however often it was opened in between.
  for (let opening = 0; opening < 3; opening++) {
    log.losePower();
    await log.open();
    assert.equal(log.wal.damage?.code, 'ERR_LOG_CORRUPT', `opening ${opening}`);
  }
});
