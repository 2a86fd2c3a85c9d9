/** From what the hosts measured to the figures of a run. */
import type { BenchResult, HostSample, ShardDigest } from './options.ts';
import { round } from './statistics.ts';

export function summarise(
  samples: readonly HostSample[],
  digestsEqual: boolean,
  writesAddUp: boolean,
  foreignCpu: number | null,
): BenchResult {
  const sum = (of: (sample: HostSample) => number): number => samples.reduce((total, sample) => total + of(sample), 0);
  const worst = (at: 0 | 1 | 2): number => round(Math.max(...samples.map((sample) => sample.latenciesMs[at])), 3);
  const { seconds, flushes } = samples[0];
  const cpuSeconds = sum((sample) => sample.cpuSeconds);
  const writes = sum((sample) => sample.writes);
  const reads = sum((sample) => sample.reads);
  return {
    writesPerSecond: Math.round(writes / seconds),
    readsPerSecond: Math.round(reads / seconds),
    writesPerCpuSecond: Math.round(writes / cpuSeconds),
    readsPerCpuSecond: Math.round(reads / cpuSeconds),
    p50Ms: worst(0),
    p99Ms: worst(1),
    p999Ms: worst(2),
    cpuSeconds: round(cpuSeconds, 2),
    flushesPerSecond: flushes === null ? null : Math.round(flushes / seconds),
    digestsEqual,
    writesAddUp,
    loopDelayP99Ms: worstOf(samples.map((sample) => sample.loopDelayP99Ms)),
    leaderChanges: worstOf(samples.map((sample) => sample.leaderChanges)),
    foreignCpu: foreignCpu === null ? null : round(foreignCpu, 2),
  };
}

/** Whether as many commands were applied as were acknowledged; those of unknown outcome may be there or not. */
export function addsUp(samples: readonly HostSample[], digests: readonly ShardDigest[]): boolean {
  const acknowledged = samples.reduce((total, sample) => total + sample.acknowledged, 0);
  const unknown = samples.reduce((total, sample) => total + sample.unknown, 0);
  const applied = digests.reduce((total, digest) => total + digest.applied, 0);
  return applied >= acknowledged && applied <= acknowledged + unknown;
}

function worstOf(values: readonly (number | undefined)[]): number | null {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? null : round(Math.max(...known), 2);
}
