/** The example stores under `kill -9`: nothing that was acknowledged is missing, nothing is counted twice. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stateMachineCompliance } from 'drakkar/compliance';
import { LevelCounters } from '../examples/on-disk/level-counters.ts';
import { encodeAdd } from '../examples/on-disk/lines.ts';
import { SqliteCounters } from '../examples/on-disk/sqlite-counters.ts';

const CHILD = fileURLToPath(new URL('on-disk-child.ts', import.meta.url));
const ROUNDS = 6;

/** What was acknowledged over all rounds. */
interface Acknowledged {
  plain: number;
  once: number;
}

/** One life of the process: until `lines` acknowledgements came, then it is killed in the middle of the next ones. */
async function round(
  store: string,
  dir: string,
  port: number,
  lines: number,
  acknowledged: Acknowledged,
): Promise<void> {
  const args = ['--conditions=drakkar-source', CHILD, store, dir, String(port), String(acknowledged.once + 1)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let complaints = '';
  child.stderr.on('data', (bytes: Buffer) => (complaints += bytes.toString()));
  const closed = once(child, 'close');
  let seen = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    const [kind, first, second] = line.split(' ');
    if (kind === 'open') {
      const [plain, counted] = [Number(first), Number(second)];
      // Of the one that was under way at the kill it is unknown.
      assert.ok(
        plain === acknowledged.plain || plain === acknowledged.plain + 1,
        `${plain}, ${acknowledged.plain} acked`,
      );
      acknowledged.plain = plain;
      assert.ok(counted === acknowledged.once || counted === acknowledged.once + 1, `${counted}, ${acknowledged.once}`);
    } else if (kind === 'plain') acknowledged.plain = Number(first);
    else {
      // The answer of each series is its own, also when it is asked for again after the crash.
      assert.equal(Number(second), Number(first));
      acknowledged.once = Number(first);
    }
    if (++seen === lines) child.kill('SIGKILL');
  }
  await closed;
  assert.equal(complaints, '');
  assert.ok(seen >= lines, `it ended after ${seen} lines`);
}

for (const [at, store] of ['sqlite', 'level'].entries()) {
  test(`F15: ${store} under kill -9: acknowledged is there, and once`, { timeout: 120_000 }, async () => {
    const dir = mkdtempSync(join(tmpdir(), `drakkar-${store}-`));
    const acknowledged = { plain: 0, once: 0 };
    for (let i = 0; i < ROUNDS; i++) await round(store, dir, 25210 + at, 20 + 37 * i, acknowledged);
    assert.ok(acknowledged.once > ROUNDS);
    rmSync(dir, { recursive: true });
  });
}

for (const [name, create] of [
  ['sqlite', (dir: string) => new SqliteCounters(dir)],
  ['level', (dir: string) => new LevelCounters(dir)],
] as const) {
  const root = mkdtempSync(join(tmpdir(), `drakkar-${name}-`));
  after(() => rmSync(root, { recursive: true }));
  const cases = stateMachineCompliance({
    create: (place) => create(join(root, place.dir)),
    command: (n) => encodeAdd({ key: `k${n % 5}`, by: n }),
    queries: ['k0', 'k1', 'k2', 'k3', 'k4'],
    storage: 'real',
  });
  for (const { name: what, run } of cases) test(`${name}: ${what}`, run);
}
