/** The fast lane answers what the HTTP server would, in order, and gives it what it does not understand. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Entry } from 'drakkar';
import fc from 'fast-check';
import { pino } from 'pino';
import { Operation, encodeCommand } from '../src/commands.ts';
import { createHttpServer } from '../src/http.ts';
import { ShardedStore } from '../src/kv.ts';
import { readOptions } from '../src/options.ts';
import { readHead } from '../src/request-head.ts';
import { startServer, type RunningServer } from '../src/server.ts';
import { Store } from '../src/store.ts';

const SHARDS = 4;
const RAFT = '127.0.0.1:17432';
const root = mkdtempSync(join(tmpdir(), 'drakkar-lane-'));
const logger = pino({ level: 'silent' });
let server: RunningServer;
/** The same store without the fast lane. */
let plain: Server;

before(async () => {
  const flags = ['--dir', join(root, 'host'), '--replica-id', '1', '--peers', `1=${RAFT}`, '--http', '127.0.0.1:0'];
  server = await startServer(readOptions([...flags, '--shards', String(SHARDS), '--election-rtt', '11']), logger);
  for (let shardId = 1; shardId <= SHARDS; shardId++) await server.host.whenReady(shardId, { timeoutMs: 30_000 });
  const store = new ShardedStore(server.host, SHARDS);
  plain = createHttpServer({ host: server.host, store, logger, counters: { requests: 0, errors: 0 } });
  plain.listen(0, '127.0.0.1');
  await once(plain, 'listening');
  for (const key of ['there', 'a/b']) await store.put(key, Buffer.from(`value of ${key} \xff`), { leftMs: () => 5000 });
});

after(async () => {
  plain.closeAllConnections();
  plain.close();
  await server.close();
  rmSync(root, { recursive: true });
});

const laneAt = (): number => Number(new URL(server.url).port);
const plainAt = (): number => (plain.address() as AddressInfo).port;

async function open(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.setNoDelay(true);
  await once(socket, 'connect');
  return socket;
}

interface Answer {
  readonly head: string;
  readonly body: string;
}

/** Cuts answers of known length out of the bytes of a connection. */
function cut(text: string): Answer[] {
  const answers: Answer[] = [];
  for (let at = 0; ; ) {
    const end = text.indexOf('\r\n\r\n', at);
    if (end < 0) return answers;
    const head = text.slice(at, end);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    if (text.length < end + 4 + length) return answers;
    answers.push({ head, body: text.slice(end + 4, end + 4 + length) });
    at = end + 4 + length;
  }
}

/** Sends `pieces` one by one, and waits for `count` answers, or for the end of the connection. */
async function converse(port: number, pieces: readonly string[], count: number): Promise<Answer[]> {
  const socket = await open(port);
  let text = '';
  const done = new Promise<void>((resolve, reject) => {
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (cut(text).length >= count) resolve();
    });
    socket.on('end', resolve);
    socket.on('error', reject);
  });
  for (const piece of pieces) {
    socket.write(piece, 'latin1');
    await new Promise((resolve) => setImmediate(resolve));
  }
  await done;
  socket.destroy();
  return cut(text);
}

/** What does not depend on when it was answered. */
const essence = ({ head, body }: Answer): string =>
  [
    head.split('\r\n')[0],
    /content-type: (.*)/i.exec(head)?.[1],
    /etag/i.test(head),
    body.replace(/"version":\d+/, 'a version'),
  ].join(' | ');

function pieces(text: string, cuts: readonly number[]): string[] {
  const places = [0, ...cuts.map((at) => at % text.length).sort((a, b) => a - b), text.length];
  return places.slice(1).map((end, i) => text.slice(places[i], end));
}

const HOST = 'Host: h\r\n';
const put = (key: string, body: string, fields = ''): string =>
  `PUT /kv/${key} HTTP/1.1\r\n${HOST}${fields}Content-Length: ${body.length}\r\n\r\n${body}`;
const get = (key: string, fields = ''): string => `GET /kv/${key} HTTP/1.1\r\n${HOST}${fields}\r\n`;

/** Answered by the lane. */
const SIMPLE = [
  put('one', 'x'.repeat(300)),
  put('two', ''),
  put("it's(an)odd~key;@1,2", 'x', 'content-type: text/plain\r\nUser-Agent: me (here); 1.0\r\n'),
  put('crlf', 'GET /kv/there HTTP/1.1\r\n\r\n'),
  get('there', 'Accept: */*\r\naccept-encoding: gzip, br\r\nConnection: keep-alive\r\n'),
  get('a/b'),
  get('missing'),
  `DELETE /kv/missing HTTP/1.1\r\n${HOST}\r\n`,
];
/** And these, which end its part. */
const ODD = [
  get('there?stale=true'),
  get('a%2Fb'),
  get('x/../there'),
  get('there', 'X-More: 1\r\n'),
  put('chunked', '', 'Transfer-Encoding: chunked\r\n').replace(/Content-Length.*\r\n\r\n/, '\r\n1\r\nx\r\n0\r\n\r\n'),
  put('cond', 'x', 'If-None-Match: "1"\r\n'),
  `GET /healthz HTTP/1.1\r\n${HOST}\r\n`,
  `GET /nowhere HTTP/1.1\r\n${HOST}\r\n`,
  put('large', 'y'.repeat(70_000)),
  get('k'.repeat(2000)),
];

test('any sequence of requests, however cut, is answered as the HTTP server does', async () => {
  const requests = fc.array(fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...SIMPLE) }, fc.constantFrom(...ODD)), {
    minLength: 1,
    maxLength: 12,
  });
  await fc.assert(
    fc.asyncProperty(requests, fc.array(fc.nat(), { maxLength: 6 }), async (each, cuts) => {
      const parts = pieces(each.join(''), cuts);
      const [fast, slow] = await Promise.all([
        converse(laneAt(), parts, each.length),
        converse(plainAt(), parts, each.length),
      ]);
      assert.equal(slow.length, each.length);
      assert.deepEqual(fast.map(essence), slow.map(essence));
    }),
    { numRuns: 60 },
  );
});

test('a request that comes byte by byte', async () => {
  const text = put('slowly', 'abc') + get('there');
  const answers = await converse(laneAt(), text.split(''), 2);
  assert.match(answers[0].body, /"key":"slowly"/);
  assert.match(answers[1].body, /^value of there/);
});

test('far more requests at once than may wait', async () => {
  const count = 5000;
  const all = Array.from({ length: count }, (_, i) => put(`many-${i}`, String(i))).join('');
  const answers = await converse(laneAt(), [all], count);
  assert.deepEqual(
    answers.map(({ body }) => /"key":"many-(\d+)"/.exec(body)?.[1]),
    Array.from({ length: count }, (_, i) => String(i)),
  );
});

test('what is asked before an end is answered, and then the connection ends', async () => {
  const socket = await open(laneAt());
  socket.end(put('last', 'x') + get('there'));
  let text = '';
  for await (const chunk of socket) text += (chunk as Buffer).toString('latin1');
  assert.equal(cut(text).length, 2);
  const closing = await converse(laneAt(), [get('there', 'Connection: close\r\n')], 2);
  assert.equal(closing.length, 1);
});

const REFUSED: readonly [what: string, text: string][] = [
  ['no host', 'GET /kv/a HTTP/1.1\r\n'],
  ['two hosts', `GET /kv/a HTTP/1.1\r\n${HOST}${HOST}`],
  ['a put without a length', `PUT /kv/a HTTP/1.1\r\n${HOST}`],
  ['a get with one', `GET /kv/a HTTP/1.1\r\n${HOST}content-length: 3\r\n`],
  ['two lengths', `PUT /kv/a HTTP/1.1\r\n${HOST}content-length: 3\r\ncontent-length: 3\r\n`],
  ['a list of lengths', `PUT /kv/a HTTP/1.1\r\n${HOST}content-length: 3, 3\r\n`],
  ['a signed length', `PUT /kv/a HTTP/1.1\r\n${HOST}content-length: +3\r\n`],
  ['chunks', `PUT /kv/a HTTP/1.1\r\n${HOST}content-length: 3\r\ntransfer-encoding: chunked\r\n`],
  ['an expectation', `PUT /kv/a HTTP/1.1\r\n${HOST}content-length: 3\r\nexpect: 100-continue\r\n`],
  ['an upgrade', `GET /kv/a HTTP/1.1\r\n${HOST}connection: upgrade\r\n`],
  ['a space before the colon', `PUT /kv/a HTTP/1.1\r\n${HOST}content-length : 3\r\n`],
  ['a folded line', `GET /kv/a HTTP/1.1\r\n${HOST}accept: a\r\n b\r\n`],
  ['a bare line feed', `GET /kv/a HTTP/1.1\n${HOST}`],
  ['a bare line feed among the fields', `GET /kv/a HTTP/1.1\r\nhost: h\naccept: a\r\n`],
  ['a control character', `GET /kv/a HTTP/1.1\r\n${HOST}accept: a\x00b\r\n`],
  ['another version', `GET /kv/a HTTP/1.0\r\n${HOST}`],
  ['another method', `HEAD /kv/a HTTP/1.1\r\n${HOST}`],
  ['no key', `GET /kv/ HTTP/1.1\r\n${HOST}`],
  ['a query', `GET /kv/a?b HTTP/1.1\r\n${HOST}`],
  ['an escape', `GET /kv/%61 HTTP/1.1\r\n${HOST}`],
  ['a segment of dots', `GET /kv/.. HTTP/1.1\r\n${HOST}`],
  ['a segment of a dot', `GET /kv/a/./b HTTP/1.1\r\n${HOST}`],
  ['a quote', `GET /kv/a"b HTTP/1.1\r\n${HOST}`],
  ['a backslash', `GET /kv/a\\b HTTP/1.1\r\n${HOST}`],
];

for (const [what, text] of REFUSED) {
  test(`not for the fast lane: ${what}`, () => assert.equal(readHead(text), undefined));
}

test('a head in the fast lane', () => {
  const text = `PUT /kv/a..b/.c HTTP/1.1\r\nhost:h\r\nACCEPT:  *\r\nContent-Length: 12\r\nconnection: Keep-Alive\r\n`;
  assert.deepEqual(readHead(text), { method: 'PUT', key: 'a..b/.c', bodyBytes: 12 });
});

test('a key is the same from the log and from a snapshot', async () => {
  const [from, to] = [new Store(), new Store()];
  const keys = ['\ufeffmark', 'späße', 'plain'];
  const entries = keys.map((key, i) => {
    const bytes = encodeCommand(Operation.Put, key, Buffer.from(key));
    return Object.assign(new Entry(), { index: i + 1, bytes, offset: 0, lengthBytes: bytes.length });
  });
  from.update(entries);
  await to.recoverFromSnapshot(fromIterable(from.saveSnapshot()));
  assert.equal(to.hash(), from.hash());
  for (const key of keys) assert.ok(to.lookup({ kind: 'get', key }) !== undefined);
});

async function* fromIterable(chunks: Iterable<Uint8Array>): AsyncIterable<Uint8Array> {
  yield* chunks;
}
