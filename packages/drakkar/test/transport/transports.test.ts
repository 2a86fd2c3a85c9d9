/** Both transports keep the one contract. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryHub } from 'drakkar/testing';
import { createTcpTransport } from '../../src/transport/tcp.ts';
import { SecuredPair } from './secured.ts';
import { TestPair, transportCompliance } from './compliance.ts';

transportCompliance('tcp', () => new TestPair(createTcpTransport));
transportCompliance('memory', () => new TestPair(new MemoryHub().createTransport));
transportCompliance('tcp with certificates', () => new SecuredPair());

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
