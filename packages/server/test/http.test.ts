/** The HTTP face of one host: routes, conditions, limits, and bad input. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { readOptions } from '../src/options.ts';
import { startServer, type RunningServer } from '../src/server.ts';
import { Store } from '../src/store.ts';

const RAFT = '127.0.0.1:17431';
const root = mkdtempSync(join(tmpdir(), 'drakkar-http-'));
let server: RunningServer;

before(async () => {
  const flags = ['--dir', join(root, 'host'), '--replica-id', '1', '--peers', `1=${RAFT}`, '--http', '127.0.0.1:0'];
  server = await startServer(readOptions([...flags, '--election-rtt', '11', '--admin']), pino({ level: 'silent' }));
  for (let shardId = 1; shardId <= 4; shardId++) await server.host.whenReady(shardId, { timeoutMs: 30_000 });
});

after(async () => {
  await server.close();
  rmSync(root, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

async function call(
  method: string,
  path: string,
  body?: string | Uint8Array,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const init: RequestInit = { method, headers };
  if (body !== undefined) init.body = body as NonNullable<RequestInit['body']>;
  const response = await fetch(server.url + path, init);
  const text = await response.text();
  const isJson = response.headers.get('content-type') === 'application/json' && text !== '';
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: isJson ? (JSON.parse(text) as Record<string, unknown>) : {},
  };
}

test('a value is put, read, listed and deleted', async () => {
  const put = await call('PUT', '/kv/fruit/apple', 'red');
  assert.equal(put.status, 200);
  assert.equal(put.json.key, 'fruit/apple');
  const got = await call('GET', '/kv/fruit/apple');
  assert.deepEqual([got.status, got.text], [200, 'red']);
  assert.equal(got.headers.get('etag'), `"${String(put.json.version)}"`);
  assert.equal((await call('GET', '/kv/fruit/apple?stale=true')).text, 'red');
  await call('PUT', '/kv/fruit/pear', 'green');
  await call('PUT', '/kv/other', 'x');
  const list = await call('GET', '/kv?prefix=fruit/');
  const entries = list.json.entries as { key: string; value: string }[];
  assert.deepEqual(
    entries.map(({ key, value }) => [key, value]),
    [
      ['fruit/apple', 'red'],
      ['fruit/pear', 'green'],
    ],
  );
  assert.equal((await call('DELETE', '/kv/fruit/apple')).status, 200);
  assert.equal((await call('GET', '/kv/fruit/apple')).status, 404);
  assert.equal((await call('DELETE', '/kv/fruit/apple')).status, 404);
});

test('keys and values of any bytes, names as they are', async () => {
  for (const key of ['späße/✓', 'a b&c=d?e#f', '..', '%', '__proto__']) {
    const path = `/kv/x-${encodeURIComponent(key)}`;
    assert.equal((await call('PUT', path, key)).json.key, `x-${key}`);
    assert.equal((await call('GET', path)).text, key);
  }
  const binary = Uint8Array.from({ length: 256 }, (_, i) => i);
  await call('PUT', '/kv/binary', binary);
  const response = await fetch(`${server.url}/kv/binary`);
  assert.deepEqual(new Uint8Array(await response.arrayBuffer()), binary);
  const [entry] = (await call('GET', '/kv?prefix=binary')).json.entries as { valueBase64: string }[];
  assert.equal(entry.valueBase64, Buffer.from(binary).toString('base64'));
  await call('PUT', '/kv/empty', '');
  assert.deepEqual([(await call('GET', '/kv/empty')).status, (await call('GET', '/kv/empty')).text], [200, '']);
});

test('compare-and-swap: of many at once exactly one wins', async () => {
  const first = await call('PUT', '/kv/lock', 'me', { 'if-none-match': '*' });
  assert.equal(first.status, 200);
  const second = await call('PUT', '/kv/lock', 'you', { 'if-none-match': '*' });
  assert.equal(second.status, 412);
  assert.equal(second.json.version, first.json.version);
  const version = String(first.json.version);
  const tries = await Promise.all(
    Array.from({ length: 20 }, (_, i) => call('PUT', '/kv/lock', `try ${i}`, { 'if-match': `"${version}"` })),
  );
  const winners = tries.filter(({ status }) => status === 200);
  assert.equal(winners.length, 1);
  assert.ok(tries.every(({ status }) => status === 200 || status === 412));
  assert.equal((await call('DELETE', '/kv/lock', undefined, { 'if-match': version })).status, 412);
  const now = String(winners[0].json.version);
  assert.equal((await call('DELETE', '/kv/lock', undefined, { 'if-match': now })).status, 200);
});

test('a listing is cut at its limit and goes on behind the last key', async () => {
  for (let i = 0; i < 25; i++) await call('PUT', `/kv/page/${String(i).padStart(2, '0')}`, String(i));
  const keys: string[] = [];
  let next = '';
  for (let page = 0; page < 10; page++) {
    const { json } = await call('GET', `/kv?prefix=page/&limit=10&after=${encodeURIComponent(next)}`);
    keys.push(...(json.entries as { key: string }[]).map(({ key }) => key));
    if (json.next === undefined) break;
    next = json.next as string;
  }
  assert.deepEqual(
    keys,
    Array.from({ length: 25 }, (_, i) => `page/${String(i).padStart(2, '0')}`),
  );
});

test('status, health and metrics', async () => {
  const status = await call('GET', '/status');
  const shards = status.json.shards as { leaderId: number; digest: { hash: number } }[];
  assert.equal(shards.length, 4);
  assert.ok(shards.every(({ leaderId, digest }) => leaderId === 1 && typeof digest.hash === 'number'));
  assert.deepEqual((await call('GET', '/healthz')).json, { healthy: true, problems: [] });
  const id = 4;
  await server.host.stopReplica(id);
  const unhealthy = await call('GET', '/healthz');
  assert.equal(unhealthy.status, 503);
  assert.match(unhealthy.text, /1 of 4 shards have no replica here/);
  await server.host.startReplica({ shardId: id, replicaId: 1, electionRtt: 11 }, () => new Store());
  await server.host.whenReady(id, { timeoutMs: 30_000 });
  const metrics = await call('GET', '/metrics');
  assert.match(metrics.text, /^drakkar_raft_leader\{shard="1",replica="1"\} 1$/m);
  assert.match(metrics.text, /^drakkar_http_requests_total \d+$/m);
});

test('members come and go, with what was asked for', async () => {
  const added = await call('POST', '/members?action=add&shard=2&replica=9&address=127.0.0.1:17432&role=non-voting');
  assert.equal(added.status, 200, added.text);
  const membership = (): Record<string, unknown> =>
    server.host.shardInfo(2).membership as unknown as Record<string, unknown>;
  assert.deepEqual(membership()['nonVotings'], { 9: '127.0.0.1:17432' });
  assert.equal(membership()['configChangeIndex'], added.json.configChangeIndex);
  const early = await call('POST', '/members?action=promote&shard=2&replica=9');
  assert.deepEqual([early.status, early.json.code, early.json.retryable], [503, 'ERR_CONFIG_CHANGE_PENDING', true]);
  const removed = await call('POST', '/members?action=remove&shard=2&replica=9');
  assert.equal(removed.status, 200, removed.text);
  assert.deepEqual([membership()['nonVotings'], membership()['removed']], [{}, [9]]);
});

test('the format that is enabled is told, and the end of an upgrade is asked for', async () => {
  const { json } = await call('GET', '/status');
  assert.deepEqual(json.formats, { oldest: 1, newest: 1, enabled: 1, written: 1 });
  const ended = await call('POST', '/format');
  assert.deepEqual([ended.status, ended.json], [200, json.formats], ended.text);
});

const bad: [
  what: string,
  method: string,
  path: string,
  headers: Record<string, string>,
  status: number,
  code: string,
][] = [
  ['another route', 'GET', '/nothing', {}, 404, 'ERR_ROUTE'],
  ['another method', 'POST', '/kv/a', {}, 405, 'ERR_METHOD'],
  ['a method for another route', 'PUT', '/status', {}, 405, 'ERR_METHOD'],
  ['no key', 'GET', '/kv/', {}, 400, 'ERR_KEY'],
  ['a malformed key', 'GET', '/kv/%zz', {}, 400, 'ERR_KEY'],
  ['a long key', 'GET', `/kv/${'k'.repeat(5000)}`, {}, 413, 'ERR_KEY'],
  ['a limit of zero', 'GET', '/kv?limit=0', {}, 400, 'ERR_PARAMETER'],
  ['a limit too large', 'GET', '/kv?limit=100000', {}, 400, 'ERR_PARAMETER'],
  ['a word for a deadline', 'GET', '/kv/a?timeoutMs=soon', {}, 400, 'ERR_PARAMETER'],
  ['a malformed condition', 'DELETE', '/kv/a', { 'if-match': 'W/"x"' }, 400, 'ERR_CONDITION'],
  ['another method for members', 'GET', '/members?action=remove&shard=1&replica=9', {}, 405, 'ERR_METHOD'],
  ['no action for members', 'POST', '/members?shard=1&replica=9', {}, 400, 'ERR_PARAMETER'],
  ['no shard for members', 'POST', '/members?action=remove&replica=9', {}, 400, 'ERR_PARAMETER'],
  ['no replica for members', 'POST', '/members?action=remove&shard=1', {}, 400, 'ERR_PARAMETER'],
  ['a member without an address', 'POST', '/members?action=add&shard=1&replica=9', {}, 400, 'ERR_INVALID_OPTION'],
  [
    'the removal of the only voter',
    'POST',
    '/members?action=remove&shard=1&replica=1',
    {},
    503,
    'ERR_CONFIG_CHANGE_REFUSED',
  ],
  ['two conditions', 'DELETE', '/kv/a', { 'if-match': '1', 'if-none-match': '*' }, 400, 'ERR_CONDITION'],
];

for (const [what, method, path, headers, status, code] of bad) {
  test(`${what} is answered with ${status} ${code}`, async () => {
    const answer = await call(method, path, undefined, headers);
    assert.deepEqual([answer.status, answer.json.code], [status, code], answer.text);
  });
}

test('a value beyond the bound is refused, announced or not', async () => {
  const large = new Uint8Array(1024 * 1024 + 1);
  assert.equal((await call('PUT', '/kv/large', large)).status, 413);
  const stream = new Blob([large]).stream();
  const response = await fetch(`${server.url}/kv/large`, {
    method: 'PUT',
    body: stream,
    duplex: 'half',
  });
  assert.equal(response.status, 413);
  assert.equal((await call('GET', '/kv/large')).status, 404);
});

test('bytes that are no HTTP end their connection only', async () => {
  const { port } = new URL(server.url);
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect(Number(port), '127.0.0.1', () => socket.write('\x00\x01garbage\r\n\r\n'));
    let received = '';
    socket.on('data', (chunk) => (received += String(chunk)));
    socket.on('close', () => resolve(received));
    socket.on('error', reject);
  });
  assert.match(answer, /^HTTP\/1\.1 400 /);
  assert.equal((await call('GET', '/healthz')).status, 200);
});
