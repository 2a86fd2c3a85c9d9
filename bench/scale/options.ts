/** What a host of `bench:scale` is told. */
export interface ScaleOptions {
  readonly shards: number;
  /** How long it stays idle. */
  readonly durationMs: number;
  /** Commands that `fill` writes. */
  readonly entries: number;
  /** Size of a shard's state; 0 for the store of the benchmark. */
  readonly imageMib: number;
}
