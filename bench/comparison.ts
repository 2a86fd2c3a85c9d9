/** Runs two contenders in turn (A B A B …) and puts medians, spreads and ratios of medians side by side. */
import type { Contender } from './contenders/contender.ts';
import type { BenchOptions, BenchResult } from './options.ts';
import { median, ratio, roundTo, spread } from './statistics.ts';

/** One run, as recorded. */
export interface Run {
  readonly contender: string;
  readonly startedAtMs: number;
  readonly result: BenchResult;
}

type FigureName = Exclude<keyof BenchResult, 'digestsEqual' | 'writesAddUp' | 'generatorCpuSeconds'>;
const FIGURES: readonly FigureName[] = [
  'writesPerSecond',
  'readsPerSecond',
  'writesPerCpuSecond',
  'readsPerCpuSecond',
  'p50Ms',
  'p99Ms',
  'p999Ms',
  'cpuSeconds',
  'flushesPerSecond',
  'foreignCpu',
  'loopDelayP99Ms',
  'leaderChanges',
];

export interface Side {
  readonly medians: BenchResult;
  /** Greatest minus smallest, as a share of the median. */
  readonly spreads: Readonly<Partial<Record<FigureName, number>>>;
}

export interface Ratios {
  readonly writesPerSecondRatio: number | null;
  readonly readsPerSecondRatio: number | null;
  readonly writesPerCpuSecondRatio: number | null;
  readonly readsPerCpuSecondRatio: number | null;
  readonly p50Ratio: number | null;
  readonly p99Ratio: number | null;
}

export interface Comparison extends Ratios {
  readonly ours: BenchResult;
  readonly theirs: BenchResult;
  readonly spreads: { readonly ours: Side['spreads']; readonly theirs: Side['spreads'] };
  readonly rounds: number;
  /** Every run in the order they were made. */
  readonly runs: readonly Run[];
}

/** `rounds` runs of each, in turn. `before` is awaited before each. */
export async function runInTurn(
  contenders: readonly Contender[],
  options: BenchOptions,
  rounds: number,
  before: () => Promise<unknown>,
  onRun: (run: Run) => void = () => {},
): Promise<Run[]> {
  const runs: Run[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders) {
      await before();
      const startedAtMs = Date.now();
      const run: Run = { contender: contender.name, startedAtMs, result: await contender.run(options) };
      assertSound(run);
      runs.push(run);
      onRun(run);
    }
  }
  return runs;
}

/** A figure counts only if nothing was lost for it. */
function assertSound({ contender, result }: Run): void {
  if (!result.digestsEqual) throw new Error(`${contender}: the digests of the hosts differ`);
  if (result.writesAddUp === false) throw new Error(`${contender}: not as many writes were applied as acknowledged`);
}

/**
 * Refuses runs that were not made in turn: a machine's speed drifts by a quarter from hour to hour, so that only neighbours can be
 * compared.
 */
export function assertInterleaved(runs: readonly Run[], ours: string, theirs: string): void {
  const isInTurn = runs.every(({ contender }, i) => contender === (i % 2 === 0 ? ours : theirs));
  const isInOrder = runs.every(({ startedAtMs }, i) => i === 0 || startedAtMs >= runs[i - 1].startedAtMs);
  if (runs.length < 2 || runs.length % 2 !== 0 || !isInTurn || !isInOrder) {
    const order = runs.map(({ contender }) => contender).join(' ');
    throw new Error(`the runs were not made in turn (${ours} ${theirs} ${ours} ${theirs} …) but as: ${order}`);
  }
}

export function compare(runs: readonly Run[], ours: string, theirs: string): Comparison {
  assertInterleaved(runs, ours, theirs);
  const of = (name: string): BenchResult[] =>
    runs.filter(({ contender }) => contender === name).map(({ result }) => result);
  const our = of(ours);
  const their = of(theirs);
  const quotient = (figure: FigureName): number | null => {
    const value = ratio(values(our, figure), values(their, figure));
    return value === undefined || value === 0 ? null : roundTo(value, 4);
  };
  const side = { ours: sideOf(our), theirs: sideOf(their) };
  return {
    ours: side.ours.medians,
    theirs: side.theirs.medians,
    writesPerSecondRatio: quotient('writesPerSecond'),
    readsPerSecondRatio: quotient('readsPerSecond'),
    writesPerCpuSecondRatio: quotient('writesPerCpuSecond'),
    readsPerCpuSecondRatio: quotient('readsPerCpuSecond'),
    p50Ratio: quotient('p50Ms'),
    p99Ratio: quotient('p99Ms'),
    rounds: our.length,
    spreads: { ours: side.ours.spreads, theirs: side.theirs.spreads },
    runs,
  };
}

const values = (results: readonly BenchResult[], figure: FigureName): number[] =>
  results.map((result) => result[figure]).filter((value) => value !== null);

function sideOf(results: readonly BenchResult[]): Side {
  const medians: Partial<Record<FigureName, number | null>> = {};
  const spreads: Partial<Record<FigureName, number>> = {};
  for (const figure of FIGURES) {
    const all = values(results, figure);
    medians[figure] = all.length === 0 ? null : roundTo(median(all), 6);
    if (all.length > 0) spreads[figure] = roundTo(spread(all), 2);
  }
  const adding = results.map(({ writesAddUp }) => writesAddUp);
  return {
    medians: {
      ...(medians as Omit<BenchResult, 'digestsEqual' | 'writesAddUp'>),
      digestsEqual: results.every(({ digestsEqual }) => digestsEqual),
      writesAddUp: adding.includes(false) ? false : adding.includes(null) ? null : true,
    },
    spreads,
  };
}
