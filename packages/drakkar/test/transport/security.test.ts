/**
 * Who is let in, for how long, and what strangers may cost: the rules, over the network in memory, whose clock can be moved. Real handshakes
 * are in `tls.test.ts`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SimulatedAuthority, type CertificateRequest } from 'drakkar/testing';
import type { Certificate, Socket } from '../../src/env/env.ts';
import { Admission, addressKey } from '../../src/transport/admission.ts';
import { Purpose } from '../../src/transport/hello.ts';
import { complaintAboutIdentity, complaintAboutTarget, hostUri, provenIdentity } from '../../src/transport/identity.ts';
import { CONNECTIONS_MAX_BEFORE_HELLO, CONNECTIONS_MAX_BEFORE_HELLO_IN_ALL } from '../../src/transport/limits.ts';
import { TestPair, identityOf, type TestHost } from './compliance.ts';
import { ROLE, SecuredPair, helloOf } from './secured.ts';
import { createTcpTransport } from '../../src/transport/tcp.ts';

const refused = (host: TestHost, reason: string): number => host.transport.counters.refused.get(reason) ?? 0;

/** Host b listens; a dials it with the certificate of `request`. */
async function dial(
  request: (honest: CertificateRequest) => CertificateRequest,
  strange: { authority?: boolean } = {},
): Promise<{ connected: boolean; a: TestHost; b: TestHost }> {
  const pair = new SecuredPair();
  const b = await pair.securedHost('hostb');
  const other = new SimulatedAuthority(pair.world, 'other');
  const a = await pair.securedHost('hosta', {
    request: request(pair.requestOf(identityOf('hosta'))),
    ...(strange.authority === true ? { authority: other, tls: { ca: other.ca + pair.authority.ca } } : {}),
  });
  const toB = a.transport.peer('hostb:7000');
  await pair.world.run(3000);
  pair.send(toB, 1);
  await pair.world.run(100);
  assert.deepEqual(b.tags, toB.connected ? [1] : []);
  return { connected: toB.connected, a, b };
}

test('a host with its own certificate is let in', async () => {
  assert.equal((await dial((honest) => honest)).connected, true);
});

const strangers: [
  what: string,
  reason: string,
  request: (honest: CertificateRequest) => CertificateRequest,
  strange?: { authority: boolean },
][] = [
  ['of another authority', 'handshake', (honest) => honest, { authority: true }],
  ['of another host', 'certificate-address', () => ({ dnsNames: ['hostc'], uris: [ROLE] })],
  ['of a wildcard', 'certificate-address', () => ({ dnsNames: ['*', 'host*'], uris: [ROLE] })],
  ['of another host id', 'certificate-host', () => ({ dnsNames: ['hosta'], uris: [ROLE, hostUri('f'.repeat(32))] })],
  ['without the role', 'certificate-role', ({ dnsNames = [] }) => ({ dnsNames, uris: ['test://web', `${ROLE}/x`] })],
  ['whose role stands among its DNS names', 'certificate-role', () => ({ dnsNames: ['hosta', ROLE] })],
];

for (const [what, reason, request, strange] of strangers) {
  test(`a certificate ${what} is refused, and counted as ${reason}`, async () => {
    const { connected, b } = await dial(request, strange);
    assert.equal(connected, false);
    assert.ok(refused(b, reason) > 0, JSON.stringify([...b.transport.counters.refused]));
  });
}

test('who dials tells nothing to a host with the certificate of another, or without the role', async () => {
  for (const request of [{ dnsNames: ['hostc'], uris: [ROLE] }, { dnsNames: ['hostb'] }]) {
    const pair = new SecuredPair();
    const a = await pair.securedHost('hosta');
    const impostor = await pair.securedHost('hostb', { request });
    const toB = a.transport.peer('hostb:7000');
    const chunks = (async function* (): AsyncGenerator<Uint8Array> {})();
    const header = { shardId: 1, from: 1, to: 2, term: 3, index: 40, indexTerm: 2, imageBytes: 0 };
    const never = new AbortController().signal;
    await assert.rejects(pair.world.settle(a.transport.sendSnapshot('hostb:7000', header, chunks, never)));
    await pair.world.run(2000);
    assert.equal(toB.connected, false);
    assert.equal(impostor.transport.counters.bytesReceived, 0, 'a HELLO was said');
  }
});

test('a plain host at a secured one, and a secured at a plain one, end in errors', async () => {
  const pair = new SecuredPair();
  const secured = await pair.securedHost('hosta');
  const plain = await new TestPairOn(pair).host('hostb');
  const toA = plain.transport.peer('hosta:7000');
  const toB = secured.transport.peer('hostb:7000');
  await pair.world.run(2000);
  assert.equal(toA.connected || toB.connected, false);
  assert.ok(refused(secured, 'handshake') > 0);
});

class TestPairOn extends TestPair {
  constructor(other: TestPair) {
    super(createTcpTransport);
    Object.assign(this, { machines: other.machines });
  }
}

test('what a certificate does not prove counts for nothing', () => {
  const certificate: Certificate = {
    dnsNames: ['a'],
    ipAddresses: ['2001:db8::1'],
    uris: [ROLE],
    fingerprint: '',
    validForMs: 1,
  };
  const identity = identityOf('x', { raftAddress: 'A:1' });
  assert.deepEqual(provenIdentity(certificate, identity), { ...identity, hostId: '' });
  const moved = { ...certificate, uris: [ROLE, hostUri(identity.hostId)] };
  assert.deepEqual(provenIdentity(moved, { ...identity, raftAddress: 'b:1' }), { ...identity, raftAddress: '' });
  assert.equal(complaintAboutIdentity(moved, [ROLE], { ...identity, raftAddress: 'b:1' }), undefined);
  assert.equal(complaintAboutTarget(certificate, [ROLE], '[2001:DB8:0:0::1]:7'), undefined);
  assert.equal(complaintAboutTarget(certificate, [ROLE], '[2001:db8::2]:7'), 'certificate-address');
  assert.equal(complaintAboutTarget(certificate, [ROLE], identity.hostId), 'certificate-host');
  assert.equal(complaintAboutTarget(moved, [ROLE], identity.hostId), undefined);
  assert.equal(complaintAboutTarget(undefined, [ROLE], 'a:1'), 'certificate-missing');
  assert.equal(complaintAboutTarget({ ...certificate, uris: [] }, [ROLE], 'a:1'), 'certificate-role');
});

// Ageing.

test('a connection is replaced before it is too old: nothing is lost, repeated or reordered, and nobody is told', async () => {
  const pair = new SecuredPair();
  const tls = { connectionMaxAgeMs: 2000 };
  const a = await pair.securedHost('hosta', { tls });
  const b = await pair.securedHost('hostb', { tls });
  const toB = a.transport.peer('hostb:7000');
  await pair.world.until(() => toB.connected);
  const sent: number[] = [];
  for (let tag = 1; tag <= 4000; tag++) {
    assert.equal(pair.send(toB, tag, tag % 50 === 0 ? 100_000 : 1), true);
    sent.push(tag);
    await pair.world.run(5);
  }
  await pair.world.until(() => b.tags.length >= sent.length);
  assert.deepEqual(b.tags, sent);
  assert.ok(
    a.transport.counters.connectionsUp >= 10,
    `${a.transport.counters.connectionsUp} connections in 20 seconds`,
  );
  assert.deepEqual([a.up, a.down], [['hostb:7000'], []]);
  await pair.world.run(1000);
  assert.equal(b.sessions.length - b.endedSessions, 1, 'old connections were kept');
  assert.deepEqual([...b.transport.counters.refused], []);
});

test('a connection that cannot be replaced in time is ended by both', async () => {
  const pair = new SecuredPair();
  const tls = { connectionMaxAgeMs: 4000 };
  const a = await pair.securedHost('hosta', { tls });
  const b = await pair.securedHost('hostb', { tls });
  const toB = a.transport.peer('hostb:7000');
  await pair.world.until(() => toB.connected);
  // From now on b believes another authority: who is connected stays so no longer than is allowed.
  const other = new SimulatedAuthority(pair.world, 'other');
  await pair.securityOf.get(b)!.reload({ ca: other.ca, ...other.issue(pair.requestOf(identityOf('hostb'))) });
  await pair.world.run(3000);
  assert.equal(toB.connected, true);
  await pair.world.run(2500);
  assert.equal(toB.connected, false);
  assert.deepEqual(a.down, ['hostb:7000']);
});

/** A host of its own making: says HELLO and whatever a test wants, and renews nothing. */
async function session(
  pair: SecuredPair,
  name: string,
  request?: CertificateRequest,
): Promise<{ isClosed: () => boolean; socket: Socket }> {
  const { network } = pair.machines.add(name).boot();
  const identity = identityOf(name);
  const security = network.prepare({
    ca: pair.authority.ca,
    ...pair.authority.issue(request ?? pair.requestOf(identity)),
    crl: undefined,
  });
  let isClosed = false;
  const hello = helloOf(identity, 'hostb:7000', Purpose.Messages);
  const socket = network.connect(
    'hostb:7000',
    { onOpen: () => void socket.write(hello, 0, hello.length), onData() {}, onClose: () => (isClosed = true) },
    security,
  );
  await pair.world.run(50);
  return { isClosed: () => isClosed, socket };
}

test('who does not renew is ended for its age, or when its certificate expires', async () => {
  const pair = new SecuredPair();
  const b = await pair.securedHost('hostb', { tls: { connectionMaxAgeMs: 10_000 } });
  const old = await session(pair, 'hosta');
  const expiring = await session(pair, 'hostc', { ...pair.requestOf(identityOf('hostc')), validForMs: 5000 });
  await pair.world.run(4800);
  assert.deepEqual([old.isClosed(), expiring.isClosed()], [false, false]);
  await pair.world.run(500);
  assert.deepEqual([old.isClosed(), expiring.isClosed()], [false, true]);
  await pair.world.run(8000);
  assert.equal(old.isClosed(), true);
  assert.equal(refused(b, 'aged'), 2);
});

test('a frame that has begun must go on; one that waits for its receiver may wait', async () => {
  const pair = new SecuredPair();
  const b = await pair.securedHost('hostb');
  const slow = await session(pair, 'hosta');
  const honest = await session(pair, 'hostc');
  slow.socket.write(Uint8Array.of(64, 0, 0, 0, 1, 2, 3, 4), 0, 8);
  await pair.world.run(8000);
  assert.equal(slow.isClosed(), false);
  await pair.world.run(15_000);
  assert.deepEqual([slow.isClosed(), honest.isClosed()], [true, false]);
  assert.equal(refused(b, 'stalled'), 1);
});

// New certificates.

test('new certificates: used by new connections, refused when they do not hold, and no peer is lost', async () => {
  const pair = new SecuredPair();
  const b = await pair.securedHost('hostb');
  const identity = identityOf('hosta');
  const issue = () => pair.authority.issue(pair.requestOf(identity));
  const a = await pair.securedHost('hosta', { tls: { connectionMaxAgeMs: 3_600_000 } });
  const toB = a.transport.peer('hostb:7000');
  await pair.world.until(() => toB.connected);
  const security = pair.securityOf.get(a)!;
  const before = security.current.certificate.fingerprint;
  const next = issue();
  await pair.world.settle(security.reload({ cert: next.cert, key: next.key }));
  assert.notEqual(security.current.certificate.fingerprint, before);
  await pair.world.until(() => a.transport.counters.connectionsUp === 2);
  await assert.rejects(pair.world.settle(security.reload({ key: issue().key })), { code: 'ERR_TLS_CONFIG' });
  await assert.rejects(
    pair.world.settle(security.reload(pair.authority.issue({ dnsNames: ['hostb'], uris: [ROLE] }))),
    {
      code: 'ERR_TLS_CONFIG',
    },
  );
  pair.send(toB, 7);
  await pair.world.until(() => b.tags.length === 1);
  assert.deepEqual(a.down, []);
});

test('a revoked host is out at once where that is asked, and stays out', async () => {
  const pair = new SecuredPair();
  const b = await pair.securedHost('hostb');
  const request = pair.requestOf(identityOf('hosta'));
  const issued = pair.authority.issue(request);
  const a = await pair.securedHost('hosta', { tls: issued });
  const toB = a.transport.peer('hostb:7000');
  await pair.world.until(() => toB.connected);
  await pair.world.settle(
    pair.securityOf.get(b)!.reload({ crl: pair.authority.revoke(issued.cert), disconnect: true }),
  );
  await pair.world.run(5000);
  assert.equal(toB.connected, false);
  assert.ok(refused(b, 'handshake') > 0);
});

// Floods.

async function flood(pair: SecuredPair, machines: number, each: number): Promise<void> {
  for (let m = 0; m < machines; m++) {
    const { network } = pair.machines.add(`flood${m}`).boot();
    for (let i = 0; i < each; i++) network.connect('hostb:7000', { onData() {}, onClose() {} });
  }
  await pair.world.run(10);
}

for (const [what, machines, each, limit] of [
  ['from one address', 1, 2000, CONNECTIONS_MAX_BEFORE_HELLO],
  ['from many addresses', 40, 60, CONNECTIONS_MAX_BEFORE_HELLO_IN_ALL],
] as const) {
  test(`a flood ${what} is bounded, and keeps out no host`, async () => {
    const pair = new SecuredPair();
    const b = await pair.securedHost('hostb');
    const a = await pair.securedHost('hosta');
    const toB = a.transport.peer('hostb:7000');
    await pair.world.until(() => toB.connected);
    await flood(pair, machines, each);
    const open = [...pair.machines.network.sockets].filter((socket) => socket.local === 'hostb').length;
    assert.ok(open <= limit + 2, `${open} connections are open`);
    assert.equal(refused(b, 'limit'), machines * each - limit);
    assert.equal(b.pool.pinnedBytes <= 1024 * 1024, true, 'strangers hold slabs');
    const c = await pair.securedHost('hostc');
    const newcomer = c.transport.peer('hostb:7000');
    await pair.world.until(() => newcomer.connected, 1000);
    assert.deepEqual(a.down, []);
    await pair.world.run(6000);
    assert.ok(refused(b, 'handshake-timeout') >= limit - 1); // the newcomer took a place for a moment
  });
}

test('half a HELLO holds no slab', async () => {
  const pair = new SecuredPair();
  const b = await pair.securedHost('hostb');
  const { network } = pair.machines.add('hosta').boot();
  const security = pair.securityOf.get(await pair.securedHost('hostc'))!.current;
  const hello = helloOf(identityOf('hostc'), 'hostb:7000');
  for (let i = 0; i < 40; i++) {
    const socket = network.connect(
      'hostb:7000',
      { onOpen: () => void socket.write(hello, 0, 40), onData() {}, onClose() {} },
      security,
    );
  }
  await pair.world.run(1000);
  assert.equal(b.pool.pinnedBytes, 0);
  await pair.world.run(6000);
  assert.equal(refused(b, 'hello-timeout'), 40);
});

test('places of strangers: never more than the limits, the oldest gives way, whoever leaves makes room', () => {
  const step = fc.record({ address: fc.integer({ min: 0, max: 7 }), leaves: fc.boolean(), which: fc.nat(400) });
  fc.assert(
    fc.property(fc.array(step, { minLength: 200, maxLength: 700 }), (steps) => {
      const model: { id: number; address: number }[] = [];
      const evicted: number[] = [];
      const admission = new Admission<number>((id) => evicted.push(id));
      let expected = 0;
      for (const [id, { address, leaves, which }] of steps.entries()) {
        if (leaves && which % 5 === 0 && model.length > 0) {
          const [gone] = model.splice(which % model.length, 1);
          admission.leave(gone.id);
        }
        const same = model.filter((other) => other.address === address);
        const oldest =
          same.length >= CONNECTIONS_MAX_BEFORE_HELLO
            ? same[0]
            : model.length >= CONNECTIONS_MAX_BEFORE_HELLO_IN_ALL
              ? model[0]
              : undefined;
        if (oldest !== undefined) {
          model.splice(model.indexOf(oldest), 1);
          expected++;
        }
        model.push({ id, address });
        admission.enter(id, `10.0.0.${address}:${id}`);
        assert.equal(evicted.length, expected);
        if (oldest !== undefined) assert.equal(evicted.at(-1), oldest.id);
        assert.equal(admission.count, model.length);
      }
    }),
    { numRuns: 30 },
  );
});

test('an address is one of IPv4, or the first half of one of IPv6, however it is written', () => {
  assert.equal(addressKey('10.0.0.1:5'), '10.0.0.1');
  assert.equal(addressKey('[::ffff:10.0.0.1]:5'), '10.0.0.1');
  assert.equal(addressKey('[2001:db8:0:7::1]:5'), addressKey('[2001:0db8::7:1:2:3:4]:6'));
  assert.notEqual(addressKey('[2001:db8:0:7::1]:5'), addressKey('[2001:db8:0:8::1]:5'));
  assert.equal(addressKey('[fe80::1%eth0]:5'), addressKey('[fe80::2]:5'));
  assert.equal(addressKey('[::1]:5'), '0:0:0:0');
});
