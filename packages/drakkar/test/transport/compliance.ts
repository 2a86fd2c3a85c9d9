/** What every transport must do. `transportCompliance` registers one test for each promise of `transport.ts`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryMachines } from 'drakkar/testing';
import type { Env } from '../../src/env/env.ts';
import { FRAME_HEADER_BYTES, FrameType, sealFrame } from '../../src/wire/frame.ts';
import { Slab, SlabPool } from '../../src/wire/slab.ts';
import type {
  HostIdentity,
  InboundSession,
  Peer,
  SnapshotHeader,
  Transport,
  TransportHandlers,
} from '../../src/transport/transport.ts';

type Create = (context: {
  env: Env;
  identity: HostIdentity;
  listenAddress: string;
  pool: SlabPool;
  engine?: number;
}) => Transport;

export function identityOf(name: string, fields: Partial<HostIdentity> = {}): HostIdentity {
  const number = name.charCodeAt(name.length - 1);
  return {
    deploymentId: 1,
    hostId: number.toString(16).padStart(32, '0'),
    raftAddress: `${name}:7000`,
    directoryHigh: number,
    directoryLow: number * 7,
    startCounter: 1,
    earlierStarts: [],
    ...fields,
  };
}

/** A sealed frame with `words` words of content that begin with `tag`. */
export function frame(tag: number, words = 1): Slab {
  const lengthBytes = FRAME_HEADER_BYTES + words * 4;
  const slab = new Slab(lengthBytes);
  slab.u32[FRAME_HEADER_BYTES >>> 2] = tag;
  sealFrame(slab.u8, slab.u32, 0, lengthBytes, FrameType.Messages, 1);
  slab.usedBytes = lengthBytes;
  return slab;
}

export class TestHost implements TransportHandlers {
  readonly transport: Transport;
  readonly pool = new SlabPool();
  readonly tags: number[] = [];
  readonly up: string[] = [];
  readonly down: string[] = [];
  readonly sessions: InboundSession[] = [];
  endedSessions = 0;
  /** Throws in `onFrame` for these tags. */
  readonly badTags = new Set<number>();
  readonly snapshots: { from: string; header: SnapshotHeader; bytes: Uint8Array }[] = [];
  snapshotError: Error | undefined;

  /** What changed its way, as `target shardIds`. */
  readonly rerouted: string[] = [];

  constructor(create: Create, env: Env, identity: HostIdentity, engine = 0) {
    const listenAddress = engine === 0 ? identity.raftAddress : identity.raftAddress.replace(/\d+$/, '0');
    this.transport = create({ env, identity, listenAddress, pool: this.pool, engine });
  }

  onRoutes(target: string, shardIds: readonly number[]): void {
    this.rerouted.push(`${target} ${shardIds.join()}`);
  }

  onFrame(from: InboundSession, slab: Slab, offset: number): void {
    if (!this.sessions.includes(from)) this.sessions.push(from);
    const tag = slab.u32[(offset + FRAME_HEADER_BYTES) >>> 2];
    if (this.badTags.has(tag)) throw new Error('a frame that nobody understands');
    this.tags.push(tag);
  }

  onSessionEnd(): void {
    this.endedSessions++;
  }

  onPeerUp(peer: Peer): void {
    this.up.push(peer.address);
  }

  onPeerDown(peer: Peer): void {
    this.down.push(peer.address);
  }

  async onSnapshot(from: HostIdentity, header: SnapshotHeader, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    if (this.snapshotError !== undefined) throw this.snapshotError;
    this.snapshots.push({ from: from.raftAddress, header, bytes: Buffer.concat(parts) });
  }
}

/** Two machines in memory with a transport each. */
export class TestPair {
  readonly machines = new MemoryMachines(1);
  readonly create: Create;

  constructor(create: Create) {
    this.create = create;
  }

  async host(name: string, fields: Partial<HostIdentity> = {}): Promise<TestHost> {
    const host = new TestHost(this.create, this.machines.add(name).boot(), identityOf(name, fields));
    await this.machines.world.settle(host.transport.start(host));
    return host;
  }

  /** Engines 0 and 1 of one host. */
  async engines(name: string): Promise<[TestHost, TestHost]> {
    const env = this.machines.add(name).boot();
    const hosts = [0, 1].map((engine) => new TestHost(this.create, env, identityOf(name), engine)) as [
      TestHost,
      TestHost,
    ];
    for (const host of hosts) await this.world.settle(host.transport.start(host));
    return hosts;
  }

  send(peer: Peer, tag: number, words = 1): boolean {
    const slab = frame(tag, words);
    const taken = peer.send(slab, 0, slab.usedBytes);
    slab.release();
    return taken;
  }

  get world(): MemoryMachines['world'] {
    return this.machines.world;
  }
}

const HEADER: SnapshotHeader = { shardId: 1, from: 1, to: 2, term: 3, index: 40, indexTerm: 2, imageBytes: 0 };

async function* pieces(...sizes: number[]): AsyncGenerator<Uint8Array> {
  for (const size of sizes) yield new Uint8Array(size).fill(size);
}

export function transportCompliance(name: string, createPair: () => TestPair): void {
  const never = new AbortController().signal;

  async function connected(): Promise<{ pair: TestPair; a: TestHost; b: TestHost; toB: Peer }> {
    const pair = createPair();
    const a = await pair.host('hosta');
    const b = await pair.host('hostb');
    const toB = a.transport.peer('hostb:7000');
    await pair.world.until(() => toB.connected);
    return { pair, a, b, toB };
  }

  test(`${name}: frames arrive whole and in order, whatever their size`, async () => {
    const { pair, a, b, toB } = await connected();
    for (let tag = 1; tag <= 50; tag++) assert.equal(pair.send(toB, tag, tag % 7 === 0 ? 400_000 : tag), true);
    await pair.world.until(() => b.tags.length === 50);
    assert.deepEqual(
      b.tags,
      Array.from({ length: 50 }, (_, i) => i + 1),
    );
    assert.equal(b.sessions[0].identity.raftAddress, 'hosta:7000');
    assert.deepEqual(toB.identity, identityOf('hostb'));
    assert.equal(toB.queuedBytes, 0);
    assert.equal(a.transport.counters.framesSent, 50);
    assert.equal(b.transport.counters.framesReceived >= 50, true);
  });

  test(`${name}: a slab is given back when its bytes have left or are lost`, async () => {
    const { pair, b, toB } = await connected();
    const slab = frame(1);
    toB.send(slab, 0, slab.usedBytes);
    await pair.world.until(() => b.tags.length === 1);
    assert.equal(slab.holderCount, 1);
    await pair.world.settle(b.transport.close());
    toB.send(slab, 0, slab.usedBytes);
    await pair.world.run(100);
    assert.equal(slab.holderCount, 1);
  });

  test(`${name}: a peer that is not there takes nothing, and is found once it comes`, async () => {
    const pair = createPair();
    const a = await pair.host('hosta');
    const toB = a.transport.peer('hostb:7000');
    await pair.world.run(500);
    assert.equal(toB.connected, false);
    assert.equal(pair.send(toB, 1), false);
    assert.equal(a.transport.counters.framesDropped, 1);
    const b = await pair.host('hostb');
    await pair.world.until(() => toB.connected, 10_000);
    assert.deepEqual(a.up, ['hostb:7000']);
    assert.equal(pair.send(toB, 2), true);
    await pair.world.until(() => b.tags.length === 1);
    assert.deepEqual(b.tags, [2], 'what was dropped was sent later');
    assert.equal(a.transport.peer('hostb:7000'), toB, 'a second peer for the same address');
  });

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

  test(`${name}: a way that was given up stays closed, and another one can be opened`, async () => {
    const { pair, a, b, toB } = await connected();
    a.transport.release(toB);
    await pair.world.until(() => b.endedSessions === 1);
    assert.equal(toB.connected, false);
    assert.equal(pair.send(toB, 1), false);
    await pair.world.run(5000);
    assert.deepEqual(a.up, ['hostb:7000'], 'it was dialled again');
    a.transport.release(toB); // twice does no harm
    const other = a.transport.peer('hostc:7000');
    const anew = a.transport.peer('hostb:7000');
    assert.equal(new Set([toB.index, other.index, anew.index]).size, 3, 'an index means two peers');
    await pair.world.until(() => anew.connected, 10_000);
    assert.equal(pair.send(anew, 2), true);
    await pair.world.until(() => b.tags.length === 1);
    assert.deepEqual(b.tags, [2]);
  });

  test(`${name}: the end of a host is told to both ends, once each`, async () => {
    const { pair, a, b, toB } = await connected();
    pair.send(toB, 1);
    await pair.world.until(() => b.tags.length === 1);
    await pair.world.settle(a.transport.close());
    await pair.world.until(() => b.endedSessions === 1);
    const again = await pair.host('hosta', { startCounter: 2 });
    const anew = again.transport.peer('hostb:7000');
    await pair.world.until(() => anew.connected);
    await pair.world.settle(b.transport.close());
    await pair.world.until(() => again.down.length === 1);
    assert.equal(anew.connected, false);
    await pair.world.run(5000);
    assert.deepEqual(again.down, ['hostb:7000']);
    assert.equal(pair.send(anew, 2), false);
  });

  test(`${name}: a host of another deployment is refused, counted, and tried again`, async () => {
    const pair = createPair();
    const a = await pair.host('hosta');
    const b = await pair.host('hostb', { deploymentId: 2 });
    const toB = a.transport.peer('hostb:7000');
    await pair.world.run(3000);
    assert.equal(toB.connected, false);
    assert.ok(b.transport.counters.refused.get('deployment')! > 1);
    assert.equal(pair.send(toB, 1), false);
    assert.deepEqual(b.tags, []);
  });

  test(`${name}: an address in use is a typed error`, async () => {
    const { pair } = await connected();
    await assert.rejects(pair.host('hostb'), { code: 'ERR_ADDRESS_IN_USE', retryable: true });
  });

  test(`${name}: a paused session hands out nothing until it goes on`, async () => {
    const { pair, b, toB } = await connected();
    pair.send(toB, 1);
    await pair.world.until(() => b.tags.length === 1);
    b.sessions[0].pause();
    for (let tag = 2; tag <= 5; tag++) pair.send(toB, tag);
    await pair.world.run(1000);
    assert.deepEqual(b.tags, [1]);
    b.sessions[0].resume();
    await pair.world.until(() => b.tags.length === 5);
    assert.deepEqual(b.tags, [1, 2, 3, 4, 5]);
  });

  test(`${name}: a frame that its receiver cannot take ends the connection, not the host`, async () => {
    const { pair, a, b, toB } = await connected();
    b.badTags.add(2);
    for (const tag of [1, 2, 3]) pair.send(toB, tag);
    await pair.world.until(() => a.down.length === 1);
    assert.deepEqual(b.tags, [1]);
    assert.equal(
      [...b.transport.counters.refused.values()].reduce((sum, count) => sum + count, 0),
      1,
    );
    await pair.world.until(() => toB.connected, 10_000);
    pair.send(toB, 4);
    await pair.world.until(() => b.tags.length === 2);
    assert.deepEqual(b.tags, [1, 4]);
  });

  test(`${name}: a queue has a bound; beyond it frames are dropped`, async () => {
    const { pair, b, toB } = await connected();
    pair.send(toB, 1);
    await pair.world.until(() => b.tags.length === 1);
    b.sessions[0].pause();
    const large = frame(9, 4 * 1024 * 1024);
    let taken = 0;
    for (let i = 0; i < 10; i++) if (toB.send(large, 0, large.usedBytes)) taken++;
    assert.ok(taken >= 2 && taken < 10, `${taken} of 10 frames of 16 MiB were taken`);
    assert.ok(toB.queuedBytes <= 64 * 1024 * 1024);
  });

  test(`${name}: a snapshot streams whole, and its sender hears that it was installed`, async () => {
    const { pair, a, b } = await connected();
    const sizes = [10, 300_000, 1, 1_000_000];
    const imageBytes = sizes.reduce((sum, size) => sum + size, 0);
    await pair.world.settle(a.transport.sendSnapshot('hostb:7000', { ...HEADER, imageBytes }, pieces(...sizes), never));
    assert.equal(b.snapshots.length, 1);
    assert.equal(b.snapshots[0].from, 'hosta:7000');
    assert.deepEqual(b.snapshots[0].header, { ...HEADER, imageBytes });
    assert.equal(b.snapshots[0].bytes.length, imageBytes);
    assert.equal(b.snapshots[0].bytes[10], 300_000 & 0xff);
    assert.equal(a.transport.counters.snapshotsSent, 1);
    assert.equal(b.transport.counters.snapshotsReceived, 1);
  });

  test(`${name}: a snapshot that its receiver refuses, that ends early, or that nobody takes, fails at its sender`, async () => {
    const { pair, a, b } = await connected();
    b.snapshotError = new Error('not wanted');
    const refused = a.transport.sendSnapshot('hostb:7000', { ...HEADER, imageBytes: 10 }, pieces(10), never);
    await assert.rejects(pair.world.settle(refused), { code: 'ERR_PEER_REFUSED', message: /not wanted/ });
    b.snapshotError = undefined;
    const short = a.transport.sendSnapshot('hostb:7000', { ...HEADER, imageBytes: 11 }, pieces(10), never);
    await assert.rejects(pair.world.settle(short));
    const nowhere = a.transport.sendSnapshot('hostz:7000', { ...HEADER, imageBytes: 10 }, pieces(10), never);
    await assert.rejects(pair.world.settle(nowhere), { code: 'ERR_UNREACHABLE' });
    assert.equal(b.snapshots.length, 0);
    assert.equal(a.transport.counters.snapshotsFailed, 3);
  });

  test(`${name}: sending a snapshot ends when it is aborted`, async () => {
    const { pair, a, b } = await connected();
    const controller = new AbortController();
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (let i = 0; ; i++) {
        if (i === 3) controller.abort();
        yield new Uint8Array(1000);
      }
    }
    const sending = a.transport.sendSnapshot(
      'hostb:7000',
      { ...HEADER, imageBytes: 1e9 },
      endless(),
      controller.signal,
    );
    await assert.rejects(pair.world.settle(sending), { code: 'ERR_ABORTED' });
    assert.equal(b.snapshots.length, 0);
  });
}
