/** `npm run bench:scale`: idle shards, recovery, snapshot streams and a long run. Exit code 1 when a bound that is known is missed. */
import { Command, Option } from 'commander';
import { number } from './arguments.ts';
import { quietMachine } from './quiet.ts';
import { machineText } from './report.ts';
import { idleShards, recovery, snapshotStream, soak } from './scale/questions.ts';
import { IDLE } from './table.ts';

const WHAT = ['idle', 'recovery', 'snapshot', 'soak'] as const;
/** Of memory over a soak; less than this is noise. */
const GROWTH = 0.1;

interface Options {
  readonly what: (typeof WHAT)[number];
  readonly idleShards: number;
  readonly shards: number;
  readonly entries: number;
  readonly mib: number;
  readonly rate: number;
  readonly durationMs?: number;
  readonly quiet: boolean;
  readonly json: boolean;
}

const command = new Command('npm run bench:scale --')
  .addOption(new Option('--what <question>').choices(WHAT).makeOptionMandatory())
  .option('--idle-shards <n>', 'idle: shards on each of three hosts', number(1, 1_000_000), IDLE.shards)
  .option('--shards <n>', 'recovery: shards that share the entries', number(1, 10_000), 48)
  .option('--entries <n>', 'recovery: entries in the log', number(1, 1e9), 10_000_000)
  .option('--mib <n>', 'snapshot: size of the state', number(1, 65_536), 256)
  .option('--rate <n>', 'soak: writes per second', number(1, 1e7), 50_000)
  .option('--duration-ms <n>', 'idle: 10000, soak: 600000', number(1000, 86_400_000))
  .option('--no-quiet', 'do not wait for a quiet machine')
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const options = command.opts<Options>();

interface Bound {
  readonly text: string;
  readonly isHeld: boolean;
}
const bound = (name: string, got: number, below: number): Bound => ({
  text: `${name} ${got}, below ${below}`,
  isHeld: got < below,
});
const holds = (name: string, isHeld: boolean): Bound => ({ text: name, isHeld });

async function answer(): Promise<{ figures: object; bounds: Bound[] }> {
  switch (options.what) {
    case 'idle': {
      const figures = await idleShards(options.idleShards, options.durationMs ?? IDLE.durationMs);
      return {
        figures,
        bounds: [
          bound('CPU percent of one core', figures.cpuPercent, IDLE.cpuPercentBelow),
          bound('bytes for each shard', figures.bytesPerShard, IDLE.bytesBelow),
        ],
      };
    }
    case 'recovery': {
      const figures = await recovery(options.entries, options.shards);
      return { figures, bounds: [holds('the state is as before', figures.digestsEqual)] };
    }
    case 'snapshot': {
      const figures = await snapshotStream(options.mib);
      return { figures, bounds: [holds('all hosts have the same state', figures.digestsEqual)] };
    }
    case 'soak': {
      const figures = await soak(options.durationMs ?? 600_000, options.rate);
      return {
        figures,
        bounds: [
          bound('growth of the heap', figures.heapGrowth, GROWTH),
          bound('growth of resident memory', figures.rssGrowth, GROWTH),
          bound('changes of leaders', figures.leaderChanges ?? 0, 1),
          holds('digests equal, writes add up', figures.digestsEqual && figures.writesAddUp !== false),
        ],
      };
    }
  }
}

if (options.quiet) await quietMachine();
const { figures, bounds } = await answer();
console.log(machineText());
for (const [name, value] of Object.entries(figures)) console.log(`  ${name.padEnd(20)} ${value}`);
for (const { text, isHeld } of bounds) console.log(`  ${isHeld ? 'held  ' : 'MISSED'} ${text}`);
const isHeld = bounds.every((one) => one.isHeld);
if (options.json) console.log(JSON.stringify({ what: options.what, ...figures, held: isHeld }));
process.exitCode = isHeld ? 0 : 1;
