/**
 * Clients that send at a fixed rate, whether or not earlier requests are answered. A latency counts from when the request fell due, not
 * from when it was sent: a stall delays everything behind it, and all of that shows (no coordinated omission).
 */
import type { NodeHost, ShardHandle } from 'drakkar';
import {
  clientsOf,
  isRead,
  keysOf,
  makeRandom,
  newCommand,
  newLoad,
  openWriter,
  record,
  type Load,
  type Writer,
} from './load.ts';
import type { BenchOptions } from './options.ts';

const SAMPLES_WANTED = 500_000;

/** When request `k` falls due, in milliseconds since the start: whole milliseconds, so that a timer can keep up. */
export function dueMs(k: number, ratePerSecond: number): number {
  return Math.floor((k * 1000) / ratePerSecond);
}

export async function startOpenLoop(
  host: NodeHost,
  handles: readonly ShardHandle[],
  options: BenchOptions,
  seed: number,
): Promise<Load> {
  const load = newLoad();
  if (handles.length === 0) return load;
  const keys = keysOf(options);
  const random = makeRandom(seed);
  const rate = Math.max(1, (options.rate * handles.length) / options.shards);
  const limit = clientsOf(options, handles.length);
  const recordEvery = Math.ceil((rate * options.durationMs) / 1000 / SAMPLES_WANTED);
  const { bytes, words } = newCommand(options);
  // With sessions, one for every request that may be under way.
  const lanes = Array.from(
    { length: options.sessions ? limit : handles.length },
    (_, i) => handles[i % handles.length],
  );
  const writers: Writer[] = await Promise.all(lanes.map((shard) => openWriter(host, shard, options)));

  load.drained = new Promise((resolve, reject) => {
    const start = performance.now();
    let sent = 0;
    let underWay = 0;
    const one = async (k: number): Promise<void> => {
      const lane = k % lanes.length;
      if (isRead(k, options.readPercent)) {
        await lanes[lane].read(random() % keys);
        load.reads++;
      } else {
        words[0] = random() % keys;
        words[1] = k;
        await writers[lane].propose(bytes);
        load.writes++;
      }
      if (k % recordEvery === 0) record(load, start + dueMs(k, rate));
      underWay--;
      send();
    };
    /** All that is due, up to the limit; what waits behind it keeps the time it fell due. */
    const send = (): void => {
      const now = performance.now() - start;
      while (!load.isStopped && underWay < limit && dueMs(sent, rate) <= now) {
        underWay++;
        one(sent++).catch(reject);
      }
      if (load.isStopped && underWay === 0) resolve(undefined);
    };
    const tick = (): void => {
      send();
      if (!load.isStopped) setTimeout(tick, 1);
    };
    tick();
  });
  return load;
}
