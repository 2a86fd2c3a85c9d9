/** docs/features.md: every row names a test, and every test that it names is there. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PLANTS } from '../packages/drakkar/scripts/sim/plants.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const page = readFileSync(`${root}docs/features.md`, 'utf8');

/** Sections without tests: what there is not. */
const WITHOUT_TESTS = new Set(['Left out, on purpose', 'Not there yet']);

interface Row {
  readonly section: string;
  readonly cells: readonly string[];
}

function rowsOf(markdown: string): Row[] {
  const rows: Row[] = [];
  let section = '';
  for (const line of markdown.split('\n')) {
    const heading = /^## (.*)$/.exec(line);
    if (heading !== null) [, section] = heading;
    if (!line.startsWith('| ') || line.startsWith('| Dragonboat |')) continue;
    rows.push({ section, cells: line.slice(2, -2).split(' | ') });
  }
  return rows;
}

/** What a cell names: `file` "beginning of a test's name", more names of the same file behind commas, planted bugs. */
function referencesOf(cell: string): { tests: [file: string, name: string][]; plants: string[]; rest: string } {
  const tests: [string, string][] = [];
  const plants: string[] = [];
  const rest = cell
    .replaceAll(/planted bug `([\w-]+)`/g, (_, name: string) => {
      plants.push(name);
      return '';
    })
    .replaceAll(/`([^`"]+\.ts)`((?:,? "[^"]+")+)/g, (_, file: string, names: string) => {
      for (const [, name] of names.matchAll(/"([^"]+)"/g)) tests.push([file, name]);
      return '';
    });
  return { tests, plants, rest: rest.replaceAll(/[;\s]/g, '') };
}

const sources = new Map<string, string | undefined>();

function sourceOf(file: string): string | undefined {
  const path = /^(?:packages|test|bench)\//.test(file) ? file : `packages/drakkar/test/${file}`;
  if (!sources.has(path)) sources.set(path, existsSync(root + path) ? readFileSync(root + path, 'utf8') : undefined);
  return sources.get(path);
}

/** Whether a text of the source begins with `name`: a test's name, or that of a row in a table of tests. */
export function hasTest(source: string, name: string): boolean {
  return ["'", '`', '"'].some((quote) => source.includes(quote + name.replaceAll("'", quote === "'" ? "\\'" : "'")));
}

test('what is looked for is found, and nothing else', () => {
  const { tests, plants, rest } = referencesOf('`a.test.ts` "one", "two"; `b/c.ts` "three"; planted bug `x-y`');
  assert.deepEqual(tests, [
    ['a.test.ts', 'one'],
    ['a.test.ts', 'two'],
    ['b/c.ts', 'three'],
  ]);
  assert.deepEqual([plants, rest], [['x-y'], '']);
  assert.equal(referencesOf('`a.test.ts`').rest, '`a.test.ts`', 'a file without a name of a test shows nothing');
  assert.equal(hasTest("test('one and two', () => {", 'one'), true);
  assert.equal(hasTest("test('one and two', () => {", 'two'), false);
});

test('every row has a test, and each that is named is there', () => {
  const rows = rowsOf(page);
  assert.ok(rows.length > 200);
  const wrong: string[] = [];
  for (const { section, cells } of rows) {
    const [what] = cells;
    if (WITHOUT_TESTS.has(section)) {
      if (cells.length !== 2) wrong.push(`${what}: expected two cells`);
      continue;
    }
    if (cells.length !== 3) {
      wrong.push(`${what}: expected three cells`);
      continue;
    }
    const { tests, plants, rest } = referencesOf(cells[2]);
    if (rest !== '') wrong.push(`${what}: not understood: ${rest}`);
    if (tests.length === 0) wrong.push(`${what}: no test`);
    for (const [file, name] of tests) {
      const source = sourceOf(file);
      if (source === undefined) wrong.push(`${what}: there is no ${file}`);
      else if (!hasTest(source, name)) wrong.push(`${what}: ${file} has no test "${name}…"`);
    }
    for (const plant of plants)
      if (!PLANTS.some(({ name }) => name === plant)) wrong.push(`${what}: there is no planted bug ${plant}`);
  }
  assert.deepEqual(wrong, []);
});

test('every section of the original’s inventory is there', () => {
  const numbers = [...page.matchAll(/^## (\d+)\. /gm)].map(([, number]) => Number(number));
  assert.deepEqual(
    numbers,
    Array.from({ length: 15 }, (_, i) => i + 1),
  );
});
