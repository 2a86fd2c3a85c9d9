/** The program as a process: flags, a directory in use, signals, and what a kill leaves. */
import assert from 'node:assert/strict';
import { fork, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const CLI = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'drakkar-process-'));
after(() => rmSync(root, { recursive: true, force: true }));

const FLAGS = [
  '--replica-id',
  '1',
  '--peers',
  '1=127.0.0.1:17441',
  '--http',
  '127.0.0.1:0',
  '--election-rtt',
  '11',
  '--shards',
  '2',
];

function run(...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=drakkar-source', MAIN, ...args], {
    encoding: 'utf8',
  });
  return { status, output: stdout + stderr };
}

async function start(
  dir: string,
  ...more: string[]
): Promise<{ child: ChildProcess; url: string; exited: Promise<unknown[]> }> {
  const child = fork(MAIN, ['--dir', dir, ...FLAGS, ...more], {
    execArgv: ['--conditions=drakkar-source'],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const exited = once(child, 'exit');
  const [message] = (await Promise.race([once(child, 'message'), exited])) as [{ url: string }];
  assert.ok(message?.url, 'the server ended at once');
  return { child, url: message.url, exited };
}

test('--help tells the flags and ends with 0', () => {
  const { status, output } = run('--help');
  assert.equal(status, 0);
  for (const flag of ['--dir', '--replica-id', '--peers', '--http', '--shards']) assert.ok(output.includes(flag), flag);
});

const wrong: [what: string, args: string[], message: RegExp][] = [
  ['no flags', [], /required option '--dir <path>'/],
  ['an unknown flag', ['--dir', 'x', ...FLAGS, '--verbose'], /unknown option '--verbose'/],
  [
    'a replica that is no peer',
    ['--dir', 'x', '--replica-id', '4', '--peers', '1=a:1'],
    /--replica-id 4 is not among --peers/,
  ],
  ['a malformed peer', ['--dir', 'x', '--replica-id', '1', '--peers', '1:a'], /--peers/],
  [
    'half of what TLS needs',
    ['--dir', 'x', ...FLAGS, '--tls-ca', 'ca.pem'],
    /--tls-ca, --tls-cert and --tls-key belong/,
  ],
  ['a level that is none', ['--dir', 'x', ...FLAGS, '--log-level', 'loud'], /Expected one of/],
];

for (const [what, args, message] of wrong) {
  test(`${what} ends with 2 and a message`, () => {
    const { status, output } = run(...args);
    assert.equal(status, 2, output);
    assert.match(output, message);
  });
}

test('data outlives SIGKILL and SIGTERM; SIGTERM ends with 0', async () => {
  const dir = join(root, 'kept');
  const first = await start(dir);
  const put = await fetch(`${first.url}/kv/a?timeoutMs=20000`, { method: 'PUT', body: 'one' });
  assert.equal(put.status, 200, await put.text());
  first.child.kill('SIGKILL');
  await first.exited;
  const second = await start(dir);
  assert.equal(await (await fetch(`${second.url}/kv/a?timeoutMs=20000`)).text(), 'one');
  await fetch(`${second.url}/kv/b`, { method: 'PUT', body: 'two' });
  second.child.kill('SIGTERM');
  assert.deepEqual(await second.exited, [0, null]);
  const third = await start(dir);
  assert.equal(await (await fetch(`${third.url}/kv/b?timeoutMs=20000`)).text(), 'two');
  third.child.disconnect();
  assert.deepEqual(await third.exited, [0, null], 'a server whose parent is gone stops');
});

test('--wal-dir puts the log elsewhere; a server that is started without it is refused with 1', async () => {
  const [dir, log] = [join(root, 'split'), join(root, 'split-log')];
  const first = await start(dir, '--wal-dir', log);
  assert.equal((await fetch(`${first.url}/kv/a?timeoutMs=20000`, { method: 'PUT', body: 'one' })).status, 200);
  first.child.kill('SIGTERM');
  await first.exited;
  assert.deepEqual(readdirSync(join(dir, 'engine-0')), ['snapshots']);
  const { status, output } = run('--dir', dir, ...FLAGS);
  assert.equal(status, 1);
  assert.match(output, /ERR_DIR_FOREIGN: the log of .* is in .*split-log; open the host with that walDir/);
  const cli = (...args: string[]): string =>
    spawnSync(process.execPath, ['--conditions=drakkar-source', CLI, ...args], { encoding: 'utf8' }).stdout;
  assert.match(cli('info', dir), /log in .*split-log\nengine 0: \d+ segments/);
  for (const where of [[dir], [log], [dir, '--wal-dir', log]])
    assert.match(cli('wal', 'verify', ...where), /all is well\n$/);
  const second = await start(dir, '--wal-dir', log);
  assert.equal(await (await fetch(`${second.url}/kv/a?timeoutMs=20000`)).text(), 'one');
  second.child.kill('SIGTERM');
  await second.exited;
});

test('--engines spreads the shards over threads, and may change at a restart', async () => {
  const dir = join(root, 'engines');
  const keys = Array.from({ length: 8 }, (_, i) => `key-${i}`);
  let first = true;
  for (const engines of ['2', '1']) {
    const { child, url, exited } = await start(dir, '--engines', engines);
    for (const key of keys) {
      const at = `${url}/kv/${key}?timeoutMs=20000`;
      if (first) assert.equal((await fetch(at, { method: 'PUT', body: `value of ${key}` })).status, 200);
      assert.equal(await (await fetch(at)).text(), `value of ${key}`);
      assert.equal(await (await fetch(`${at}&stale=true`)).text(), `value of ${key}`);
    }
    first = false;
    const listed = (await (await fetch(`${url}/kv?prefix=key-&timeoutMs=20000`)).json()) as { entries: object[] };
    assert.equal(listed.entries.length, keys.length);
    const { shards } = (await (await fetch(`${url}/status`)).json()) as {
      shards: { engine: number; digest: object }[];
    };
    assert.deepEqual(
      shards.map(({ engine }) => engine),
      [0, 1],
    );
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    assert.match(await (await fetch(`${url}/metrics`)).text(), /engine="1"/);
    child.kill('SIGTERM');
    assert.deepEqual(await exited, [0, null]);
  }
});

test('a directory in use by a living process is refused with 1 and says whose it is', async () => {
  const dir = join(root, 'locked');
  const { child, exited } = await start(dir);
  const { status, output } = run(
    '--dir',
    dir,
    '--replica-id',
    '1',
    '--peers',
    '1=127.0.0.1:17442',
    '--http',
    '127.0.0.1:0',
  );
  assert.equal(status, 1);
  assert.match(output, new RegExp(`ERR_DIR_LOCKED: .*process ${child.pid}`));
  child.kill('SIGTERM');
  await exited;
});

test('a taken Raft or HTTP port is refused with 1', async () => {
  const { child, url, exited } = await start(join(root, 'port'));
  const raft = run('--dir', join(root, 'port-2'), ...FLAGS);
  assert.equal(raft.status, 1);
  assert.match(raft.output, /ERR_ADDRESS_IN_USE: 127\.0\.0\.1:17441 is in use/);
  const http = run(
    '--dir',
    join(root, 'port-3'),
    '--replica-id',
    '1',
    '--peers',
    '1=127.0.0.1:17443',
    '--http',
    url.slice(7),
  );
  assert.equal(http.status, 1);
  assert.match(http.output, /is in use by another process; choose another --http/);
  child.kill('SIGTERM');
  await exited;
});

test('a damaged identity is refused with 1 and left as it is', async () => {
  const dir = join(root, 'damaged');
  const { child, exited } = await start(dir);
  child.kill('SIGTERM');
  await exited;
  const path = join(dir, 'identity.json');
  writeFileSync(path, '{"format":');
  const { status, output } = run('--dir', dir, ...FLAGS);
  assert.equal(status, 1);
  assert.match(output, /ERR_DIR_CORRUPT: .*identity\.json is damaged/);
  assert.equal(readFileSync(path, 'utf8'), '{"format":');
});
