/**
 * `npm run bench:compare`: the library against peers, in turn and in one run. With `--table`, every figure that must be reached; the exit
 * code is 1 when one is missed.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { addWorkOptions, nameOf, number, refusal, work, type Work } from './arguments.ts';
import { compare, runInTurn } from './comparison.ts';
import { pairFor, PEERS, type Pair, type PeerName } from './contenders/index.ts';
import { DEFAULT_OPTIONS, type BenchOptions } from './options.ts';
import { quietMachine } from './quiet.ts';
import { diskLines, measureDisk } from './raw-disk.ts';
import { comparisonLines, machineText, runLine, verdictLines, workText } from './report.ts';
import type { Report, RowHead, RowResult } from './results.ts';
import { idleShards } from './scale/questions.ts';
import { IDLE, judge, TABLE, type Row } from './table.ts';

const DISK_MS = 2000;

interface Options extends Omit<BenchOptions, 'profile' | 'shards' | 'payload' | 'inflight'> {
  readonly against?: readonly PeerName[];
  readonly work?: readonly Work[];
  readonly table: boolean;
  readonly rounds: number;
  readonly ceiling?: string;
  readonly quiet: boolean;
  readonly record?: string;
  readonly json: boolean;
}

function collect<T>(parse: (text: string) => T): (text: string, previous: readonly T[] | undefined) => readonly T[] {
  return (text, previous = []) => [...previous, parse(text)];
}

function peerName(text: string): PeerName {
  const name = PEERS.find((one) => one === text);
  if (name === undefined) throw new InvalidArgumentError(`Expected one of ${PEERS.join(', ')}.`);
  return name;
}

const command = new Command('npm run bench:compare --').description(
  'The library and a peer in turn on this machine; medians, spreads and ratios of medians.',
);
addWorkOptions(command)
  .addOption(
    new Option('--against <peer>', 'may be given several times (default: dragonboat)')
      .choices(PEERS)
      .argParser(collect(peerName)),
  )
  .option('--work <SxPxN>', 'shards x payload x in flight, may be given several times', collect(work))
  .option('--table', 'every figure that must be reached', false)
  .option('--rounds <n>', 'runs of each', number(1, 100), 5)
  .option('--ceiling <dir>', 'directory of the ceiling program (its run.js)')
  .option('--no-quiet', 'do not wait for a quiet machine')
  .option('--record <file>', 'write the results there as JSON')
  .option('--json', 'one JSON object on the last line', false);
command.parse();
const options = command.opts<Options>();
if (options.table && options.work !== undefined) command.error('--table has works of its own: leave out --work');
const shape: BenchOptions = { ...DEFAULT_OPTIONS, ...pickShape(options) };
const refused = refusal(shape);
if (refused !== undefined) command.error(refused);

const pairs = new Map<PeerName, Promise<{ pair: Pair; reason: string | undefined }>>();

/** Each peer is prepared once. */
function prepared(name: PeerName): Promise<{ pair: Pair; reason: string | undefined }> {
  let one = pairs.get(name);
  if (one === undefined) {
    const pair = pairFor(name, options.ceiling);
    one = pair.theirs.prepare().then((reason) => ({ pair, reason }));
    pairs.set(name, one);
  }
  return one;
}

async function runRow(row: Row): Promise<RowResult> {
  const settings: BenchOptions = { ...shape, ...row.work };
  const base: RowHead = { title: row.title, against: row.against, work: settings };
  const { pair, reason = pair.theirs.refuses?.(settings) } = await prepared(row.against);
  console.log(`\n${workText(settings)}`);
  if (reason !== undefined) {
    console.log(`  ${row.against} skipped: ${reason}`);
    return { ...base, skipped: reason };
  }
  const { ours, theirs } = pair;
  const versions = { ours: ours.describe(), theirs: theirs.describe() };
  console.log(`  ${versions.ours} and ${versions.theirs}, in turn, ${options.rounds} rounds`);
  const before = options.quiet ? quietMachine : async () => {};
  const runs = await runInTurn([ours, theirs], settings, options.rounds, before, (run) => console.log(runLine(run)));
  const comparison = compare(runs, ours.name, theirs.name);
  const verdicts = judge(row.targets, comparison);
  for (const line of [...comparisonLines(settings, comparison, row.against), ...verdictLines(verdicts)])
    console.log(line);
  return { ...base, versions, ...comparison, verdicts };
}

function rows(): readonly Row[] {
  const { against } = options;
  if (options.table) return against === undefined ? TABLE : TABLE.filter((row) => against.includes(row.against));
  const works = options.work ?? [DEFAULT_OPTIONS];
  return (against ?? ['dragonboat']).flatMap((name) =>
    works.map(({ shards, payload, inflight }) => ({
      title: nameOf({ shards, payload, inflight }),
      against: name,
      work: { shards, payload, inflight },
      targets: [],
    })),
  );
}

function pickShape(given: Options): Partial<BenchOptions> {
  const { readPercent, api, sm, batch, sessions, rate, tls, engines, spread, warmMs, durationMs, snapshotEntries } =
    given;
  return { readPercent, api, sm, batch, sessions, rate, tls, engines, spread, warmMs, durationMs, snapshotEntries };
}

/** With the table: the disk's own limit and shards that nobody uses, which are compared with nobody. */
async function measureAlone(): Promise<Pick<Report, 'disk' | 'idle'>> {
  if (!options.table || options.against !== undefined) return {};
  const disk = await measureDisk(DISK_MS);
  for (const line of diskLines(disk)) console.log(line);
  const idle = await idleShards(IDLE.shards, IDLE.durationMs);
  console.log(
    `\n${idle.shards} idle shards: ${idle.cpuPercent}% of a core, ${idle.bytesPerShard} bytes each, started in ${idle.readyMs} ms`,
  );
  return { disk, idle };
}

console.log(machineText());
const results: RowResult[] = [];
for (const row of rows()) results.push(await runRow(row));
const alone = await measureAlone();
const missed = results
  .flatMap((row) => ('skipped' in row ? [] : row.verdicts.map((verdict) => ({ ...verdict, ...row }))))
  .filter(({ isReached }) => !isReached)
  .map(({ title, against, figure, got }) => `${title} against ${against}: ${figure} ${got}`);
const { idle } = alone;
if (idle !== undefined && idle.cpuPercent >= IDLE.cpuPercentBelow) missed.push(`idle shards: ${idle.cpuPercent}% CPU`);
if (idle !== undefined && idle.bytesPerShard >= IDLE.bytesBelow)
  missed.push(`idle shards: ${idle.bytesPerShard} bytes`);
if (options.table) console.log(missed.length === 0 ? '\nevery figure measured is reached' : '\nMISSED:');
for (const line of missed) console.log(`  ${line}`);
const isReached = missed.length === 0;
const report: Report = {
  date: new Date().toISOString(),
  machine: machineText(),
  reached: isReached,
  rows: results,
  ...alone,
};
if (options.record !== undefined) {
  mkdirSync(dirname(options.record), { recursive: true });
  writeFileSync(options.record, `${JSON.stringify(report, null, 2)}\n`);
}
if (options.json) console.log(JSON.stringify(results.length === 1 && !options.table ? results[0] : report));
process.exitCode = isReached ? 0 : 1;
