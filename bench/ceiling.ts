/**
 * `npm run bench:ceiling -- --program <dir>`: the library against a stripped program that shows what the machine can do, in turn and in
 * one run, for 48 shards and for one. Exit code 1 when a ratio of writes per CPU-second is below the one asked for.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { Command } from 'commander';
import type { BenchOptions } from './options.ts';
import { quietMachine } from './quiet.ts';
import { run } from './run.ts';

const command = new Command('npm run bench:ceiling --')
  .requiredOption('--program <dir>', 'directory of the ceiling program (its run.js)')
  .option('--rounds <n>', 'runs of each, in turn', Number, 3)
  .option('--at-least <ratio>', 'ratio of writes per CPU-second to reach', Number, 0.4)
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const options = command.opts<{ program: string; rounds: number; atLeast: number; json: boolean }>();

const DURATION_MS = 4000;
const CASES = [
  { shards: 48, inflight: 4800, ring: 256 },
  { shards: 1, inflight: 4000, ring: 8192 },
];
const call = promisify(execFile);

/** Writes per CPU-second that the program printed, in thousands there. */
async function runCeiling({ shards, inflight, ring }: (typeof CASES)[number]): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-ceiling-'));
  // It keeps its data beside itself.
  cpSync(resolve(options.program), dir, { recursive: true });
  mkdirSync(join(dir, 'data'), { recursive: true });
  const settings = { shards, payload: 16, inflight, ring, dur: DURATION_MS, api: 'rs', cb: 2, sm: 'cursor' };
  try {
    const { stdout } = await call(process.execPath, ['--max-semi-space-size=64', 'run.js', JSON.stringify(settings)], {
      cwd: dir,
    });
    const match = /([\d.]+)k op\/cpu-s/.exec(stdout);
    if (match === null || !stdout.includes('CONSISTENT')) throw new Error(`the program printed: ${stdout}`);
    return Number(match[1]) * 1000;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

async function runLibrary({ shards, inflight }: (typeof CASES)[number]): Promise<number> {
  const settings: BenchOptions = {
    shards,
    inflight,
    payload: 16,
    readPercent: 0,
    api: 'promise',
    sm: 'array',
    batch: 1,
    spread: false,
    warmMs: 2000,
    durationMs: DURATION_MS,
    snapshotEntries: 1_000_000,
    profile: '',
  };
  await quietMachine();
  const result = await run(settings);
  if (!result.digestsEqual) throw new Error('the digests differ');
  return result.writesPerCpuSecond;
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];

const ratios: Record<string, number> = {};
for (const one of CASES) {
  const pairs: number[] = [];
  for (let round = 1; round <= options.rounds; round++) {
    const ceiling = await runCeiling(one);
    const library = await runLibrary(one);
    pairs.push(library / ceiling);
    console.log(
      `${one.shards} shards, round ${round}: ${Math.round(library / 1000)}k of ${Math.round(ceiling / 1000)}k writes per CPU-second, ` +
        `ratio ${(library / ceiling).toFixed(2)}`,
    );
  }
  ratios[`shards${one.shards}`] = Number(median(pairs).toFixed(3));
}
const isReached = Object.values(ratios).every((ratio) => ratio >= options.atLeast);
console.log(
  `medians ${JSON.stringify(ratios)}, asked for ${options.atLeast}: ${isReached ? 'reached' : 'NOT reached'}`,
);
if (options.json) console.log(JSON.stringify({ ...ratios, atLeast: options.atLeast, reached: isReached }));
process.exit(isReached ? 0 : 1);
