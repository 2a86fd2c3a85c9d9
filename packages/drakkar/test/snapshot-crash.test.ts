/**
 * The life of a snapshot on the host that gets it, cut at every file operation, five ways each: received, broken off, gone on with, installed,
 * replaced by its own ones, exported. Whatever is cut, a start uses the newest whole snapshot, loses nothing that was applied before it, and leaves no file
 * behind that nobody needs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeHost } from 'drakkar';
import { MemoryMachines, type Keep, type MemoryDisk } from 'drakkar/testing';
import { openWal } from '../src/wal/open.ts';
import { Journal, SEGMENT_BYTES, TestCluster, engineOf } from './support.ts';

const REPLICA = { electionRtt: 11, compactionOverhead: 0, snapshotBlockBytes: 256 };
const CRASHES = ['killed', 'dropped', 'kept', 'torn', 'reordered'] as const;
const AWAY = 3;

function keepFor(crash: (typeof CRASHES)[number], dice: () => boolean): Keep {
  let asked = 0;
  if (crash === 'kept') return () => true;
  if (crash === 'torn') return dice;
  return () => crash === 'reordered' && ++asked > 1;
}

/** What a crash left, opened by a process of its own in a world of its own. */
function recover(disk: MemoryDisk, check: (host: NodeHost, names: string[]) => void): void {
  const machines = new MemoryMachines(1);
  const machine = machines.add('host3');
  machine.disk = disk;
  const run = async (): Promise<void> => {
    const host = await NodeHost.open({
      dir: 'data',
      raftAddress: 'host3:7000',
      env: machine.boot(),
      logDb: (context) => openWal({ ...context, segmentBytes: SEGMENT_BYTES }),
    });
    await host.startReplica({ shardId: 1, replicaId: AWAY, ...REPLICA }, () => new Journal());
    const dir = 'data/engine-0/snapshots/1/';
    check(
      host,
      disk
        .paths()
        .filter((path) => path.startsWith(dir))
        .map((path) => path.slice(dir.length)),
    );
  };
  try {
    machines.world.settleNow(run());
  } finally {
    machine.kill();
  }
}

test('scenario 49: a crash at any file operation of a snapshot’s life', async () => {
  const cluster = new TestCluster({ replica: REPLICA });
  const slow = { maxSnapshotSendBytesPerSecond: 16_384 };
  for (const id of [1, 2, AWAY]) await cluster.open(id, slow);
  for (const id of [1, 2, AWAY]) await cluster.startReplica(id, 1, [1, 2, AWAY]);
  await cluster.ready(1);
  cluster.kill(AWAY);
  await cluster.ready(1, [1, 2]);
  const lines = Array.from({ length: 12 }, (_, i) => `line ${i} `.padEnd(300, 'x'));
  for (const line of lines) await cluster.propose(1, 1, line);
  for (const id of [1, 2]) await cluster.settle(cluster.hosts.get(id)!.whenReady(1));
  for (const id of [1, 2]) await cluster.settle(cluster.hosts.get(id)!.requestSnapshot(1));

  const host = await cluster.open(AWAY, slow);
  const { disk } = cluster.machineOf.get(AWAY)!;
  const states = new Map<string, number>();
  /** Index of the newest snapshot that was said to be recorded. */
  let recorded = 0;
  let partsKept = 0;
  host.on('snapshotRecovered', ({ index }) => (recorded = index));
  host.on('snapshotCreated', ({ index }) => (recorded = index));
  let failure: unknown;
  let coin = 1;
  const dice = (): boolean => (coin = (Math.imul(coin, 1_103_515_245) + 12_345) >>> 0) > 0x7fff_ffff;
  disk.fault = (operation, path) => {
    if (failure !== undefined || operation === 'read' || operation === 'list') return undefined;
    const kind = path.includes('/snapshots/') ? `${operation} ${path.slice(path.lastIndexOf('.') + 1)}` : operation;
    for (const crash of CRASHES) {
      const copy = disk.clone();
      if (crash === 'killed') copy.releaseLocks();
      else copy.losePower(keepFor(crash, dice));
      const promised = recorded;
      try {
        recover(copy, (recovered, names) => {
          const { snapshotIndex, appliedIndex } = recovered.shardInfo(1);
          const what = `${crash} at ${kind}: snapshot at ${snapshotIndex}, ${names.join(' ')}`;
          assert.ok(snapshotIndex >= promised && appliedIndex >= promised, `${promised} was recorded; ${what}`);
          const there = recovered.staleRead(1, 'all') as string[];
          assert.deepEqual(there, [...lines, 'own'].slice(0, there.length), what);
          if (snapshotIndex > 0) assert.ok(there.length >= lines.length, what);
          const images = names.filter((name) => name.endsWith('.snapshot'));
          const parts = names.filter((name) => /^[0-9a-f]{16}\.[0-9a-f]{8}-[0-9a-f]+\.receiving$/.test(name));
          assert.equal(names.length, images.length + parts.length, what);
          assert.ok(images.length <= 2 && parts.length <= 1, what);
          for (const name of images) assert.ok(Number.parseInt(name, 16) <= snapshotIndex, what);
          for (const name of parts) assert.ok(Number.parseInt(name, 16) > snapshotIndex, what);
          if (snapshotIndex > 0) assert.equal(Number.parseInt(images.at(-1)!, 16), snapshotIndex, what);
          partsKept += parts.length;
        });
      } catch (error) {
        failure ??= error;
      }
      states.set(kind, (states.get(kind) ?? 0) + 1);
    }
    return undefined;
  };
  const partBytes = (): number =>
    disk
      .paths()
      .filter((path) => path.endsWith('.receiving'))
      .reduce((sum, path) => sum + disk.images.get(path)!.sizeBytes, 0);
  await cluster.startReplica(AWAY, 1);
  await cluster.world.until(() => partBytes() > 1500 || failure !== undefined, 30_000);
  for (const id of [1, 2]) cluster.machines.network.reset(`host${id}`, `host${AWAY}`);
  await cluster.world.until(() => recorded > 0 || failure !== undefined, 30_000);
  if (failure === undefined) {
    assert.equal(engineOf(host).counters.snapshotsResumed, 1);
    await cluster.ready(1);
    await cluster.propose(AWAY, 1, 'own');
    await cluster.settle(host.requestSnapshot(1));
    await cluster.settle(host.requestSnapshot(1, { exportTo: 'backup' }));
  }
  disk.fault = () => undefined;
  if (failure !== undefined) throw failure;
  for (const kind of [
    'write receiving',
    'rename receiving',
    'write generating',
    'sync generating',
    'rename generating',
    'write',
  ])
    assert.ok((states.get(kind) ?? 0) > 0, `nothing was cut at ${kind}: ${JSON.stringify([...states])}`);
  assert.ok(partsKept > 0);
  await cluster.close();
});
