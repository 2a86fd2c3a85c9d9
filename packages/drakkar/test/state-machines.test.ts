/** The kinds of state machines on whole hosts: what is stored, streamed, given up, refused, and what becomes of one that throws. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DrakkarError,
  type AnyStateMachine,
  type Entry,
  type OpenedState,
  type RecoveryContext,
  type SnapshotContext,
  type SnapshotFile,
} from 'drakkar';
import { ConcurrentStore, DiskStore, Store, type MachinePlace } from 'drakkar/sim';
import type { EngineCounters } from '../src/engine/counters.ts';
import type { Env } from '../src/env/env.ts';
import { TestCluster, engineOf, text } from './support.ts';
import { BACKUP, copyDirectory, importInto } from './tools/support.ts';

type Create = (place: MachinePlace) => AnyStateMachine;
const onDisk: Create = (place) => new DiskStore(place);
const put = (key: string, value: number): Uint8Array => text(JSON.stringify({ f: 'put', key, value }));
const REPLICA = { snapshotEntries: 0, compactionOverhead: 0 };

class Machines extends TestCluster {
  /** Starts host `id` with its replica of shard 1, and gives how it went. */
  async start(id: number, create: Create, ids: readonly number[] = [...this.machineOf.keys()]): Promise<void> {
    if (!this.hosts.has(id)) await this.open(id);
    const env = this.envOf(id);
    const members = this.members(...ids);
    const place = { kind: 'on-disk', env, dir: 'stores/1' } as const;
    await this.settle(
      this.hosts.get(id)!.startReplica({ shardId: 1, replicaId: id, members, ...REPLICA }, () => create(place)),
    );
  }

  envOf(id: number): Env {
    return engineOf(this.hosts.get(id)!).env;
  }

  async put(id: number, key: string, value: number): Promise<void> {
    await this.settle(this.hosts.get(id)!.propose(1, put(key, value)));
  }

  async read(id: number, key: string): Promise<unknown> {
    return this.settle(this.hosts.get(id)!.read(1, key));
  }

  snapshot(id: number): Promise<{ index: number }> {
    return this.settle(this.hosts.get(id)!.requestSnapshot(1));
  }

  /** The snapshot files on the disk of `id`, with their sizes. */
  images(id: number): number[] {
    const { disk } = this.machineOf.get(id)!;
    const paths = disk.paths().filter((path) => path.endsWith('.snapshot') && !path.startsWith(BACKUP));
    return paths.map((path) => disk.images.get(path)!.sizeBytes);
  }
}

test('scenario 56: a snapshot of an on-disk state machine holds no state, and a restart goes on from the store', async () => {
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, onDisk);
  await cluster.ready(1);
  for (let i = 0; i < 20; i++) await cluster.put(1, `a key that takes its room ${i}`, i);
  const { index } = await cluster.snapshot(1);
  assert.ok(cluster.images(1)[0] < 400, String(cluster.images(1)));
  await cluster.put(1, 'after', 1);
  const given: number[] = [];
  class Counting extends DiskStore {
    override update(...args: Parameters<DiskStore['update']>): Promise<void> {
      given.push(...args[0].map((entry) => entry.index));
      return super.update(...args);
    }
  }
  cluster.kill(1);
  await cluster.start(1, (place) => new Counting(place));
  await cluster.ready(1);
  assert.equal(await cluster.read(1, 'a key that takes its room 7'), 7);
  await cluster.put(1, 'again', 2);
  assert.ok(given.length > 0 && given.every((at) => at > index + 1), `${given.join()} after ${index}`);
  assert.equal(cluster.hosts.get(1)!.shardInfo(1).kind, 'on-disk');
  await cluster.close();
});

test('the log behind a snapshot goes only after the store was synced; writes alone sync nothing', async () => {
  const cluster = new Machines({ hosts: 1 });
  const logAtSync: number[] = [];
  class Watched extends DiskStore {
    override async sync(): Promise<void> {
      await super.sync();
      logAtSync.push(cluster.hosts.get(1)!.shardInfo(1).firstIndex);
    }
  }
  await cluster.start(1, (place) => new Watched(place));
  await cluster.ready(1);
  for (let i = 0; i < 20; i++) await cluster.put(1, `key ${i}`, i);
  assert.deepEqual(logAtSync, []);
  const { index } = await cluster.snapshot(1);
  assert.deepEqual(logAtSync, [1], 'the log was whole when the store was synced');
  assert.equal(cluster.hosts.get(1)!.shardInfo(1).firstIndex, index + 1);
  await cluster.close();
});

test('F15: a follower that needs an image gets it from the store of another, takes it over and gives it up', async () => {
  const cluster = new Machines();
  for (const id of [1, 2, 3]) await cluster.start(id, onDisk);
  await cluster.ready(1);
  const leader = cluster.leaderOf(1);
  const follower = cluster.followerOf(1);
  const session = await cluster.settle(cluster.hosts.get(leader)!.openSession(1));
  cluster.kill(follower);
  for (let i = 0; i < 50; i++) await cluster.put(leader, `key ${i}`, i);
  await cluster.settle(session.propose(put('session', 1)));
  const { index } = await cluster.snapshot(leader);
  await cluster.start(follower, onDisk);
  await cluster.ready(1);
  await cluster.assertEqual(1);
  assert.equal(await cluster.read(follower, 'key 7'), 7);
  const counters = (id: number): EngineCounters => engineOf(cluster.hosts.get(id)!).counters;
  assert.equal(counters(leader).imagesStreamed, 1);
  assert.equal(counters(follower).imagesShrunk, 1);
  assert.ok(cluster.images(follower).every((sizeBytes) => sizeBytes < 400));
  assert.ok(cluster.hosts.get(follower)!.shardInfo(1).snapshotIndex >= index);
  // The table came with it: the answer to the session's last command is known there after a restart, too.
  cluster.losePower(follower);
  await cluster.start(follower, onDisk);
  await cluster.ready(1);
  await cluster.assertEqual(1);
  await cluster.close();
});

for (const crash of ['dropped', 'kept'] as const) {
  test(`F15: power is lost at any step of taking an image over (what was not flushed is ${crash}): it goes on from there`, async () => {
    const cluster = new Machines();
    for (const id of [1, 2, 3]) await cluster.start(id, onDisk);
    await cluster.ready(1);
    const follower = cluster.followerOf(1);
    const machine = cluster.machineOf.get(follower)!;
    for (let step = 1; step <= 26; step++) {
      cluster.kill(follower);
      const others = [...cluster.hosts.keys()];
      await cluster.ready(1, others);
      const leader = cluster.leaderOf(1);
      for (let i = 0; i < 5; i++) await cluster.put(leader, `key ${i}`, step);
      for (const id of others) await cluster.snapshot(id);
      let left = Number.POSITIVE_INFINITY;
      let isCrashed = false;
      let isDone = false;
      machine.disk.fault = () => {
        if (--left === 0) {
          isCrashed = true;
          cluster.losePower(follower, () => crash === 'kept');
        }
        return undefined;
      };
      await cluster.open(follower);
      cluster.hosts.get(follower)!.on('snapshotReceived', () => (left = step));
      cluster.hosts.get(follower)!.on('snapshotRecovered', () => (isDone = true));
      await cluster.start(follower, onDisk);
      await cluster.world.until(() => isCrashed || isDone);
      machine.disk.fault = () => undefined;
      if (isCrashed) await cluster.start(follower, onDisk);
      await cluster.ready(1);
      await cluster.assertEqual(1);
    }
    await cluster.close();
  });
}

test('a store that does not fit the log is refused: ahead of it, or behind what it holds', async () => {
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, onDisk);
  await cluster.ready(1);
  for (let i = 0; i < 5; i++) await cluster.put(1, 'a', i);
  const { disk } = cluster.machineOf.get(1)!;
  const whole = disk.clone();
  cluster.kill(1);
  disk.remove('data');
  await assert.rejects(cluster.start(1, onDisk), { code: 'ERR_STATE_MACHINE_INDEX', message: /the log ends at 0/ });
  cluster.kill(1);

  // Nothing is compacted: the log has it all.
  disk.restore(whole);
  disk.releaseLocks();
  disk.remove('stores');
  await cluster.start(1, onDisk);
  await cluster.ready(1);
  assert.equal(await cluster.read(1, 'a'), 4);
  await cluster.snapshot(1);
  cluster.kill(1);
  disk.remove('stores');
  await assert.rejects(cluster.start(1, onDisk), { code: 'ERR_STATE_MACHINE_INDEX', message: /the log begins at/ });
  await cluster.close();
});

test('a state machine whose update, open or snapshot fails takes its shard along, and nothing else', async () => {
  class Rejecting extends DiskStore {
    override async update(...args: Parameters<DiskStore['update']>): Promise<void> {
      if (args[0].some((entry) => new TextDecoder().decode(entry.command).includes('poison'))) throw new Error('no');
      await super.update(...args);
    }
  }
  class Throwing extends Store {
    override *saveSnapshot(): Iterable<Uint8Array> {
      yield text('[');
      throw new Error('no more');
    }
  }
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, (place) => new Rejecting(place));
  await cluster.startReplica(1, 2, [1]);
  await cluster.ready(1);
  await cluster.ready(2);
  await assert.rejects(cluster.put(1, 'poison', 1), { code: 'ERR_SHARD_FAILED' });
  assert.equal(cluster.hosts.get(1)!.shardInfo(1).failure?.code, 'ERR_STATE_MACHINE');
  assert.equal(await cluster.propose(1, 2, 'alive'), 1);
  await cluster.close();

  const other = new Machines({ hosts: 1 });
  await other.start(1, () => new Throwing());
  await other.ready(1);
  await other.put(1, 'a', 1);
  await assert.rejects(other.snapshot(1), { code: 'ERR_STATE_MACHINE' });
  assert.equal(other.hosts.get(1)!.shardInfo(1).state, 'failed');
  await other.close();

  class Locked extends DiskStore {
    isClosed = false;

    override async open(): Promise<OpenedState> {
      throw new Error('locked');
    }

    override async close(): Promise<void> {
      this.isClosed = true;
    }
  }
  const last = new Machines({ hosts: 1 });
  let locked: Locked | undefined;
  await assert.rejects(
    last.start(1, (place) => (locked = new Locked(place))),
    { code: 'ERR_STATE_MACHINE' },
  );
  assert.equal(locked?.isClosed, true);
  await last.close();
});

test('a snapshot that its state machine gives up is no failure', async () => {
  class Unwilling extends Store {
    override *saveSnapshot(): Iterable<Uint8Array> {
      yield text('[');
      throw new DOMException('not now', 'AbortError');
    }
  }
  class Unprepared extends ConcurrentStore {
    override prepareSnapshot(): never {
      throw new DOMException('not now', 'AbortError');
    }
  }
  for (const create of [() => new Unwilling(), (place: MachinePlace) => new Unprepared(place)]) {
    const cluster = new Machines({ hosts: 1 });
    await cluster.start(1, create);
    await cluster.ready(1);
    await cluster.put(1, 'a', 1);
    await assert.rejects(cluster.snapshot(1), { code: 'ERR_ABORTED', outcome: 'not-applied' });
    await cluster.put(1, 'a', 2);
    assert.equal(await cluster.read(1, 'a'), 2);
    await cluster.close();
  }
});

test('a concurrent state machine applies and answers while its snapshot is saved', async () => {
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, (place) => new ConcurrentStore(place));
  await cluster.ready(1);
  for (let i = 0; i < 200; i++) await cluster.put(1, `key ${i}`, i);
  const host = cluster.hosts.get(1)!;
  let isSaved = false;
  const saving = host.requestSnapshot(1).then((saved) => {
    isSaved = true;
    return saved;
  });
  await cluster.put(1, 'meanwhile', 1);
  assert.equal(await cluster.read(1, 'meanwhile'), 1);
  assert.equal(isSaved, false, 'the snapshot ended before anything could happen meanwhile');
  const { index } = await cluster.settle(saving);
  assert.ok(index < host.shardInfo(1).appliedIndex);
  cluster.kill(1);
  await cluster.start(1, (place) => new ConcurrentStore(place));
  await cluster.ready(1);
  assert.equal(await cluster.read(1, 'meanwhile'), 1);
  assert.equal(await cluster.read(1, 'key 199'), 199);
  await cluster.close();
});

/** Adds a file with the newest value to each snapshot. */
class WithFile extends Store {
  readonly env: Env;
  recovered: { readonly id: number; readonly text: string; readonly metadata: string }[] = [];
  path: string | undefined;

  constructor(env: Env) {
    super();
    this.env = env;
  }

  override async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, { files }: RecoveryContext): Promise<void> {
    for (const { id, path, metadata } of files) {
      const file = await this.env.fs.open(path, 'read');
      const bytes = new Uint8Array(await file.sizeBytes());
      await file.read(bytes, 0, bytes.length, 0);
      const decoder = new TextDecoder();
      this.recovered.push({ id, text: decoder.decode(bytes), metadata: decoder.decode(metadata) });
    }
    await super.recoverFromSnapshot(image);
  }

  snapshotFiles(): readonly SnapshotFile[] {
    return this.path === undefined ? [] : [{ id: 3, path: this.path, metadata: text('about it') }];
  }
}

test('files of a snapshot come back verified, after a restart and on another host, and leave nothing behind', async () => {
  const cluster = new Machines();
  const machines = new Map<number, WithFile>();
  const start = (id: number, ids: readonly number[] = [1, 2, 3]): Promise<void> => {
    const create: Create = ({ env }) => {
      const machine = new WithFile(env);
      machines.set(id, machine);
      return machine;
    };
    return cluster.start(id, create, ids);
  };
  for (const id of [1, 2, 3]) await start(id);
  await cluster.ready(1);
  const leader = cluster.leaderOf(1);
  const follower = cluster.followerOf(1);
  cluster.kill(follower);
  const content = 'x'.repeat(300_000);
  const { fs } = cluster.envOf(leader);
  await cluster.settle(fs.makeDirectory('files'));
  const file = await cluster.settle(fs.open('files/blob', 'create'));
  await cluster.settle(
    new Promise<void>((resolve, reject) => {
      file.write(text(content), 0, content.length, 0, (error) => (error === null ? resolve() : reject(error)));
    }),
  );
  machines.get(leader)!.path = 'files/blob';
  await cluster.put(leader, 'a', 1);
  await cluster.snapshot(leader);
  await start(follower);
  await cluster.ready(1);
  const expected = [{ id: 3, text: content, metadata: 'about it' }];
  assert.deepEqual(machines.get(follower)!.recovered, expected);
  cluster.kill(leader);
  await start(leader);
  assert.deepEqual(machines.get(leader)!.recovered, expected);
  for (const id of [leader, follower]) {
    const left = cluster.machineOf
      .get(id)!
      .disk.paths()
      .filter((path) => path.includes('.files'));
    assert.deepEqual(left, []);
  }
  // An export takes them along, and an import gives them back.
  await cluster.ready(1);
  machines.get(leader)!.path = 'files/blob';
  await cluster.settle(cluster.hosts.get(leader)!.requestSnapshot(1, { exportTo: BACKUP }));
  await cluster.settle(cluster.hosts.get(leader)!.close());
  cluster.kill(leader);
  await importInto(cluster, leader, [leader]);
  await start(leader, [leader]);
  assert.deepEqual(machines.get(leader)!.recovered, expected);
  await cluster.close();
});

test('files that cannot be part of a snapshot fail the state machine that lists them', async () => {
  class Twice extends Store {
    snapshotFiles(): readonly SnapshotFile[] {
      return [
        { id: 1, path: 'a' },
        { id: 1, path: 'b' },
      ];
    }
  }
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, () => new Twice());
  await cluster.ready(1);
  await cluster.put(1, 'a', 1);
  await assert.rejects(cluster.snapshot(1), { code: 'ERR_STATE_MACHINE', message: /the id 1/ });
  await cluster.close();
});

test('closing a host aborts what takes its time, and waits for it', async () => {
  const log: string[] = [];
  class Slow extends DiskStore {
    override open({ signal }: SnapshotContext): Promise<OpenedState> {
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          log.push('open ends');
          reject(signal.reason as Error);
        });
      });
    }

    override async close(): Promise<void> {
      log.push('close');
    }
  }
  const cluster = new Machines({ hosts: 1 });
  const starting = cluster.open(1).then((host) => {
    const place = { kind: 'on-disk', env: cluster.envOf(1), dir: 'stores/1' } as const;
    const options = { shardId: 1, replicaId: 1, members: cluster.members(1) };
    return { host, start: host.startReplica(options, () => new Slow(place)) };
  });
  const { host, start } = await starting;
  const refused = assert.rejects(start, (error) => DrakkarError.is(error, 'ERR_ABORTED'));
  await cluster.world.run(100);
  await cluster.settle(host.close());
  await refused;
  assert.deepEqual(log, ['open ends', 'close']);
});

test('a store without a session table: sessions are refused, everything else works', async () => {
  class Plain extends DiskStore {
    override async open(): Promise<OpenedState> {
      const { appliedIndex } = await super.open();
      return { appliedIndex };
    }
  }
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, (place) => new Plain(place));
  await cluster.ready(1);
  await assert.rejects(cluster.settle(cluster.hosts.get(1)!.openSession(1)), { code: 'ERR_INVALID_SESSION' });
  await cluster.put(1, 'a', 1);
  assert.equal(await cluster.read(1, 'a'), 1);
  await cluster.close();
});

test('an entry of an on-disk state machine stays as it is until its update has ended', async () => {
  const seen: string[][] = [];
  class Reading extends DiskStore {
    override async update(entries: readonly Entry[], batch: Parameters<DiskStore['update']>[1]): Promise<void> {
      const before = entries.map((entry) => new TextDecoder().decode(entry.command));
      await super.update(entries, batch);
      const after = entries.map((entry) => new TextDecoder().decode(entry.command));
      assert.deepEqual(after, before);
      seen.push(after);
    }
  }
  const cluster = new Machines({ hosts: 1 });
  await cluster.start(1, (place) => new Reading(place));
  await cluster.ready(1);
  const host = cluster.hosts.get(1)!;
  await cluster.settle(Promise.all(Array.from({ length: 800 }, (_, i) => host.propose(1, put(`k${i % 7}`, i)))));
  assert.equal(seen.flat().length, 800);
  assert.ok(seen.some((batch) => batch.length > 1));
  await cluster.close();
});

test('an import into on-disk state machines: a store of its own gives way to the image, a new one takes it, and it is given up', async () => {
  const cluster = new Machines();
  await cluster.start(1, onDisk, [1]);
  await cluster.ready(1, [1]);
  for (let i = 0; i < 20; i++) await cluster.put(1, `key ${i}`, i);
  const { index } = await cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1, { exportTo: BACKUP }));
  for (let i = 0; i < 20; i++) await cluster.put(1, `key ${i}`, 100 + i);
  await cluster.snapshot(1);
  await cluster.settle(cluster.hosts.get(1)!.close());
  for (const id of [1]) cluster.kill(id);
  const source = cluster.machineOf.get(1)!.boot();
  await cluster.settle(copyDirectory(source, cluster.machineOf.get(2)!.boot(), BACKUP));
  for (const id of [1, 2]) assert.equal((await importInto(cluster, id, [1, 2])).index, index);
  for (const id of [1, 2]) await cluster.start(id, onDisk, [1, 2]);
  await cluster.ready(1);
  for (const id of [1, 2]) assert.equal(await cluster.read(id, 'key 7'), 7);
  await cluster.put(2, 'key 7', 8);
  // What was imported is in the stores now: their own snapshots hold no state, and a restart needs no image.
  for (const id of [1, 2]) await cluster.snapshot(id);
  for (const id of [1, 2]) assert.ok(cluster.images(id).every((sizeBytes) => sizeBytes < 400));
  for (const id of [1, 2]) cluster.losePower(id);
  for (const id of [1, 2]) await cluster.start(id, onDisk, [1, 2]);
  await cluster.ready(1);
  await cluster.assertEqual(1);
  for (const id of [1, 2]) assert.equal(await cluster.read(id, 'key 7'), 8);
  await cluster.close();
});
