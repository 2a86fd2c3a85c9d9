/** What must be reached, as data: a row is one work, against whom, and the least or greatest ratio of medians. */
import type { Ratios } from './comparison.ts';
import type { PeerName } from './contenders/index.ts';
import type { BenchOptions } from './options.ts';

export interface Target {
  readonly figure: keyof Ratios;
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface Row {
  readonly title: string;
  readonly against: PeerName;
  readonly work: Partial<BenchOptions>;
  readonly targets: readonly Target[];
}

const writes = (atLeast: number): Target => ({ figure: 'writesPerSecondRatio', atLeast });
const perCpu = (atLeast: number): Target => ({ figure: 'writesPerCpuSecondRatio', atLeast });
const MANY = { shards: 48, payload: 16, inflight: 4800 };
const ONE = { shards: 1, payload: 16, inflight: 4000 };

export const TABLE: readonly Row[] = [
  {
    title: '48 shards, 16 B',
    against: 'dragonboat',
    work: MANY,
    targets: [writes(5), perCpu(5), { figure: 'p99Ratio', atMost: 1 / 3 }],
  },
  { title: '1 shard, 16 B', against: 'dragonboat', work: ONE, targets: [writes(5), perCpu(5)] },
  { title: '48 shards, 128 B', against: 'dragonboat', work: { ...MANY, payload: 128 }, targets: [writes(5)] },
  { title: '48 shards, 1024 B', against: 'dragonboat', work: { ...MANY, payload: 1024 }, targets: [writes(4)] },
  {
    title: '1 in flight',
    against: 'dragonboat',
    work: { ...ONE, inflight: 1 },
    targets: [{ figure: 'p50Ratio', atMost: 0.6 }],
  },
  {
    title: '1000 shards, 1 in flight each',
    against: 'dragonboat',
    work: { shards: 1000, payload: 16, inflight: 1000 },
    targets: [perCpu(5)],
  },
  {
    title: '48 shards, reads',
    against: 'dragonboat',
    work: { ...MANY, readPercent: 100 },
    targets: [{ figure: 'readsPerSecondRatio', atLeast: 10 }],
  },
  {
    title: 'puts over the API',
    against: 'etcd',
    work: { shards: 48, payload: 256, inflight: 1000 },
    targets: [writes(2), perCpu(2)],
  },
  { title: '48 shards, 16 B', against: 'ceiling', work: MANY, targets: [perCpu(0.6)] },
  { title: '1 shard, 16 B', against: 'ceiling', work: ONE, targets: [perCpu(0.7)] },
  // The same payload: a ratio of writes is a ratio of bytes.
  { title: '48 shards, 1024 B', against: 'ceiling', work: { ...MANY, payload: 1024 }, targets: [writes(0.6)] },
];

/** Bounds for shards that nobody uses, on each host. */
export const IDLE = { shards: 10_000, durationMs: 10_000, cpuPercentBelow: 3, bytesBelow: 4096 } as const;

export interface Verdict extends Target {
  readonly got: number | null;
  readonly isReached: boolean;
}

export function judge(targets: readonly Target[], ratios: Ratios): Verdict[] {
  return targets.map((target) => {
    const got = ratios[target.figure];
    const { atLeast = -Infinity, atMost = Infinity } = target;
    return { ...target, got, isReached: got !== null && got >= atLeast && got <= atMost };
  });
}
