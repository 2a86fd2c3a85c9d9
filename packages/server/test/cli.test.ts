/** The `drakkar` command on real processes and real directories: what it says, as lines and as JSON, and how it ends. */
import assert from 'node:assert/strict';
import { fork, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SERVER = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const CLI = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
const CONDITIONS = '--conditions=drakkar-source';
const PEERS = '1=127.0.0.1:26101';
const root = mkdtempSync(join(tmpdir(), 'drakkar-cli-'));
const dir = join(root, 'host');
const exportsDir = join(root, 'exports');

interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function drakkar(...args: string[]): Run {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CONDITIONS, CLI, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** Runs with `--json`; gives what was printed, read. */
function json(status: number, ...args: string[]): any {
  const run = drakkar(...args, '--json');
  assert.equal(run.status, status, run.stdout + run.stderr);
  return JSON.parse(run.stdout);
}

async function serve(
  hostDir: string,
  peers: string,
  ...more: string[]
): Promise<{ url: string; stop: () => Promise<void>; child: ChildProcess }> {
  const flags = ['--dir', hostDir, '--replica-id', '1', '--peers', peers, '--http', '127.0.0.1:0', '--shards', '2'];
  const child = fork(SERVER, [...flags, '--election-rtt', '11', ...more], {
    execArgv: [CONDITIONS],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const exited = once(child, 'exit');
  const [message] = (await Promise.race([once(child, 'message'), exited])) as [{ url: string }];
  assert.ok(message?.url, 'the server ended at once');
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    assert.deepEqual(await exited, [0, null]);
  };
  return { url: message.url, stop, child };
}

let exported = '';
let exportedIndex = 0;
/** Of shard 1: there when the export was made, and written later. */
const kept: string[] = [];
let late = '';

before(async () => {
  const server = await serve(dir, PEERS, '--export-dir', exportsDir);
  const put = async (key: string): Promise<number> => {
    const answer = await fetch(`${server.url}/kv/${key}?timeoutMs=20000`, { method: 'PUT', body: `value of ${key}` });
    assert.equal(answer.status, 200);
    return ((await answer.json()) as { shard: number }).shard;
  };
  for (let i = 0; i < 20; i++) if ((await put(`key-${i}`)) === 1) kept.push(`key-${i}`);

  const running = json(0, 'info', server.url);
  assert.equal(running.shards.length, 2);
  assert.equal(running.shards[0].role, 'leader');
  const shown = drakkar('info', server.url);
  assert.equal(shown.status, 0, shown.stderr);
  assert.match(shown.stdout, /^host [0-9a-f]{32} at 127\.0\.0\.1:26101, up \d+ s\n/);
  assert.match(shown.stdout, /^1 +1 +running +leader +1 /m);

  const answer = json(0, 'snapshot', 'export', '--shard', '1', '--url', server.url);
  ({ dir: exported, index: exportedIndex } = answer);
  assert.ok(exported.startsWith(exportsDir));
  assert.equal(json(1, 'snapshot', 'export', '--shard', '9', '--url', server.url).code, 'ERR_SHARD_NOT_FOUND');
  const members = json(0, 'member', 'list', server.url);
  assert.deepEqual(members.shards[0].voters, { 1: '127.0.0.1:26101' });
  assert.match(drakkar('member', 'list', server.url).stdout, /^2 +1 +127\.0\.0\.1:26101 +voter, leads +-$/m);
  const refused = drakkar('member', 'remove', '--url', server.url, '--replica-id', '9');
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /does not change members; start it with --admin/);
  for (let i = 20; late === ''; i++) if ((await put(`key-${i}`)) === 1) late = `key-${i}`;

  assert.equal(json(1, 'wal', 'verify', dir).code, 'ERR_DIR_LOCKED', 'a running host is left alone');
  assert.equal(json(1, 'info', dir).code, 'ERR_DIR_LOCKED');
  assert.deepEqual(json(0, 'format', server.url).formats, { oldest: 1, newest: 1, enabled: 1, written: 1 });
  assert.match(drakkar('format', server.url).stdout, /^this one +1 +1 +1$/m);
  assert.match(drakkar('format', server.url, '--enable').stderr, /does not end upgrades; start it with --admin/);
  await server.stop();
});
after(() => rmSync(root, { recursive: true, force: true }));

/** A copy to be broken. */
function copyOf(name: string): string {
  const copy = join(root, name);
  cpSync(dir, copy, { recursive: true });
  chmodSync(copy, 0o700);
  return copy;
}

test('--help tells the commands, and each command its flags', () => {
  const help = drakkar('--help');
  assert.equal(help.status, 0);
  for (const command of ['info', 'member', 'wal', 'snapshot', 'checkdisk', 'bench'])
    assert.match(help.stdout, new RegExp(`^  ${command} `, 'm'));
  const commands = [
    ['info'],
    ['member', 'list'],
    ['member', 'add'],
    ['member', 'promote'],
    ['member', 'remove'],
    ['wal', 'verify'],
    ['wal', 'dump'],
    ['snapshot', 'verify'],
    ['snapshot', 'export'],
    ['snapshot', 'import'],
    ['checkdisk'],
    ['bench'],
  ];
  for (const command of commands) {
    const { status, stdout } = drakkar(...command, '--help');
    assert.equal(status, 0);
    assert.match(stdout, /--json/, command.join(' '));
  }
});

const wrong: [what: string, args: string[], message: RegExp][] = [
  ['an unknown command', ['frobnicate'], /unknown command 'frobnicate'/],
  ['an unknown flag', ['wal', 'verify', 'x', '--fast'], /unknown option '--fast'/],
  ['no directory', ['wal', 'verify'], /missing required argument 'dir'/],
  ['a shard that is none', ['wal', 'dump', 'x', '--shard', 'one'], /Expected a whole number from 1/],
  [
    'members that are none',
    ['snapshot', 'import', 'x', '--dir', 'y', '--replica-id', '1', '--members', '1:a'],
    /Expected replica ids with addresses/,
  ],
  ['an export from nowhere', ['snapshot', 'export', '--shard', '1'], /give --url, or --dir with --to/],
  ['an export to nowhere', ['snapshot', 'export', '--shard', '1', '--dir', 'x'], /--dir and --to go together/],
  ['a member without an address', ['member', 'add', '--url', 'http://a:1', '--replica-id', '4'], /--address/],
  [
    'a role that is none',
    ['member', 'add', '--url', 'http://a:1', '--replica-id', '4', '--address', 'b:1', '--role', 'king'],
    /Expected one of voter, non-voting, witness/,
  ],
  ['a URL that is none', ['snapshot', 'export', '--shard', '1', '--url', 'host'], /Expected a URL/],
];
for (const [what, args, message] of wrong) {
  test(`${what} ends with 2 and a message`, () => {
    const { status, stderr } = drakkar(...args);
    assert.equal(status, 2, stderr);
    assert.match(stderr, message);
  });
}

test('what is not there ends with 1 and its code, as JSON too', () => {
  for (const args of [
    ['wal', 'verify', join(root, 'nowhere')],
    ['wal', 'dump', join(root, 'nowhere')],
    ['info', join(root, 'nowhere')],
  ]) {
    const { status, stderr } = drakkar(...args);
    assert.equal(status, 1);
    assert.match(stderr, /^drakkar: ERR_INVALID_OPTION: .*nowhere is neither a host's directory nor/);
    assert.deepEqual(json(1, ...args).code, 'ERR_INVALID_OPTION');
  }
  assert.match(
    drakkar('info', 'http://127.0.0.1:26199').stderr,
    /^drakkar: ERR_FAILED: fetch failed \(connect ECONNREFUSED/,
  );
});

test('info and wal verify of a stopped host: whose it is, its shards, all well', () => {
  const info = json(0, 'info', dir);
  assert.equal(info.owner.raftAddress, '127.0.0.1:26101');
  assert.equal(info.owner.startCounter, 1);
  assert.deepEqual(
    info.logs[0].shards.map((shard: { shardId: number }) => shard.shardId),
    [1, 2],
  );
  const report = json(0, 'wal', 'verify', dir);
  assert.equal(report.ok, true);
  assert.ok(report.logs[0].entries > 20);
  const { status, stdout } = drakkar('wal', 'verify', dir);
  assert.equal(status, 0);
  assert.match(stdout, /all is well\n$/);
});

test('wal dump: lines for people, a document a line as JSON, and a reader may stop', async () => {
  const { status, stdout } = drakkar('wal', 'dump', dir, '--entries', '--shard', '1');
  assert.equal(status, 0);
  assert.match(stdout, /block {2}shard 1 {2}\d+\.\.\d+ {2}term \d+/);
  assert.match(stdout, /^ {4}\d+ {2}Command {2}\d+ bytes$/m);
  assert.match(stdout, /\nend at \d+:\d+, group \d+\n$/);
  assert.doesNotMatch(stdout, /shard 2/);
  const run = drakkar('wal', 'dump', dir, '--data', '--json');
  const items = run.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { kind: string; dataBase64?: string });
  assert.ok(
    items.some(
      ({ kind, dataBase64 }) => kind === 'entry' && Buffer.from(dataBase64!, 'base64').includes('value of key-0'),
    ),
  );
  assert.equal(items.at(-1)!.kind, 'end');
  const reader = spawn(process.execPath, [CONDITIONS, CLI, 'wal', 'dump', dir, '--entries'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  reader.stdout.once('data', () => reader.stdout.destroy());
  assert.equal((await once(reader, 'exit'))[0], 0);
});

test('a damaged log: exit code 1, where it is, and not a byte is changed', () => {
  const copy = copyOf('damaged');
  const wal = join(copy, 'engine-0', 'wal');
  const [segment] = readdirSync(wal).filter((name) => name.endsWith('.wal'));
  const bytes = readFileSync(join(wal, segment));
  bytes[4096 * 3 + 60] ^= 1;
  writeFileSync(join(wal, segment), bytes);
  const report = json(1, 'wal', 'verify', copy);
  assert.equal(report.ok, false);
  assert.match(report.logs[0].damage.message, /is damaged at byte 12288/);
  const { status, stdout } = drakkar('wal', 'verify', copy);
  assert.equal(status, 1);
  assert.match(stdout, /^DAMAGED: .*do not delete it/m);
  const dump = drakkar('wal', 'dump', copy);
  assert.equal(dump.status, 1);
  assert.match(dump.stdout, /\nDAMAGED: .*byte 12288.*\n$/);
  assert.deepEqual(readFileSync(join(wal, segment)), bytes);
  assert.match(
    drakkar('snapshot', 'import', exported, '--dir', copy, '--replica-id', '1', '--members', PEERS, '--yes').stderr,
    /ERR_LOG_CORRUPT: .*a damaged log takes no import/,
  );
});

test('snapshot verify: whole, damaged, missing', () => {
  const whole = json(0, 'snapshot', 'verify', exported);
  assert.deepEqual([whole.shardId, whole.index, whole.voters], [1, exportedIndex, { 1: '127.0.0.1:26101' }]);
  assert.match(
    drakkar('snapshot', 'verify', exported).stdout,
    /shard 1 at \d+, term \d+, made by replica 1, .*whole\n/,
  );
  const copy = join(root, 'damaged-export');
  cpSync(exported, copy, { recursive: true });
  const image = join(copy, 'image.snapshot');
  const bytes = readFileSync(image);
  bytes[bytes.length - 30] ^= 1;
  writeFileSync(image, bytes);
  const { status, stderr } = drakkar('snapshot', 'verify', copy);
  assert.equal(status, 1);
  assert.match(stderr, /ERR_SNAPSHOT_CORRUPT: .*the checksum of image\.snapshot is wrong; use another copy/);
  rmSync(join(copy, 'metadata.json'));
  assert.match(json(1, 'snapshot', 'verify', copy).message, /metadata\.json is missing/);
});

test('snapshot import: shows the plan, does it with --yes, and a server goes on from it', async () => {
  const copy = copyOf('repaired');
  const flags = [exported, '--dir', copy, '--replica-id', '1', '--members', PEERS];
  const plan = drakkar('snapshot', 'import', ...flags);
  assert.equal(plan.status, 1);
  assert.match(plan.stdout, /nothing was changed; .* add --yes/);
  assert.equal(json(0, 'wal', 'verify', copy).logs[0].shards[0].snapshotIndex, 0);
  const done = json(0, 'snapshot', 'import', ...flags, '--yes');
  assert.equal(done.index, exportedIndex);
  assert.ok(done.replacedIndex > exportedIndex);
  const server = await serve(copy, PEERS);
  const get = async (key: string): Promise<Response> => fetch(`${server.url}/kv/${key}?timeoutMs=20000`);
  for (const key of kept) assert.equal(await (await get(key)).text(), `value of ${key}`);
  assert.equal((await get(late)).status, 404, 'what was written after the export is lost');
  const noExports = await fetch(`${server.url}/export?shard=1`, { method: 'POST' });
  assert.equal(noExports.status, 405, 'without --export-dir there is no export');
  await server.stop();
  const wrongMember = drakkar(
    'snapshot',
    'import',
    exported,
    '--dir',
    copy,
    '--replica-id',
    '3',
    '--members',
    PEERS,
    '--yes',
  );
  assert.equal(wrongMember.status, 1);
  assert.match(wrongMember.stderr, /ERR_INVALID_OPTION: importSnapshot: replicaId is 3; expected one of members/);
});

test('snapshot export of a stopped host: its newest snapshot, or why there is none', async () => {
  const to = join(root, 'offline');
  assert.match(
    drakkar('snapshot', 'export', '--shard', '1', '--dir', dir, '--to', to).stderr,
    /ERR_SHARD_NOT_FOUND: .* holds no snapshot of shard 1/,
  );
  const copy = copyOf('with-snapshot');
  const server = await serve(copy, PEERS, '--snapshot-entries', '5');
  for (let i = 0; i < 20; i++) await fetch(`${server.url}/kv/more-${i}?timeoutMs=20000`, { method: 'PUT', body: 'x' });
  await server.stop();
  const made = json(0, 'snapshot', 'export', '--shard', '1', '--dir', copy, '--to', to);
  assert.equal(made.index, json(0, 'wal', 'verify', copy).logs[0].shards[0].snapshotIndex);
  assert.equal(json(0, 'snapshot', 'verify', to).index, made.index);
  assert.match(drakkar('snapshot', 'export', '--shard', '1', '--dir', copy, '--to', to).stderr, /offline is not empty/);
});

test('checkdisk and bench measure, and leave nothing behind', () => {
  const here = join(root, 'disk');
  mkdirSync(here);
  const check = json(0, 'checkdisk', here, '--duration-ms', '50', '--shards', '3');
  assert.deepEqual(
    check.flushes.map((flush: { sizeBytes: number }) => flush.sizeBytes),
    [4096, 131_072],
  );
  for (const { perSecond, count } of check.flushes) assert.ok(perSecond > 0 && count > 0);
  assert.ok(check.host.writes > 0 && check.host.errors === 0);
  const bench = drakkar('bench', here, '--duration-ms', '100', '--shards', '2', '--inflight', '50');
  assert.equal(bench.status, 0, bench.stderr);
  assert.match(bench.stdout, /^3 hosts, 2 shards, 16 bytes, 50 under way: \d+ writes\/s, 0 errors\n/);
  assert.deepEqual(readdirSync(here), []);
  assert.equal(json(1, 'checkdisk', join(root, 'nowhere')).code, 'ERR_DISK_FAILED');
});
