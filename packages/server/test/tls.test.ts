/** Three servers as processes, with certificates between them; and one that has none, and stays outside. */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Authority } from '../../drakkar/test/certificates.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'drakkar-server-tls-'));
const children = new Set<ChildProcess>();
after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
});

const PEERS = '1=127.0.0.1:23051,2=127.0.0.1:23052,3=127.0.0.1:23053';

async function start(id: number, ...flags: string[]): Promise<{ child: ChildProcess; url: string }> {
  const args = ['--dir', join(root, `${id}`), '--replica-id', `${id}`, '--peers', PEERS, '--http', '127.0.0.1:0'];
  const child = fork(MAIN, [...args, '--shards', '2', ...flags], {
    execArgv: ['--conditions=drakkar-source'],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  children.add(child);
  const exited = once(child, 'exit').then(() => {
    throw new Error('the server ended');
  });
  exited.catch(() => {});
  const [message] = (await Promise.race([once(child, 'message'), exited])) as [{ url: string }];
  return { child, url: message.url };
}

const put = (url: string, key: string, value: string): Promise<Response> =>
  fetch(`${url}/kv/${key}?timeoutMs=30000`, { method: 'PUT', body: value });
const get = async (url: string, key: string): Promise<string> =>
  (await fetch(`${url}/kv/${key}?timeoutMs=30000`)).text();
const metric = async (url: string, pattern: RegExp): Promise<number> =>
  Number(pattern.exec(await (await fetch(`${url}/metrics`)).text())?.[1] ?? 0);

test('three servers replicate over mutual TLS, through a rotation; a server without a certificate is kept out', async () => {
  const authority = await Authority.make('authority');
  writeFileSync(join(root, 'ca.pem'), authority.ca);
  const issue = async (id: number): Promise<void> => {
    const { cert, key } = await authority.issue({ ip: ['127.0.0.1'], uri: ['drakkar://raft/1'] });
    writeFileSync(join(root, `${id}.pem`), cert);
    writeFileSync(join(root, `${id}.key`), key, { mode: 0o600 });
  };
  const flags = (id: number): string[] => [
    '--tls-ca',
    join(root, 'ca.pem'),
    '--tls-cert',
    join(root, `${id}.pem`),
    '--tls-key',
    join(root, `${id}.key`),
  ];
  for (const id of [1, 2, 3]) await issue(id);
  const [one, two, plain] = await Promise.all([start(1, ...flags(1)), start(2, ...flags(2)), start(3)]);
  assert.equal((await put(one.url, 'a', 'first')).status, 200);
  assert.equal(await get(two.url, 'a'), 'first');
  assert.ok((await metric(one.url, /^drakkar_transport_refused_total\{reason="handshake"\} (\d+)$/m)) > 0);
  assert.equal((await fetch(`${plain.url}/kv/a?timeoutMs=500`)).ok, false);
  plain.child.kill('SIGTERM');
  await once(plain.child, 'exit');
  const three = await start(3, ...flags(3));
  assert.equal(await get(three.url, 'a'), 'first');

  const up = /^drakkar_transport_connections_up_total (\d+)$/m;
  const before = await metric(one.url, up);
  for (const [id, { child }] of [one, two, three].entries()) {
    await issue(id + 1);
    child.kill('SIGHUP');
  }
  for (let n = 0; (await metric(one.url, up)) < before + 2; n++) {
    assert.equal((await put([one, two, three][n % 3].url, `n${n}`, `${n}`)).status, 200);
  }
  assert.equal((await put(two.url, 'b', 'second')).status, 200);
  assert.equal(await get(three.url, 'b'), 'second');
  for (const { child } of [one, two, three]) {
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'exit'), [0, null]);
  }
});
