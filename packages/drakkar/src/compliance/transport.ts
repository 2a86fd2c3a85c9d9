/** The contract of `Transport` as cases: what the engine relies on, whatever the bytes travel by. */
import type { HostIdentity, Peer, SnapshotHeader } from '../transport/transport.ts';
import { FRAME_HEADER_BYTES } from '../wire/frame.ts';
import { expect, expectCode, expectEqual, type ComplianceCase } from './cases.ts';
import {
  QUEUE_BYTES,
  RealBench,
  VirtualBench,
  frame,
  identityOf,
  sendTag,
  type Bench,
  type BenchHost,
  type CreateTransport,
} from './transport-bench.ts';

export interface TransportSuite {
  /**
   * The transport does not take network and time from `context.env`: it is run in real time on this machine, at these addresses. The names
   * are `hosta`, `hostb`, `hostc`, and `hostz`, where nobody ever listens. Default: machines in memory, under a virtual clock.
   */
  readonly addressOf?: (name: string) => string;
}

const HEADER: SnapshotHeader = { shardId: 1, from: 1, to: 2, term: 3, index: 40, indexTerm: 2, imageBytes: 0 };

async function* pieces(...sizes: number[]): AsyncGenerator<Uint8Array> {
  for (const size of sizes) yield new Uint8Array(size).fill(size);
}

const IMAGE = Uint8Array.from({ length: 700_000 }, (_, i) => i % 251);
const RESUMABLE: SnapshotHeader = { ...HEADER, imageBytes: IMAGE.length, imageDigest: 0xfedc_ba98 };

/** The image from a byte on, or with some bytes in front of it; `read` hears where each piece begins. */
async function* image(from: number, read?: number[]): AsyncGenerator<Uint8Array> {
  if (from < 0) yield new Uint8Array(-from);
  for (let at = Math.max(0, from); at < IMAGE.length; at += 100_000) {
    read?.push(at);
    yield IMAGE.slice(at, at + 100_000);
  }
}

function isImage(bytes: Uint8Array | undefined, from: number): boolean {
  return bytes?.length === IMAGE.length - from && bytes.every((byte, i) => byte === IMAGE[from + i]);
}

async function errorOf(promise: Promise<unknown>, what: string): Promise<unknown> {
  let error: unknown;
  await promise.catch((cause: unknown) => (error = cause));
  expect(error !== undefined, `${what} did not fail`);
  return error;
}

const refusals = ({ transport }: BenchHost): number =>
  [...transport.counters.refused.values()].reduce((sum, count) => sum + count, 0);

interface Connected {
  readonly bench: Bench;
  readonly a: BenchHost;
  readonly b: BenchHost;
  readonly toB: Peer;
  readonly bAddress: string;
}

/** Cases for transports made by `create`. Each runs alone; those of one suite must not run at the same time in real time. */
export function transportCompliance(create: CreateTransport, suite: TransportSuite = {}): ComplianceCase[] {
  const { addressOf } = suite;
  return transportCases(() => (addressOf === undefined ? new VirtualBench(create) : new RealBench(create, addressOf)));
}

export function transportCases(createBench: () => Bench): ComplianceCase[] {
  const never = new AbortController().signal;
  const cases: ComplianceCase[] = [];

  const add = (name: string, check: (bench: Bench) => Promise<void>): void => {
    const run = async (): Promise<void> => {
      const bench = createBench();
      try {
        await check(bench);
      } finally {
        await bench.end();
      }
    };
    cases.push({ name, run });
  };

  const addConnected = (name: string, check: (connected: Connected) => Promise<void>): void =>
    add(name, async (bench) => {
      const a = await bench.host('hosta');
      const b = await bench.host('hostb');
      const bAddress = bench.addressOf('hostb');
      const toB = a.transport.peer(bAddress);
      await bench.until(() => toB.connected);
      await check({ bench, a, b, toB, bAddress });
    });

  addConnected('frames arrive whole and in order, whatever their size', async ({ bench, a, b, toB }) => {
    for (let tag = 1; tag <= 50; tag++) {
      expect(sendTag(toB, tag, tag % 7 === 0 ? 400_000 : tag), `frame ${tag} was not taken`);
    }
    await bench.until(() => b.tags.length >= 50);
    const all = Array.from({ length: 50 }, (_, i) => i + 1);
    expectEqual(b.tags, all, 'frames in order');
    await bench.until(() => toB.queuedBytes === 0);
    expectEqual(a.transport.counters.framesSent, 50, 'framesSent');
    expect(b.transport.counters.framesReceived >= 50, 'framesReceived');
    expect(b.transport.counters.bytesReceived >= a.transport.counters.bytesSent, 'bytesReceived');
  });

  addConnected('each end knows who the other one is', async ({ bench, b, toB }) => {
    const known = (name: string): HostIdentity => identityOf(name, { raftAddress: bench.addressOf(name) });
    expectEqual(toB.identity, known('hostb'), 'who was dialled');
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    // Of a host with a certificate only what that proves.
    const { hostId, raftAddress, ...rest } = b.sessions[0].identity;
    const { hostId: ownId, raftAddress: ownAddress, ...all } = known('hosta');
    expect(hostId === ownId || hostId === '', `who dialled: its host id is said to be ${hostId}`);
    expectEqual(raftAddress, ownAddress, 'who dialled: its address');
    expectEqual(rest, all, 'who dialled');
  });

  addConnected('a slab is given back when its bytes have left or are lost', async ({ bench, b, toB }) => {
    const slab = frame(1);
    toB.send(slab, 0, slab.usedBytes);
    await bench.until(() => b.tags.length === 1);
    await bench.run(100);
    expectEqual(slab.holderCount, 1, 'holders after the frame arrived');
    await bench.settle(b.transport.close());
    toB.send(slab, 0, slab.usedBytes);
    await bench.run(1000);
    expectEqual(slab.holderCount, 1, 'holders after the frame was lost');
  });

  add('a peer that is not there takes nothing, and is found once it comes', async (bench) => {
    const a = await bench.host('hosta');
    const bAddress = bench.addressOf('hostb');
    const toB = a.transport.peer(bAddress);
    await bench.run(500);
    expectEqual(toB.connected, false, 'connected to nobody');
    expectEqual(sendTag(toB, 1), false, 'a frame was taken');
    expectEqual(a.transport.counters.framesDropped, 1, 'framesDropped');
    const b = await bench.host('hostb');
    await bench.until(() => toB.connected, 10_000);
    expectEqual(a.up, [bAddress], 'peers that came up');
    expectEqual(sendTag(toB, 2), true, 'a frame was taken');
    await bench.until(() => b.tags.length > 0);
    await bench.run(200);
    expectEqual(b.tags, [2], 'frames: what was dropped was sent later');
    expect(a.transport.peer(bAddress) === toB, 'a second peer for the same address');
  });

  addConnected('a way that was given up stays closed, and another one can be opened', async (connected) => {
    const { bench, a, b, toB, bAddress } = connected;
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    a.transport.release(bAddress);
    await bench.until(() => b.endedSessions === 1);
    expectEqual(toB.connected, false, 'connected');
    expectEqual(sendTag(toB, 2), false, 'a frame was taken');
    await bench.run(5000);
    expectEqual(a.up, [bAddress], 'it was dialled again');
    a.transport.release(bAddress); // twice does no harm
    const other = a.transport.peer(bench.addressOf('hostc'));
    const anew = a.transport.peer(bAddress);
    expectEqual(new Set([toB.index, other.index, anew.index]).size, 3, 'an index means two peers');
    await bench.until(() => anew.connected, 10_000);
    expectEqual(sendTag(anew, 3), true, 'a frame was taken');
    await bench.until(() => b.tags.length === 2);
    expectEqual(b.tags, [1, 3], 'frames');
  });

  addConnected('the end of a host is told to both ends, once each', async ({ bench, a, b, toB, bAddress }) => {
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    await bench.settle(a.transport.close());
    await bench.until(() => b.endedSessions === 1);
    const again = await bench.host('hosta', { startCounter: 2 });
    const anew = again.transport.peer(bAddress);
    await bench.until(() => anew.connected);
    await bench.settle(b.transport.close());
    await bench.until(() => again.down.length > 0);
    expectEqual(anew.connected, false, 'connected');
    await bench.run(5000);
    expectEqual(again.down, [bAddress], 'ends that were told');
    expectEqual(b.endedSessions <= 2, true, 'sessions ended more often than they began');
    expectEqual(sendTag(anew, 2), false, 'a frame was taken');
  });

  add('a host of another deployment is refused, counted, and tried again', async (bench) => {
    const a = await bench.host('hosta');
    const b = await bench.host('hostb', { deploymentId: 2 });
    const toB = a.transport.peer(bench.addressOf('hostb'));
    await bench.until(() => (b.transport.counters.refused.get('deployment') ?? 0) > 1, 10_000);
    expectEqual(toB.connected, false, 'connected');
    expectEqual(sendTag(toB, 1), false, 'a frame was taken');
    expectEqual(b.tags, [], 'frames');
  });

  add('a host id leads to the host that has it, once its address is known, and to no other', async (bench) => {
    const idOfB = identityOf('hostb').hostId;
    const book = new Map<string, string>();
    const a = await bench.host('hosta', {}, { resolve: (target) => book.get(target) });
    const b = await bench.host('hostb');
    const c = await bench.host('hostc');
    const toB = a.transport.peer(idOfB);
    await bench.run(500);
    expectEqual(toB.connected, false, 'connected without an address');
    book.set(idOfB, bench.addressOf('hostc')); // as an old rumour has it
    a.transport.addressChanged(idOfB);
    await bench.run(3000);
    expectEqual([toB.connected, c.endedSessions, c.tags.length], [false, 0, 0], 'the wrong host was taken for it');
    book.set(idOfB, bench.addressOf('hostb'));
    a.transport.addressChanged(idOfB);
    await bench.until(() => toB.connected, 10_000);
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    expectEqual(a.up, [idOfB], 'peers that came up');
  });

  addConnected('an address in use is a typed error', async ({ bench }) => {
    expectCode(await errorOf(bench.host('hostb'), 'listening there'), 'ERR_ADDRESS_IN_USE', 'listening there');
  });

  addConnected('a paused session hands out nothing until it goes on', async ({ bench, b, toB }) => {
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    b.sessions[0].pause();
    for (let tag = 2; tag <= 5; tag++) sendTag(toB, tag);
    await bench.run(1000);
    expectEqual(b.tags, [1], 'frames while it was paused');
    b.sessions[0].resume();
    await bench.until(() => b.tags.length >= 5);
    expectEqual(b.tags, [1, 2, 3, 4, 5], 'frames');
  });

  addConnected('a frame that its receiver cannot take ends the connection, not the host', async (connected) => {
    const { bench, a, b, toB } = connected;
    b.badTags.add(2);
    for (const tag of [1, 2, 3]) sendTag(toB, tag);
    await bench.until(() => a.down.length === 1);
    expectEqual(b.tags, [1], 'frames');
    expectEqual(refusals(b), 1, 'refusals counted');
    await bench.until(() => toB.connected, 10_000);
    sendTag(toB, 4);
    await bench.until(() => b.tags.length === 2);
    expectEqual(b.tags, [1, 4], 'frames');
  });

  addConnected('a garbled frame, or one in a format that is not read here, is handed to nobody', async (connected) => {
    const { bench, a, b, toB } = connected;
    const garbled = frame(2, 100);
    garbled.u8[FRAME_HEADER_BYTES + 50] ^= 1;
    toB.send(garbled, 0, garbled.usedBytes);
    await bench.until(() => a.down.length === 1);
    await bench.until(() => toB.connected, 10_000);
    sendTag(toB, 3, 1, identityOf('hostb').newestFormat + 1);
    await bench.until(() => a.down.length === 2);
    await bench.until(() => toB.connected, 10_000);
    expectEqual(refusals(b), 2, 'refusals counted');
    sendTag(toB, 4);
    await bench.until(() => b.tags.length > 0);
    expectEqual(b.tags, [4], 'frames');
  });

  addConnected('a session that is dropped ends, and is counted under its reason', async ({ bench, a, b, toB }) => {
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    b.sessions[0].drop('test');
    await bench.until(() => a.down.length === 1 && b.endedSessions === 1);
    expectEqual(b.transport.counters.refused.get('test'), 1, 'refusals counted');
    await bench.until(() => toB.connected, 10_000);
  });

  addConnected('a queue has a bound; beyond it frames are dropped', async ({ bench, b, toB }) => {
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    b.sessions[0].pause();
    const large = frame(9, 4 * 1024 * 1024);
    let taken = 0;
    for (let i = 0; i < 10; i++) if (toB.send(large, 0, large.usedBytes)) taken++;
    expect(taken >= 2 && taken < 10, `${taken} of 10 frames of 16 MiB were taken`);
    expect(toB.queuedBytes <= QUEUE_BYTES, `${toB.queuedBytes} bytes are queued`);
  });

  addConnected('a snapshot streams whole, and its sender hears that it was installed', async (connected) => {
    const { bench, a, b, bAddress } = connected;
    const sizes = [10, 300_000, 1, 1_000_000];
    for (const imageBytes of [sizes.reduce((sum, size) => sum + size, 0), 0]) {
      const header = { ...HEADER, imageBytes };
      await bench.settle(a.transport.sendSnapshot(bAddress, header, pieces(...sizes), never));
      const got = b.snapshots.pop();
      expectEqual(got?.from, bench.addressOf('hosta'), 'who sent it');
      expectEqual(got?.header, header, 'its header');
      expectEqual(got?.bytes.length, 1_300_011, 'its bytes');
      expectEqual([got?.bytes[9], got?.bytes[10], got?.bytes[1_300_010]], [10, 300_000 & 0xff, 64], 'its content');
    }
    expectEqual(a.transport.counters.snapshotsSent, 2, 'snapshotsSent');
    expectEqual(b.transport.counters.snapshotsReceived, 2, 'snapshotsReceived');
  });

  addConnected('a snapshot that is refused, cut short, or sent to nobody fails at its sender', async (connected) => {
    const { bench, a, b, bAddress } = connected;
    const send = (to: string, imageBytes: number): Promise<unknown> => {
      const sending = a.transport.sendSnapshot(to, { ...HEADER, imageBytes }, pieces(10), never);
      return errorOf(bench.settle(sending), 'a snapshot that was not installed');
    };
    b.snapshotError = new Error('not wanted');
    const refused = await send(bAddress, 10);
    expectCode(refused, 'ERR_PEER_REFUSED', 'a refused snapshot');
    expect(String(refused).includes('not wanted'), `the reason is not told: ${String(refused)}`);
    b.snapshotError = undefined;
    await send(bAddress, 11);
    expectCode(await send(bench.addressOf('hostz'), 10), 'ERR_UNREACHABLE', 'a snapshot to nobody');
    expectEqual(b.snapshots.length, 0, 'snapshots received');
    expectEqual(a.transport.counters.snapshotsFailed, 3, 'snapshotsFailed');
  });

  addConnected(
    'a receiver that has the beginning of an image is sent the rest, and only that is read',
    async (connected) => {
      const { bench, a, b, bAddress } = connected;
      for (const offset of [1, 123_456, IMAGE.length - 1, IMAGE.length]) {
        b.wantsFrom = offset;
        const read: number[] = [];
        await bench.settle(
          a.transport.sendSnapshot(bAddress, RESUMABLE, image(0, read), never, (at) => image(at, read)),
        );
        const got = b.snapshots.pop();
        expectEqual(got?.header, RESUMABLE, 'its header');
        // Without `begin` there is no other way than from the first byte on.
        const from = b.couldAsk.pop() === true ? offset : 0;
        expect(isImage(got?.bytes, from), `from byte ${from} on: ${got?.bytes.length} bytes, or others`);
        expect(Math.min(...read, IMAGE.length) >= from, `bytes from ${read[0]} on were read, and ${from} is wanted`);
      }
      expectEqual(a.transport.counters.snapshotsSent, 4, 'snapshotsSent');
    },
  );

  addConnected(
    'a receiver that has nothing of an image is sent all of it, though the rest was offered',
    async (connected) => {
      const { bench, a, b, bAddress } = connected;
      for (const wantsFrom of [undefined, 0]) {
        b.wantsFrom = wantsFrom;
        await bench.settle(a.transport.sendSnapshot(bAddress, RESUMABLE, image(0), never, (at) => image(at)));
        const got = b.snapshots.pop();
        expect(isImage(got?.bytes, 0), `${got?.bytes.length} bytes, or others`);
      }
    },
  );

  addConnected('a rest that does not end where its image ends is installed by nobody', async (connected) => {
    const { bench, a, b, bAddress } = connected;
    b.wantsFrom = 1000;
    for (const wrong of [999, 1001]) {
      const sending = a.transport.sendSnapshot(bAddress, RESUMABLE, image(wrong - 1000), never, () => image(wrong));
      await errorOf(bench.settle(sending), `a rest that is ${Math.abs(wrong - 1000)} byte off`);
    }
    await bench.until(() => b.brokenSnapshots === 2, 10_000);
    expectEqual(b.snapshots.length, 0, 'snapshots received');
    expectEqual(a.transport.counters.snapshotsFailed, 2, 'snapshotsFailed');
  });

  addConnected('from the middle nothing is handed out that was not offered so', async (connected) => {
    const { bench, a, b, bAddress } = connected;
    const { imageDigest: _, ...undigested } = RESUMABLE;
    const offers: [
      what: string,
      header: SnapshotHeader,
      wanted: number,
      from?: (at: number) => AsyncIterable<Uint8Array>,
    ][] = [
      ['an image that is made while it is sent', { ...HEADER, imageBytes: 0 }, 5],
      ['an image without a digest', undigested, 5, (at) => image(at)],
      ['an image whose sender offers no rest', RESUMABLE, 5],
      ['bytes behind the end', RESUMABLE, IMAGE.length + 1, (at) => image(at)],
    ];
    for (const [what, header, wanted, from] of offers) {
      b.wantsFrom = wanted;
      // Bytes from the first on would be taken for those from the middle on.
      const outcome = await bench.settle(
        a.transport.sendSnapshot(bAddress, header, image(0), never, from).then(
          () => 'installed',
          () => 'failed',
        ),
      );
      if (b.couldAsk.pop() === true) expectEqual(outcome, 'failed', what);
      else expect(isImage(b.snapshots.pop()?.bytes, 0), `${what}: not whole`);
      expectEqual(b.snapshots.length, 0, `snapshots received: ${what}`);
    }
  });

  addConnected('sending a snapshot ends when it is aborted, at both ends', async ({ bench, a, b, bAddress }) => {
    const controller = new AbortController();
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < 2000; i++) {
        if (i === 30) controller.abort();
        yield new Uint8Array(10_000);
      }
    }
    const sending = a.transport.sendSnapshot(bAddress, HEADER, endless(), controller.signal);
    const error = await errorOf(bench.settle(sending), 'an aborted snapshot');
    expectCode(error, 'ERR_ABORTED', 'an aborted snapshot');
    await bench.until(() => b.brokenSnapshots === 1, 10_000);
    expectEqual(b.snapshots.length, 0, 'snapshots received');
  });

  addConnected('an image is whole only when its sender says so', async ({ bench, a, b, bAddress }) => {
    // Of unknown length: nothing but the transport can tell that it ended too early.
    let goesOn = (): void => {};
    async function* halting(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(100_000);
      await new Promise<void>((resolve) => (goesOn = resolve));
      throw new Error('the state machine failed');
    }
    const sending = a.transport.sendSnapshot(bAddress, HEADER, halting(), never);
    const failed = errorOf(bench.settle(sending), 'a snapshot whose source failed');
    await bench.run(200);
    goesOn();
    await failed;
    await bench.until(() => b.brokenSnapshots === 1, 10_000);
    expectEqual(b.snapshots.length, 0, 'snapshots received');
  });

  addConnected('a closed transport takes nothing, and hands out nothing', async ({ bench, a, b, toB, bAddress }) => {
    sendTag(toB, 1);
    await bench.until(() => b.tags.length === 1);
    for (let tag = 2; tag <= 5; tag++) sendTag(toB, tag);
    await bench.settle(b.transport.close());
    const { length } = b.tags;
    await bench.until(() => !toB.connected);
    await bench.run(1000);
    expectEqual(b.tags.length, length, 'frames handed out after it was closed');
    await bench.settle(a.transport.close());
    expectEqual(sendTag(toB, 6), false, 'a frame was taken');
    await errorOf(bench.settle(a.transport.sendSnapshot(bAddress, HEADER, pieces(10), never)), 'a snapshot');
    await bench.settle(a.transport.close()); // twice does no harm
  });

  return cases;
}
