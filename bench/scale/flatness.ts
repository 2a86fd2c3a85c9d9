/** Whether memory grows: garbage makes single readings jump, what stays is seen in the smallest ones. */

/** From the first to the last third: growth of the smallest reading, as a share. */
export function growth(readings: readonly number[]): number {
  const third = Math.floor(readings.length / 3);
  if (third === 0) throw new RangeError('growth takes three readings or more');
  const first = Math.min(...readings.slice(0, third));
  const last = Math.min(...readings.slice(-third));
  return last / first - 1;
}
