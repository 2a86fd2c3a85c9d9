/** The built-in transports keep the one contract, and what is beyond it: ways to the engines of hosts that have several. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTcpTransport } from 'drakkar';
import { transportCompliance } from 'drakkar/compliance';
import { MemoryHub } from 'drakkar/testing';
import { transportCases } from '../../src/compliance/transport.ts';
import type { SnapshotHeader } from '../../src/transport/transport.ts';
import { TestPair } from './compliance.ts';
import { SecuredPair } from './secured.ts';

const suites = {
  tcp: transportCompliance(createTcpTransport),
  memory: transportCompliance(new MemoryHub().createTransport),
  'tcp with certificates': transportCases(() => new SecuredPair()),
};

for (const [transport, cases] of Object.entries(suites)) {
  for (const { name, run } of cases) test(`${transport}: ${name}`, run);
}

const HEADER: SnapshotHeader = { shardId: 1, from: 1, to: 2, term: 3, index: 40, indexTerm: 2, imageBytes: 0 };

async function* pieces(...sizes: number[]): AsyncGenerator<Uint8Array> {
  for (const size of sizes) yield new Uint8Array(size).fill(size);
}

const pairs: Record<string, () => TestPair> = {
  tcp: () => new TestPair(createTcpTransport),
  memory: () => new TestPair(new MemoryHub().createTransport),
  'tcp with certificates': () => new SecuredPair(),
};

for (const [name, createPair] of Object.entries(pairs)) {
  const never = new AbortController().signal;

  test(`${name}: who dials a host with several engines learns where its shards are, before and after`, async () => {
    const pair = createPair();
    const [b0, b1] = await pair.engines('hostb');
    b0.transport.announce!(1, b1.transport.address, [5]);
    b0.transport.announce!(0, 'hostb:7000', [6]);
    const a = await pair.host('hosta');
    const [toB5, toB6] = [5, 6].map((shardId) => a.transport.peer('hostb:7000', shardId));
    await pair.world.until(() => toB6.connected);
    await pair.world.run(10);
    const moved = a.transport.peer('hostb:7000', 5);
    assert.equal(moved.engine, 1);
    assert.equal(moved.address, 'hostb:7000');
    assert.equal(a.transport.peer('hostb:7000', 6), toB6);
    if (toB5 !== moved)
      assert.ok(a.rerouted.includes('hostb:7000 5'), 'the way to shard 5 changed and nobody was told');
    await pair.world.until(() => moved.connected);
    for (let tag = 1; tag <= 3; tag++) {
      pair.send(moved, tag);
      pair.send(toB6, tag + 10);
    }
    b0.transport.announce!(1, b1.transport.address, [7]);
    await pair.world.until(() => a.rerouted.includes('hostb:7000 7') && b0.tags.length + b1.tags.length === 6);
    assert.deepEqual(
      [b0.tags, b1.tags],
      [
        [11, 12, 13],
        [1, 2, 3],
      ],
    );
    assert.equal(a.transport.peer('hostb:7000', 7), moved);
    // Snapshots go to the engine, too.
    await pair.world.settle(
      a.transport.sendSnapshot('hostb:7000', { ...HEADER, shardId: 5, imageBytes: 9 }, pieces(9), never),
    );
    assert.deepEqual([b0.snapshots.length, b1.snapshots.length], [0, 1]);
  });

  test(`${name}: an engine that is not where it was said to be is not taken for another`, async () => {
    const pair = createPair();
    const [b0] = await pair.engines('hostb');
    // A port that was given to another engine of the same host since.
    b0.transport.announce!(2, b0.transport.address, [5]);
    const a = await pair.host('hosta');
    const toB0 = a.transport.peer('hostb:7000');
    await pair.world.until(() => toB0.connected);
    await pair.world.run(10);
    const moved = a.transport.peer('hostb:7000', 5);
    assert.equal(moved.engine, 2);
    await pair.world.run(2000);
    assert.equal(moved.connected, false);
    assert.equal(toB0.connected, true);
  });

  test(`${name}: two engines of one host dial the same one, and neither replaces the other`, async () => {
    const pair = createPair();
    const engines = await pair.engines('hosta');
    const b = await pair.host('hostb');
    const peers = engines.map(({ transport }) => transport.peer('hostb:7000'));
    await pair.world.until(() => peers.every((peer) => peer.connected));
    await pair.world.run(100);
    for (const [i, peer] of peers.entries()) assert.equal(pair.send(peer, i + 1), true);
    await pair.world.until(() => b.tags.length === 2);
    assert.equal(new Set(b.sessions.map(({ id }) => id)).size, 2);
    assert.equal(b.endedSessions, 0);
  });
}

test('tcp: engines of a host that was started anew behind a cut are found, though nothing else was to be said to it', async () => {
  const pair = new TestPair(createTcpTransport);
  const { network } = pair.machines;
  const [old0, old1] = await pair.engines('hostb');
  old0.transport.announce!(1, old1.transport.address, [5]);
  const a = await pair.host('hosta');
  const toB0 = a.transport.peer('hostb:7000', 5);
  await pair.world.until(() => toB0.connected);
  await pair.world.run(10);
  const toB1 = a.transport.peer('hostb:7000', 5);
  await pair.world.until(() => toB1.connected);
  network.cut('hosta', 'hostb');
  network.detach('hostb');
  await pair.world.run(10);
  network.heal();
  const [new0, new1] = await pair.engines('hostb');
  assert.notEqual(new1.transport.address, old1.transport.address);
  new0.transport.announce!(1, new1.transport.address, [5]);
  // What it has to say to the shard meets the end of that connection, not of the other.
  await pair.world.until(() => {
    pair.send(toB1, 7);
    return new1.tags.length > 0;
  }, 20_000);
});

test('tcp with certificates: what listens where an engine is said to be must prove that it is that host', async () => {
  const pair = new SecuredPair();
  const [b0, b1] = await pair.engines('hostb');
  const c = await pair.host('hostc');
  b0.transport.announce!(1, b1.transport.address, [5]);
  b0.transport.announce!(2, 'hostc:7000', [6]);
  const a = await pair.host('hosta');
  const toB0 = a.transport.peer('hostb:7000');
  await pair.world.until(() => toB0.connected);
  await pair.world.run(10);
  const [toB1, toC] = [5, 6].map((shardId) => a.transport.peer('hostb:7000', shardId));
  assert.deepEqual([toB1.engine, toC.engine], [1, 2]);
  await pair.world.until(() => toB1.connected);
  await pair.world.run(3000);
  assert.equal(toC.connected, false);
  assert.ok((a.transport.counters.refused.get('certificate-address') ?? 0) > 0);
  assert.equal(c.sessions.length, 0, 'something was said to the wrong host');
});
