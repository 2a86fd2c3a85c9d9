/** The benchmark runs and prints what it promises; its figures are nobody's business here. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const BENCH = fileURLToPath(new URL('../bench.ts', import.meta.url));
const KEYS = [
  'writesPerSecond',
  'readsPerSecond',
  'writesPerCpuSecond',
  'p50Ms',
  'p99Ms',
  'p999Ms',
  'cpuSeconds',
  'flushesPerSecond',
  'digestsEqual',
];

function bench(...args: string[]): Record<string, unknown> {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--conditions=drakkar-source', BENCH, '--warm-ms', '100', '--duration-ms', '300', '--json', ...args],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stdout + stderr);
  return JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Record<string, unknown>;
}

for (const args of [
  ['--shards', '3', '--inflight', '60'],
  ['--shards', '2', '--inflight', '20', '--tls', '--sessions'],
  ['--shards', '2', '--inflight', '20', '--engines', '2', '--read-percent', '20'],
  ['--shards', '2', '--inflight', '20', '--rate', '500', '--read-percent', '50'],
  ['--shards', '2', '--inflight', '10', '--read-percent', '50', '--api', 'callback', '--sm', 'cursor', '--spread'],
]) {
  test(`bench ${args.join(' ')}`, () => {
    const result = bench(...args);
    for (const key of KEYS) assert.ok(key in result, key);
    assert.ok((result.writesPerSecond as number) > 0);
    assert.equal(result.digestsEqual, true);
    if (args.includes('--read-percent')) assert.ok((result.readsPerSecond as number) > 0);
  });
}

test('a wrong flag is refused', () => {
  const { status, stderr } = spawnSync(process.execPath, ['--conditions=drakkar-source', BENCH, '--shards', 'many'], {
    encoding: 'utf8',
  });
  assert.equal(status, 1);
  assert.match(stderr, /Expected a whole number/);
});
