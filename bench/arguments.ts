/** Options that several commands take. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { DEFAULT_OPTIONS, type BenchOptions } from './options.ts';

export function number(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text !== '' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  };
}

/** A ratio or share. */
export function positive(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError('Expected a number above 0.');
}

export interface Work {
  readonly shards: number;
  readonly payload: number;
  readonly inflight: number;
}

const shards = number(1, 100_000);
const payload = number(8, 1 << 20);
const inflight = number(1, 1_000_000);

/** `48x16x4800`: shards, bytes of a command, requests under way. */
export function work(text: string): Work {
  const parts = text.split('x');
  if (parts.length !== 3)
    throw new InvalidArgumentError('Expected shards x payload x in flight, for example 48x16x4800.');
  return { shards: shards(parts[0]), payload: payload(parts[1]), inflight: inflight(parts[2]) };
}

export const nameOf = (one: Work): string => `${one.shards}x${one.payload}x${one.inflight}`;

/** What shapes the work beside its size. */
export function addWorkOptions(command: Command): Command {
  return command
    .option('--read-percent <n>', 'share of operations that read linearizably', number(0, 100), 0)
    .addOption(new Option('--api <form>', 'way in').choices(['promise', 'callback', 'batch']).default('promise'))
    .addOption(
      new Option('--sm <form>', 'what the state machine is given').choices(['array', 'cursor']).default('array'),
    )
    .option('--batch <n>', 'commands in a proposeBatch', number(1, 10_000), DEFAULT_OPTIONS.batch)
    .option('--sessions', 'every client writes in a session of its own', false)
    .option('--rate <n>', 'requests per second that fall due, answered or not; 0: closed loop', number(0, 1e7), 0)
    .option('--tls', 'mutual TLS between the hosts', false)
    .option(
      '--engines <n>',
      'engines of each host, in threads when there are several',
      number(1, 64),
      DEFAULT_OPTIONS.engines,
    )
    .option('--spread', 'leaders on all hosts, not on one', false)
    .option('--warm-ms <n>', 'time before the measurement', number(0, 600_000), DEFAULT_OPTIONS.warmMs)
    .option('--duration-ms <n>', 'time of the measurement', number(100, 3_600_000), DEFAULT_OPTIONS.durationMs)
    .option(
      '--snapshot-entries <n>',
      'entries between automatic snapshots',
      number(0, 1e9),
      DEFAULT_OPTIONS.snapshotEntries,
    );
}

export function addSizeOptions(command: Command): Command {
  return command
    .option('--shards <n>', 'shards', shards, DEFAULT_OPTIONS.shards)
    .option('--payload <bytes>', 'size of a command', payload, DEFAULT_OPTIONS.payload)
    .option('--inflight <n>', 'requests under way at most, in all', inflight, DEFAULT_OPTIONS.inflight);
}

/** What does not go together; a message for the user, or undefined. */
export function refusal(options: BenchOptions): string | undefined {
  const { api, sessions, rate, readPercent } = options;
  if (api !== 'promise' && (sessions || rate > 0)) return `--api ${api} goes with neither --sessions nor --rate`;
  if (api === 'batch' && readPercent > 0 && readPercent < 100)
    return '--api batch writes only: leave out --read-percent';
  return undefined;
}
