/**
 * A stripped program that shows what the machine can do (no elections, sessions or recovery), given as a directory with its run.js. It
 * prints one line of text.
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { BenchOptions, BenchResult } from '../options.ts';
import { HEAP_FLAGS } from '../run.ts';
import { refuseAll, type Contender } from './contender.ts';

const RUN_MS = 300_000;
const call = promisify(execFile);

export function ceiling(program: string | undefined): Contender {
  return {
    name: 'ceiling',
    describe: () => 'stripped program, "api":"rs","cb":2,"sm":"cursor"',
    async prepare() {
      if (program === undefined) return 'no program was named with --ceiling DIR';
      return existsSync(join(program, 'run.js')) ? undefined : `there is no run.js in ${program}`;
    },
    refuses: (options) => refuseAll(options, ['readPercent', 'sessions', 'rate', 'tls']),
    run: (options) => runProgram(resolve(program!), options),
  };
}

async function runProgram(program: string, options: BenchOptions): Promise<BenchResult> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-ceiling-'));
  try {
    // It keeps its data beside itself.
    cpSync(program, dir, { recursive: true });
    mkdirSync(join(dir, 'data'), { recursive: true });
    const { shards, payload, inflight, durationMs, warmMs, spread } = options;
    const settings = {
      ...{ shards, payload, inflight, spread, dur: durationMs, warm: warmMs },
      ...{ api: 'rs', cb: 2, sm: 'cursor', ring: ringOf(options), slabBytes: slabOf(options), flags: HEAP_FLAGS },
    };
    const args = ['run.js', JSON.stringify(settings)];
    const { stdout } = await call(process.execPath, args, { cwd: dir, timeout: RUN_MS });
    return parseCeiling(stdout, durationMs);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Its ring takes a power of two and must hold what is under way in one shard, with room for uneven shards. */
function ringOf({ inflight, shards }: BenchOptions): number {
  return Math.max(256, 2 ** Math.ceil(Math.log2((2 * inflight) / shards)));
}

/** One megabyte is best for small commands, eight for big ones. */
const slabOf = ({ payload }: BenchOptions): number => (payload >= 1024 ? 8 << 20 : 1 << 20);

export function parseCeiling(text: string, durationMs: number): BenchResult {
  const find = (pattern: RegExp): number => {
    const match = pattern.exec(text);
    if (match === null) throw new Error(`the ceiling program printed: ${text}`);
    return Number(match[1]);
  };
  if (!text.includes('CONSISTENT')) throw new Error(`the ceiling program printed: ${text}`);
  const writesPerSecond = find(/([\d.]+)k w\/s/) * 1000;
  const writesPerCpuSecond = find(/([\d.]+)k op\/cpu-s/) * 1000;
  return {
    writesPerSecond,
    readsPerSecond: 0,
    writesPerCpuSecond,
    readsPerCpuSecond: 0,
    p50Ms: find(/p50 ([\d.]+)/),
    p99Ms: find(/p99 ([\d.]+)/),
    p999Ms: find(/p99\.9 ([\d.]+)/),
    cpuSeconds: Number(((writesPerSecond / writesPerCpuSecond) * (durationMs / 1000)).toFixed(2)),
    flushesPerSecond: find(/flush\/s (\d+)/),
    digestsEqual: true,
    writesAddUp: null,
    foreignCpu: null,
    loopDelayP99Ms: null,
    leaderChanges: null,
  };
}
