/** The chart, and what it refuses to draw. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { barWidth, drawChart, type Chart } from '../chart.ts';
import { compare, type Run } from '../comparison.ts';
import { DEFAULT_OPTIONS } from '../options.ts';
import { chartOf, type MeasuredRow, type Report } from '../results.ts';

const chart: Chart = {
  title: 'A & <B>',
  footer: 'here',
  names: ['ours', 'theirs'],
  panels: [
    { title: 'one', rows: [{ label: 'work', ours: 600, theirs: 200 }] },
    { title: 'two', rows: [{ label: 'work', ours: 1, theirs: 4 }] },
  ],
};

test('bars are drawn to the scale of their pair, with values and ratio', () => {
  const svg = drawChart(chart);
  const widths = [...svg.matchAll(/width="(\d+)" height="13"/g)].map((match) => Number(match[1]));
  assert.equal(widths.length, 4);
  assert.ok(Math.abs(widths[1] / widths[0] - 1 / 3) < 0.01);
  assert.ok(Math.abs(widths[2] / widths[3] - 1 / 4) < 0.01);
  assert.equal(widths[0], widths[3], 'the greater of each pair has the whole width');
  assert.match(svg, />600 {2}\(3\.0×\)</);
  assert.match(svg, />A &#38; &#60;B&#62;</);
  assert.doesNotMatch(svg, /<B>|NaN|undefined/);
  assert.equal(barWidth(0, { label: '', ours: 0, theirs: 0 }), 0);
});

test('results are charted only if their runs were made in turn', () => {
  const run = (contender: string, startedAtMs: number): Run => ({
    contender,
    startedAtMs,
    result: {
      writesPerSecond: startedAtMs * 1000,
      readsPerSecond: 0,
      writesPerCpuSecond: 5,
      readsPerCpuSecond: 0,
      p50Ms: 1,
      p99Ms: 2,
      p999Ms: 3,
      cpuSeconds: 1,
      flushesPerSecond: null,
      digestsEqual: true,
      writesAddUp: true,
      foreignCpu: 0,
      loopDelayP99Ms: null,
      leaderChanges: null,
    },
  });
  const runs = [run('drakkar', 1), run('dragonboat', 2), run('drakkar', 3), run('dragonboat', 4)];
  const row: MeasuredRow = {
    ...{ title: 'work', against: 'dragonboat', work: DEFAULT_OPTIONS, verdicts: [] },
    versions: { ours: 'we', theirs: 'they' },
    ...compare(runs, 'drakkar', 'dragonboat'),
  };
  const report = (one: MeasuredRow): Report => ({ date: '2026-01-01T00:00', machine: 'm', reached: true, rows: [one] });
  const drawn = chartOf(report(row), 'dragonboat');
  assert.deepEqual(drawn.names, ['we', 'they']);
  assert.deepEqual(drawn.panels[0].rows, [{ label: 'work', ours: 2000, theirs: 3000 }]);
  const [a1, b1, a2, b2] = runs;
  assert.throws(() => chartOf(report({ ...row, runs: [a1, a2, b1, b2] }), 'dragonboat'), /not made in turn/);
  assert.throws(() => chartOf(report(row), 'etcd'), /no measured comparison/);
});
