/** docs/operations.md: its commands are run as they stand, three hosts and later three others on this machine; its lists are complete. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { HOST_EVENTS } from 'drakkar';

const root = fileURLToPath(new URL('..', import.meta.url));
const docs = readFileSync(join(root, 'docs/operations.md'), 'utf8');

/** The shell blocks of a section, by its title. */
function blocksOf(title: string): string[] {
  const [, section] = new RegExp(`\n## ${title}\n([\\s\\S]*?)(?=\n## |$)`).exec(docs)!;
  return [...section.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block);
}

interface Machine {
  readonly sh: (block: string) => string;
  readonly translate: (block: string) => string;
  readonly env: NodeJS.ProcessEnv;
}

/** Commands of the documentation on this machine: its addresses and directories become ours. */
function machineIn(dir: string): Machine {
  const bin = join(dir, 'bin');
  mkdirSync(bin);
  for (const [name, path] of [
    ['drakkar', 'packages/server/src/cli/main.ts'],
    ['drakkar-server', 'packages/server/src/main.ts'],
  ]) {
    const command = `exec "${process.execPath}" --conditions=drakkar-source "${join(root, path)}" "$@"`;
    writeFileSync(join(bin, name), `#!/bin/sh\n${command}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const env = { ...process.env, PATH: `${bin}:${process.env['PATH']}` };
  const translate = (block: string): string =>
    block
      .replaceAll('/var/lib/drakkar', join(dir, 'lib'))
      .replaceAll(/10\.0\.0\.(\d):7000/g, '127.0.0.1:2621$1')
      .replaceAll(/10\.0\.0\.(\d):8080/g, '127.0.0.1:2622$1');
  const sh = (block: string): string => {
    const { status, stdout, stderr } = spawnSync('/bin/sh', ['-e', '-c', translate(block)], { encoding: 'utf8', env });
    assert.equal(status, 0, `${block}\n${stdout}${stderr}`);
    return stdout;
  };
  return { sh, translate, env };
}

const hostOf = (block: string, id: number): string =>
  block
    .replaceAll('host-1', `host-${id}`)
    .replaceAll('--replica-id 1', `--replica-id ${id}`)
    .replaceAll('http 10.0.0.1', `http 10.0.0.${id}`);

async function serve({ translate, env }: Machine, command: string): Promise<ChildProcess> {
  // exec: the signal is for the server, not for the shell.
  const child = spawn('/bin/sh', ['-c', `exec ${translate(command)} --log-level error`], { env, stdio: 'ignore' });
  child.once('exit', (code) => assert.ok(code === 0 || code === null, `a server ended with ${code}`));
  return child;
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

async function request(url: string, method: string, body?: string): Promise<string> {
  for (let attempt = 0; ; attempt++) {
    try {
      const answer = await fetch(`${url}?timeoutMs=10000`, body === undefined ? { method } : { method, body });
      if (answer.ok) return await answer.text();
      if (attempt > 60) assert.fail(`${method} ${url} gives ${answer.status}`);
    } catch (error) {
      if (attempt > 60) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250)); // it begins to listen
    }
  }
}

test('disk check, deployment, backup and repair after a lost majority, as documented', {
  timeout: 240_000,
}, async () => {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-operations-'));
  const machine = machineIn(dir);
  const { sh } = machine;
  const running = new Map<number, ChildProcess>();
  try {
    const [checkDisk] = blocksOf('Before you start');
    assert.match(
      sh(checkDisk.replace('checkdisk', 'checkdisk --duration-ms 50')),
      /durable writes of 4\.0 KiB: \d+\/s/,
    );

    const [server, info] = blocksOf('Deploy');
    for (const id of [1, 2, 3]) running.set(id, await serve(machine, hostOf(server, id).trim()));
    const kv = (id: number, key: number): string => `http://127.0.0.1:2622${id}/kv/key-${key}`;
    for (let key = 0; key < 30; key++) await request(kv(1 + (key % 3), key), 'PUT', `value ${key}`);
    // A linearizable read of every shard on host 1: it has applied all that was written.
    for (let key = 0; key < 30; key++) await request(kv(1, key), 'GET');
    assert.match(sh(info), /^host [0-9a-f]{32} at 127\.0\.0\.1:26211/);
    const metrics = await request('http://127.0.0.1:26221/metrics', 'GET');
    const server_ = [...metrics.matchAll(/^# TYPE (drakkar_http_\w+) (\w+)$/gm)].map(
      ([, name, type]) => `${name} ${type}`,
    );
    const listed = [...docs.matchAll(/^\| `(drakkar_http_\w+)` \| (\w+) \|/gm)].map(
      ([, name, type]) => `${name} ${type}`,
    );
    assert.deepEqual(listed, server_);

    const [backup] = blocksOf('Backup');
    const saved = sh(backup);
    for (const shard of [1, 2, 3, 4]) assert.match(saved, new RegExp(`: shard ${shard} at \\d+, .*whole$`, 'm'));

    for (const id of [2, 3]) await stop(running.get(id)!, 'SIGKILL');
    await stop(running.get(1)!, 'SIGTERM');
    running.clear();
    const [verify, repair] = blocksOf('A lost majority');
    assert.match(sh(verify), /all is well\n$/);
    const [, newPeers] = /--members (\S+)/.exec(repair)!;
    for (const id of [1, 4, 5]) assert.match(sh(hostOf(repair, id)), /members: 1=\S+ 4=\S+ 5=\S+; gone for ever: 2 3/);

    for (const id of [1, 4, 5]) {
      const command = hostOf(server, id)
        .trim()
        .replace(/--peers \S+/, `--peers ${newPeers}`);
      running.set(id, await serve(machine, command));
    }
    for (let key = 0; key < 30; key++) assert.equal(await request(kv([1, 4, 5][key % 3], key), 'GET'), `value ${key}`);
    await request(kv(4, 100), 'PUT', 'goes on');
    assert.equal(await request(kv(5, 100), 'GET'), 'goes on');
    for (const child of running.values()) await stop(child, 'SIGTERM');
    running.clear();
  } finally {
    for (const child of running.values()) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
});

test('a host whose disk is gone is replaced, as documented', { timeout: 240_000 }, async () => {
  const dir = mkdtempSync(join(tmpdir(), 'drakkar-replace-'));
  const machine = machineIn(dir);
  const { sh } = machine;
  const running = new Map<number, ChildProcess>();
  const kv = (id: number, key: number): string => `http://127.0.0.1:2622${id}/kv/key-${key}`;
  const [server] = blocksOf('Deploy');
  const [remove, newcomer, add] = blocksOf('Replace a host');
  const commands = new Map([1, 2, 3].map((id) => [id, `${hostOf(server, id).trim()} --admin`]));
  commands.set(4, newcomer.trim());
  try {
    for (const id of [1, 2, 3]) running.set(id, await serve(machine, commands.get(id)!));
    for (let key = 0; key < 20; key++) await request(kv(1 + (key % 3), key), 'PUT', `value ${key}`);
    await stop(running.get(3)!, 'SIGKILL');
    running.delete(3);
    rmSync(join(dir, 'lib/host-3'), { recursive: true });

    assert.equal(sh(remove).match(/^shard \d: done, membership \d+$/gm)?.length, 4);
    assert.equal(sh(remove).match(/^shard \d: so it is already$/gm)?.length, 4, 'given again');
    running.set(4, await serve(machine, commands.get(4)!));
    sh(add);
    const voters = (): number => sh(add).match(/^\d +4 +127\.0\.0\.1:26214 +voter/gm)?.length ?? 0;
    for (let attempt = 0; voters() < 4; attempt++) {
      assert.ok(attempt < 60, 'it does not become a voter');
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    await request('http://127.0.0.1:26224/healthz', 'GET');

    // Of 1, 2 and 4 any two will do; and all of them come back as they were started.
    await stop(running.get(1)!, 'SIGKILL');
    for (let key = 0; key < 20; key++) assert.equal(await request(kv(4, key), 'GET'), `value ${key}`);
    await request(kv(4, 100), 'PUT', 'goes on');
    for (const id of [2, 4]) await stop(running.get(id)!, 'SIGTERM');
    for (const id of [1, 2, 4]) running.set(id, await serve(machine, commands.get(id)!));
    assert.equal(await request(kv(1, 100), 'GET'), 'goes on');
    const [members] = blocksOf('Restart and upgrade');
    assert.equal(sh(members).match(/^\d +[124] +127\.0\.0\.1:2621[124] +voter/gm)?.length, 12);
    for (const child of running.values()) await stop(child, 'SIGTERM');
    running.clear();
  } finally {
    for (const child of running.values()) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
});

test('every shell block of the page is run by this test', () => {
  const run = [
    'Before you start',
    'Deploy',
    'Restart and upgrade',
    'Replace a host',
    'Backup',
    'A lost majority',
  ].flatMap(blocksOf).length;
  assert.equal([...docs.matchAll(/^```sh$/gm)].length, run);
});

test('the program in the page runs', () => {
  const [, program] = /```ts\n([\s\S]*?)```/.exec(docs)!;
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
});

test('every event is listed, in the order of the table', () => {
  const [, section] = /\n## Events\n([\s\S]*?)\n## /.exec(docs)!;
  const listed = [...section.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);
  assert.deepEqual(listed, HOST_EVENTS);
});

test('alerts name metrics and stages that there are', () => {
  const [, rules] = /```yaml\n([\s\S]*?)```/.exec(docs)!;
  const used = [...rules.matchAll(/drakkar_\w+/g)].map(([name]) => name.replace(/_bucket$/, ''));
  assert.ok(used.length >= 10);
  for (const name of used) assert.match(docs, new RegExp(`^\\| \`${name}\` \\| `, 'm'), name);
  for (const [, stage] of rules.matchAll(/stage="(\w+)"/g))
    assert.match(docs, new RegExp(`^\\| \`${stage}\` \\| `, 'm'), stage);
});

test('every command of the table is one, and links lead somewhere', () => {
  for (const [, command] of docs.matchAll(/^\| `drakkar ([a-z ]+?)(?: <[^>]+>)*` \|/gm)) {
    const args = [
      '--conditions=drakkar-source',
      join(root, 'packages/server/src/cli/main.ts'),
      ...command.split(' '),
      '--help',
    ];
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.equal(status, 0, command);
    assert.match(stdout, new RegExp(`^Usage: drakkar ${command} `), command);
  }
  for (const [, link] of docs.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) readFileSync(join(root, 'docs', link));
});
