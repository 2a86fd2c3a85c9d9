/** The floors hold, and the checker that says so sees what it must. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { breachesOf } from '../scripts/check-floors.ts';

const SOURCES = fileURLToPath(new URL('../packages/drakkar/src', import.meta.url));

function breachesIn(files: Record<string, string>): string[] {
  const root = mkdtempSync(join(tmpdir(), 'drakkar-floors-'));
  try {
    for (const [name, source] of Object.entries(files)) {
      mkdirSync(join(root, dirname(name)), { recursive: true });
      writeFileSync(join(root, name), source);
    }
    return breachesOf(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

test('the library keeps its floors', () => {
  assert.deepEqual(breachesOf(SOURCES), []);
});

const lower = {
  'wire/frame.ts': 'export const frame = 1;\n',
  'env/env.ts': 'export type Env = object;\n',
  'errors.ts': '',
};

test('imports that go down are fine', () => {
  const files = {
    ...lower,
    'raft/raft.ts': "import { frame } from '../wire/frame.ts';\nimport '../errors.ts';\nexport { frame };\n",
    'engine/engine.ts': "import { frame } from '../raft/raft.ts';\nexport default frame;\n",
    'env/node/clock.ts': "import 'node:fs';\nexport const now = () => Date.now() + performance.now();\n",
  };
  assert.deepEqual(breachesIn(files), []);
});

const forbidden: Record<string, [name: string, source: string]> = {
  'an import that goes up': ['wire/a.ts', "import '../raft/b.ts';\n"],
  'an import across': ['raft/a.ts', "import '../wal/b.ts';\n"],
  'a type import that goes up': ['rsm/a.ts', "import type { B } from '../engine/b.ts';\n"],
  'an import over several lines': ['raft/a.ts', "import {\n  b,\n} from '../wal/b.ts';\n"],
  'a re-export across': ['raft/a.ts', "export * from '../wal/b.ts';\n"],
  'a dynamic import': ['raft/a.ts', "const b = await import('../wal/b.ts');\n"],
  'the env of raft': ['raft/a.ts', "import '../env/env.ts';\n"],
  'the real world': ['engine/a.ts', "import 'node:fs';\n"],
  'a dependency': ['engine/a.ts', "import pino from 'pino';\n"],
  'the real env from below the face': ['engine/a.ts', "import '../env/node/clock.ts';\n"],
  'the time of day': ['engine/a.ts', 'export const now = () => Date.now();\n'],
  'a timer': ['engine/a.ts', 'setTimeout(() => {}, 5);\n'],
  'a turn of the loop': ['engine/a.ts', 'setImmediate(() => {});\n'],
  'the simulator from the face': ['nodehost.ts', "import './sim/run.ts';\n"],
  'a tool from the face': ['nodehost.ts', "import './tools/run.ts';\n"],
  'a tool from a floor': ['engine/a.ts', "import '../tools/run.ts';\n"],
  'the simulator from a tool': ['tools/a.ts', "import '../sim/run.ts';\n"],
  'the real world from a tool': ['tools/a.ts', "import 'node:fs';\n"],
  'the inspect view from the face': ['info.ts', "import './inspect.ts';\n"],
  'the insides of a floor from the simulator': ['sim/a.ts', "import '../raft/b.ts';\n"],
  'a dice': ['raft/a.ts', 'export const x = Math.random();\n'],
};

for (const [what, [name, source]] of Object.entries(forbidden)) {
  test(`${what} is a breach`, () => {
    const others = {
      'sim/run.ts': '',
      'tools/run.ts': '',
      'inspect.ts': '',
      'raft/b.ts': '',
      'wal/b.ts': '',
      'engine/b.ts': '',
      'env/node/clock.ts': '',
    };
    const breaches = breachesIn({ ...lower, ...others, [name]: source });
    assert.equal(breaches.length, 1, breaches.join('\n'));
    assert.ok(breaches[0].startsWith(`${name}: `));
  });
}

test('words in comments and strings are no breach', () => {
  const source =
    "// setTimeout(x) and Date\n/* import 'node:fs' */\nexport const text = 'Date.now() from Math.random()';\n";
  assert.deepEqual(breachesIn({ ...lower, 'engine/a.ts': source }), []);
});
