/** `npm run bench:disk`: how many durable writes and bytes per second this disk takes, with one writer and with three. */
import { Command } from 'commander';
import { number } from './arguments.ts';
import { quietMachine } from './quiet.ts';
import { diskLines, measureDisk } from './raw-disk.ts';
import { machineText } from './report.ts';

const command = new Command('npm run bench:disk --')
  .option('--duration-ms <n>', 'for each size and number of writers', number(10, 600_000), 2000)
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const options = command.opts<{ durationMs: number; json: boolean }>();

await quietMachine();
const disk = await measureDisk(options.durationMs);
console.log(machineText());
for (const line of diskLines(disk)) console.log(line);
if (options.json) console.log(JSON.stringify({ disk }));
