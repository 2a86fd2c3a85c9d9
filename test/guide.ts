/** Code and transcripts of the guides in `docs/`, as files and steps. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

export const readGuide = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** The blocks of a language, in order. */
export function blocksOf(page: string, language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, block]) => block);
}

/** Blocks whose first line names a file: `// ledger.ts`. */
export function filesOf(page: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const block of blocksOf(page, 'ts')) {
    const [, name] = /^\/\/ ([\w./-]+\.ts)\n/.exec(block) ?? [];
    if (name === undefined) continue;
    assert.equal(files.has(name), false, `${name} is there twice`);
    files.set(name, block);
  }
  return files;
}

/** A directory inside of the repository, where `drakkar` is found; gone afterwards. */
export async function withFiles<T>(files: ReadonlyMap<string, string>, use: (dir: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(ROOT, 'test/guide-'));
  try {
    for (const [name, source] of files) {
      mkdirSync(join(dir, dirname(name)), { recursive: true });
      writeFileSync(join(dir, name), source);
    }
    return await use(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** What the compiler finds wrong in the directory; empty when nothing. */
export function typecheck(dir: string, options: object = {}): string {
  writeFileSync(
    join(dir, 'tsconfig.json'),
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.base.json'),
      compilerOptions: { noEmit: true, ...options },
      include: ['**/*.ts'],
    }),
  );
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
  const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, '-p', dir], { encoding: 'utf8' });
  return status === 0 ? '' : stdout + stderr;
}

/** Without what tells a process that it is part of a test run of Node. */
export function plainEnv(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  return env;
}
