/** Options of a benchmark run, and what a run gives. */

export type Api = 'promise' | 'callback' | 'batch';
export type MachineForm = 'array' | 'cursor';

export interface BenchOptions {
  readonly shards: number;
  /** Bytes of a command, at least 8. */
  readonly payload: number;
  /** Clients that wait for an answer at any time, in all. */
  readonly inflight: number;
  /** Share of operations that read. */
  readonly readPercent: number;
  readonly api: Api;
  readonly sm: MachineForm;
  /** Commands in one `proposeBatch`. */
  readonly batch: number;
  /** Every client writes in a session of its own. */
  readonly sessions: boolean;
  /** Requests per second that fall due whether or not earlier ones are answered; 0 for a closed loop. */
  readonly rate: number;
  /** Hosts speak to each other over mutual TLS. */
  readonly tls: boolean;
  /** Leaders on all hosts, not on one. */
  readonly spread: boolean;
  /** Engines of each host, in threads when there are several; of ours only. */
  readonly engines: number;
  readonly warmMs: number;
  readonly durationMs: number;
  /** Milliseconds between looks at memory; 0 for none. */
  readonly sampleMs: number;
  /** Entries between automatic snapshots. */
  readonly snapshotEntries: number;
  /** Directory for CPU and allocation profiles of the hosts, or empty. */
  readonly profile: string;
}

export const DEFAULT_OPTIONS: BenchOptions = {
  shards: 48,
  payload: 16,
  inflight: 4800,
  readPercent: 0,
  api: 'promise',
  sm: 'array',
  batch: 64,
  sessions: false,
  rate: 0,
  tls: false,
  engines: 1,
  spread: false,
  warmMs: 2000,
  durationMs: 5000,
  sampleMs: 0,
  snapshotEntries: 1_000_000,
  profile: '',
};

export interface BenchResult {
  readonly writesPerSecond: number;
  readonly readsPerSecond: number;
  readonly writesPerCpuSecond: number;
  readonly readsPerCpuSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  /** Of all hosts, clients inside them included. */
  readonly cpuSeconds: number;
  /** Durable writes of the leader's log; null where the contender does not tell. */
  readonly flushesPerSecond: number | null;
  readonly digestsEqual: boolean;
  /** Every acknowledged write was applied once on every host; null where the contender does not tell. */
  readonly writesAddUp: boolean | null;
  /** CPU that all other programs of the machine took meanwhile, in cores; null where it cannot be known. */
  readonly foreignCpu: number | null;
  /** Event-loop delay of the slowest host, in its main thread; null where the contender has no such loop. */
  readonly loopDelayP99Ms: number | null;
  /** Changes of leaders during the measurement; null where the contender does not tell. */
  readonly leaderChanges: number | null;
  /** Of the load generator, where it is a process of its own that counts for nobody. */
  readonly generatorCpuSeconds?: number;
}

/** What one host measured. */
export interface HostSample {
  readonly writes: number;
  readonly reads: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly flushes: number | null;
  readonly latenciesMs: readonly number[];
  /** Writes answered since the start of the host. */
  readonly acknowledged: number;
  /** Writes of which it is not known whether they were applied. */
  readonly unknown: number;
  readonly loopDelayP99Ms?: number;
  readonly leaderChanges?: number;
  /** At regular times, where they were asked for. */
  readonly resources?: readonly Resources[];
}

export interface Resources {
  readonly rssBytes: number;
  readonly heapBytes: number;
}

/** What one host says about one shard. */
export interface ShardDigest {
  readonly shardId: number;
  /** Commands that the state machine was given. */
  readonly applied: number;
  readonly hash: string;
}

/** Keys over all shards. */
export const KEYS = 10_000;
