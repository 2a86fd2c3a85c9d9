/** `npm run bench`: replicated writes and reads per second and per CPU-second. */
import { Command } from 'commander';
import { addSizeOptions, addWorkOptions, refusal } from './arguments.ts';
import { DEFAULT_OPTIONS, type BenchOptions } from './options.ts';
import { quietMachine } from './quiet.ts';
import { machineText, resultLines, workText } from './report.ts';
import { run } from './run.ts';

const command = new Command('npm run bench --').description(
  'Three hosts in three processes over TCP; every write is durable on a majority before it counts.',
);
addWorkOptions(addSizeOptions(command))
  .option('--profile <dir>', 'write CPU and allocation profiles of the hosts there', '')
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const { json, ...given } = command.opts<BenchOptions & { json: boolean }>();
const options: BenchOptions = { ...DEFAULT_OPTIONS, ...given };
const refused = refusal(options);
if (refused !== undefined) command.error(refused);

await quietMachine();
const result = await run(options);
console.log(machineText());
console.log(workText(options));
for (const line of resultLines(options, result)) console.log(line);
if (json) console.log(JSON.stringify(result));
process.exitCode = result.digestsEqual && result.writesAddUp !== false ? 0 : 1;
