/** Small parts: arguments, what is read from /proc and from programs, the shape of the load. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { refusal, work } from '../arguments.ts';
import { parseCeiling } from '../contenders/ceiling.ts';
import { isRead } from '../load.ts';
import { parseBusyTicks, parseProcessTicks } from '../machine.ts';
import { dueMs } from '../open-loop.ts';
import { DEFAULT_OPTIONS } from '../options.ts';

test('a work is shards x payload x in flight', () => {
  assert.deepEqual(work('48x16x4800'), { shards: 48, payload: 16, inflight: 4800 });
  for (const text of ['48x16', '48x16x4800x1', '0x16x1', '1x4x1', 'x16x1', '1x16x', '1x16x1.5', 'many', '']) {
    assert.throws(() => work(text), { code: 'commander.invalidArgument' }, text);
  }
});

test('ways in that do not go together are refused', () => {
  assert.equal(refusal(DEFAULT_OPTIONS), undefined);
  assert.equal(refusal({ ...DEFAULT_OPTIONS, sessions: true, rate: 5, readPercent: 10 }), undefined);
  assert.equal(refusal({ ...DEFAULT_OPTIONS, api: 'callback', readPercent: 50 }), undefined);
  for (const changes of [{ sessions: true }, { rate: 10 }]) {
    assert.match(refusal({ ...DEFAULT_OPTIONS, api: 'callback', ...changes })!, /--api callback/);
  }
  assert.match(refusal({ ...DEFAULT_OPTIONS, api: 'batch', readPercent: 10 })!, /--api batch/);
});

test('the share of reads is exact in every hundred operations', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 100 }), fc.nat(1000), (percent, start) => {
      const reads = Array.from({ length: 100 }, (_, i) => isRead(start + i, percent)).filter(Boolean).length;
      assert.equal(reads, percent);
    }),
  );
});

test('an open loop has as many requests due in a second as its rate says, none early', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000_000 }), (rate) => {
      assert.equal(dueMs(0, rate), 0);
      assert.equal(dueMs(rate, rate), 1000);
      assert.ok(dueMs(rate - 1, rate) < 1000);
      for (let k = 1; k < 50; k++) assert.ok(dueMs(k, rate) >= dueMs(k - 1, rate));
    }),
  );
});

test('CPU time is read from /proc', () => {
  assert.equal(parseBusyTicks('cpu  100 20 30 4000 500 6 7 88 0 0\ncpu0 1 1 1 1\n'), 163);
  // A name may hold spaces and brackets.
  const fields = 'S 1 2 3 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 11 0 100'.split(' ');
  assert.equal(parseProcessTicks(`42 (node (x) y) ${fields.join(' ')}`), 300);
});

test("the ceiling program's line is understood, and a mismatch is an error", () => {
  const line =
    'v24  sh=48 P=16 N=4800 wal=cb api=rs | 1520k w/s  p50 2.70 p99 6.40 p99.9 9.10 ms | cpu 86%/28%/29% | 760k op/cpu-s | flush/s 900/880/870 ms CONSISTENT';
  const parsed = parseCeiling(line, 4000);
  assert.deepEqual(
    [parsed.writesPerSecond, parsed.writesPerCpuSecond, parsed.p50Ms, parsed.p99Ms, parsed.p999Ms, parsed.cpuSeconds],
    [1_520_000, 760_000, 2.7, 6.4, 9.1, 8],
  );
  assert.throws(() => parseCeiling(line.replace('CONSISTENT', 'MISMATCH 1,2'), 4000), /printed/);
  assert.throws(() => parseCeiling('CONSISTENT', 4000), /printed/);
});
