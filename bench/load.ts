/** What clients count and time, whatever their form. */
import type { NodeHost, Result, Session, ShardHandle } from 'drakkar';
import { KEYS, type BenchOptions } from './options.ts';

const SAMPLES = 1 << 20;
/** One request of so many is timed in a closed loop. */
export const TIMED_EVERY = 32;
const PERCENT = 100;

export interface Load {
  writes: number;
  reads: number;
  isStopped: boolean;
  readonly latencies: Float64Array;
  samples: number;
  /** Settles when the last client has its last answer. */
  drained: Promise<unknown>;
}

export function newLoad(): Load {
  return {
    writes: 0,
    reads: 0,
    isStopped: false,
    latencies: new Float64Array(SAMPLES),
    samples: 0,
    drained: Promise.resolve(),
  };
}

export function record(load: Load, start: number): void {
  load.latencies[load.samples++ & (SAMPLES - 1)] = performance.now() - start;
}

/** Milliseconds below which each share of the recorded requests was answered. */
export function quantilesMs(load: Load, shares: readonly number[]): number[] {
  const sorted = load.latencies.slice(0, Math.min(load.samples, SAMPLES)).sort();
  return shares.map((share) => sorted[Math.floor(sorted.length * share)] ?? 0);
}

/** Numbers for keys: fast, and the same in every run. */
export function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
}

export const keysOf = (options: BenchOptions): number => Math.ceil(KEYS / options.shards);

/** Of operations counted from 0, those that read: spread evenly, `readPercent` of every hundred. */
export function isRead(n: number, readPercent: number): boolean {
  const at = n % PERCENT;
  return Math.floor(((at + 1) * readPercent) / PERCENT) > Math.floor((at * readPercent) / PERCENT);
}

export interface Command {
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}

export function newCommand(options: BenchOptions): Command {
  const bytes = new Uint8Array(Math.max(8, options.payload));
  return { bytes, words: new Uint32Array(bytes.buffer, 0, 2) };
}

/** Clients on a host that leads `leads` of the shards. */
export function clientsOf(options: BenchOptions, leads: number): number {
  return Math.max(1, Math.floor((options.inflight * leads) / options.shards));
}

/** What a client writes through: the shard, or a session of its own. */
export type Writer = Pick<ShardHandle | Session, 'propose'>;

export async function openWriter(host: NodeHost, shard: ShardHandle, options: BenchOptions): Promise<Writer> {
  if (options.api === 'callback') return { propose: (bytes) => proposeByCallback(shard, bytes) };
  return options.sessions ? host.openSession(shard.shardId) : shard;
}

function proposeByCallback(shard: ShardHandle, bytes: Uint8Array): Promise<Result> {
  return new Promise((resolve, reject) => {
    shard.proposeCallback(bytes, (error, result) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}
