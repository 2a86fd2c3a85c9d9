/** All pages: links lead somewhere, files that are named are there, code compiles, and the README leads to every page. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ROOT, blocksOf, readGuide, typecheck, withFiles } from './guide.ts';

const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'packages/drakkar/README.md',
  'packages/server/README.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

const withoutCode = (page: string): string => page.replaceAll(/^```[\s\S]*?^```/gm, '');

/** As GitHub makes them: lower case, no punctuation, dashes for blanks. */
function anchorsOf(page: string): Set<string> {
  const headings = [...withoutCode(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading);
  return new Set(
    headings.map((text) =>
      text
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

test('links lead to files and sections that there are', () => {
  for (const path of PAGES) {
    for (const [, link] of withoutCode(readGuide(path)).matchAll(/\]\(((?!https?:)[^)]+)\)/g)) {
      const [file, anchor] = link.split('#');
      const target = file === '' ? path : join(dirname(path), file);
      assert.ok(existsSync(join(ROOT, target)), `${path}: ${link}`);
      if (anchor !== undefined) assert.ok(anchorsOf(readGuide(target)).has(anchor), `${path}: ${link}`);
    }
  }
});

test('the README leads to every page', () => {
  const linked = new Set([...readGuide('README.md').matchAll(/\]\((docs\/[\w-]+\.md)/g)].map(([, link]) => link));
  assert.deepEqual(
    PAGES.filter((path) => path.startsWith('docs/') && !linked.has(path)),
    [],
  );
});

test('sources that the pages about the inside name are there', () => {
  const sources = ['packages/drakkar', 'packages/server', 'docs', 'examples', 'scripts', 'bench'].flatMap((dir) =>
    readdirSync(join(ROOT, dir), { recursive: true, encoding: 'utf8' })
      .filter((path) => !path.includes('node_modules'))
      .map((path) => `${dir}/${path}`),
  );
  for (const path of ['docs/architecture.md', 'docs/testing.md', 'docs/protocol.md', 'docs/wal-format.md']) {
    const names = readGuide(path).matchAll(/`([\w-]+(?:\/[\w.-]+)*\/?(?:\{[\w,-]+\})?(?:\.ts)?)`/g);
    for (const [, name] of names) {
      if (!name.endsWith('.ts')) continue;
      const [, before, list, after] = /^([^{]*)\{([^}]*)\}(.*)$/.exec(name) ?? [undefined, name, '', ''];
      for (const part of list.split(',')) {
        const file = `/${before}${part}${after}`.replace(/\/$/, '');
        assert.ok(
          sources.some((source) => `/${source}`.endsWith(file)),
          `${path}: ${file}`,
        );
      }
    }
  }
});

/** Of pages with pieces of programs: what stands around them. The guides have tests of their own. */
const AROUND: Readonly<Record<string, string>> = {
  'docs/security.md': "import { NodeHost } from 'drakkar';\n",
  'docs/testing.md': [
    "import { readFile } from 'node:fs/promises';",
    "import { Store } from 'drakkar/sim';",
    'const items: string[] = [];',
    'class Inventory extends Store {}',
    'const encode = (value: object): Uint8Array => Buffer.from(JSON.stringify(value));\n',
  ].join('\n'),
  'docs/operations.md': '',
};

test('pieces of programs compile', async () => {
  const files = new Map<string, string>();
  for (const path of PAGES) {
    if (['README.md', 'docs/getting-started.md', 'docs/embedding.md', 'docs/state-machines.md'].includes(path))
      continue;
    const blocks = blocksOf(readGuide(path), 'ts');
    if (blocks.length === 0) continue;
    assert.ok(path in AROUND, `${path}: who tests its code?`);
    files.set(`${path.replaceAll('/', '-')}.ts`, `${AROUND[path]}${blocks.join('\n')}\nexport {};\n`);
  }
  assert.equal(files.size, Object.keys(AROUND).length);
  await withFiles(files, async (dir) => assert.equal(typecheck(dir, { noUnusedLocals: false }), ''));
});
