/** docs/embedding.md: its service compiles, its tests pass, and its program serves, on real sockets, until it is told to stop. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { blocksOf, filesOf, plainEnv, readGuide, typecheck, withFiles } from './guide.ts';

const page = readGuide('docs/embedding.md');
const ledger = filesOf(readGuide('docs/getting-started.md')).get('ledger.ts')!;
const files = new Map([['ledger.ts', ledger], ...filesOf(page)]);
const CONDITION = '--conditions=drakkar-source';

/** A request that is made again while the answer is 503: nobody leads yet. */
async function ask(url: string, method = 'GET'): Promise<{ status: number; body: string }> {
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(url, { method });
    const body = await answer.text();
    if (answer.status !== 503 || attempt >= 100) return { status: answer.status, body };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test('embedding.md: the files compile, and the tests in it pass', { timeout: 240_000 }, async () => {
  await withFiles(files, async (dir) => {
    assert.equal(typecheck(dir), '');
    const tests = [...files.keys()].filter((name) => name.endsWith('.test.ts'));
    assert.equal(tests.length, 2);
    const { status, stdout } = spawnSync(process.execPath, [CONDITION, '--test', ...tests], {
      cwd: dir,
      encoding: 'utf8',
      env: plainEnv(),
    });
    assert.equal(status, 0, stdout);
    assert.match(stdout, /pass 6\n/);
  });
});

test('embedding.md: three programs serve, and stop in order', { timeout: 240_000 }, async (context) => {
  const moved = new Map(
    [...files].map(([name, source]) => [
      name,
      source.replaceAll('127.0.0.1:740', '127.0.0.1:2624').replaceAll('7410 +', '26250 +'),
    ]),
  );
  await withFiles(moved, async (dir) => {
    const children = [1, 2, 3].map((id): ChildProcess => {
      const args = [CONDITION, join(dir, 'main.ts'), String(id)];
      return spawn(process.execPath, args, { cwd: dir, env: plainEnv(), stdio: ['ignore', 'pipe', 'inherit'] });
    });
    context.after(() => children.forEach((child) => void child.kill('SIGKILL')));
    for (const child of children) await once(child.stdout!, 'data');
    const at = (id: number, path: string): string => `http://127.0.0.1:${26250 + id}${path}`;
    for (const id of [1, 2, 3]) assert.deepEqual(await ask(at(id, '/healthz')), { status: 200, body: '[]' });
    assert.deepEqual(await ask(at(1, '/accounts/alice?add=5'), 'POST'), { status: 200, body: '{"balance":5}' });
    assert.deepEqual(await ask(at(2, '/accounts/alice')), { status: 200, body: '{"balance":5}' });
    assert.equal((await ask(at(3, '/accounts/alice?add=five'), 'POST')).status, 400);
    assert.equal((await ask(at(3, '/livez'))).status, 200);
    assert.match((await ask(at(3, '/metrics'))).body, /^drakkar_shards 1$/m);
    for (const child of children) {
      child.kill('SIGTERM');
      assert.deepEqual(await once(child, 'exit'), [0, null]);
    }
  });
});

test('every block of the page is a file that is run', () => {
  assert.equal(blocksOf(page, 'ts').length, filesOf(page).size);
});
