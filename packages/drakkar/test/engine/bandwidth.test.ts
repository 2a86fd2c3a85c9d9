/** Bounds of what streams share: bytes per second, and places. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryMachines } from 'drakkar/testing';
import { Bandwidth } from '../../src/engine/bandwidth.ts';
import { BANDWIDTH_BURST_MS } from '../../src/engine/limits.ts';
import { Places } from '../../src/engine/places.ts';

const never = new AbortController().signal;

async function* of(...sizes: number[]): AsyncGenerator<Uint8Array> {
  for (const [i, size] of sizes.entries()) yield new Uint8Array(size).fill(i + 1);
}

async function collect(chunks: AsyncIterable<Uint8Array>, onPiece?: (piece: Uint8Array) => void): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of chunks) {
    onPiece?.(piece);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

test('in no stretch of time more bytes pass than the bound and its burst allow, and none are lost or changed', async () => {
  const runs = fc.sample(
    fc.tuple(
      fc.integer({ min: 1000, max: 1_000_000 }),
      // In tenths of what the bound allows in a second: some dozens of pieces.
      fc.array(fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 4 }), { minLength: 1, maxLength: 4 }),
    ),
    { numRuns: 25 },
  );
  for (const [rate, shares] of runs) {
    const { world, env } = setUp();
    const bandwidth = new Bandwidth(env, rate);
    const moved: { atMs: number; bytes: number }[] = [];
    const note = (piece: Uint8Array): void => void moved.push({ atMs: world.nowMs(), bytes: piece.length });
    const work = shares.map(async (tenths) => {
      const sizes = tenths.map((tenth) => Math.ceil((tenth * rate) / 10));
      const got = await collect(bandwidth.pace(of(...sizes), never), note);
      assert.ok(got.equals(await collect(of(...sizes))));
    });
    await world.settle(Promise.all(work), 1_000_000);
    for (const [i, first] of moved.entries()) {
      let bytes = 0;
      for (const { atMs, bytes: more } of moved.slice(i)) {
        bytes += more;
        const allowed = ((atMs - first.atMs + BANDWIDTH_BURST_MS) * rate) / 1000 + first.bytes;
        assert.ok(bytes <= allowed + 1, `${bytes} of ${allowed} within ${atMs - first.atMs} ms`);
      }
    }
  }
});

function setUp() {
  const machines = new MemoryMachines(1);
  return { world: machines.world, env: machines.add('host').boot() };
}

test('a bound is used up: what it allows in ten seconds has passed after ten seconds', async () => {
  const { world, env } = setUp();
  const sizes = Array.from({ length: 10 }, () => 100_000);
  await world.settle(collect(new Bandwidth(env, 100_000).pace(of(...sizes), never)), 60_000);
  assert.ok(world.nowMs() > 9000 && world.nowMs() < 10_100, String(world.nowMs()));
});

test('no bound: chunks pass as they are', async () => {
  const { env } = setUp();
  const chunks = of(1, 2);
  assert.equal(new Bandwidth(env, 0).pace(chunks, never), chunks);
});

test('streams that share a bound all go on, none of them stands still', async () => {
  const { world, env } = setUp();
  const bandwidth = new Bandwidth(env, 16 * 1024);
  let longestMs = 0;
  const run = async (): Promise<void> => {
    let lastMs = world.nowMs();
    await collect(bandwidth.pace(of(8000), never), () => {
      longestMs = Math.max(longestMs, world.nowMs() - lastMs);
      lastMs = world.nowMs();
    });
  };
  await world.settle(Promise.all(Array.from({ length: 64 }, run)), 1_000_000);
  assert.ok(longestMs > 500 && longestMs < 3000, `${longestMs} ms`);
});

test('who waits for bandwidth hears of its abort at once, and its source is closed', async () => {
  const { world, env } = setUp();
  const aborting = new AbortController();
  let isClosed = false;
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield new Uint8Array(1_000_000);
    } finally {
      isClosed = true;
    }
  }
  const work = collect(new Bandwidth(env, 1000).pace(source(), aborting.signal));
  await world.run(5000);
  aborting.abort(new Error('enough'));
  await assert.rejects(world.settle(work, 1), /enough/);
  assert.equal(isClosed, true);
});

test('places: in order, never more than there are, and an aborted wait leaves the queue', async () => {
  const places = new Places('things', 2, 3);
  const order: string[] = [];
  const enter = async (name: string, signal = never): Promise<() => void> => {
    const leave = await places.enter(signal);
    order.push(name);
    return leave;
  };
  const a = await enter('a');
  const b = await enter('b');
  const aborting = new AbortController();
  const waiting = [enter('c'), enter('d', aborting.signal), enter('e')];
  await assert.rejects(enter('f'), { code: 'ERR_SYSTEM_BUSY' });
  assert.deepEqual([places.takenCount, places.waitingCount, places.waited], [2, 3, 3]);
  aborting.abort(new Error('not any more'));
  await assert.rejects(waiting[1], /not any more/);
  a();
  a(); // once
  (await waiting[0])();
  const leaveE = await waiting[2];
  assert.deepEqual(order, ['a', 'b', 'c', 'e']);
  assert.deepEqual([places.takenCount, places.waitingCount], [2, 0]);
  b();
  leaveE();
  assert.equal(places.takenCount, 0);
  await assert.rejects(places.enter(aborting.signal), /not any more/);
});
