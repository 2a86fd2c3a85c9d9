/** The code of the guide runs as it stands. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

test('docs/state-machines.md: its code passes the compliance suite', () => {
  const guide = readFileSync(new URL('../docs/state-machines.md', import.meta.url), 'utf8');
  const blocks = [...guide.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code);
  assert.equal(blocks.length, 3);
  // Here, where `drakkar` is found.
  const dir = mkdtempSync(fileURLToPath(new URL('guide-', import.meta.url)));
  try {
    const file = join(dir, 'guide.ts');
    writeFileSync(file, blocks.join('\n'));
    const { stdout, status } = spawnSync(process.execPath, ['--conditions=drakkar-source', file], { encoding: 'utf8' });
    assert.equal(status, 0, stdout);
    assert.match(stdout, /pass 7|# pass 7/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
