/** Comparisons: only of runs made in turn, only of sound runs, and what they must reach. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compare, runInTurn, type Run } from '../comparison.ts';
import type { Contender } from '../contenders/contender.ts';
import { DEFAULT_OPTIONS, type BenchResult } from '../options.ts';
import { addsUp, summarise } from '../summary.ts';
import { judge, TABLE } from '../table.ts';

const result = (changes: Partial<BenchResult>): BenchResult => ({
  writesPerSecond: 1000,
  readsPerSecond: 0,
  writesPerCpuSecond: 500,
  readsPerCpuSecond: 0,
  p50Ms: 1,
  p99Ms: 3,
  p999Ms: 5,
  cpuSeconds: 2,
  flushesPerSecond: null,
  digestsEqual: true,
  writesAddUp: true,
  foreignCpu: 0,
  loopDelayP99Ms: null,
  leaderChanges: null,
  ...changes,
});

let clock = 0;
const run = (contender: string, changes: Partial<BenchResult> = {}): Run => ({
  contender,
  startedAtMs: ++clock,
  result: result(changes),
});

const contender = (name: string, results: BenchResult[]): Contender => ({
  name,
  describe: () => name,
  prepare: async () => undefined,
  run: async () => results.shift()!,
});

test('contenders run in turn, and their medians are compared', async () => {
  const ours = contender(
    'a',
    [1, 9, 2].map((n) => result({ writesPerSecond: n * 1000, p99Ms: n })),
  );
  const theirs = contender(
    'b',
    [4, 1, 5].map((n) => result({ writesPerSecond: n * 100, p99Ms: n * 2 })),
  );
  let quiet = 0;
  const runs = await runInTurn([ours, theirs], DEFAULT_OPTIONS, 3, async () => quiet++);
  assert.deepEqual(
    runs.map((one) => one.contender),
    ['a', 'b', 'a', 'b', 'a', 'b'],
  );
  assert.equal(quiet, 6, 'before each run');
  const comparison = compare(runs, 'a', 'b');
  assert.equal(comparison.rounds, 3);
  assert.equal(comparison.ours.writesPerSecond, 2000);
  assert.equal(comparison.theirs.writesPerSecond, 400);
  assert.equal(comparison.writesPerSecondRatio, 5);
  assert.equal(comparison.p99Ratio, 0.25);
  assert.equal(comparison.spreads.ours.writesPerSecond, 4);
  assert.equal(comparison.readsPerSecondRatio, null);
  assert.equal(comparison.ours.flushesPerSecond, null);
});

test('runs that were not made in turn are refused', () => {
  const [a1, b1, a2, b2] = [run('a'), run('b'), run('a'), run('b')];
  assert.doesNotThrow(() => compare([a1, b1, a2, b2], 'a', 'b'));
  for (const runs of [[], [a1], [a1, a2, b1, b2], [b1, a1], [a1, b1, a2], [a2, b2, a1, b1], [a1, a2]]) {
    assert.throws(() => compare(runs, 'a', 'b'), /not made in turn/);
  }
});

test('a run that lost something ends the comparison', async () => {
  for (const changes of [{ digestsEqual: false }, { writesAddUp: false }]) {
    const contenders = [contender('a', [result({})]), contender('b', [result(changes)])];
    await assert.rejects(
      runInTurn(contenders, DEFAULT_OPTIONS, 1, async () => {}),
      /b: /,
    );
  }
});

test('a figure is reached at its bound, missed behind it, and missed when it is unknown', () => {
  const ratios = compare([run('a', { writesPerSecond: 5000, p99Ms: 2 }), run('b')], 'a', 'b');
  const isReached = (target: Parameters<typeof judge>[0][number]): boolean => judge([target], ratios)[0].isReached;
  assert.equal(isReached({ figure: 'writesPerSecondRatio', atLeast: 5 }), true);
  assert.equal(isReached({ figure: 'writesPerSecondRatio', atLeast: 5.1 }), false);
  assert.equal(isReached({ figure: 'p99Ratio', atMost: 0.7 }), true);
  assert.equal(isReached({ figure: 'p99Ratio', atMost: 0.6 }), false);
  assert.equal(isReached({ figure: 'readsPerSecondRatio', atLeast: 0 }), false);
  for (const { targets } of TABLE) for (const target of targets) assert.ok('atLeast' in target !== 'atMost' in target);
});

const sample = { reads: 0, seconds: 2, flushes: 10, latenciesMs: [1, 2, 3], unknown: 0 };

test('figures are of all hosts: CPU and writes summed, the worst latency', () => {
  const samples = [
    { ...sample, writes: 900, cpuSeconds: 1.5, acknowledged: 1000 },
    { ...sample, writes: 100, cpuSeconds: 0.5, acknowledged: 100, latenciesMs: [0.5, 9, 9] },
    { ...sample, writes: 0, cpuSeconds: 0.5, acknowledged: 0, latenciesMs: [0, 0, 0] },
  ];
  const { writesPerSecond, writesPerCpuSecond, cpuSeconds, p50Ms, p99Ms, flushesPerSecond } = summarise(
    samples,
    true,
    true,
    null,
  );
  assert.deepEqual(
    { writesPerSecond, writesPerCpuSecond, cpuSeconds, p50Ms, p99Ms, flushesPerSecond },
    { writesPerSecond: 500, writesPerCpuSecond: 400, cpuSeconds: 2.5, p50Ms: 1, p99Ms: 9, flushesPerSecond: 5 },
  );
});

test('writes add up when those acknowledged were applied, and only those of unknown outcome besides', () => {
  const samples = [{ ...sample, writes: 5, cpuSeconds: 1, acknowledged: 10, unknown: 2 }];
  const applied = (...counts: number[]): boolean =>
    addsUp(
      samples,
      counts.map((count, i) => ({ shardId: i + 1, applied: count, hash: '' })),
    );
  assert.equal(applied(4, 6), true);
  assert.equal(applied(4, 8), true);
  assert.equal(applied(4, 5), false);
  assert.equal(applied(4, 9), false);
});
