/** Real handshakes: what a stranger with the means of TLS may try at a host's port on this machine. */
import assert from 'node:assert/strict';
import { connect as dialPlain, createServer, type Socket as NetSocket } from 'node:net';
import { after, before, test } from 'node:test';
import { connect as dialTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { createNodeEnv } from '../../src/env/node/index.ts';
import { splitAltNames } from '../../src/env/node/certificate.ts';
import { decodeHello } from '../../src/transport/hello.ts';
import { hostUri, roleOf } from '../../src/transport/identity.ts';
import { TransportSecurity, type TlsFiles } from '../../src/transport/security.ts';
import { createTcpTransport } from '../../src/transport/tcp.ts';
import type { HostIdentity } from '../../src/transport/transport.ts';
import { Authority, type Request } from '../certificates.ts';
import { TestHost, frame, identityOf } from './compliance.ts';
import { helloOf } from './secured.ts';

const env = createNodeEnv();
const A = '127.0.0.1:23001';
const B = '127.0.0.1:23002';
const C = '127.0.0.1:23003';
const PORT = 23002;
const identities: Readonly<Record<string, HostIdentity>> = {
  [A]: identityOf('a', { raftAddress: A }),
  [B]: identityOf('b', { raftAddress: B }),
  [C]: identityOf('c', { raftAddress: C }),
};
const HONEST: Request = { ip: ['127.0.0.1'], uri: [roleOf(1)] };

let authority: Authority;
let other: Authority;
let b: TestHost;
let securityOfB: TransportSecurity;
const open = new Set<TestHost>();

/** Waits for something that sockets bring about; fails after 20 seconds. */
async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 20_000; !condition(); ) {
    assert.ok(performance.now() < end, `in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function start(address: string, files: TlsFiles): Promise<[TestHost, TransportSecurity]> {
  const security = await TransportSecurity.open(env, files, 1);
  const host = new TestHost((context) => createTcpTransport({ ...context, security }), env, identities[address]);
  await host.transport.start(host);
  open.add(host);
  return [host, security];
}

const stop = async (host: TestHost): Promise<void> => {
  open.delete(host);
  await host.transport.close();
};

before(async () => {
  authority = await Authority.make('authority');
  other = await Authority.make('other');
  [b, securityOfB] = await start(B, { ca: authority.ca, ...(await authority.issue(HONEST)) });
});

after(async () => {
  for (const host of open) await host.transport.close();
});

const refused = (reason: string): number => b.transport.counters.refused.get(reason) ?? 0;

interface Outcome {
  /** Of the answer to the HELLO, if one came. */
  readonly status: number | undefined;
  readonly error: NodeJS.ErrnoException | undefined;
}

/** Waits for an answer to the HELLO, or for the end. */
function outcome(socket: NetSocket): Promise<Outcome> {
  return new Promise((resolve) => {
    let error: NodeJS.ErrnoException | undefined;
    socket.on('error', (why) => (error = why));
    socket.on('close', () => resolve({ status: undefined, error }));
    socket.on('data', (chunk: Buffer) => {
      const bytes = new Uint8Array(chunk); // at the start of a buffer of its own
      const { status } = decodeHello(bytes, new Uint32Array(bytes.buffer), 0, bytes.length);
      resolve({ status, error });
      socket.destroy();
    });
  });
}

function attack(
  options: ConnectionOptions,
  identity: HostIdentity,
  bytes?: Uint8Array,
): { socket: TLSSocket; ends: Promise<Outcome> } {
  const socket = dialTls({
    host: '127.0.0.1',
    port: PORT,
    ca: authority.ca,
    checkServerIdentity: () => undefined,
    ...options,
  });
  socket.on('secureConnect', () => socket.write(bytes ?? helloOf(identity, B)));
  return { socket, ends: outcome(socket) };
}

test('an honest host is let in: TLS 1.3, its frames arrive, its snapshot is taken', async () => {
  const { status } = await attack(await authority.issue(HONEST), identities[A]).ends;
  assert.equal(status, 0);
  const [a] = await start(A, { ca: authority.ca, ...(await authority.issue(HONEST)) });
  const toB = a.transport.peer(B);
  await until(() => toB.connected, 'a connection');
  const slab = frame(5, 300_000);
  toB.send(slab, 0, slab.usedBytes);
  await until(() => b.tags.includes(5), 'a frame');
  const image = (async function* (): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 20; i++) yield new Uint8Array(200_000).fill(i);
  })();
  const header = { shardId: 1, from: 1, to: 2, term: 3, index: 40, indexTerm: 2, imageBytes: 4_000_000 };
  await a.transport.sendSnapshot(B, header, image, new AbortController().signal);
  assert.equal(b.snapshots[0].bytes.length, 4_000_000);
  await stop(a);
});

const identityStrangers: [what: string, reason: string, request: Request][] = [
  ['of another host', 'certificate-address', { ip: ['127.0.0.9'], dns: ['127.0.0.1'], uri: [roleOf(1)] }],
  ['with the address among the URIs only', 'certificate-address', { uri: [roleOf(1), 'https://127.0.0.1'] }],
  ['of another host id', 'certificate-host', { ...HONEST, uri: [roleOf(1), hostUri('0'.repeat(32))] }],
  ['without the role', 'certificate-role', { ip: ['127.0.0.1'], dns: ['web.example'] }],
  ['of another deployment', 'certificate-role', { ip: ['127.0.0.1'], uri: [roleOf(2)] }],
  ['that hides the role in a URI', 'certificate-role', { ip: ['127.0.0.1'], uri: [`https://x/, URI:${roleOf(1)}`] }],
];

for (const [what, reason, request] of identityStrangers) {
  test(`a certificate of our authority ${what} is refused`, async () => {
    const count = refused(reason);
    const { status } = await attack(await authority.issue(request), identities[A]).ends;
    assert.ok(status === undefined || status === 5, `the answer was ${status}`);
    assert.equal(refused(reason), count + 1);
  });
}

const handshakes: [what: string, options: () => Promise<ConnectionOptions>][] = [
  ['of another authority', () => other.issue(HONEST)],
  ['that has expired', () => authority.issue({ ...HONEST, validToMs: -1000 })],
  ['that is not valid yet', () => authority.issue({ ...HONEST, validFromMs: 3_600_000 })],
  ['for servers only', () => authority.issue({ ...HONEST, usages: ['server'] })],
  ['that is missing', async () => ({})],
];

for (const [what, options] of handshakes) {
  test(`a certificate ${what} ends the handshake`, async () => {
    const count = refused('handshake');
    const { status, error } = await attack(await options(), identities[A]).ends;
    assert.equal(status, undefined);
    await until(() => refused('handshake') === count + 1, `a handshake that failed (${error?.message})`);
  });
}

test('TLS 1.2 is refused', async () => {
  const count = refused('handshake');
  const issued = await authority.issue(HONEST);
  const { error } = await attack({ ...issued, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' }, identities[A]).ends;
  assert.match(String(error?.code), /PROTOCOL_VERSION/);
  await until(() => refused('handshake') === count + 1, 'a handshake that failed');
});

test('a plain HELLO at a secured port is refused', async () => {
  const count = refused('handshake');
  const socket = dialPlain({ host: '127.0.0.1', port: PORT });
  socket.on('connect', () => socket.write(helloOf(identities[A], B)));
  assert.equal((await outcome(socket)).status, undefined);
  await until(() => refused('handshake') === count + 1, 'a handshake that failed');
});

test('no session is resumed', async () => {
  const issued = await authority.issue(HONEST);
  const tickets: Buffer[] = [];
  const first = attack(issued, identities[A]);
  first.socket.on('session', (ticket) => tickets.push(ticket));
  assert.equal((await first.ends).status, 0);
  const kept = first.socket.getSession();
  for (const session of [...tickets, ...(kept === undefined ? [] : [kept])]) {
    const again = attack({ ...issued, session }, identities[A]);
    let isReused: boolean | undefined;
    again.socket.on('secureConnect', () => (isReused = again.socket.isSessionReused()));
    await again.ends;
    assert.equal(isReused, false);
  }
  // Nor with nothing but a ticket: whoever stole one has no key.
  if (kept !== undefined) assert.equal((await attack({ session: kept }, identities[A]).ends).status, undefined);
});

test('a huge or garbled HELLO after a good handshake ends the connection', async () => {
  const issued = await authority.issue(HONEST);
  const garbled = helloOf(identities[A], B);
  garbled[40] ^= 1;
  const huge = new Uint8Array(Uint32Array.of(1 << 30, 0, 0, 0).buffer);
  for (const bytes of [huge, garbled, Buffer.from('GET / HTTP/1.1\r\n\r\n')]) {
    const count = refused('bad-hello');
    assert.equal((await attack(issued, identities[A], bytes).ends).status, undefined);
    assert.equal(refused('bad-hello'), count + 1);
  }
});

test('whoever stands still before, in or after the handshake is ended in seconds', async () => {
  const issued = await authority.issue(HONEST);
  const silent = dialPlain({ host: '127.0.0.1', port: PORT });
  const begun = dialPlain({ host: '127.0.0.1', port: PORT });
  begun.on('connect', () => begun.write(Uint8Array.of(22, 3, 1, 1, 0, 1, 0)));
  const half = attack(issued, identities[A], helloOf(identities[A], B).subarray(0, 30));
  const trickle = attack(issued, identities[A], new Uint8Array(0));
  const hello = helloOf(identities[A], B);
  let at = 0;
  const drip = setInterval(() => trickle.socket.write(hello.subarray(at, ++at)), 200);
  const all = await Promise.all([outcome(silent), outcome(begun), half.ends, trickle.ends]);
  clearInterval(drip);
  assert.deepEqual(
    all.map(({ status }) => status),
    [undefined, undefined, undefined, undefined],
  );
  assert.equal(refused('handshake-timeout'), 2);
  assert.equal(refused('hello-timeout'), 2);
});

test('a flood of handshakes is bounded, costs no slab, and keeps out no host', async () => {
  const sockets = Array.from({ length: 400 }, () => {
    const socket = dialPlain({ host: '127.0.0.1', port: PORT });
    socket.on('error', () => {});
    socket.on('connect', () => socket.write(Uint8Array.of(22, 3, 1, 1, 0)));
    return socket;
  });
  await until(() => refused('limit') === 400 - 64, 'the limit');
  const [a] = await start(A, { ca: authority.ca, ...(await authority.issue(HONEST)) });
  const toB = a.transport.peer(B);
  await until(() => toB.connected, 'a connection in the middle of a flood');
  for (const socket of sockets) socket.destroy();
  await stop(a);
});

test('who dials an impostor tells it nothing', async () => {
  let bytes = 0;
  for (const request of [
    { ...HONEST, ip: ['127.0.0.9'] },
    { ...HONEST, uri: [] },
  ]) {
    const [impostor] = await start(C, { ca: authority.ca, ...(await authority.issue(request)) });
    const [a] = await start(A, { ca: authority.ca, ...(await authority.issue(HONEST)) });
    const toC = a.transport.peer(C);
    await until(() => a.transport.counters.connectionsFailed >= 2, 'two refusals');
    assert.equal(toC.connected, false);
    bytes += impostor.transport.counters.bytesReceived;
    await stop(a);
    await stop(impostor);
  }
  // One that only listens, and never ends its handshake, is given up.
  const mute = createServer(() => {}).listen(23004, '127.0.0.1');
  const [a] = await start(A, { ca: authority.ca, ...(await authority.issue(HONEST)) });
  a.transport.peer('127.0.0.1:23004');
  await until(() => a.transport.counters.connectionsFailed === 1, 'the end of a dial');
  mute.close();
  await stop(a);
  assert.equal(bytes, 0);
});

test('connections are replaced while they are used: every frame arrives once, in order', async () => {
  const [a, security] = await start(A, { ca: authority.ca, ...(await authority.issue(HONEST)) });
  const toB = a.transport.peer(B);
  await until(() => toB.connected, 'a connection');
  const from = b.tags.length;
  const filler = frame(0, 20_000);
  const sent: number[] = [];
  for (let connections = 2; connections <= 5; connections++) {
    await security.reload();
    while (a.transport.counters.connectionsUp < connections) {
      const small = frame(1_000_000 + sent.length);
      assert.equal(toB.send(small, 0, small.usedBytes), true);
      sent.push(1_000_000 + sent.length);
      if (toB.queuedBytes < 8_000_000) toB.send(filler, 0, filler.usedBytes);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  await until(() => b.tags.includes(sent.at(-1)!), 'the last frame');
  const arrived = b.tags.slice(from).filter((tag) => tag !== 0);
  assert.deepEqual(a.down, []);
  assert.equal(
    arrived.findIndex((tag, at) => tag !== sent[at]),
    -1,
  );
  assert.equal(arrived.length, sent.length);
  await stop(a);
});

test('a revoked certificate, and those of an authority that is no longer trusted, are refused from the reload on', async () => {
  const revoked = await authority.issue(HONEST);
  assert.equal((await attack(revoked, identities[A]).ends).status, 0);
  await securityOfB.reload({ crl: await authority.revoke(revoked.cert) });
  assert.equal((await attack(revoked, identities[A]).ends).status, undefined);
  assert.equal((await attack(await authority.issue(HONEST), identities[A]).ends).status, 0);
  await securityOfB.reload({ ca: other.ca, ...(await other.issue(HONEST)), crl: await other.revoke() });
  assert.equal(
    (await attack({ ...(await authority.issue(HONEST)), ca: other.ca }, identities[A]).ends).status,
    undefined,
  );
  assert.equal((await attack({ ...(await other.issue(HONEST)), ca: other.ca }, identities[A]).ends).status, 0);
  assert.equal(
    (await attack({ ...(await other.issue(HONEST)), ca: other.ca, maxVersion: 'TLSv1.2' }, identities[A]).ends).status,
    undefined,
  );
});

test('names of certificates are never taken for others', () => {
  assert.deepEqual(splitAltNames('DNS:a, IP Address:1.2.3.4, URI:x://y'), [
    ['DNS', 'a'],
    ['IP Address', '1.2.3.4'],
    ['URI', 'x://y'],
  ]);
  assert.deepEqual(splitAltNames('URI:"https://x/, DNS:victim", DNS:a'), [
    ['URI', 'https://x/, DNS:victim'],
    ['DNS', 'a'],
  ]);
  assert.deepEqual(splitAltNames('DNS:a"b, DNS:c'), []);
});
