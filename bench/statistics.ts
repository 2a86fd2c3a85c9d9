/** Medians, spreads and ratios. */

export function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** Rounded to so many digits that count. */
export function roundTo(value: number, significant: number): number {
  return Number(value.toPrecision(significant));
}

/** The middle value; of an even number of values, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('there is no median of nothing');
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Distance of the extremes as a share of the median: 0.2 says that the runs differ by a fifth. */
export function spread(values: readonly number[]): number {
  const middle = median(values);
  return middle === 0 ? 0 : (Math.max(...values) - Math.min(...values)) / middle;
}

/** Of medians; undefined when there is nothing to divide by. */
export function ratio(ours: readonly number[], theirs: readonly number[]): number | undefined {
  const divisor = median(theirs);
  return divisor === 0 ? undefined : median(ours) / divisor;
}
