/** The real environment: what the interfaces promise, on this machine's disk, network and clock. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { NodeHost } from 'drakkar';
import { createNodeEnv } from '../../src/env/node/index.ts';
import type { Socket, SocketHandlers } from '../../src/env/env.ts';
import { Journal, text } from '../support.ts';

const env = createNodeEnv();
const root = mkdtempSync(join(tmpdir(), 'drakkar-env-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('files: created private, written at a place, read back, synced, renamed, removed', async () => {
  const { fs } = env;
  const dir = `${root}/a/b/c`;
  await fs.makeDirectory(dir);
  await fs.makeDirectory(dir);
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  const file = await fs.open(`${dir}/file`, 'create', { dataSync: true });
  await assert.rejects(fs.open(`${dir}/file`, 'create'), { code: 'EEXIST' });
  await assert.rejects(fs.open(`${dir}/other`, 'write'), { code: 'ENOENT' });
  await new Promise<void>((resolve, reject) => {
    file.write(text('xxhelloxx'), 2, 5, 3, (error) => (error === null ? resolve() : reject(error)));
  });
  await file.sync();
  assert.equal(await file.sizeBytes(), 8);
  const buffer = new Uint8Array(20);
  assert.equal(await file.read(buffer, 1, 19, 3), 5);
  assert.equal(new TextDecoder().decode(buffer.subarray(1, 6)), 'hello');
  await file.truncate(4);
  await file.close();
  assert.deepEqual(await fs.stat(`${dir}/file`), { sizeBytes: 4, isDirectory: false, mode: 0o600 });
  await fs.rename(`${dir}/file`, `${dir}/renamed`);
  await fs.syncDirectory(dir);
  assert.deepEqual(await fs.list(dir), ['renamed']);
  await fs.remove(`${root}/a`);
  await fs.remove(`${root}/a`);
  assert.equal(await fs.stat(`${root}/a`), undefined);
});

test('direct files: whole pages and all else, written in any order, read back as written', async () => {
  const { fs } = env;
  const path = `${root}/direct`;
  const file = await fs.open(path, 'create', { direct: true, dataSync: true });
  const pages = new Uint8Array(fs.allocate(3 * 4096));
  assert.ok(pages.length >= 3 * 4096 && pages.every((byte) => byte === 0));
  const expected = new Uint8Array(6 * 4096);
  const write = (bytes: Uint8Array, offset: number, length: number, position: number): Promise<void> => {
    expected.set(bytes.subarray(offset, offset + length), position);
    return new Promise((resolve, reject) => {
      file.write(bytes, offset, length, position, (error) => (error === null ? resolve() : reject(error)));
    });
  };
  const check = async (): Promise<void> => {
    const read = new Uint8Array(expected.length);
    const size = await file.sizeBytes();
    assert.equal(await file.read(read, 0, read.length, 0), size);
    assert.deepEqual(read.subarray(0, size), expected.subarray(0, size));
  };
  await write(pages, 0, 3 * 4096, 0);
  await check();
  pages.fill(1, 0, 4096).fill(2, 4096);
  await write(pages, 4096, 2 * 4096, 4096);
  await check();
  await write(text('not a page'), 0, 10, 5000); // from memory that may lie anywhere
  await check();
  await write(pages, 0, 4096, 4096); // over what the cache holds
  await check();
  await write(pages, 100, 5000, 8192); // neither offset nor length
  await check();
  await write(pages, 4096, 4096, 5 * 4096 - 1); // nor position
  await file.sync();
  await check();
  await file.close();
  const again = await fs.open(path, 'write', { direct: true });
  assert.equal(await again.sizeBytes(), 6 * 4096 - 1);
  await again.close();
});

test('a directory is locked for one, and free after its release', async () => {
  const dir = `${root}/locked`;
  await env.fs.makeDirectory(dir);
  const lock = await env.fs.lockDirectory(dir);
  await assert.rejects(env.fs.lockDirectory(`${root}/../${root.split('/').pop()}/locked`), { code: 'ELOCKED' });
  await lock.release();
  await (await env.fs.lockDirectory(dir)).release();
  assert.deepEqual(readdirSync(dir), []);
});

test('sockets: bytes in order, written callbacks, the end told once to each side', async () => {
  const events: string[] = [];
  let accepted!: Socket;
  const isAccepted = Promise.withResolvers<void>();
  const hasPing = Promise.withResolvers<void>();
  const handlers = (name: string, on: Partial<SocketHandlers> = {}): SocketHandlers => ({
    onData: (buffer, offset, length) =>
      events.push(`${name}:${new TextDecoder().decode(buffer.subarray(offset, offset + length))}`),
    onClose: () => events.push(`${name} closed`),
    ...on,
  });
  const listener = await env.network.listen('127.0.0.1:0', (socket) => {
    accepted = socket;
    socket.handlers = handlers('server', {
      onData: (buffer, offset, length) => {
        events.push(new TextDecoder().decode(buffer.subarray(offset, offset + length)));
        hasPing.resolve();
      },
    });
    isAccepted.resolve();
  });
  await assert.rejects(
    env.network.listen(listener.address, () => {}),
    { code: 'EADDRINUSE' },
  );
  const isOpen = Promise.withResolvers<void>();
  const isClosed = Promise.withResolvers<void>();
  const socket = env.network.connect(
    listener.address,
    handlers('client', { onOpen: () => isOpen.resolve(), onClose: () => isClosed.resolve() }),
  );
  await Promise.all([isOpen.promise, isAccepted.promise]);
  await new Promise<void>((resolve) => socket.write(text('-ping-'), 1, 4, () => resolve()));
  const echoed = Promise.withResolvers<void>();
  socket.handlers = handlers('client', { onClose: () => isClosed.resolve(), onData: () => echoed.resolve() });
  accepted.write(text('pong'), 0, 4);
  await Promise.all([echoed.promise, hasPing.promise]);
  accepted.destroy();
  await isClosed.promise;
  const late = await new Promise<Error | null>((resolve) => socket.write(text('late'), 0, 4, resolve));
  assert.ok(late instanceof Error);
  await listener.close();
  assert.deepEqual(events, ['ping', 'server closed']);
  const refused = await new Promise<Error | undefined>((resolve) =>
    env.network.connect(listener.address, handlers('x', { onClose: resolve })),
  );
  assert.equal((refused as NodeJS.ErrnoException).code, 'ECONNREFUSED');
});

test('three hosts on this machine replicate, and find everything again after a restart', async () => {
  const members = { 1: '127.0.0.1:17451', 2: '127.0.0.1:17452', 3: '127.0.0.1:17453' };
  const open = (): Promise<NodeHost[]> =>
    Promise.all(
      [1, 2, 3].map(async (id) => {
        const host = await NodeHost.open({ dir: `${root}/host-${id}`, raftAddress: members[id as 1], rttMs: 10 });
        await host.startReplica({ shardId: 1, replicaId: id, members }, () => new Journal());
        return host;
      }),
    );
  let hosts = await open();
  await Promise.all(hosts.map((host) => host.whenReady(1, { timeoutMs: 30_000 })));
  const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => hosts[i % 3].propose(1, text(`line ${i}`))));
  assert.equal(new Set(answers).size, 300);
  await hosts[1].requestSnapshot(1);
  await Promise.all(hosts.map((host) => host.close()));
  hosts = await open();
  await Promise.all(hosts.map((host) => host.whenReady(1, { timeoutMs: 30_000 })));
  const lines = await Promise.all(hosts.map((host) => host.read(1, 'all')));
  assert.equal((lines[0] as string[]).length, 300);
  assert.deepEqual(lines[1], lines[0]);
  assert.deepEqual(lines[2], lines[0]);
  await Promise.all(hosts.map((host) => host.close()));
});

test('a directory that others may reach is refused', async () => {
  const dir = `${root}/open`;
  await env.fs.makeDirectory(dir);
  chmodSync(dir, 0o755);
  await assert.rejects(NodeHost.open({ dir, raftAddress: '127.0.0.1:17454' }), { code: 'ERR_DIR_PERMISSIONS' });
});

test('accepted connections share what they read into: each gets its own bytes, in order, and none while it is paused', async () => {
  const size = 3_000_000;
  const valueAt = (connection: number, at: number): number => (at * 31 + (at >>> 8) + connection * 7) & 0xff;
  const done: Promise<void>[] = [];
  const begun = Promise.withResolvers<void>();
  let goOn: (() => void) | undefined;
  const listener = await env.network.listen('127.0.0.1:0', (socket) => {
    let received = 0;
    let connection = -1;
    let isPaused = false;
    const end = Promise.withResolvers<void>();
    done.push(end.promise);
    socket.handlers = {
      onData(buffer, offset, length) {
        assert.equal(isPaused, false, 'bytes for a paused connection');
        let at = offset;
        if (connection < 0) connection = buffer[at++];
        for (; at < offset + length; at++) {
          if (buffer[at] !== valueAt(connection, received++)) assert.fail(`connection ${connection}: byte ${received}`);
        }
        if (connection > 0 || goOn !== undefined) return;
        isPaused = true;
        socket.pause();
        goOn = () => {
          isPaused = false;
          socket.resume();
        };
        begun.resolve();
      },
      onClose: (error) => {
        if (error === undefined && received === size) end.resolve();
        else end.reject(error ?? new Error(`connection ${connection} ended after ${received} bytes`));
      },
    };
  });
  const send = (connection: number): void => {
    const bytes = new Uint8Array(size + 1);
    bytes[0] = connection;
    for (let i = 0; i < size; i++) bytes[i + 1] = valueAt(connection, i);
    const socket = env.network.connect(listener.address, {
      onOpen() {
        socket.write(bytes, 0, bytes.length);
        socket.end();
      },
      onData() {},
      onClose() {},
    });
  };
  send(0);
  await begun.promise;
  for (const connection of [1, 2, 3]) send(connection);
  await Promise.all(await othersOf(done, 4));
  goOn!();
  await done[0];
  await listener.close();
});

/** All but the first, once there are so many. */
async function othersOf(all: readonly Promise<void>[], count: number): Promise<readonly Promise<void>[]> {
  while (all.length < count) await new Promise((resolve) => setImmediate(resolve));
  return all.slice(1);
}
