/** Durations in fixed buckets: constant memory, nothing allocated by an observation. */

/** Upper bounds in milliseconds. From a flush of a fast disk to the default timeout of a call and beyond. */
export const BOUNDS_MS: readonly number[] = [
  0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000,
];

export class Histogram {
  /** Observations by bucket, the last one above all bounds. Not cumulative. */
  readonly counts: Float64Array = new Float64Array(BOUNDS_MS.length + 1);
  sumMs = 0;
  count = 0;

  observe(durationMs: number): void {
    // A clock of the outside world is monotonic, the difference of two of its readings is not below zero.
    let bucket = 0;
    while (bucket < BOUNDS_MS.length && durationMs > BOUNDS_MS[bucket]) bucket++;
    this.counts[bucket]++;
    this.sumMs += durationMs;
    this.count++;
  }
}
