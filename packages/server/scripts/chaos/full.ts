/**
 * Disks without room, for real. One host's disk lies in memory that runs out: its flushes fail, and the host must end rather than
 * acknowledge. Another's is simply full: that host must refuse writes, keep running, and go on by itself when there is room. The
 * others serve all the while, and nothing acknowledged is missing afterwards.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterHost } from '../cluster.ts';
import { send } from '../http-client.ts';
import { DISK_COMMANDS, LoopDisk, diskProbe, fillUp } from './loop-disk.ts';
import { missingCommands, missingInSandbox, missingRoot, must } from './probes.ts';
import { pause, until, type Context, type Suite, type SuiteReport } from './suite.ts';
import { runTrial, type Trial } from './trial.ts';

/** The host whose disk fails, and the one whose disk is full. */
const FAILING_ID = 1;
const FULL_ID = 2;
/** Room for the first segments of the log. The second disk has more: it must not be full before its turn. */
const FAILING_ROOM_MIB = 400;
const FAILING_DISK_MIB = 1024;
const FULL_DISK_MIB = 1024;
/** Large values until the log needs a segment that it cannot have; few keys, so that memory stays small. */
const BULK_BYTES = 256 * 1024;
const BULK_KEYS = 16;
const BULK_WRITERS = 4;
const BULK_TIMEOUT_MS = 120_000;
const BULK_RETRY_MS = 50;
const REFUSAL_TIMEOUT_MS = 1000;
const REQUESTS_BETWEEN = 200;

/** Writes large values through the others until `isEnough`; gives how many MiB that took. */
async function fillLog(trial: Trial, victim: ClusterHost, isEnough: () => boolean): Promise<number> {
  const value = 'x'.repeat(BULK_BYTES);
  let written = 0;
  const end = performance.now() + BULK_TIMEOUT_MS;
  const writer = async (number: number): Promise<void> => {
    for (let i = number; !isEnough(); i += BULK_WRITERS) {
      if (performance.now() > end) throw new Error(`host ${victim.id} shows no lack of room after ${written} values`);
      const host = trial.dice.pick(trial.othersOf(victim));
      const answer = await send('PUT', `${host.url}/kv/bulk-${i % BULK_KEYS}`, value).catch(() => undefined);
      if (answer?.status === 200) written++;
      else await pause(BULK_RETRY_MS);
    }
  };
  await Promise.all(Array.from({ length: BULK_WRITERS }, (_, number) => writer(number)));
  return Math.round((written * BULK_BYTES) / 1024 ** 2);
}

/** The disk under the host takes nothing more and says so only when it is asked to flush. */
async function failFlushes(trial: Trial, disk: LoopDisk, store: string): Promise<void> {
  const { cluster, figures } = trial;
  const host = cluster.hosts.find(({ id }) => id === FAILING_ID)!;
  trial.mayEnd.add(host);
  const free = fillUp(store);
  figures['MiB until a flush failed'] = await fillLog(trial, host, () => !host.isUp);
  await host.exited;
  trial.log(`host ${host.id} ended after its disk failed`);
  figures['others writable ms'] = Math.round(await trial.untilWritable(trial.othersOf(host)));
  if (host.process?.exitCode === 0) trial.shortfalls.push(`host ${host.id} ended with 0 though its disk failed`);
  await trial.untilMoreSucceed(REQUESTS_BETWEEN);
  free();
  disk.unmount();
  disk.repair();
  disk.mount();
  await cluster.startHost(host);
  await trial.untilWritable([host]);
  trial.mayEnd.delete(host);
}

/** The disk is full, and has room again later; the process is the same. */
async function runOutOfRoom(trial: Trial, disk: LoopDisk): Promise<void> {
  const host = trial.cluster.hosts.find(({ id }) => id === FULL_ID)!;
  const free = fillUp(disk.path);
  let refusals = 0;
  const ask = async (): Promise<void> => {
    const url = `${host.url}/kv/room?timeoutMs=${REFUSAL_TIMEOUT_MS}`;
    const answer = await send('PUT', url, 'x', 2 * REFUSAL_TIMEOUT_MS).catch(() => undefined);
    if (answer !== undefined && answer.body.includes('ERR_DISK_FULL')) refusals++;
  };
  const asking = setInterval(() => void ask(), BULK_RETRY_MS);
  try {
    trial.figures['MiB until full'] = await fillLog(trial, host, () => refusals > 0 || !host.isUp);
  } finally {
    clearInterval(asking);
  }
  trial.log(`host ${host.id} refuses writes: its disk is full`);
  await trial.untilWritable(trial.othersOf(host));
  await trial.untilMoreSucceed(REQUESTS_BETWEEN);
  free();
  await trial.untilWritable([host]);
  await until('the full host still runs', () => host.isUp, 0);
}

async function runFull(context: Context): Promise<SuiteReport> {
  const store = join(context.root, 'full-store');
  mkdirSync(store);
  must('mount', ['-t', 'tmpfs', '-o', `size=${FAILING_ROOM_MIB}m`, 'none', store]);
  context.cleanup.add('the store of the failing disk', () => must('umount', [store]));
  const failing = new LoopDisk(store, 'failing', FAILING_DISK_MIB);
  context.cleanup.add('the failing disk', () => failing.unmount());
  const small = new LoopDisk(join(context.root, 'full-disks'), 'small', FULL_DISK_MIB);
  context.cleanup.add('the small disk', () => small.unmount());
  const disks: Readonly<Record<number, LoopDisk>> = { [FAILING_ID]: failing, [FULL_ID]: small };
  const dirOf = (id: number): string => join(disks[id]?.path ?? join(context.root, 'full-disks'), `host-${id}`);
  return runTrial(context, 'full', { layout: { dirOf } }, async (trial) => {
    await failFlushes(trial, failing, store);
    await runOutOfRoom(trial, small);
  });
}

const PROBE = `${diskProbe(false)}\nmount -t tmpfs -o size=1m none $dir/disk && umount $dir/disk`;

export const full: Suite = {
  name: 'full',
  what: 'a disk whose flushes fail for lack of memory behind it, and one that is full for a while',
  sandbox: 'mounts',
  missing: () =>
    missingCommands(...DISK_COMMANDS) ??
    missingRoot() ??
    missingInSandbox('mounts', 'ext4 on a loop device, or tmpfs,', PROBE),
  run: runFull,
};
