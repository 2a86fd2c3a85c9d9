/** Directories on disks in memory, and a shard whose majority is gone. */
import type { Env } from 'drakkar';
import { importSnapshot, type ImportOptions, type ImportedShard } from 'drakkar/tools';
import { readFileChunks, writeFileChunks } from '../../src/rsm/image-file.ts';
import { openWal } from '../../src/wal/open.ts';
import { SEGMENT_BYTES, TestCluster } from '../support.ts';

export const BACKUP = 'backup';
export const DATA = 'data';

export const logDb: NonNullable<ImportOptions['logDb']> = (context) =>
  openWal({ ...context, segmentBytes: SEGMENT_BYTES });

/** Copies the files of a directory from one disk to another. */
export async function copyDirectory(from: Env, to: Env, dir: string): Promise<void> {
  await to.fs.makeDirectory(dir);
  for (const name of await from.fs.list(dir)) {
    await writeFileChunks(to.fs, `${dir}/${name}`, readFileChunks(from.fs, `${dir}/${name}`));
  }
  await to.fs.syncDirectory(dir);
}

export interface Lost {
  readonly cluster: TestCluster;
  /** Lines that the export holds, and all that host 1 holds. */
  readonly exported: string[];
  readonly all: string[];
  readonly index: number;
}

/**
 * Three hosts with ten lines each known to all; host 1 has exported after them, with a snapshot of its own at the same index, and five lines came
 * after. Then hosts 2 and 3 are gone for ever, and host 1 is stopped.
 */
export async function loseMajority(seed = 1, clusterHosts = 5): Promise<Lost> {
  const cluster = new TestCluster({ hosts: clusterHosts, seed, replica: { electionRtt: 11, compactionOverhead: 2 } });
  for (const id of [1, 2, 3]) await cluster.open(id);
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  await cluster.ready(1);
  const leader = cluster.leaderOf(1);
  for (let i = 0; i < 10; i++) await cluster.propose(leader, 1, `line ${i}`);
  await cluster.assertEqual(1);
  const host = cluster.hosts.get(1)!;
  const own = await cluster.settle(host.requestSnapshot(1));
  const { index } = await cluster.settle(host.requestSnapshot(1, { exportTo: BACKUP }));
  if (own.index !== index) throw new Error('the export is of the snapshot that the host has, too');
  const exported = cluster.lines(1, 1);
  for (let i = 0; i < 5; i++) await cluster.propose(leader, 1, `late ${i}`);
  await cluster.assertEqual(1);
  const all = cluster.lines(1, 1);
  await cluster.settle(host.close());
  for (const id of [1, 2, 3]) cluster.kill(id);
  return { cluster, exported, all, index };
}

export function importInto(
  cluster: TestCluster,
  id: number,
  members: readonly number[],
  more: Partial<ImportOptions> = {},
): Promise<ImportedShard> {
  const env = cluster.machineOf.get(id)!.boot();
  const options = { env, dir: DATA, from: BACKUP, replicaId: id, members: cluster.members(...members), logDb, ...more };
  return cluster.settle(importSnapshot(options));
}
