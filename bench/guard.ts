/**
 * `npm run bench:guard`: has the library become slower? A quick slice in CPU-seconds, as a ratio to a fixed synthetic loop that runs in turn
 * with it, so that a slower or busier machine changes both. Exit code 1 when the median ratio of the rounds is below 0.6 of the recorded
 * one. `--record` notes the ratio of now.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { number } from './arguments.ts';
import { judgeGuard, type GuardRecord } from './guard-verdict.ts';
import { DEFAULT_OPTIONS } from './options.ts';
import { machineText, short } from './report.ts';
import { run } from './run.ts';
import { median, roundTo } from './statistics.ts';
import { syntheticUnitsPerCpuSecond } from './synthetic.ts';

const RECORD = fileURLToPath(new URL('results/guard.json', import.meta.url));
const SYNTHETIC_MS = 500;
const SLICE = { ...DEFAULT_OPTIONS, shards: 16, inflight: 3200, warmMs: 700, durationMs: 1500 };

const command = new Command('npm run bench:guard --')
  .option('--rounds <n>', 'of the slice and the loop, in turn', number(5, 100), 5)
  .option('--record', 'note the ratio of now, to be held later', false)
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const options = command.opts<{ rounds: number; record: boolean; json: boolean }>();

await syntheticUnitsPerCpuSecond(SYNTHETIC_MS); // the compiler's time is not the machine's speed
const ratios: number[] = [];
for (let round = 1; round <= options.rounds; round++) {
  const units = await syntheticUnitsPerCpuSecond(SYNTHETIC_MS);
  const result = await run(SLICE);
  if (!result.digestsEqual || result.writesAddUp === false)
    throw new Error('the hosts do not agree on what was written');
  ratios.push(result.writesPerCpuSecond / units);
  console.log(
    `round ${round}: ${short(result.writesPerCpuSecond)} writes and ${short(units)} units per CPU-second, ratio ${ratios.at(-1)!.toFixed(4)}`,
  );
}
const ratio = roundTo(median(ratios), 4);
if (options.record) {
  const record: GuardRecord = { ratio, date: new Date().toISOString(), machine: machineText() };
  mkdirSync(dirname(RECORD), { recursive: true });
  writeFileSync(RECORD, `${JSON.stringify(record, null, 2)}\n`);
  console.log(`recorded ${ratio}`);
} else {
  const recorded = JSON.parse(readFileSync(RECORD, 'utf8')) as GuardRecord;
  const verdict = judgeGuard(ratio, recorded);
  console.log(
    `ratio ${ratio}, recorded ${recorded.ratio}, at least ${verdict.atLeast}: ${verdict.isHeld ? 'held' : 'SLOWER'}`,
  );
  if (options.json) console.log(JSON.stringify({ ...verdict, rounds: options.rounds }));
  process.exitCode = verdict.isHeld ? 0 : 1;
}
