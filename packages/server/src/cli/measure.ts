/** `drakkar checkdisk` and `drakkar bench`: what this machine can do. */
import type { Command } from 'commander';
import { checkDisk, runBench, type BenchResult, type FlushResult } from 'drakkar/tools';
import { wholeNumber } from './arguments.ts';
import { answer, bytes, type OutputFlags } from './output.ts';

interface BenchFlags extends OutputFlags {
  readonly hosts: number;
  readonly shards: number;
  readonly payload: number;
  readonly inflight: number;
  readonly durationMs: number;
}

const duration = wholeNumber(1, 3_600_000);

export function addMeasurements(program: Command): void {
  program
    .command('checkdisk')
    .description(
      'how long a durable write takes on the disk under a directory, and what one host with many shards makes of it',
    )
    .argument('<dir>', 'existing directory; what is made in it is removed')
    .option('--duration-ms <n>', 'of each of the three measurements', duration, 2000)
    .option('--shards <n>', 'of the host', wholeNumber(1, 10_000), 48)
    .option('--json', 'as JSON')
    .action((dir: string, { durationMs, shards, ...flags }: OutputFlags & { durationMs: number; shards: number }) =>
      answer(flags, async () => {
        const result = await checkDisk({ dir, durationMs, shards });
        return {
          ok: true,
          value: { ok: true, ...result },
          lines: [...result.flushes.map(flushLine), ...benchLines(result.host)],
        };
      }),
    );
  program
    .command('bench')
    .description('writes as fast as they are answered, on hosts in this process whose network is memory')
    .argument('<dir>', 'existing directory on the disk to use; what is made in it is removed')
    .option('--hosts <n>', 'hosts', wholeNumber(1, 9), 3)
    .option('--shards <n>', 'shards on each of them', wholeNumber(1, 10_000), 48)
    .option('--payload <n>', 'bytes of a command', wholeNumber(0, 1 << 20), 16)
    .option('--inflight <n>', 'commands under way at any time', wholeNumber(1, 1_000_000), 4800)
    .option('--duration-ms <n>', 'length', duration, 5000)
    .option('--json', 'as JSON')
    .action((dir: string, { hosts, shards, payload, inflight, durationMs, ...flags }: BenchFlags) =>
      answer(flags, async () => {
        const result = await runBench({ dir, hosts, shards, payloadBytes: payload, inflight, durationMs });
        return { ok: result.errors === 0, value: { ok: result.errors === 0, ...result }, lines: benchLines(result) };
      }),
    );
}

function flushLine(flush: FlushResult): string {
  return `durable writes of ${bytes(flush.sizeBytes)}: ${flush.perSecond.toFixed(0)}/s, p50 ${ms(flush.p50Ms)}, p99 ${ms(flush.p99Ms)}, longest ${ms(flush.maxMs)}`;
}

function benchLines(result: BenchResult): string[] {
  const { hosts, shards, payloadBytes, inflight, latency } = result;
  return [
    `${hosts === 1 ? 'one host' : `${hosts} hosts`}, ${shards} shards, ${payloadBytes} bytes, ${inflight} under way: ${result.writesPerSecond.toFixed(0)} writes/s, ${result.errors} errors`,
    `answered after: p50 ${ms(latency.p50Ms)}, p99 ${ms(latency.p99Ms)}, longest ${ms(latency.maxMs)}`,
    `${result.flushesPerSecond.toFixed(0)} flushes/s with ${result.writesPerFlush.toFixed(0)} writes each`,
  ];
}

const ms = (value: number): string => `${value.toFixed(2)} ms`;
