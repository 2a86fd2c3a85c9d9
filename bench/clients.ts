/** Closed-loop clients inside a host's process: each has one request under way, on shards that this host leads. */
import type { ShardHandle } from 'drakkar';
import { KEYS, type BenchOptions } from './options.ts';

const SAMPLES = 1 << 20;
/** One request of so many is timed. */
const TIMED_EVERY = 32;

export interface Load {
  writes: number;
  reads: number;
  isStopped: boolean;
  readonly latencies: Float64Array;
  samples: number;
}

export function startClients(handles: readonly ShardHandle[], options: BenchOptions, seed: number): Load {
  const load: Load = { writes: 0, reads: 0, isStopped: false, latencies: new Float64Array(SAMPLES), samples: 0 };
  if (handles.length === 0) return load;
  const count = Math.max(1, Math.floor((options.inflight * handles.length) / options.shards));
  const keys = Math.ceil(KEYS / options.shards);
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
  const record = (start: number): void => {
    load.latencies[load.samples++ & (SAMPLES - 1)] = performance.now() - start;
  };
  const command = (): { bytes: Uint8Array; words: Uint32Array } => {
    const bytes = new Uint8Array(Math.max(8, options.payload));
    return { bytes, words: new Uint32Array(bytes.buffer, 0, 2) };
  };

  const fail = (error: unknown): void => {
    if (load.isStopped) return; // the host closes under the last requests
    console.error(error);
    process.exit(1);
  };
  const writer = async (shard: ShardHandle, n: number): Promise<void> => {
    const { bytes, words } = command();
    while (!load.isStopped) {
      words[0] = random() % keys;
      words[1] = n;
      if ((n++ & (TIMED_EVERY - 1)) === 0) {
        const start = performance.now();
        await shard.propose(bytes);
        record(start);
      } else await shard.propose(bytes);
      load.writes++;
    }
  };
  const reader = async (shard: ShardHandle, n: number): Promise<void> => {
    while (!load.isStopped) {
      if ((n++ & (TIMED_EVERY - 1)) === 0) {
        const start = performance.now();
        await shard.read(random() % keys);
        record(start);
      } else await shard.read(random() % keys);
      load.reads++;
    }
  };
  const callbackWriter = (shard: ShardHandle, n: number): void => {
    const { bytes, words } = command();
    const next = (): void => {
      words[0] = random() % keys;
      words[1] = n;
      shard.proposeCallback(bytes, answered, (n++ & (TIMED_EVERY - 1)) === 0 ? performance.now() : 0);
    };
    const answered = (error: Error | null, _result: unknown, start: number): void => {
      if (error !== null) return fail(error);
      load.writes++;
      if (start > 0) record(start);
      if (!load.isStopped) next();
    };
    next();
  };
  const batchWriter = async (shard: ShardHandle, n: number): Promise<void> => {
    const commands = Array.from({ length: options.batch }, command);
    const bytes = commands.map((one) => one.bytes);
    while (!load.isStopped) {
      for (const { words } of commands) {
        words[0] = random() % keys;
        words[1] = n++;
      }
      const start = performance.now();
      await shard.proposeBatch(bytes);
      record(start);
      load.writes += options.batch;
    }
  };

  for (let c = 0; c < count; c++) {
    const shard = handles[c % handles.length];
    const reads = Math.floor(((c + 1) * options.readPercent) / 100) > Math.floor((c * options.readPercent) / 100);
    if (reads) reader(shard, c).catch(fail);
    else if (options.api === 'callback') callbackWriter(shard, c);
    else if (options.api === 'promise') writer(shard, c).catch(fail);
    else if (c % options.batch === 0) batchWriter(handles[(c / options.batch) % handles.length], c).catch(fail);
  }
  return load;
}
