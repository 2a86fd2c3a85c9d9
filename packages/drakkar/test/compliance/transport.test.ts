/** The transport suite against another implementation, a cluster on it, and transports that break one rule each. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NodeHost, createTcpTransport, type InboundSession, type Peer, type Transport } from 'drakkar';
import { transportCompliance, type CreateTransport } from 'drakkar/compliance';
import { FrameType, sealFrame } from '../../src/wire/frame.ts';
import { Journal, text } from '../support.ts';
import { createHttp2Transport } from './http2-transport.ts';

const addressOf = (name: string): string => `127.0.0.1:${35_000 + name.charCodeAt(name.length - 1)}`;

for (const { name, run } of transportCompliance(createHttp2Transport, { addressOf })) test(`HTTP/2: ${name}`, run);

test('three hosts replicate over HTTP/2, and bring up to date who was away', async () => {
  const root = await mkdtemp(join(tmpdir(), 'drakkar-http2-'));
  const members = { 1: '127.0.0.1:35201', 2: '127.0.0.1:35202', 3: '127.0.0.1:35203' } as const;
  const start = async (id: 1 | 2 | 3): Promise<NodeHost> => {
    const dir = join(root, `${id}`);
    const host = await NodeHost.open({ dir, raftAddress: members[id], transport: createHttp2Transport });
    const options = { shardId: 1, replicaId: id, members, snapshotEntries: 20, compactionOverhead: 0 };
    await host.startReplica(options, () => new Journal());
    return host;
  };
  try {
    const [one, two] = await Promise.all([start(1), start(2)]);
    await one.whenReady(1, { timeoutMs: 60_000 });
    for (let line = 1; line <= 50; line++) assert.equal(await one.propose(1, text(`${line}`)), line);
    // It has never been there: only a snapshot brings what was compacted.
    const three = await start(3);
    await three.whenReady(1, { timeoutMs: 60_000 });
    assert.equal(await three.read(1, 'count'), 50);
    assert.ok([one, two].some((host) => host.metrics().includes('drakkar_transport_snapshots_sent_total 1')));
    assert.equal(await three.propose(1, text('51')), 51);
    for (const host of [one, two, three]) await host.close();
  } finally {
    await rm(root, { recursive: true });
  }
});

type Start = Transport['start'];
type Handlers = Parameters<Start>[0];

/** TCP, changed on its way. */
function broken(change: (inner: Transport) => Partial<Transport>): CreateTransport {
  return (context) => changed(createTcpTransport(context), change);
}

function changed(inner: Transport, change: (inner: Transport) => Partial<Transport>): Transport {
  const changes = change(inner) as Record<PropertyKey, unknown>;
  return new Proxy(inner, {
    get(target, name) {
      const value = changes[name] ?? Reflect.get(target, name);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
}

const withHandlers = (change: (handlers: Handlers) => Partial<Handlers>): CreateTransport =>
  broken((inner) => ({
    start: (handlers) => inner.start({ ...bound(handlers), ...change(handlers) }),
  }));

const bound = (handlers: Handlers): Handlers => ({
  onFrame: (...args) => handlers.onFrame(...args),
  onSessionEnd: (from) => handlers.onSessionEnd(from),
  onPeerUp: (peer) => handlers.onPeerUp(peer),
  onPeerDown: (peer) => handlers.onPeerDown(peer),
  onSnapshot: (...args) => handlers.onSnapshot(...args),
});

const withPeers = (change: (peer: Peer) => Partial<Peer>): CreateTransport =>
  broken((inner) => {
    const known = new Map<Peer, Peer>();
    return {
      peer(target) {
        const peer = inner.peer(target);
        let made = known.get(peer);
        if (made === undefined) {
          const changes = change(peer) as Record<PropertyKey, unknown>;
          made = new Proxy(peer, {
            get(of, name) {
              const value = changes[name] ?? Reflect.get(of, name);
              return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(of) : value;
            },
          });
          known.set(peer, made);
        }
        return made;
      },
    };
  });

const tcp: CreateTransport = (context) => createTcpTransport(context);
const session = (from: InboundSession, changes: Partial<InboundSession>): InboundSession =>
  Object.assign(Object.create(from) as InboundSession, changes);
const sessions = new WeakMap<InboundSession, InboundSession>();

function sameSession(from: InboundSession, changes: Partial<InboundSession>): InboundSession {
  let made = sessions.get(from);
  if (made === undefined) sessions.set(from, (made = session(from, changes)));
  return made;
}

async function* untilError(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch {
    // as if it had ended
  }
}

/** All but the first `skip` bytes. */
async function* behind(chunks: AsyncIterable<Uint8Array>, skip: number): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    if (skip < chunk.length) yield chunk.subarray(skip);
    skip = Math.max(0, skip - chunk.length);
  }
}

/** For every case a transport that breaks its rule. */
const BREACHES: Readonly<Record<string, CreateTransport>> = {
  'frames arrive whole and in order, whatever their size': withHandlers((handlers) => {
    let count = 0;
    return {
      onFrame(from, slab, offset, lengthBytes) {
        if (++count !== 20) handlers.onFrame(from, slab, offset, lengthBytes);
        else {
          slab.retain();
          setTimeout(() => handlers.onFrame(from, slab, offset, lengthBytes), 0);
        }
      },
    };
  }),
  'each end knows who the other one is': withHandlers((handlers) => ({
    onFrame: (from, ...rest) =>
      handlers.onFrame(sameSession(from, { identity: { ...from.identity, earlierStarts: [7] } }), ...rest),
  })),
  'a slab is given back when its bytes have left or are lost': withPeers((peer) => {
    let count = 0;
    return {
      send(slab, offset, lengthBytes) {
        if (++count === 2) slab.retain();
        return peer.send(slab, offset, lengthBytes);
      },
    };
  }),
  'a peer that is not there takes nothing, and is found once it comes': broken((inner) => {
    const waiting: (() => void)[] = [];
    return {
      start: (handlers) =>
        inner.start({
          ...bound(handlers),
          onPeerUp(peer) {
            handlers.onPeerUp(peer);
            for (const send of waiting.splice(0)) send();
          },
        }),
      peer(target) {
        const peer = inner.peer(target);
        const send = peer.send.bind(peer);
        peer.send = (slab, offset, lengthBytes) => {
          const taken = send(slab, offset, lengthBytes);
          if (!taken && waiting.length === 0) {
            slab.retain();
            waiting.push(() => send(slab, offset, lengthBytes));
          }
          return taken;
        };
        return peer;
      },
    };
  }),
  'a way that was given up stays closed, and another one can be opened': broken(() => ({ release() {} })),
  'the end of a host is told to both ends, once each': withHandlers((handlers) => ({
    onPeerDown(peer) {
      handlers.onPeerDown(peer);
      handlers.onPeerDown(peer);
    },
  })),
  'a host of another deployment is refused, counted, and tried again': (context) =>
    createTcpTransport({ ...context, identity: { ...context.identity, deploymentId: 1 } }),
  'a host id leads to the host that has it, once its address is known, and to no other': (context) =>
    createTcpTransport({ ...context, resolve: (target) => context.resolve(target) ?? 'hostb:7000' }),
  'an address in use is a typed error': broken((inner) => ({
    start: (handlers) =>
      inner.start(handlers).catch((cause: unknown) => {
        throw new Error('in use', { cause });
      }),
  })),
  'a paused session hands out nothing until it goes on': withHandlers((handlers) => ({
    onFrame: (from, ...rest) => handlers.onFrame(sameSession(from, { pause() {} }), ...rest),
  })),
  'a frame that its receiver cannot take ends the connection, not the host': withHandlers((handlers) => ({
    onFrame(...args) {
      try {
        handlers.onFrame(...args);
      } catch {
        // and goes on
      }
    },
  })),
  'a garbled frame, or one in a format that is not read here, is handed to nobody': (context) =>
    createTcpTransport({ ...context, identity: { ...context.identity, newestFormat: 255 } }),
  'a session that is dropped ends, and is counted under its reason': withHandlers((handlers) => ({
    onFrame: (from, ...rest) => handlers.onFrame(sameSession(from, { drop() {} }), ...rest),
  })),
  'a queue has a bound; beyond it frames are dropped': (context) =>
    createTcpTransport({ ...context, maxSendQueueBytes: Number.POSITIVE_INFINITY }),
  'a snapshot streams whole, and its sender hears that it was installed': withHandlers((handlers) => ({
    onSnapshot(from, header, chunks, signal) {
      void handlers.onSnapshot(from, header, chunks, signal);
      return new Promise(() => {});
    },
  })),
  'a snapshot that is refused, cut short, or sent to nobody fails at its sender': broken((inner) => ({
    sendSnapshot: (...args) => inner.sendSnapshot(...args).catch(() => {}),
  })),
  'a receiver that has the beginning of an image is sent the rest, and only that is read': broken((inner) => ({
    // Reads all, and throws the beginning away.
    sendSnapshot: (target, header, chunks, signal, from) =>
      inner.sendSnapshot(target, header, chunks, signal, from && ((at) => behind(from(0), at))),
  })),
  'a receiver that has nothing of an image is sent all of it, though the rest was offered': broken((inner) => ({
    sendSnapshot: (target, header, chunks, signal, from) =>
      inner.sendSnapshot(target, header, from === undefined ? chunks : behind(chunks, 1), signal, from),
  })),
  'a rest that does not end where its image ends is installed by nobody': withHandlers((handlers) => ({
    onSnapshot: (from, header, chunks, signal, begin) =>
      handlers.onSnapshot(from, header, untilError(chunks), signal, begin),
  })),
  'from the middle nothing is handed out that was not offered so': withHandlers((handlers) => ({
    onSnapshot: (from, header, chunks, signal) => handlers.onSnapshot(from, header, chunks, signal, () => {}),
  })),
  'sending a snapshot ends when it is aborted, at both ends': broken((inner) => ({
    sendSnapshot: (target, header, chunks) => inner.sendSnapshot(target, header, chunks, new AbortController().signal),
  })),
  'an image is whole only when its sender says so': withHandlers((handlers) => ({
    onSnapshot: (from, header, chunks, signal) => handlers.onSnapshot(from, header, untilError(chunks), signal),
  })),
  'a closed transport takes nothing, and hands out nothing': broken(() => ({
    close: () => Promise.resolve(),
  })),
};

for (const { name } of transportCompliance(tcp)) {
  test(`broken on purpose, found out: ${name}`, async () => {
    const create = BREACHES[name];
    assert.ok(create !== undefined, 'nothing breaks this rule');
    const { run } = transportCompliance(create).find((found) => found.name === name)!;
    await assert.rejects(run(), 'the case held');
  });
}

test('a transport that does not look at checksums is found out', async () => {
  const create = withPeers((peer) => ({
    send(slab, offset, lengthBytes) {
      if (lengthBytes > 400) sealFrame(slab.u8, slab.u32, offset, lengthBytes, FrameType.Messages, 1);
      return peer.send(slab, offset, lengthBytes);
    },
  }));
  const { run } = transportCompliance(create).find(({ name }) => name.startsWith('a garbled frame'))!;
  await assert.rejects(run());
});
