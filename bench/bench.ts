/** `npm run bench`: replicated writes and reads per second and per CPU-second. */
import { arch, cpus, platform, release } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { BenchOptions, BenchResult } from './options.ts';
import { quietMachine } from './quiet.ts';
import { run } from './run.ts';

function number(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  };
}

const command = new Command('npm run bench --')
  .description('Three hosts in three processes over TCP; every write is durable on a majority before it counts.')
  .option('--shards <n>', 'shards', number(1, 10_000), 48)
  .option('--payload <bytes>', 'size of a command', number(8, 1 << 20), 16)
  .option('--inflight <n>', 'requests under way, in all', number(1, 1_000_000), 4800)
  .option('--read-percent <n>', 'share of clients that read linearizably', number(0, 100), 0)
  .addOption(new Option('--api <form>', 'way in').choices(['promise', 'callback', 'batch']).default('promise'))
  .addOption(new Option('--sm <form>', 'what the state machine is given').choices(['array', 'cursor']).default('array'))
  .option('--batch <n>', 'commands in a proposeBatch', number(1, 10_000), 64)
  .option('--spread', 'leaders on all hosts, not on one', false)
  .option('--engines <n>', 'engines of each host, in threads when there are several', number(1, 64), 1)
  .option('--warm-ms <n>', 'time before the measurement', number(0, 600_000), 2000)
  .option('--duration-ms <n>', 'time of the measurement', number(100, 600_000), 5000)
  .option('--snapshot-entries <n>', 'entries between automatic snapshots', number(0, 1e9), 1_000_000)
  .option('--profile <dir>', 'write CPU and allocation profiles of the hosts there', '')
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const { json, ...options } = command.opts<BenchOptions & { json: boolean }>();

await quietMachine();
const result: BenchResult = await run(options);
const k = (value: number): string => (value >= 10_000 ? `${Math.round(value / 1000)}k` : String(value));
console.log(
  `Node ${process.version} ${platform()} ${release()} ${arch()}, ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`,
);
console.log(
  `${options.shards} shards, ${options.payload} bytes, ${options.inflight} in flight, ` +
    `${options.readPercent}% reads, api ${options.api}, sm ${options.sm}, leaders ${options.spread ? 'spread' : 'on one host'}`,
);
console.log(`  writes/s           ${k(result.writesPerSecond)}`);
if (options.readPercent > 0)
  console.log(`  reads/s            ${k(result.readsPerSecond)}   per CPU-second ${k(result.readsPerCpuSecond)}`);
console.log(`  p50, p99, p99.9    ${result.p50Ms}, ${result.p99Ms}, ${result.p999Ms} ms`);
console.log(`  CPU of all hosts   ${result.cpuSeconds} s in ${options.durationMs / 1000} s`);
console.log(`  writes/CPU-second  ${k(result.writesPerCpuSecond)}`);
console.log(`  fsyncs/s (leader)  ${result.flushesPerSecond}`);
console.log(`  digests            ${result.digestsEqual ? 'equal' : 'DIFFERENT'}`);
if (json) console.log(JSON.stringify(result));
process.exit(result.digestsEqual ? 0 : 1);
