/** The file that a comparison leaves behind, and its chart. */
import type { Chart, ChartRow, Panel } from './chart.ts';
import { compare, type Comparison } from './comparison.ts';
import type { PeerName } from './contenders/index.ts';
import type { BenchOptions } from './options.ts';
import type { DiskFigures } from './raw-disk.ts';
import type { IdleFigures } from './scale/questions.ts';
import type { Verdict } from './table.ts';

export interface RowHead {
  readonly title: string;
  readonly against: PeerName;
  readonly work: BenchOptions;
}

export interface MeasuredRow extends RowHead, Comparison {
  readonly versions: { readonly ours: string; readonly theirs: string };
  readonly verdicts: readonly Verdict[];
}

export interface SkippedRow extends RowHead {
  readonly skipped: string;
}

export type RowResult = MeasuredRow | SkippedRow;

export interface Report {
  readonly date: string;
  readonly machine: string;
  /** Every figure that was measured and has a bound keeps it. */
  readonly reached: boolean;
  readonly rows: readonly RowResult[];
  readonly disk?: readonly DiskFigures[];
  readonly idle?: IdleFigures;
}

/** The comparison with one peer. Refuses results whose runs were not made in turn. */
export function chartOf(report: Report, against: PeerName): Chart {
  const rows = report.rows.filter((row): row is MeasuredRow => row.against === against && !('skipped' in row));
  if (rows.length === 0) throw new Error(`there is no measured comparison with ${against}`);
  for (const { runs } of rows) compare(runs, runs[0].contender, runs[1].contender);
  const panel = (title: string, figure: (row: MeasuredRow) => readonly [number, number]): Panel => ({
    title,
    rows: rows.map((row): ChartRow => {
      const [ours, theirs] = figure(row);
      return { label: row.title, ours, theirs };
    }),
  });
  const { versions, rounds } = rows[0];
  return {
    title: 'Replicated operations, durable on a majority of three',
    footer: `${report.machine}; ${report.date.slice(0, 10)}; medians of ${rounds} rounds in turn`,
    names: [versions.ours, versions.theirs],
    panels: [
      panel('Operations per second', ({ ours, theirs }) => [
        ours.writesPerSecond + ours.readsPerSecond,
        theirs.writesPerSecond + theirs.readsPerSecond,
      ]),
      panel('Operations per CPU-second, all hosts', ({ ours, theirs }) => [
        ours.writesPerCpuSecond + ours.readsPerCpuSecond,
        theirs.writesPerCpuSecond + theirs.readsPerCpuSecond,
      ]),
      panel('Latency p99 in milliseconds, less is better', ({ ours, theirs }) => [ours.p99Ms, theirs.p99Ms]),
    ],
  };
}
