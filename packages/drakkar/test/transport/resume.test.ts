/** Snapshot streams that begin in the middle, and senders that wait for their receivers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTcpTransport } from '../../src/transport/tcp.ts';
import { SNAPSHOTS_MAX, SNAPSHOT_IDLE_MS } from '../../src/transport/limits.ts';
import { MemoryHub } from '../../src/transport/memory.ts';
import type { HostIdentity, SnapshotHeader } from '../../src/transport/transport.ts';
import { TestPair, type TestHost } from './compliance.ts';

const IMAGE = Uint8Array.from({ length: 700_000 }, (_, i) => i % 251);
const HEADER: SnapshotHeader = {
  shardId: 1,
  from: 1,
  to: 2,
  term: 3,
  index: 40,
  indexTerm: 2,
  imageBytes: IMAGE.length,
  imageDigest: 0xfedc_ba98,
};
const never = new AbortController().signal;

async function* from(offsetBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = offsetBytes; at < IMAGE.length; at += 100_000) yield IMAGE.subarray(at, at + 100_000);
}

async function* untouched(): AsyncGenerator<Uint8Array> {
  yield await Promise.reject(new Error('nobody wanted this'));
}

type OnSnapshot = TestHost['onSnapshot'];

/** Takes what is sent, from `offsetBytes` on, after `waitMs`. */
function takes(pair: TestPair, host: TestHost, offsetBytes: number, waitMs = 0, everyMs = 0): Uint8Array[] {
  const got: Uint8Array[] = [];
  const sleep = (delayMs: number) => new Promise<void>((resolve) => pair.world.schedule(delayMs, resolve));
  const onSnapshot = async (
    _from: HostIdentity,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    _signal: AbortSignal,
    begin?: (offsetBytes: number) => void,
  ): Promise<void> => {
    assert.deepEqual(header, HEADER);
    if (waitMs > 0) await sleep(waitMs);
    begin?.(offsetBytes);
    for await (const chunk of chunks) {
      got.push(chunk.slice());
      if (everyMs > 0) await sleep(everyMs);
    }
  };
  host.onSnapshot = onSnapshot as OnSnapshot;
  return got;
}

for (const [name, createPair] of [
  ['tcp', () => new TestPair(createTcpTransport)],
  ['memory', () => new TestPair(new MemoryHub().createTransport)],
] as const) {
  const setUp = async (): Promise<{ pair: TestPair; a: TestHost; b: TestHost }> => {
    const pair = createPair();
    return { pair, a: await pair.host('hosta'), b: await pair.host('hostb') };
  };

  test(`${name}: a receiver that has the beginning is sent the rest, and nothing else is read`, async () => {
    const { pair, a, b } = await setUp();
    for (const offset of [1, 123_456, IMAGE.length - 16, IMAGE.length]) {
      const got = takes(pair, b, offset);
      await pair.world.settle(a.transport.sendSnapshot('hostb:7000', HEADER, untouched(), never, from));
      assert.ok(Buffer.concat(got).equals(IMAGE.subarray(offset)), `from ${offset}`);
    }
  });

  test(`${name}: a receiver that has nothing is sent everything`, async () => {
    const { pair, a, b } = await setUp();
    const got = takes(pair, b, 0);
    await pair.world.settle(a.transport.sendSnapshot('hostb:7000', HEADER, from(0), never, from));
    assert.ok(Buffer.concat(got).equals(IMAGE));
  });

  test(`${name}: a rest that is too long or too short for its image fails`, async () => {
    const { pair, a, b } = await setUp();
    takes(pair, b, 100);
    for (const wrong of [99, 101]) {
      const sending = a.transport.sendSnapshot('hostb:7000', HEADER, untouched(), never, () => from(wrong));
      await assert.rejects(pair.world.settle(sending));
    }
  });
}

test('tcp: beyond so many snapshots at once one is refused at its sender, until another has ended', async () => {
  const pair = new TestPair(createTcpTransport);
  const a = await pair.host('hosta');
  const b = await pair.host('hostb');
  const ends: (() => void)[] = [];
  b.onSnapshot = () => new Promise((resolve) => ends.push(resolve));
  const send = (): Promise<void> => a.transport.sendSnapshot('hostb:7000', HEADER, from(0), never);
  const sending: Promise<void>[] = [];
  while (sending.length < SNAPSHOTS_MAX) {
    sending.push(send()); // not all at once: the receiver bounds those that have not said who they are
    await pair.world.until(() => ends.length === sending.length);
  }
  await assert.rejects(pair.world.settle(send()), { code: 'ERR_LIMIT', retryable: true, outcome: 'not-applied' });
  ends[0]();
  await pair.world.settle(sending[0]);
  const again = send();
  await pair.world.until(() => ends.length === SNAPSHOTS_MAX + 1);
  for (const end of ends) end();
  await pair.world.settle(Promise.all([...sending, again]));
});

test('tcp: what is wanted from the middle must have been offered so', async () => {
  const pair = new TestPair(createTcpTransport);
  const a = await pair.host('hosta');
  const b = await pair.host('hostb');
  takes(pair, b, 5);
  const sending = a.transport.sendSnapshot('hostb:7000', HEADER, from(0), never);
  await assert.rejects(pair.world.settle(sending), { code: 'ERR_FRAME', message: /not offered so/ });
});

test('tcp: a sender waits for a receiver whose turn has not come, and for one that takes its time', async () => {
  const pair = new TestPair(createTcpTransport);
  const a = await pair.host('hosta');
  const b = await pair.host('hostb');
  const got = takes(pair, b, 0, 20 * SNAPSHOT_IDLE_MS, 2 * SNAPSHOT_IDLE_MS);
  const sending = a.transport.sendSnapshot('hostb:7000', HEADER, from(0), never);
  await pair.world.settle(sending, 100 * SNAPSHOT_IDLE_MS);
  assert.ok(Buffer.concat(got).equals(IMAGE));
});

test('tcp: a receiver that takes nothing any more is given up', async () => {
  const pair = new TestPair(createTcpTransport);
  const a = await pair.host('hosta');
  const b = await pair.host('hostb');
  takes(pair, b, 0, 10 * 3_600_000);
  const sending = a.transport.sendSnapshot('hostb:7000', HEADER, from(0), never);
  await assert.rejects(pair.world.settle(sending, 2 * 3_600_000), { code: 'ERR_UNREACHABLE' });
});
