/**
 * `npm run bench:ceiling -- --program <dir>`: the library against a stripped program that shows what the machine can do, for 48 shards
 * and for one. Exit code 1 when a ratio of writes per CPU-second is below the one asked for. `bench:compare` tells more.
 */
import { Command } from 'commander';
import { number, positive } from './arguments.ts';
import { compare, runInTurn } from './comparison.ts';
import { ceiling } from './contenders/ceiling.ts';
import { drakkar } from './contenders/drakkar.ts';
import { DEFAULT_OPTIONS, type BenchOptions } from './options.ts';
import { quietMachine } from './quiet.ts';
import { runLine } from './report.ts';

const command = new Command('npm run bench:ceiling --')
  .requiredOption('--program <dir>', 'directory of the ceiling program (its run.js)')
  .option('--rounds <n>', 'runs of each, in turn', number(1, 100), 3)
  .option('--at-least <ratio>', 'ratio of writes per CPU-second to reach', positive, 0.4)
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const options = command.opts<{ program: string; rounds: number; atLeast: number; json: boolean }>();

const WORKS: readonly BenchOptions[] = [
  { ...DEFAULT_OPTIONS, durationMs: 4000 },
  { ...DEFAULT_OPTIONS, durationMs: 4000, shards: 1, inflight: 4000 },
];
const ours = drakkar();
const theirs = ceiling(options.program);
const reason = await theirs.prepare();
if (reason !== undefined) command.error(reason);

const ratios: Record<string, number> = {};
for (const work of WORKS) {
  console.log(`${work.shards} shards`);
  const runs = await runInTurn([ours, theirs], work, options.rounds, quietMachine, (run) => console.log(runLine(run)));
  ratios[`shards${work.shards}`] = compare(runs, ours.name, theirs.name).writesPerCpuSecondRatio ?? 0;
}
const isReached = Object.values(ratios).every((ratio) => ratio >= options.atLeast);
console.log(
  `medians ${JSON.stringify(ratios)}, asked for ${options.atLeast}: ${isReached ? 'reached' : 'NOT reached'}`,
);
if (options.json) console.log(JSON.stringify({ ...ratios, atLeast: options.atLeast, reached: isReached }));
process.exitCode = isReached ? 0 : 1;
