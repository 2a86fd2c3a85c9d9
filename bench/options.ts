/** Options of a benchmark run, and what a run gives. */

export type Api = 'promise' | 'callback' | 'batch';
export type MachineForm = 'array' | 'cursor';

export interface BenchOptions {
  readonly shards: number;
  /** Bytes of a command, at least 8. */
  readonly payload: number;
  /** Clients that wait for an answer at any time, in all. */
  readonly inflight: number;
  /** Share of clients that read. */
  readonly readPercent: number;
  readonly api: Api;
  readonly sm: MachineForm;
  /** Commands in one `proposeBatch`. */
  readonly batch: number;
  /** Leaders on all hosts, not on one. */
  readonly spread: boolean;
  /** Engines of each host; absent means one. */
  readonly engines?: number;
  readonly warmMs: number;
  readonly durationMs: number;
  /** Entries between automatic snapshots. */
  readonly snapshotEntries: number;
  /** Directory for CPU and allocation profiles of the hosts, or empty. */
  readonly profile: string;
}

export interface BenchResult {
  readonly writesPerSecond: number;
  readonly readsPerSecond: number;
  readonly writesPerCpuSecond: number;
  readonly readsPerCpuSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly cpuSeconds: number;
  /** Durable writes of the leader's log. */
  readonly flushesPerSecond: number;
  readonly digestsEqual: boolean;
}

/** What one host measured. */
export interface HostSample {
  readonly writes: number;
  readonly reads: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly flushes: number;
  readonly latenciesMs: readonly [p50: number, p99: number, p999: number];
}

/** Keys over all shards. */
export const KEYS = 10_000;
