/** Hosts whose logs are in a directory of their own: it belongs to theirs, and nothing else is ever taken for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, NodeHost, type ErrorCode, type NodeHostOptions } from 'drakkar';
import { MemoryMachines, type MemoryDisk } from 'drakkar/testing';
import { describeDirectory, dumpLog, exportStopped, importSnapshot, verifyLog } from 'drakkar/tools';
import { openWal } from '../src/wal/open.ts';
import { SEGMENT_BYTES, TestCluster } from './support.ts';

const WITH = { walDir: 'log' };

const is =
  (code: ErrorCode, message: RegExp) =>
  (error: unknown): boolean => {
    assert.ok(DrakkarError.is(error), String(error));
    assert.equal(error.code, code, error.stack);
    assert.match(error.message, message);
    return true;
  };

/** One host that holds some lines, killed. */
async function stoppedHost(more: Partial<NodeHostOptions> = WITH, options: { engines?: number } = {}) {
  const { engines } = options;
  const cluster = new TestCluster({ hosts: 2, ...(engines === undefined ? {} : { engines: () => engines }) });
  await cluster.open(1, more);
  const shards = engines === undefined ? [1] : [1, 2];
  for (const shardId of shards) await cluster.startReplica(1, shardId, [1]);
  for (const shardId of shards) await cluster.ready(shardId, [1]);
  for (const shardId of shards) for (const line of ['a', 'b', 'c']) await cluster.propose(1, shardId, line);
  cluster.losePower(1);
  return { cluster, disk: cluster.machineOf.get(1)!.disk };
}

async function refused(cluster: TestCluster, more: Partial<NodeHostOptions>, code: ErrorCode, message: RegExp) {
  await assert.rejects(cluster.open(1, more), is(code, message));
  cluster.machineOf.get(1)!.kill();
}

async function holdsAll(cluster: TestCluster, more: Partial<NodeHostOptions> = WITH, shards = [1]) {
  await cluster.open(1, more);
  for (const shardId of shards) {
    await cluster.startReplica(1, shardId);
    await cluster.ready(shardId, [1]);
    assert.deepEqual(cluster.lines(1, shardId), ['a', 'b', 'c']);
  }
  cluster.losePower(1);
}

/** As one who copies a directory does. */
function copyTree(from: MemoryDisk, to: MemoryDisk, path: string, newPath = path): void {
  to.remove(newPath);
  const source = from.clone();
  for (const name of source.paths()) {
    if (name === path || name.startsWith(`${path}/`))
      to.addName(newPath + name.slice(path.length), source.images.get(name)!);
  }
  for (const name of to.paths()) if (name.startsWith(newPath)) to.syncNames(name);
  to.syncNames('');
}

test('walDir: the logs of all engines are there and nowhere else, private, and outlive a power loss', async () => {
  const { cluster, disk } = await stoppedHost(WITH, { engines: 2 });
  const logs = disk.paths().filter((path) => path.endsWith('.wal'));
  assert.deepEqual(
    [...new Set(logs.map((path) => path.slice(0, path.lastIndexOf('/'))))],
    ['log/engine-0/wal', 'log/engine-1/wal'],
  );
  assert.equal(disk.images.get('log')!.mode & 0o777, 0o700);
  await holdsAll(cluster, WITH, [1, 2]);
  // With fewer engines than before, too.
  await holdsAll(cluster, { ...WITH, engines: 1 }, [1, 2]);
  disk.remove('log/engine-1');
  await refused(cluster, WITH, 'ERR_DIR_CORRUPT', /log\/engine-1\/wal is missing/);
});

test('walDir: a host is never opened without its log, and what was refused changed nothing', async () => {
  const { cluster, disk } = await stoppedHost();
  await refused(cluster, {}, 'ERR_DIR_FOREIGN', /the log of data is in log; open the host with that walDir/);
  await refused(cluster, { walDir: 'elsewhere' }, 'ERR_DIR_CORRUPT', /elsewhere should hold .*was in log.* not there/);
  assert.ok(!disk.paths().includes('elsewhere'), 'a directory was made');
  // A disk that is not mounted leaves an empty directory.
  const fs = cluster.machineOf.get(1)!.boot().fs;
  await cluster.settle(fs.makeDirectory('mount'));
  await refused(cluster, { walDir: 'mount' }, 'ERR_DIR_CORRUPT', /holds no log; is its disk mounted\?/);
  await refused(cluster, { dir: 'other', ...WITH }, 'ERR_DIR_FOREIGN', /holds the log of another directory than other/);
  await refused(cluster, { walDir: 'data' }, 'ERR_INVALID_OPTION', /walDir is data, which is dir/);
  disk.setMode('log', 0o755);
  await refused(cluster, WITH, 'ERR_DIR_PERMISSIONS', /log has mode 755/);
  disk.setMode('log', 0o700);
  await holdsAll(cluster);
  disk.edit('log/log-of.json', (bytes) => (bytes[20] ^= 1));
  await refused(cluster, WITH, 'ERR_DIR_CORRUPT', /log-of.json is damaged/);
  disk.edit('log/log-of.json', (bytes) => (bytes[20] ^= 1));
  await holdsAll(cluster);
});

test('walDir: a host that began with its log inside stays so', async () => {
  const { cluster } = await stoppedHost({});
  await refused(cluster, WITH, 'ERR_DIR_FOREIGN', /the log of data is inside of it/);
  await holdsAll(cluster, {});
});

test('walDir: the log of another host is refused, and so is one that another process has', async () => {
  const { cluster, disk } = await stoppedHost();
  await cluster.open(2, WITH);
  cluster.losePower(2);
  const own = disk.clone();
  copyTree(cluster.machineOf.get(2)!.disk, disk, 'log');
  await refused(cluster, WITH, 'ERR_DIR_FOREIGN', /log holds the log of another host than data/);
  disk.restore(own);
  await cluster.open(1, WITH);
  const { env } = cluster.hosts.get(1)!['parts'].waiter;
  const second = NodeHost.open({ dir: 'third', ...WITH, raftAddress: 'host1:7001', env });
  await assert.rejects(cluster.settle(second), is('ERR_DIR_LOCKED', /log is in use/));
  await cluster.settle(cluster.hosts.get(1)!.close());
  // Given free with the host.
  await cluster.settle((await cluster.settle(env.fs.lockDirectory('log'))).release());
});

test('walDir: the directory may move, an older copy of it is refused, and so is an older dir beside it', async () => {
  const { cluster, disk } = await stoppedHost();
  const old = disk.clone();
  await holdsAll(cluster);
  copyTree(disk, disk, 'log', 'moved');
  disk.remove('log');
  await holdsAll(cluster, { walDir: 'moved' });
  const now = disk.clone();
  copyTree(old, disk, 'log', 'moved');
  await refused(
    cluster,
    { walDir: 'moved' },
    'ERR_DIR_CORRUPT',
    /moved is older than data: it knows of start 1, the other of start 3/,
  );
  disk.restore(now);
  copyTree(old, disk, 'data');
  await refused(cluster, { walDir: 'moved' }, 'ERR_DIR_CORRUPT', /data is older than moved/);
  disk.restore(now);
  await holdsAll(cluster, { walDir: 'moved' });
});

for (const [when, isFirst] of [
  ['first', true],
  ['later', false],
] as const) {
  test(`walDir: after a crash at any file operation of a ${when} start the host starts, with all it had`, async () => {
    const begun = isFirst ? undefined : (await stoppedHost()).disk;
    for (const crash of ['killed', 'dropped', 'torn'] as const) {
      for (let stopAt = 0; ; stopAt++) {
        const cluster = new TestCluster({ hosts: 1, seed: stopAt + 1 });
        const machine = cluster.machineOf.get(1)!;
        if (begun !== undefined) machine.disk = begun.clone();
        let operations = 0;
        machine.disk.fault = () => {
          if (operations++ === stopAt) machine.kill();
          return undefined;
        };
        let isOver = false;
        cluster.open(1, WITH).then(
          () => (isOver = true),
          () => {},
        );
        await cluster.world.until(() => isOver || machine.process === undefined);
        machine.kill();
        machine.disk.fault = () => undefined;
        const { random } = cluster.world;
        if (crash !== 'killed') machine.disk.losePower(crash === 'torn' ? () => random.u32() % 2 === 0 : undefined);
        if (begun === undefined) {
          await cluster.open(1, WITH);
          cluster.kill(1);
        } else await holdsAll(cluster);
        if (isOver) break;
      }
    }
  });
}

const logDb: NodeHostOptions['logDb'] = (context) => openWal({ ...context, segmentBytes: SEGMENT_BYTES });

test('the tools find the log of a host with walDir, and that of a copy where they are told', async () => {
  const { cluster, disk } = await stoppedHost();
  await cluster.open(1, WITH);
  await cluster.startReplica(1, 1);
  await cluster.ready(1, [1]);
  const { index } = await cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1, { compactionOverhead: 100 }));
  const running = cluster.hosts.get(1)!['parts'].waiter.env;
  await assert.rejects(cluster.settle(verifyLog({ env: running, dir: 'log' })), is('ERR_DIR_LOCKED', /log is in use/));
  cluster.losePower(1);
  const env = cluster.machineOf.get(1)!.boot();
  const info = await cluster.settle(describeDirectory({ env, dir: 'data' }));
  assert.equal(info.owner!.walDir, 'log');
  assert.equal(info.ok, true);
  assert.deepEqual(
    info.logs.map(({ walDir }) => walDir),
    ['log/engine-0/wal'],
  );
  assert.equal(info.logs[0].shards[0].images.length, 1);
  const bare = await cluster.settle(verifyLog({ env, dir: 'log' }));
  assert.deepEqual([bare.ok, bare.logs[0].entries], [true, info.logs[0].entries]);
  const entries = async (where: { dir: string; walDir?: string }): Promise<number> => {
    let count = 0;
    for await (const item of dumpLog({ env, ...where, entries: true })) if (item.kind === 'entry') count++;
    return count;
  };
  assert.equal(await cluster.settle(entries({ dir: 'data' })), info.logs[0].entries);
  copyTree(disk, disk, 'data', 'copy');
  copyTree(disk, disk, 'log', 'copied-log');
  disk.remove('log');
  await assert.rejects(
    cluster.settle(entries({ dir: 'copy' })),
    is('ERR_INVALID_OPTION', /should be in log, and is not/),
  );
  const copy = { dir: 'copy', walDir: 'copied-log' };
  assert.equal(await cluster.settle(entries(copy)), info.logs[0].entries);
  const exported = await cluster.settle(exportStopped({ env, ...copy, shardId: 1, to: 'export' }));
  assert.equal(exported.index, index);
  // On another machine, which begins with it.
  const other = new MemoryMachines(7);
  const machine = other.add('host1');
  copyTree(disk, machine.disk, 'export');
  const members = cluster.members(1);
  const importing = { dir: 'data', walDir: 'log', from: 'export', replicaId: 1, members, logDb };
  const imported = await other.world.settle(importSnapshot({ env: machine.boot(), ...importing }));
  assert.equal(imported.index, index);
  assert.ok(machine.disk.paths().some((path) => path.startsWith('log/engine-0/wal/')));
  machine.kill();
  // Again, and now it is known where.
  const { walDir: _, ...later } = importing;
  assert.equal(
    (await other.world.settle(importSnapshot({ env: machine.boot(), ...later }))).replacedIndex >= index,
    true,
  );
});
