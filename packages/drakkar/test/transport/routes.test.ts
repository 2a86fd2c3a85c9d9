/** Where shards live on hosts with several engines: what is announced is known to whoever dials. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import fc from 'fast-check';
import { OwnRoutes, Routes, decodeNews, encodeNews } from '../../src/transport/routes.ts';
import { FRAME_MAX_BYTES_BEFORE_HELLO } from '../../src/wire/limits.ts';
import type { Slab } from '../../src/wire/slab.ts';

const decode = (slab: Slab): ReturnType<typeof decodeNews> => decodeNews(slab.u8, slab.u32, 0);
const shardIds = fc.uniqueArray(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), { maxLength: 2000 });

test('news goes through as many small frames as it needs', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 63 }),
      fc.stringMatching(/^[a-z.]{1,200}:\d{1,5}$/),
      shardIds,
      (engine, address, ids) => {
        const frames = encodeNews({ engine, address, shardIds: ids });
        for (const { usedBytes } of frames) assert.ok(usedBytes <= FRAME_MAX_BYTES_BEFORE_HELLO, `${usedBytes} bytes`);
        const news = frames.map(decode);
        assert.deepEqual(
          news.flatMap((each) => each.shardIds),
          ids,
        );
        for (const each of news) assert.deepEqual([each.engine, each.address], [engine, address]);
      },
    ),
    { numRuns: 50 },
  );
});

test('a frame that is cut, too long or out of range is refused', () => {
  const [slab] = encodeNews({ engine: 1, address: 'a:1', shardIds: [1, 2, 3] });
  const refused = (change: (u32: Uint32Array) => void): void => {
    const u32 = slab.u32.slice();
    change(u32);
    assert.throws(
      () => decodeNews(new Uint8Array(u32.buffer), u32, 0),
      (error: unknown) => DrakkarError.is(error, 'ERR_FRAME'),
    );
  };
  refused((u32) => (u32[0] -= 4));
  refused((u32) => (u32[0] = 16));
  refused((u32) => (u32[3] = 4));
  refused((u32) => (u32[3] = 0xffff_ffff));
  refused((u32) => (u32[4] = 64));
  refused((u32) => (u32[5] = 0));
  refused((u32) => (u32[5] = 4000));
  refused((u32) => (u32[8] = 0xffff_ffff));
});

test('whoever dials late learns the same as whoever listened all along', () => {
  const step = fc.record({ engine: fc.integer({ min: 0, max: 3 }), shardIds });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 10 }), (steps) => {
      const own = new OwnRoutes();
      const [listener, late] = [new Routes(), new Routes()];
      const truth = new Map<number, number>();
      for (const { engine, shardIds: ids } of steps) {
        const news = { engine, address: `host:${7000 + engine}`, shardIds: ids };
        const moved = own.announce(news).flatMap((frame) => listener.learn('host', decode(frame)));
        assert.deepEqual(
          moved,
          ids.filter((shardId) => (truth.get(shardId) ?? 0) !== engine),
        );
        for (const shardId of ids) truth.set(shardId, engine);
      }
      for (const frame of own.frames()) late.learn('host', decode(frame));
      for (const [shardId, engine] of truth) {
        assert.equal(listener.engineOf('host', shardId), engine);
        assert.equal(late.engineOf('host', shardId), engine);
        assert.equal(late.listenerOf('host', engine), `host:${7000 + engine}`);
      }
      assert.equal(late.engineOf('another', 1), 0);
    }),
    { numRuns: 50 },
  );
});
