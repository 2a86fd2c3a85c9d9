/**
 * `npm run chaos`: harms a cluster of real processes in several ways while clients record what they are told, and judges the record.
 * Exit code 0 only if nothing acknowledged was lost, every history is linearizable, all replicas agree, and no figure falls short.
 * What this machine cannot do is skipped, with the reason.
 */
import { fork } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { disk } from './chaos/disk.ts';
import { full } from './chaos/full.ts';
import { kill } from './chaos/kill.ts';
import { partition } from './chaos/partition.ts';
import { stop } from './chaos/stop.ts';
import { power } from './chaos/power.ts';
import { sandboxCommand } from './chaos/probes.ts';
import { Cleanup, failedReport, skippedReport, type Context, type Suite, type SuiteReport } from './chaos/suite.ts';

const SUITES: readonly Suite[] = [kill, stop, partition, disk, power, full];
const NAMES = SUITES.map(({ name }) => name).join(',');
const HELP = `npm run chaos -- [options]
  --kills <n>      processes that the kill suite kills; the other suites scale with it (default 30)
  --suite <list>   some of ${NAMES} (default: all)
  --seed <n>       decides what is harmed and when (default: drawn, and printed)
  --dir <path>     where the hosts keep their data; a real disk (default: a temporary directory)
  --port <n>       first of twenty ports to use (default 7200)
  --json           one JSON object as the last line

${SUITES.map(({ name, what }) => `  ${name.padEnd(10)} ${what}`).join('\n')}`;
const TMPFS = 0x0102_1994;
const SEEDS = 2 ** 32;

const { values: flags } = parseArgs({
  options: {
    kills: { type: 'string', default: '30' },
    suite: { type: 'string', default: NAMES },
    seed: { type: 'string', default: String(Math.floor(Math.random() * SEEDS)) },
    dir: { type: 'string', default: tmpdir() },
    port: { type: 'string', default: '7200' },
    json: { type: 'boolean', default: false },
    inside: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (flags.help) {
  console.log(HELP);
  process.exit(0);
}

function wrong(message: string): never {
  console.error(`${message}\n\n${HELP}`);
  process.exit(2);
}

function wholeNumber(name: 'kills' | 'seed' | 'port', min: number, max: number): number {
  const value = Number(flags[name]);
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  return wrong(`--${name} is ${flags[name]}; expected a whole number from ${min} to ${max}`);
}

const kills = wholeNumber('kills', 1, 1e6);
const seed = wholeNumber('seed', 0, SEEDS - 1);
const port = wholeNumber('port', 1024, 65_000);
const chosen = flags.suite.split(',').map((name) => {
  return SUITES.find((suite) => suite.name === name) ?? wrong(`--suite: there is no ${name}`);
});
mkdirSync(flags.dir, { recursive: true });
/** Set by `runInSandbox`, for the process that it starts: the directory of the whole run. */
const { inside } = flags;
const root = inside ?? mkdtempSync(join(resolve(flags.dir), 'drakkar-chaos-'));
const cleanup = new Cleanup();

async function runSuite(suite: Suite): Promise<SuiteReport> {
  if (inside === undefined) {
    const reason = suite.missing();
    console.log(`${suite.name}: ${reason === undefined ? suite.what : `skipped: ${reason}`}`);
    if (reason !== undefined) return skippedReport(suite.name, reason);
  }
  const start = performance.now();
  const log = (line: string): void => {
    console.log(`  ${suite.name} ${((performance.now() - start) / 1000).toFixed(0).padStart(4)} s: ${line}`);
  };
  const context: Context = { seed, kills, root, port, cleanup, log };
  try {
    if (suite.sandbox !== 'none' && inside === undefined) return await runInSandbox(suite);
    return await suite.run(context);
  } catch (error) {
    return failedReport(suite.name, (error as Error).stack ?? String(error));
  } finally {
    await cleanup.run();
  }
}

/** This script once more, for one suite, in namespaces of its own; its report comes back as a message. */
async function runInSandbox(suite: Suite): Promise<SuiteReport> {
  const [program, ...args] = sandboxCommand(suite.sandbox);
  const own = ['--inside', root, '--suite', suite.name, '--kills', String(kills), '--seed', String(seed)];
  const child = fork(fileURLToPath(import.meta.url), [...own, '--port', String(port)], {
    execPath: program,
    execArgv: [...args, process.execPath, ...process.execArgv],
  });
  let report: SuiteReport | undefined;
  child.once('message', (message) => {
    report = message as SuiteReport;
  });
  const ended = new Promise<string>((done) => {
    child.once('error', (error) => done(error.message));
    child.once('exit', (code, signal) => done(signal ?? `exit code ${code}`));
  });
  cleanup.add(`the sandbox of ${suite.name}`, () => {
    child.kill('SIGTERM');
    return ended;
  });
  const how = await ended;
  return report ?? failedReport(suite.name, `the sandbox ended with ${how} and without a report`);
}

function tell(report: SuiteReport): void {
  const figures = Object.entries(report.figures).map(([name, value]) => `${name} ${value}`);
  console.log(`
${report.suite}, ${report.seconds} s: ${figures.join(', ')}
  requests              ${report.operations}: ${report.succeeded} succeeded, ${report.refused} refused, ${report.unknown} unknown
  acknowledged, lost    ${report.acknowledged}, ${report.acknowledgedLost}
  history               ${report.verdict}, ${report.keysChecked} keys
  digests               ${report.digestsEqual ? 'equal on all three hosts' : 'DIFFERENT, or not compared'}`);
  for (const shortfall of report.shortfalls) console.log(`  WRONG                 ${shortfall}`);
}

let isEnding = false;

async function endEarly(why: string, exitCode: number): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  console.error(`\n${why}; cleaning up ...`);
  await cleanup.run();
  if (inside === undefined) rmSync(root, { recursive: true, force: true });
  process.exit(exitCode);
}
process.on('SIGINT', () => void endEarly('Interrupted', 130));
process.on('SIGTERM', () => void endEarly('Asked to end', 143));
process.on('disconnect', () => void endEarly('The parent is gone', 1));
process.on('uncaughtException', (error) => void endEarly(`A mistake of this script: ${error.stack}`, 1));

if (inside !== undefined) {
  const report = await runSuite(chosen[0]);
  process.send!(report, () => process.exit(0));
  await new Promise(() => {}); // until the report is sent
}

console.log(`seed ${seed}, data in ${root}`);
if (statfsSync(root).type === TMPFS) console.warn(`${root} is in memory, not on a disk: choose another --dir`);
const reports: SuiteReport[] = [];
for (const suite of chosen) reports.push(await runSuite(suite));

for (const report of reports) if (report.skipped === undefined) tell(report);
for (const { suite, skipped } of reports) if (skipped !== undefined) console.log(`\n${suite}: skipped: ${skipped}`);
const isGood = reports.every(({ shortfalls }) => shortfalls.length === 0);
if (isGood) rmSync(root, { recursive: true, force: true });
else console.log(`\nData, logs and histories are kept in ${root}.`);
if (flags.json) console.log(JSON.stringify({ ok: isGood, seed, kills, suites: reports }));
process.exit(isGood ? 0 : 1);
