/**
 * Holds the floors of the library: who may import whom, and that only `env/node/` touches the outside world. Prints every breach and
 * exits with 1 if there is one. `node scripts/check-floors.ts [source folder]`
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Folders of the ground floors, and the folders each may import besides itself. Files at the top may import all. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  env: [],
  wire: ['env'],
  raft: ['wire'],
  wal: ['wire', 'env'],
  transport: ['wire', 'env'],
  registry: ['wire', 'env', 'transport'],
  rsm: ['wire', 'env'],
  engine: ['wire', 'env', 'raft', 'wal', 'transport', 'rsm'],
  threads: ['wire', 'env', 'transport', 'rsm', 'registry', 'engine'],
};
/** The simulator stands beside the house: it sees the face, the inspect view, and of the floors their contracts. */
const SIDE = 'sim';
const SIDE_MAY_IMPORT: ReadonlySet<string> = new Set([
  'env/env.ts',
  'wire/slab.ts',
  'rsm/codec.ts',
  'rsm/state-machine.ts',
  'transport/transport.ts',
  'transport/tcp.ts',
  'tools/import.ts',
  'transport/security.ts',
  'wal/logdb.ts',
  'wal/open.ts',
]);
/** Compliance suites are for plug-ins of the ground floors: they see these, and worlds to run them in. */
const COMPLIANCE = 'compliance';
const GROUND: ReadonlySet<string> = new Set(['env', 'wire', 'wal', 'transport', 'rsm', 'registry']);
/** Programs for operators stand beside the house, too: they may see all of it but the simulator. */
const TOOLS = 'tools';
/** A look inside for those who check: nothing that users run may depend on it. */
const INSPECT = 'inspect.ts';
/** Throwing is everybody's: the error table is a leaf that imports nothing. */
const LEAF = 'errors.ts';
const OUTSIDE_WORLD = 'env/node/';
/** `node:zlib` is there for its CRC-32 and its zstd: pure functions. */
const NODE_IMPORTS: Readonly<Record<string, string>> = { 'wire/checksum.ts': 'node:zlib', 'rsm/zstd.ts': 'node:zlib' };
/** The real environment is chosen where hosts are opened, the one in memory where it is exported, and nowhere else. */
const ENV_CHOICES: Readonly<Record<string, string>> = {
  'nodehost.ts': 'env/node/index.ts',
  'testing.ts': 'env/memory/index.ts',
  'tools/tool-env.ts': 'env/node/index.ts',
};
/** One real turn of the event loop lets promises settle between virtual events. */
const LOOP_TURNS = 'env/memory/world.ts';

const BANNED: readonly (readonly [RegExp, string])[] = [
  [/\bDate\b/, 'Date'],
  [/\bperformance\s*\./, 'performance'],
  [/\bset(Timeout|Interval|Immediate)\s*\(/, 'a timer'],
  [/\bMath\.random\b/, 'Math.random'],
  [/\bcrypto\s*\.\s*(getRandomValues|randomUUID|randomBytes)\b/, 'random bytes'],
  [/(?<!\.)\bprocess\s*\./, 'process'],
  [/\bnew\s+Worker\b/, 'a worker'],
  [/\bAbortSignal\.timeout\b/, 'a timer'],
  [/\bAbortSignal\.any\b/, 'a signal that outlives its listeners: withEither of env/abort.ts'],
];

function sourcesOf(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => name.replaceAll('\\', '/'));
}

/** Without comments and the insides of strings, so that words in them do not count. */
function codeOf(source: string): string {
  return source
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ''))
    .replace(/(^|\s)\/\/.*$/gm, '$1')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, "''")
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
}

export function breachesOf(root: string): string[] {
  const breaches: string[] = [];
  for (const name of sourcesOf(root)) {
    const source = readFileSync(join(root, name), 'utf8');
    for (const [, target] of source.matchAll(/^(?:import|export)\b(?:[^'"();=]*\bfrom)?\s*'([^']+)'/gm))
      checkImport(root, name, target, breaches);
    for (const [, target] of source.matchAll(/\bimport\(\s*'([^']+)'/g)) checkImport(root, name, target, breaches);
    if (name.startsWith(OUTSIDE_WORLD)) continue;
    const code = codeOf(source);
    for (const [pattern, what] of BANNED) {
      if (name === LOOP_TURNS && (what === 'a timer' || what === 'process')) continue;
      if (pattern.test(code)) breaches.push(`${name}: only ${OUTSIDE_WORLD} may touch ${what}`);
    }
  }
  return breaches;
}

function checkImport(root: string, name: string, target: string, breaches: string[]): void {
  if (!target.startsWith('.')) {
    if (name.startsWith(OUTSIDE_WORLD) && target.startsWith('node:')) return;
    if (NODE_IMPORTS[name] === target) return;
    breaches.push(
      `${name}: imports ${target}; the library has no dependencies, and only ${OUTSIDE_WORLD} may import node:*`,
    );
    return;
  }
  const path = resolve(root, dirname(name), target);
  const imported = relative(root, path).replaceAll('\\', '/');
  if (imported.startsWith('..') || !existsSync(path))
    breaches.push(`${name}: imports ${target}, which is not part of the library`);
  else if (!isAllowed(name, imported)) breaches.push(`${name}: may not import ${imported}; imports go down only`);
}

function isAllowed(name: string, imported: string): boolean {
  if (imported === LEAF) return true;
  if (imported.startsWith('env/node/') || imported.startsWith('env/memory/')) {
    const folder = imported.slice(0, imported.indexOf('/', 4) + 1);
    if (floorOf(name) === COMPLIANCE) return imported === 'env/memory/index.ts' || imported === 'env/node/index.ts';
    return name.startsWith(folder) || ENV_CHOICES[name] === imported;
  }
  const from = floorOf(name);
  if (imported === INSPECT) return from === SIDE || from === TOOLS;
  if (from === SIDE) return ['', SIDE].includes(floorOf(imported)) || SIDE_MAY_IMPORT.has(imported);
  if (floorOf(imported) === SIDE) return false;
  if (from === TOOLS) return true;
  if (floorOf(imported) === TOOLS) return false;
  if (from === '') return true;
  if (from === COMPLIANCE) return GROUND.has(floorOf(imported)) || floorOf(imported) === COMPLIANCE;
  const to = floorOf(imported);
  return from === to || (to !== '' && (MAY_IMPORT[from] ?? []).includes(to));
}

/** The folder of a ground floor; empty for the files at the top. */
function floorOf(name: string): string {
  return name.includes('/') ? name.slice(0, name.indexOf('/')) : '';
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = resolve(process.argv[2] ?? fileURLToPath(new URL('../packages/drakkar/src', import.meta.url)));
  const breaches = breachesOf(root);
  for (const breach of breaches) console.error(breach);
  console.log(`${sourcesOf(root).length} files, ${breaches.length} breaches of the floors`);
  process.exitCode = breaches.length === 0 ? 0 : 1;
}
