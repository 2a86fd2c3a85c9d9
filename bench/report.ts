/** Figures as text for people. */
import { arch, cpus, platform, release } from 'node:os';
import type { Comparison, Run } from './comparison.ts';
import type { BenchOptions, BenchResult } from './options.ts';
import { roundTo } from './statistics.ts';
import type { Verdict } from './table.ts';

export function machineText(): string {
  return `Node ${process.version} ${platform()} ${release()} ${arch()}, ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`;
}

/** 12345 as 12.3k. */
export function short(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)}M`;
  if (value >= 10_000) return `${Math.round(value / 1000)}k`;
  return String(Number(value.toPrecision(4)));
}

export function workText(options: BenchOptions): string {
  const { api, sm, batch, rate } = options;
  const parts = [
    `${options.shards} shards`,
    `${options.payload} bytes`,
    rate > 0 ? `${short(rate)}/s open loop, at most ${options.inflight} in flight` : `${options.inflight} in flight`,
  ];
  if (options.readPercent > 0) parts.push(`${options.readPercent}% reads`);
  parts.push(`api ${api}${api === 'batch' ? ` of ${batch}` : ''}`, `sm ${sm}`);
  if (options.sessions) parts.push('sessions');
  if (options.tls) parts.push('TLS');
  if (options.engines > 1) parts.push(`${options.engines} engines`);
  parts.push(`leaders ${options.spread ? 'spread' : 'on one host'}`, '10,000 keys');
  return parts.join(', ');
}

export function resultLines(options: BenchOptions, result: BenchResult): string[] {
  const lines: string[] = [];
  const hasWrites = options.readPercent < 100;
  if (hasWrites)
    lines.push(
      `  writes/s           ${short(result.writesPerSecond)}   per CPU-second ${short(result.writesPerCpuSecond)}`,
    );
  if (options.readPercent > 0)
    lines.push(
      `  reads/s            ${short(result.readsPerSecond)}   per CPU-second ${short(result.readsPerCpuSecond)}`,
    );
  lines.push(
    `  p50, p99, p99.9    ${result.p50Ms}, ${result.p99Ms}, ${result.p999Ms} ms`,
    `  CPU of all hosts   ${result.cpuSeconds} s in ${options.durationMs / 1000} s; other programs ${result.foreignCpu ?? 'unknown'} cores`,
    `  event-loop delay   p99 ${result.loopDelayP99Ms} ms; ${result.leaderChanges} changes of leaders`,
    `  flushes/s, leader  ${result.flushesPerSecond ?? 'unknown'}`,
    `  digests            ${result.digestsEqual ? 'equal' : 'DIFFERENT'}; writes ${result.writesAddUp === false ? 'DO NOT ADD UP' : 'add up'}`,
  );
  return lines;
}

/** One run in a comparison. */
export function runLine({ contender, result }: Run): string {
  const { writesPerSecond, readsPerSecond, writesPerCpuSecond, readsPerCpuSecond } = result;
  const operations = writesPerSecond + readsPerSecond;
  return (
    `  ${contender.padEnd(18)} ${short(operations).padStart(6)}/s  ${short(writesPerCpuSecond + readsPerCpuSecond).padStart(6)}/CPU-s  ` +
    `p50 ${result.p50Ms}  p99 ${result.p99Ms} ms  others ${result.foreignCpu ?? '?'} cores`
  );
}

const percent = (share: number | undefined): string => (share === undefined ? '' : `±${Math.round(share * 50)}%`);
const times = (value: number | null): string => (value === null ? '–' : `${value.toFixed(2)}×`);

/** Medians of both, their spread (half the distance of the extremes) and the ratio. */
export function comparisonLines(options: BenchOptions, comparison: Comparison, against: string): string[] {
  const { ours, theirs, spreads } = comparison;
  const rows: [string, keyof BenchResult & keyof Comparison['spreads']['ours'], number | null][] = [];
  if (options.readPercent < 100) {
    rows.push(['writes/s', 'writesPerSecond', comparison.writesPerSecondRatio]);
    rows.push(['writes/CPU-s', 'writesPerCpuSecond', comparison.writesPerCpuSecondRatio]);
  }
  if (options.readPercent > 0) {
    rows.push(['reads/s', 'readsPerSecond', comparison.readsPerSecondRatio]);
    rows.push(['reads/CPU-s', 'readsPerCpuSecond', comparison.readsPerCpuSecondRatio]);
  }
  rows.push(['p50 ms', 'p50Ms', comparison.p50Ratio], ['p99 ms', 'p99Ms', comparison.p99Ratio]);
  const cell = (value: number | null, share: number | undefined): string =>
    `${value === null ? '–' : short(value)} ${percent(share)}`.padEnd(16);
  return [
    `  ${'median of rounds'.padEnd(18)}${'drakkar'.padEnd(16)}${against.padEnd(20)}ratio`,
    ...rows.map(
      ([label, figure, ratio]) =>
        `  ${label.padEnd(18)}${cell(ours[figure], spreads.ours[figure])}${cell(theirs[figure], spreads.theirs[figure]).padEnd(20)}${times(ratio)}`,
    ),
  ];
}

export function verdictLines(verdicts: readonly Verdict[]): string[] {
  return verdicts.map(({ figure, atLeast, atMost, got, isReached }) => {
    const wanted = atLeast === undefined ? `at most ${roundTo(atMost!, 3)}` : `at least ${atLeast}`;
    return `  ${isReached ? 'reached' : 'MISSED '} ${figure} ${got ?? 'unknown'}, ${wanted}`;
  });
}
