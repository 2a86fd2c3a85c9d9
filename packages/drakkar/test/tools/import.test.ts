/** Exports, and offline repair from them: what is carried over, what is refused, and that a crash leaves the old or the new. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, NodeHost, type Env, type ErrorCode } from 'drakkar';
import { MemoryMachines, type MemoryDisk } from 'drakkar/testing';
import { describeDirectory, importSnapshot, verifyLog, verifySnapshot, type ImportOptions } from 'drakkar/tools';
import { SIMPLE, simpleCodec } from '../../src/sim/codec.ts';
import { openWal } from '../../src/wal/open.ts';
import { Journal, TestCluster, text } from '../support.ts';
import { TestLog } from '../wal/support.ts';
import { BACKUP, DATA, copyDirectory, importInto, logDb, loseMajority } from './support.ts';

test('scenario 70: a shard that lost its majority goes on from an export, with one old host and two new ones', async () => {
  const { cluster, exported, index } = await loseMajority();
  const source = cluster.machineOf.get(1)!.boot();
  for (const id of [4, 5]) await cluster.settle(copyDirectory(source, cluster.machineOf.get(id)!.boot(), BACKUP));
  for (const id of [1, 4, 5]) {
    const imported = await importInto(cluster, id, [1, 4, 5]);
    assert.equal(imported.index, index);
    assert.deepEqual(imported.removed, [2, 3]);
    assert.deepEqual(imported.members, cluster.members(1, 4, 5));
    assert.equal(imported.replacedIndex > index, id === 1);
  }
  for (const id of [1, 4, 5]) {
    await cluster.open(id);
    await cluster.startReplica(id, 1, id === 1 ? undefined : [1, 4, 5]);
  }
  await cluster.ready(1);
  assert.deepEqual(cluster.lines(1, 1), exported, 'what came behind the export is gone');
  await cluster.propose(cluster.followerOf(1), 1, 'goes on');
  await cluster.assertEqual(1);
  assert.deepEqual(cluster.lines(4, 1), [...exported, 'goes on']);
  assert.deepEqual(Object.keys(cluster.hosts.get(5)!.shardInfo(1).members), ['1', '4', '5']);
  assert.equal(cluster.hosts.get(5)!.shardInfo(1).configChangeIndex, index);
  // It outlives a restart of all, and a snapshot carries the new members on.
  await cluster.settle(cluster.hosts.get(5)!.requestSnapshot(1));
  for (const id of [1, 4, 5]) cluster.losePower(id);
  for (const id of [1, 4, 5]) {
    await cluster.open(id);
    await cluster.startReplica(id, 1);
  }
  await cluster.ready(1);
  await cluster.assertEqual(1);
  assert.deepEqual(cluster.lines(5, 1), [...exported, 'goes on']);
  // Those that were given up come back with all they had: they are no majority of anything any more, and stop.
  for (const id of [2, 3]) {
    await cluster.open(id);
    await cluster.startReplica(id, 1);
  }
  for (const id of [2, 3]) {
    await cluster.world.until(() => isRemoved(cluster.hosts.get(id)!), 30_000);
  }
  await cluster.propose(4, 1, 'undisturbed');
  assert.deepEqual(cluster.lines(cluster.leaderOf(1), 1), [...exported, 'goes on', 'undisturbed']);
  await cluster.close();
});

function isRemoved(host: NodeHost): boolean {
  try {
    host.shardInfo(1);
    return false;
  } catch (error) {
    return DrakkarError.is(error, 'ERR_REPLICA_REMOVED');
  }
}

test('sessions come along: a command that was applied before the export is not applied again', async () => {
  const cluster = new TestCluster({ hosts: 1, replica: { electionRtt: 11 } });
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  const session = await cluster.settle(host.openSession(1));
  await cluster.settle(session.propose(text('once')));
  await cluster.settle(host.requestSnapshot(1, { exportTo: BACKUP }));
  const before = host.hash(1).sessionHash;
  await cluster.settle(session.propose(text('later')));
  await cluster.settle(host.close());
  await importInto(cluster, 1, [1]);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  assert.equal(cluster.hosts.get(1)!.hash(1).sessionHash, before);
  assert.deepEqual(cluster.lines(1, 1), ['once']);
  await cluster.close();
});

test('other shards in the same log keep what they have, over many segments and their compaction', async () => {
  const cluster = new TestCluster({
    hosts: 1,
    segmentBytes: 64 * 1024,
    replica: { electionRtt: 11, snapshotEntries: 40, compactionOverhead: 0 },
  });
  await cluster.startAll([1, 2, 3]);
  const host = cluster.hosts.get(1)!;
  for (let i = 0; i < 5; i++) await cluster.propose(1, 2, `early ${i}`);
  await cluster.settle(host.requestSnapshot(1, { exportTo: BACKUP }));
  const filler = 'x'.repeat(3000);
  for (let i = 0; i < 250; i++) await cluster.propose(1, 1 + 2 * (i % 2), `${filler} ${i}`);
  await cluster.propose(1, 2, 'late');
  const others = [2, 3].map((shardId) => cluster.lines(1, shardId));
  await cluster.settle(host.close());
  const segmentBytes = 64 * 1024;
  const imported = await importInto(cluster, 1, [1], { logDb: (context) => openWal({ ...context, segmentBytes }) });
  assert.ok(imported.replacedIndex > imported.index);
  await cluster.open(1);
  for (const shardId of [1, 2, 3]) await cluster.startReplica(1, shardId);
  for (const shardId of [1, 2, 3]) await cluster.ready(shardId, [1]);
  assert.deepEqual(cluster.lines(1, 1), []);
  assert.deepEqual(
    [2, 3].map((shardId) => cluster.lines(1, shardId)),
    others,
  );
  await cluster.close();
});

test('members may be named by host ids: a new directory needs an address, too, and gets the id', async () => {
  const { cluster } = await loseMajority();
  const id = 'abcdef0123456789abcdef0123456789';
  const more = { members: { 9: id }, replicaId: 9, dir: 'named' };
  await assert.rejects(
    importInto(cluster, 1, [], more),
    /named is new and members are host ids; raftAddress is needed/,
  );
  await importInto(cluster, 1, [], { ...more, raftAddress: 'host1:7000' });
  const again = await importInto(cluster, 1, [], more);
  assert.deepEqual(again.members, { 9: id });
  const info = await cluster.settle(describeDirectory({ env: cluster.machineOf.get(1)!.boot(), dir: 'named' }));
  assert.deepEqual([info.ok, info.owner?.hostId, info.owner?.raftAddress], [true, id, 'host1:7000']);
  await assert.rejects(importInto(cluster, 1, [], { ...more, members: { 9: id.replace('a', 'b') } }), {
    code: 'ERR_DIR_FOREIGN',
  });
  await cluster.close();
});

test('an export compacts nothing, is told as an event, and verifies', async () => {
  const cluster = new TestCluster({ hosts: 1, replica: { electionRtt: 11, compactionOverhead: 0 } });
  await cluster.startAll();
  for (let i = 0; i < 10; i++) await cluster.propose(1, 1, `line ${i}`);
  const host = cluster.hosts.get(1)!;
  const told: unknown[] = [];
  host.on('snapshotExported', (event) => told.push(event));
  host.on('logCompacted', () => assert.fail('compacted'));
  const before = host.shardInfo(1);
  const { index } = await cluster.settle(host.requestSnapshot(1, { exportTo: BACKUP }));
  assert.equal(index, before.appliedIndex);
  const { firstIndex, snapshotIndex } = host.shardInfo(1);
  assert.deepEqual([firstIndex, snapshotIndex], [before.firstIndex, before.snapshotIndex]);
  await cluster.world.run(5);
  assert.deepEqual(told, [{ shardId: 1, replicaId: 1, index, dir: BACKUP }]);
  const verified = await cluster.settle(verifySnapshot({ env: otherEnv(cluster, 1), dir: BACKUP }));
  assert.deepEqual([verified.shardId, verified.index, verified.replicaId], [1, index, 1]);
  assert.deepEqual(verified.voters, cluster.members(1));
  await assert.rejects(cluster.settle(host.requestSnapshot(1, { exportTo: BACKUP })), (error: unknown) => {
    assert.ok(DrakkarError.is(error, 'ERR_INVALID_OPTION'));
    assert.match(error.message, /backup is not empty/);
    return true;
  });
  await cluster.settle(verifySnapshot({ env: otherEnv(cluster, 1), dir: BACKUP }));
  await cluster.propose(1, 1, 'applying goes on');
  await cluster.close();
});

/** A process besides the one that runs on the machine. */
function otherEnv(cluster: TestCluster, id: number): Env {
  const other = cluster.machines.add(`tools-${id}-${cluster.world.pendingEvents}`);
  other.disk = cluster.machineOf.get(id)!.disk;
  return other.boot();
}

test('an export to a disk that fails leaves nothing behind, and the shard lives on', async () => {
  for (const code of ['ENOSPC', 'EIO']) {
    const cluster = new TestCluster({ hosts: 1, replica: { electionRtt: 11 } });
    await cluster.startAll();
    await cluster.propose(1, 1, 'line');
    const { disk } = cluster.machineOf.get(1)!;
    disk.fault = (operation, path) =>
      operation === 'write' && path.startsWith(BACKUP) ? Object.assign(new Error(code), { code }) : undefined;
    await assert.rejects(cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1, { exportTo: BACKUP })), {
      code: code === 'EIO' ? 'ERR_DISK_FAILED' : 'ERR_DISK_FULL',
    });
    assert.deepEqual(
      disk.paths().filter((path) => path.startsWith(`${BACKUP}/`)),
      [],
    );
    disk.fault = () => undefined;
    await cluster.propose(1, 1, 'goes on');
    await cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1, { exportTo: BACKUP }));
    await cluster.close();
  }
});

test('every damaged byte of an export is noticed, by verify and before an import changes anything', async () => {
  const { cluster } = await loseMajority();
  const { disk } = cluster.machineOf.get(1)!;
  const before = disk.clone();
  for (const name of ['image.snapshot', 'metadata.json']) {
    const path = `${BACKUP}/${name}`;
    const size = disk.images.get(path)!.sizeBytes;
    const step = name === 'metadata.json' ? 1 : 3;
    for (let at = 0; at < size; at += step) {
      disk.edit(path, (bytes) => (bytes[at] ^= 0x04));
      const env = cluster.machineOf.get(1)!.boot();
      const result = await cluster.settle(verifySnapshot({ env, dir: BACKUP }).catch((error: unknown) => error));
      // A changed format number says that the export is newer than this version.
      const ok = DrakkarError.is(result, 'ERR_SNAPSHOT_CORRUPT') || DrakkarError.is(result, 'ERR_DIR_FORMAT');
      assert.ok(ok, `byte ${at} of ${name}: ${String(result)}`);
      if (at % 60 === 0) {
        await assert.rejects(importInto(cluster, 1, [1, 4, 5]), { code: result.code });
        for (const known of before.paths())
          if (known !== path) assert.equal(disk.images.get(known)?.sizeBytes, before.images.get(known)!.sizeBytes);
        assert.deepEqual(disk.paths(), before.paths());
      }
      disk.edit(path, (bytes) => (bytes[at] ^= 0x04));
    }
  }
  for (const name of ['image.snapshot', 'metadata.json']) {
    const copy = disk.clone();
    copy.remove(`${BACKUP}/${name}`);
    cluster.machineOf.get(1)!.disk = copy;
    await assert.rejects(importInto(cluster, 1, [1, 4, 5]), { code: 'ERR_SNAPSHOT_CORRUPT' });
  }
  await cluster.close();
});

const refusals: [what: string, more: Partial<ImportOptions>, code: ErrorCode, message: RegExp][] = [
  [
    'a replica that is no member',
    { replicaId: 7 },
    'ERR_INVALID_OPTION',
    /replicaId is 7; expected one of members \(1, 4\)/,
  ],
  [
    'a member that moves',
    { members: { 1: 'host1:7000', 2: 'host5:7000' } },
    'ERR_INVALID_OPTION',
    /replica 2 lived at host2:7000/,
  ],
  ['two members at one address', { members: { 1: 'host1:7000', 4: 'host1:7000' } }, 'ERR_INVALID_OPTION', /distinct/],
  ['no directory', { dir: '' }, 'ERR_INVALID_OPTION', /dir is ""/],
  ['another deployment', { deploymentId: 9 }, 'ERR_DIR_FOREIGN', /belongs to deployment 1/],
  [
    'another replica of the shard',
    { replicaId: 6, members: { 6: 'host1:7000' } },
    'ERR_SHARD_MISMATCH',
    /holds replica 1 of shard 1/,
  ],
  [
    'another address',
    { replicaId: 6, members: { 6: 'host6:7000' } },
    'ERR_DIR_FOREIGN',
    /belongs to the host at host1:7000/,
  ],
  ['no export', { from: DATA }, 'ERR_SNAPSHOT_CORRUPT', /metadata.json is missing/],
];

test('an import that cannot be meant is refused, says why, and changes nothing', async () => {
  const { cluster, all } = await loseMajority();
  for (const [what, more, code, message] of refusals) {
    await assert.rejects(importInto(cluster, 1, [1, 4], more), (error: unknown) => {
      assert.ok(DrakkarError.is(error, code), `${what}: ${String(error)}`);
      assert.match(error.message, message, what);
      return true;
    });
  }
  await cluster.open(1);
  await assert.rejects(
    cluster.settle(
      importSnapshot({
        env: otherEnv(cluster, 1),
        dir: DATA,
        from: BACKUP,
        replicaId: 1,
        members: cluster.members(1),
        logDb,
      }),
    ),
    {
      code: 'ERR_DIR_LOCKED',
    },
  );
  await cluster.startReplica(1, 1);
  // Of the newest entry no later one has told that it is committed.
  await cluster.world.until(() => cluster.lines(1, 1).length >= all.length - 1);
  await cluster.close();
});

test('ids that were removed by an import never come back in a later one', async () => {
  const { cluster } = await loseMajority();
  await importInto(cluster, 1, [1]);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1, [1]);
  await cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1, { exportTo: 'second' }));
  await cluster.settle(cluster.hosts.get(1)!.close());
  await assert.rejects(
    importInto(cluster, 1, [1, 2], { from: 'second' }),
    /replica 2 was removed .* can never come back/,
  );
  const { removed } = await importInto(cluster, 1, [1, 4], { from: 'second' });
  assert.deepEqual(removed, [2, 3]);
  await cluster.close();
});

test('a damaged log takes no import', async () => {
  const { cluster } = await loseMajority();
  const machine = cluster.machineOf.get(1)!;
  const [segment] = machine.disk.paths().filter((path) => path.endsWith('.wal'));
  machine.disk.edit(segment, (bytes) => (bytes[4096 + 100] ^= 1));
  await assert.rejects(importInto(cluster, 1, [1, 4, 5]), /a damaged log takes no import: use an empty directory/);
  const imported = await importInto(cluster, 1, [1, 4, 5], { dir: 'fresh' });
  assert.equal(imported.replacedIndex, 0);
  await cluster.close();
});

test('an import goes back behind what was committed: nothing of that is taken for committed later', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 9, commitIndex: 9 });
  await log.writeState(
    { term: 2, commitIndex: 4, snapshotIndex: 4, snapshotTerm: 1, compactedIndex: 4, compactedTerm: 1 },
    true,
  );
  await log.write({ firstIndex: 5, count: 5, term: 2, prevTerm: 1, commitIndex: 4 });
  log.machine.kill();
  const shard = (await log.open()).get(1)!;
  assert.equal(shard.failure, undefined);
  assert.equal(shard.commitIndex, 4);
});

interface Found {
  readonly members: string[];
  readonly lines: string[];
  readonly lastIndex: number;
}

/** Opens the host on a disk in a world of its own. */
async function openOn(disk: MemoryDisk): Promise<Found> {
  const machines = new MemoryMachines(9);
  const machine = machines.add('host1');
  machine.disk = disk;
  const { world } = machines;
  const open = NodeHost.open({ dir: DATA, raftAddress: 'host1:7000', env: machine.boot(), logDb });
  const host = await world.settle(open);
  await world.settle(host.startReplica({ shardId: 1, replicaId: 1 }, () => new Journal()));
  const info = host.shardInfo(1);
  await world.until(() => host.shardInfo(1).applyLagEntries === 0);
  const lines = host.staleRead(1, 'all') as string[];
  await world.settle(host.close());
  machine.kill();
  return { members: Object.keys(info.members), lines, lastIndex: info.lastIndex };
}

test('a crash at any file operation of an import leaves the old or the new, and the import can be done again', async () => {
  const { cluster, exported, all, index } = await loseMajority();
  const whole = cluster.machineOf.get(1)!.disk;
  const old = await openOn(whole.clone());
  // Of the newest entry no later one has told that it is committed.
  assert.deepEqual(old, {
    members: ['1', '2', '3'],
    lines: all.slice(0, -1),
    lastIndex: index + all.length - exported.length,
  });
  const seen = { old: 0, new: 0 };
  for (const crash of ['killed', 'dropped', 'torn'] as const) {
    for (let stopAt = 0; ; stopAt++) {
      const machines = new MemoryMachines(stopAt + 1);
      const machine = machines.add('host1');
      machine.disk = whole.clone();
      const { disk } = machine;
      let operations = 0;
      let isOver = false;
      disk.fault = () => {
        if (operations++ !== stopAt) return undefined;
        machine.kill();
        return undefined;
      };
      const members = cluster.members(1, 4, 5);
      const run = importSnapshot({ env: machine.boot(), dir: DATA, from: BACKUP, replicaId: 1, members, logDb });
      run.then(
        () => (isOver = true),
        () => {},
      );
      await machines.world.until(() => isOver || machine.process === undefined);
      await machines.world.run(5);
      machine.kill();
      disk.fault = () => undefined;
      if (crash !== 'killed')
        disk.losePower(crash === 'torn' ? () => machines.world.random.u32() % 2 === 0 : undefined);
      const found = await openOn(disk.clone());
      const isNew = found.members.includes('4');
      seen[isNew ? 'new' : 'old']++;
      const expected: Found = isNew ? { members: ['1', '4', '5'], lines: exported, lastIndex: index } : old;
      assert.deepEqual(found, expected, `${crash} at operation ${stopAt}`);
      if (isOver) {
        assert.ok(isNew, 'an import that ended is durable');
        break;
      }
      if (stopAt % 5 === 0) {
        const again = new MemoryMachines(1);
        const other = again.add('host1');
        other.disk = disk;
        await again.world.settle(
          importSnapshot({ env: other.boot(), dir: DATA, from: BACKUP, replicaId: 1, members, logDb }),
        );
        const report = await again.world.settle(verifyLog({ env: other.boot(), dir: DATA }));
        assert.equal(report.ok, true, JSON.stringify(report));
        assert.deepEqual((await openOn(disk)).lines, exported);
      }
    }
  }
  assert.ok(seen.old > 20 && seen.new > 5, JSON.stringify(seen));
});

test('a compressed export is verified and imported, and stays compressed; without its codec the error names it', async () => {
  const cluster = new TestCluster({ hosts: 2, replica: { electionRtt: 11, snapshotCompression: SIMPLE } });
  const snapshotCodecs = [simpleCodec()];
  await cluster.open(1, { snapshotCodecs });
  await cluster.startReplica(1, 1, [1]);
  await cluster.ready(1);
  for (let i = 0; i < 50; i++) await cluster.propose(1, 1, `line ${i}`);
  const host = cluster.hosts.get(1)!;
  await cluster.settle(host.requestSnapshot(1));
  await cluster.settle(host.requestSnapshot(1, { exportTo: BACKUP }));
  const lines = cluster.lines(1, 1);
  await cluster.settle(host.close());
  const env = cluster.machineOf.get(1)!.boot();
  const exported = await cluster.settle(verifySnapshot({ env, dir: BACKUP, snapshotCodecs }));
  assert.equal(exported.codec, SIMPLE);
  const named = { code: 'ERR_SNAPSHOT_CODEC', message: /no codec simple/ };
  await assert.rejects(cluster.settle(verifySnapshot({ env, dir: BACKUP })), named);
  await assert.rejects(importInto(cluster, 1, [1]), named);
  const report = await cluster.settle(verifyLog({ env, dir: DATA, snapshotCodecs }));
  assert.equal(report.ok, true);
  const unread = await cluster.settle(verifyLog({ env, dir: DATA }));
  assert.equal(unread.logs[0].shards[0].images[0].problem?.code, 'ERR_SNAPSHOT_CODEC');
  await cluster.settle(copyDirectory(env, cluster.machineOf.get(2)!.boot(), BACKUP));
  await importInto(cluster, 2, [2], { snapshotCodecs });
  await cluster.open(2, { snapshotCodecs });
  await cluster.startReplica(2, 1);
  await cluster.ready(1, [2]);
  assert.deepEqual(cluster.lines(2, 1), lines);
  const { disk } = cluster.machineOf.get(2)!;
  const image = disk.paths().find((path) => /^data.*\.snapshot$/.test(path))!;
  const { sizeBytes } = disk.images.get(image)!;
  assert.ok(sizeBytes < exported.imageBytes + 100, `${sizeBytes} of ${exported.imageBytes}`);
  await cluster.close();
});
