/** Looking at logs from outside: what verify and dump say of sound, torn and damaged ones, and that nothing is changed by looking. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import { dumpLog, verifyLog, type DumpOptions, type LogItem } from 'drakkar/tools';
import { BLOCK_TRUNCATES } from '../../src/wire/block.ts';
import { TestCluster, text } from '../support.ts';
import { encodeMembership, initialMembership } from '../../src/wire/membership.ts';
import { DIR, TestLog } from '../wal/support.ts';
import { BACKUP, DATA } from './support.ts';

const PAGE = 4096;
const bootstrap = encodeMembership(initialMembership([[1, 'host1:7000']]));

/** One host with two shards, snapshots and a session, stopped. */
async function stopped(): Promise<TestCluster> {
  const cluster = new TestCluster({ hosts: 1, replica: { electionRtt: 11, compactionOverhead: 3 } });
  await cluster.startAll([1, 2]);
  const host = cluster.hosts.get(1)!;
  for (let i = 0; i < 8; i++) await cluster.propose(1, 1 + (i % 2), `line ${i}`);
  await cluster.settle(host.requestSnapshot(1));
  const session = await cluster.settle(host.openSession(2));
  await cluster.settle(session.propose(text('in a session')));
  await cluster.settle(host.close());
  cluster.kill(1);
  return cluster;
}

/** Contents of all files, to see that none changed. */
function contentsOf(cluster: TestCluster): Map<string, string> {
  const contents = new Map<string, string>();
  const { disk } = cluster.machineOf.get(1)!;
  for (const path of disk.paths()) {
    if (disk.images.get(path)!.isDirectory) continue;
    disk.clone().edit(path, (bytes) => void contents.set(path, Buffer.from(bytes).toString('base64')));
  }
  return contents;
}

async function dump(cluster: TestCluster, more: Partial<DumpOptions> = {}): Promise<LogItem[]> {
  const env = cluster.machineOf.get(1)!.boot();
  const items: LogItem[] = [];
  const run = async (): Promise<void> => {
    for await (const item of dumpLog({ env, dir: DATA, ...more })) items.push(item);
  };
  await cluster.settle(run());
  return items;
}

test('a sound directory: its shards, members, snapshots and counts; looking changes nothing', async () => {
  const cluster = await stopped();
  const before = contentsOf(cluster);
  const report = await cluster.settle(verifyLog({ env: cluster.machineOf.get(1)!.boot(), dir: DATA }));
  assert.equal(report.ok, true);
  const [log] = report.logs;
  assert.equal(log.damage, undefined);
  assert.deepEqual(
    log.shards.map(({ shardId, replicaId, members }) => [shardId, replicaId, members]),
    [
      [1, 1, cluster.members(1)],
      [2, 1, cluster.members(1)],
    ],
  );
  const [one, two] = log.shards;
  assert.ok(one.snapshotIndex > 0);
  assert.deepEqual(
    one.images.map(({ index, isRead, problem }) => [index, isRead, problem]),
    [[one.snapshotIndex, true, undefined]],
  );
  assert.equal(two.snapshotIndex, 0);
  const items = await dump(cluster, { entries: true, data: true });
  const count = (kind: LogItem['kind']): number => items.filter((item) => item.kind === kind).length;
  assert.deepEqual(
    [count('block'), count('entry'), count('state'), count('segment')],
    [log.blocks, log.entries, log.stateRecords, log.segments.length],
  );
  const entries = items.filter((item) => item.kind === 'entry');
  const lines = entries
    .filter(({ shardId, type }) => shardId === 1 && type === 'Command')
    .map(({ dataBase64 = '' }) => Buffer.from(dataBase64, 'base64').toString());
  assert.deepEqual(lines, ['line 0', 'line 2', 'line 4', 'line 6']);
  const session = entries.find(({ type }) => type === 'SessionCommand');
  assert.match(session!.session!.client, /^[0-9a-f]{16}$/);
  assert.equal(session!.session!.series, 1);
  assert.deepEqual(items.at(-1), {
    kind: 'end',
    engine: 0,
    epoch: log.segments.at(-1)!.epoch,
    offset: log.segments.at(-1)!.usedBytes,
    group: log.lastGroup,
  });
  const ofTwo = await dump(cluster, { shardId: 2 });
  assert.ok(ofTwo.every((item) => !('shardId' in item) || item.shardId === 2));
  assert.ok(ofTwo.some((item) => item.kind === 'block') && ofTwo.every((item) => item.kind !== 'entry'));
  assert.deepEqual(contentsOf(cluster), before);
  await cluster.open(1);
  await cluster.close();
});

test('every flipped byte of an acknowledged group is damage, is told where, and stays as it is', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState({ bootstrap });
  await log.write({ firstIndex: 1, count: 2 });
  await log.write({ firstIndex: 3, count: 2 });
  const { disk } = log.machine;
  const [segment] = log.segments();
  log.machine.kill();
  const { world } = log.machines;
  const verify = (): ReturnType<typeof verifyLog> => world.settle(verifyLog({ env: log.machine.boot(), dir: DIR }));
  const sound = await verify();
  assert.equal(sound.ok, true);
  assert.equal(sound.logs[0].entries, 4);
  for (let at = PAGE * 2; at < PAGE * 2 + 160; at += 3) {
    disk.edit(segment, (bytes) => (bytes[at] ^= 0x10));
    const report = await verify();
    assert.equal(report.ok, false, `byte ${at}`);
    assert.equal(report.logs[0].damage?.code, 'ERR_LOG_CORRUPT');
    assert.match(report.logs[0].damage.message, /0000000000000001\.wal is damaged at byte 8192/);
    assert.equal(report.logs[0].shards[0].lastIndex, 0, 'what is in front of the damage is shown');
    disk.edit(segment, (bytes) => (bytes[at] ^= 0x10));
  }
  disk.edit(segment, (bytes) => (bytes[PAGE * 2 + 20] ^= 1));
  const items: LogItem[] = [];
  const run = async (): Promise<void> => {
    for await (const item of dumpLog({ env: log.machine.boot(), dir: DIR })) items.push(item);
  };
  await world.settle(run());
  assert.equal(items.at(-1)?.kind, 'damage');
});

test('a torn tail is not damage: it was never acknowledged', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState({ bootstrap });
  await log.write({ firstIndex: 1 });
  log.append({ firstIndex: 2, count: 20, payloadBytes: 700 });
  log.wal.flush();
  let asked = 0;
  log.losePower(() => ++asked % 2 === 0);
  const { world } = log.machines;
  const report = await world.settle(verifyLog({ env: log.machine.boot(), dir: DIR }));
  assert.equal(report.ok, true);
  assert.equal(report.logs[0].shards[0].lastIndex, 1);
});

test('truncations, resets and moved blocks are shown as what they are', async () => {
  const log = new TestLog();
  await log.open();
  await log.writeState();
  await log.write({ firstIndex: 1, count: 5 });
  await log.write({ firstIndex: 4, count: 2, term: 2, prevTerm: 1, flags: BLOCK_TRUNCATES });
  await log.writeState({ term: 2, snapshotIndex: 9, snapshotTerm: 2, compactedIndex: 9, compactedTerm: 2 }, true);
  log.machine.kill();
  const items: LogItem[] = [];
  const run = async (): Promise<void> => {
    for await (const item of dumpLog({ env: log.machine.boot(), dir: DIR })) items.push(item);
  };
  await log.machines.world.settle(run());
  const shown = items.map((item) =>
    item.kind === 'block'
      ? `${item.firstIndex}-${item.lastIndex}@${item.term}${item.truncates ? ' truncates' : ''}`
      : item.kind === 'state'
        ? `state ${item.compactedIndex}${item.resetsLog ? ' resets' : ''}`
        : item.kind,
  );
  assert.deepEqual(shown, ['segment', 'state 0', '1-5@1', '4-5@2 truncates', 'state 9 resets', 'end']);
});

test('a missing and a damaged snapshot image are problems of their shard', async () => {
  const cluster = await stopped();
  const machine = cluster.machineOf.get(1)!;
  const verify = (images = true): ReturnType<typeof verifyLog> =>
    cluster.settle(verifyLog({ env: machine.boot(), dir: DATA, images }));
  const [path] = machine.disk.paths().filter((known) => known.endsWith('.snapshot'));
  machine.disk.edit(path, (bytes) => (bytes[100] ^= 1));
  const damaged = await verify();
  assert.equal(damaged.ok, false);
  assert.match(damaged.logs[0].shards[0].problems[0].message, /\.snapshot: the snapshot image is damaged: block 0/);
  assert.deepEqual(damaged.logs[0].shards[1].problems, []);
  assert.equal((await verify(false)).ok, true, 'only listed');
  machine.disk.remove(path);
  const missing = await verify(false);
  assert.equal(missing.ok, false);
  assert.match(missing.logs[0].shards[0].problems[0].message, /names a snapshot at \d+ and its image is missing/);
});

test('a directory in use is refused, as is one without a log; a bare log is fine', async () => {
  const cluster = await stopped();
  const machine = cluster.machineOf.get(1)!;
  const refused = async (dir: string, code: string): Promise<void> => {
    const other = cluster.machines.add(`other-${dir}`);
    other.disk = machine.disk;
    for (const look of [
      () => verifyLog({ env: other.boot(), dir }),
      async () => {
        for await (const item of dumpLog({ env: other.boot(), dir })) void item;
      },
    ]) {
      await assert.rejects(cluster.settle<unknown>(look()), { code });
    }
  };
  await refused('nowhere', 'ERR_INVALID_OPTION');
  await cluster.open(1);
  await refused(DATA, 'ERR_DIR_LOCKED');
  await cluster.settle(cluster.hosts.get(1)!.close());
  const bare = await cluster.settle(verifyLog({ env: machine.boot(), dir: `${DATA}/engine-0/wal` }));
  assert.equal(bare.ok, true);
  assert.deepEqual(bare.logs[0].shards[0].images, []);
  await refused(BACKUP, 'ERR_INVALID_OPTION');
});

test('who stops reading a dump holds nothing any more', async () => {
  const cluster = await stopped();
  const machine = cluster.machineOf.get(1)!;
  const env = machine.boot();
  const run = async (): Promise<string> => {
    for await (const item of dumpLog({ env, dir: DATA })) return item.kind;
    return 'nothing';
  };
  assert.equal(await cluster.settle(run()), 'segment');
  assert.deepEqual([...machine.disk.locks.keys()], []);
});

test('a disk that cannot be read is an error, not a damaged log', async () => {
  const cluster = await stopped();
  const machine = cluster.machineOf.get(1)!;
  machine.disk.fault = (operation, path, position) =>
    operation === 'read' && path.endsWith('.wal') && position > 0
      ? Object.assign(new Error('EIO'), { code: 'EIO' })
      : undefined;
  await assert.rejects(cluster.settle(verifyLog({ env: machine.boot(), dir: DATA })), (error: unknown) =>
    DrakkarError.is(error, 'ERR_DISK_FAILED'),
  );
});
