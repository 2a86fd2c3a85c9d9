/** A slice of `npm run chaos` on real processes, and its command line. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('../scripts/chaos.ts', import.meta.url));
/** Apart from those of the demo and the examples. */
const PORT = '17240';

function chaos(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ['--conditions=drakkar-source', SCRIPT, ...args], { encoding: 'utf8' });
}

test('a few kills under load lose nothing, and the history is linearizable', { timeout: 240_000 }, () => {
  const { status, stdout, stderr } = chaos('--kills', '3', '--suite', 'kill', '--port', PORT, '--json');
  assert.equal(status, 0, stdout + stderr);
  const report = JSON.parse(stdout.trim().split('\n').at(-1)!) as {
    ok: boolean;
    suites: { suite: string; acknowledged: number; acknowledgedLost: number; verdict: string; digestsEqual: boolean }[];
  };
  const [kill] = report.suites;
  assert.equal(report.ok, true);
  assert.equal(kill.suite, 'kill');
  assert.ok(kill.acknowledged > 0);
  assert.equal(kill.acknowledgedLost, 0);
  assert.equal(kill.verdict, 'linearizable');
  assert.equal(kill.digestsEqual, true);
});

test('what it is told wrongly is said, with its help', () => {
  for (const args of [
    ['--suite', 'nothing'],
    ['--kills', 'many'],
  ]) {
    const { status, stderr } = chaos(...args);
    assert.equal(status, 2);
    assert.match(stderr, /npm run chaos/);
  }
  assert.match(chaos('--help').stdout, /power cuts/);
});
