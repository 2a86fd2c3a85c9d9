/** Majority arithmetic on plain numbers. */

export function quorumOf(voters: number): number {
  return (voters >>> 1) + 1;
}

const scratch = new Float64Array(64);

/** The largest value that a majority of the first `count` values, one for each voter, has reached. */
export function majorityReached(values: Float64Array, count: number): number {
  if (count === 0) return 0;
  for (let i = 0; i < count; i++) {
    const value = values[i];
    let j = i - 1;
    while (j >= 0 && scratch[j] > value) {
      scratch[j + 1] = scratch[j]!;
      j--;
    }
    scratch[j + 1] = value;
  }
  return scratch[count - quorumOf(count)];
}
