/** Durations as people read them. */

export interface LatencySummary {
  readonly count: number;
  readonly meanMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Sorts `samplesMs`. */
export function summarise(samplesMs: number[]): LatencySummary {
  samplesMs.sort((a, b) => a - b);
  const count = samplesMs.length;
  const at = (share: number): number => samplesMs[Math.min(count - 1, Math.floor(count * share))] ?? 0;
  const sum = samplesMs.reduce((total, value) => total + value, 0);
  return { count, meanMs: count === 0 ? 0 : sum / count, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}
