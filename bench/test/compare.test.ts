/** `bench:compare` as a command: what it prints and refuses. The peer is a program that prints a line. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Report } from '../results.ts';

const COMPARE = fileURLToPath(new URL('../compare.ts', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'drakkar-bench-test-'));
after(() => rmSync(dir, { recursive: true }));
writeFileSync(
  join(dir, 'run.js'),
  "console.log('v | 2k w/s  p50 1.00 p99 2.00 p99.9 3.00 ms | 1k op/cpu-s | flush/s 9/9/9 CONSISTENT')",
);

function compare(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const short = ['--warm-ms', '100', '--duration-ms', '200', '--no-quiet', ...args];
  return spawnSync(process.execPath, ['--conditions=drakkar-source', COMPARE, ...short], { encoding: 'utf8' });
}

test('two runs of each in turn, with everything in one object on the last line', () => {
  const record = join(dir, 'out', 'results.json');
  const args = ['--against', 'ceiling', '--ceiling', dir, '--work', '2x16x20', '--rounds', '2'];
  const { status, stdout, stderr } = compare(...args, '--record', record, '--json');
  assert.equal(status, 0, stdout + stderr);
  const result = JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Record<string, any>;
  const { ours, theirs, writesPerSecondRatio, writesPerCpuSecondRatio, p99Ratio, rounds, runs } = result;
  assert.equal(rounds, 2);
  assert.deepEqual(
    runs.map((run: { contender: string }) => run.contender),
    ['drakkar', 'ceiling', 'drakkar', 'ceiling'],
  );
  assert.equal(theirs.writesPerSecond, 2000);
  assert.ok(Math.abs(writesPerSecondRatio / (ours.writesPerSecond / 2000) - 1) < 0.001);
  assert.ok(Math.abs(writesPerCpuSecondRatio / (ours.writesPerCpuSecond / 1000) - 1) < 0.001);
  assert.ok(Math.abs(p99Ratio / (ours.p99Ms / 2) - 1) < 0.001);
  assert.equal(ours.digestsEqual, true);
  assert.equal(ours.writesAddUp, true);
  const report = JSON.parse(readFileSync(record, 'utf8')) as Report;
  assert.equal(report.rows.length, 1);
});

test('a peer that is missing is skipped with a reason', () => {
  const { status, stdout } = compare('--against', 'ceiling', '--work', '1x16x1', '--work', '2x16x1', '--json');
  assert.equal(status, 0);
  const { rows } = JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as { rows: { skipped: string }[] };
  assert.equal(rows.length, 2);
  for (const { skipped } of rows) assert.match(skipped, /--ceiling DIR/);
});

test('work that the peer does not know is skipped, not compared with other work', () => {
  const { status, stdout } = compare(
    '--against',
    'ceiling',
    '--ceiling',
    dir,
    '--read-percent',
    '90',
    '--tls',
    '--json',
  );
  assert.equal(status, 0);
  const { skipped } = JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as { skipped: string };
  assert.equal(skipped, 'it does not know readPercent, tls');
});

test('a figure that is missed is an exit code', () => {
  const faster = mkdtempSync(join(tmpdir(), 'drakkar-bench-test-'));
  const line = 'v | 9000000k w/s  p50 1 p99 2 p99.9 3 ms | 9000000k op/cpu-s | flush/s 9/9/9 CONSISTENT';
  writeFileSync(join(faster, 'run.js'), `console.log(${JSON.stringify(line)})`);
  const { status, stdout } = compare('--table', '--against', 'ceiling', '--ceiling', faster, '--rounds', '1');
  rmSync(faster, { recursive: true });
  assert.equal(status, 1);
  assert.match(stdout, /MISSED/);
});

test('wrong arguments are refused in a line', () => {
  for (const [args, message] of [
    [['--work', '48x16'], /Expected shards x payload x in flight/],
    [['--against', 'nobody'], /Expected one of dragonboat/],
    [['--table', '--work', '1x16x1'], /leave out --work/],
    [['--rounds', '0'], /from 1 to 100/],
    [['--api', 'callback', '--sessions'], /neither --sessions/],
  ] as const) {
    const { status, stderr } = compare(...args);
    assert.equal(status, 1, args.join(' '));
    assert.match(stderr, message);
  }
});
