/** What the README shows is what there is, and its example runs as it stands. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ERROR_TABLE } from 'drakkar';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const EXAMPLE = 'examples/counter.ts';

/** Resolves with what the process printed once it printed `count` lines. */
async function lines(child: ChildProcess, count: number): Promise<string[]> {
  let output = '';
  child.stdout!.setEncoding('utf8');
  for await (const chunk of child.stdout! as AsyncIterable<string>) {
    output += chunk;
    const whole = output.split('\n').slice(0, -1);
    if (whole.length >= count) return whole;
  }
  throw new Error(`the example ended after: ${output}`);
}

test('the embedding example of the README is the file in examples, in 25 lines', () => {
  const [, block] = /```ts\n([\s\S]*?)```/.exec(read('README.md'))!;
  assert.equal(block, read(EXAMPLE));
  const count = block
    .trimEnd()
    .split('\n')
    .filter((line) => line.trim() !== '').length;
  assert.ok(count <= 25, `${count} lines`);
});

test('the example runs as three processes, twice, and remembers', { timeout: 120_000 }, async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'drakkar-example-'));
  const run = async (): Promise<number[]> => {
    const children = [1, 2, 3].map((id) =>
      spawn(process.execPath, ['--conditions=drakkar-source', join(root, EXAMPLE), String(id)], {
        cwd,
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    );
    const printed = await Promise.all(children.map((child) => lines(child, 2)));
    const codes = children.map((child) => once(child, 'exit'));
    for (const child of children) child.kill('SIGINT');
    for (const [code] of await Promise.all(codes)) assert.equal(code, 0);
    return printed.map(([written, seen]) => {
      const [, total] = /^written: (\d+)$/.exec(written)!;
      const [, value] = /^read: (\d+)$/.exec(seen)!;
      assert.ok(Number(value) >= Number(total));
      return Number(total);
    });
  };
  assert.equal(Math.max(...(await run())), 6);
  assert.equal(Math.max(...(await run())), 12);
  rmSync(cwd, { recursive: true });
});

test('every command the README names is a script, and every file it links to is there', () => {
  const readme = read('README.md');
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const commands = [...readme.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name);
  assert.ok(commands.length > 2);
  for (const name of commands) assert.ok(name in scripts, `npm run ${name}`);
  for (const [, link] of readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) assert.ok(existsSync(join(root, link)), link);
});

test('every error code has its place in docs/errors.md, in the order of the table', () => {
  const named = [...read('docs/errors.md').matchAll(/^### (ERR_\w+)$/gm)].map(([, code]) => code);
  assert.deepEqual(named, Object.keys(ERROR_TABLE));
});

test('the table in docs/errors.md says of every code what the table in the sources says', () => {
  const rows = [...read('docs/errors.md').matchAll(/^\| \[`(ERR_\w+)`\]\(#(\w+)\) \| (yes|no) \| ([\w-]+) \|$/gm)];
  assert.deepEqual(
    rows.map(([, code, anchor, isRetryable, outcome]) => [code, anchor, isRetryable, outcome]),
    Object.entries(ERROR_TABLE).map(([code, { retryable, outcome }]) => {
      return [code, code.toLowerCase(), retryable ? 'yes' : 'no', outcome];
    }),
  );
});
