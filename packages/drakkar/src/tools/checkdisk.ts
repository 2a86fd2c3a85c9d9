/** Whether a disk is fit for the log: how long a durable write takes, how many there are in a second, and what a host makes of it. */
import type { Env } from '../env/env.ts';
import { diskErrorOf } from '../errors.ts';
import { runBench, type BenchOptions, type BenchResult } from './bench.ts';
import { summarise, type LatencySummary } from './latency.ts';
import { envOf } from './tool-env.ts';

export interface CheckDiskOptions extends Pick<BenchOptions, 'env' | 'dir' | 'shards' | 'logDb'> {
  /** Of each of the three measurements, in milliseconds. Default 2000. */
  readonly durationMs?: number;
}

export interface FlushResult extends LatencySummary {
  readonly sizeBytes: number;
  readonly perSecond: number;
}

export interface CheckDiskResult {
  readonly dir: string;
  /** One page, as a quiet host writes, and a group of a busy one. */
  readonly flushes: readonly FlushResult[];
  /** One host alone with many shards and small commands. */
  readonly host: BenchResult;
}

const FILE_BYTES = 16 * 1024 * 1024;
const FILL_BYTES = 1024 * 1024;
const PAGE_BYTES = 4096;
const GROUP_BYTES = 128 * 1024;

/** `dir` is an existing directory on the disk in question; what is made in it is removed. @throws ERR_DISK_FULL, ERR_DISK_FAILED */
export async function checkDisk(options: CheckDiskOptions): Promise<CheckDiskResult> {
  const env = envOf(options);
  const { dir, durationMs = 2000, shards = 48, logDb } = options;
  const flushes: FlushResult[] = [];
  for (const sizeBytes of [PAGE_BYTES, GROUP_BYTES]) flushes.push(await measure(env, dir, sizeBytes, durationMs));
  const more = logDb === undefined ? {} : { logDb };
  const host = await runBench({ env, dir, hosts: 1, shards, durationMs, ...more });
  return { dir, flushes, host };
}

/** Durable writes as the log makes them: one behind the other, over a file that is there already. */
async function measure(env: Env, dir: string, sizeBytes: number, durationMs: number): Promise<FlushResult> {
  const path = `${dir}/drakkar-checkdisk-${env.random.u32().toString(16)}`;
  try {
    const made = await env.fs.open(path, 'create', { direct: true });
    const zeros = new Uint8Array(env.fs.allocate(FILL_BYTES), 0, FILL_BYTES);
    for (let at = 0; at < FILE_BYTES; at += FILL_BYTES) await write(made, zeros, at);
    await made.sync();
    await made.close();
    const file = await env.fs.open(path, 'write', { dataSync: true, direct: true });
    const bytes = new Uint8Array(env.fs.allocate(sizeBytes), 0, sizeBytes);
    for (let i = 0; i < bytes.length; i += 4) bytes[i] = i; // not zeros, which a disk may leave out
    const samples: number[] = [];
    const startMs = env.clock.nowMs();
    let nowMs = startMs;
    for (let at = 0; nowMs - startMs < durationMs; at = (at + sizeBytes) % FILE_BYTES) {
      await write(file, bytes, at);
      const thenMs = nowMs;
      nowMs = env.clock.nowMs();
      samples.push(nowMs - thenMs);
    }
    await file.close();
    return { sizeBytes, perSecond: (samples.length / (nowMs - startMs)) * 1000, ...summarise(samples) };
  } catch (error) {
    throw diskErrorOf(error, `the test file ${path}`);
  } finally {
    await env.fs.remove(path);
  }
}

function write(file: Awaited<ReturnType<Env['fs']['open']>>, bytes: Uint8Array, at: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(bytes, 0, bytes.length, at, (error) => (error === null ? resolve() : reject(error)));
  });
}
