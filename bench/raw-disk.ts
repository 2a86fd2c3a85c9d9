/**
 * What the disk takes: durable writes (O_DSYNC) to files that were written before, as the log makes them, one in flight for each writer. The
 * physical limit of every figure with durable writes.
 */
import { constants } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface DiskFigures {
  readonly writers: number;
  readonly groupBytes: number;
  /** Durable writes per second, all writers together. */
  readonly groupsPerSecond: number;
  readonly bytesPerSecond: number;
}

const FILE_BYTES = 64 << 20;
const ZEROS = Buffer.alloc(1 << 20);
const GROUPS: readonly number[] = [4096, 65_536, 1 << 20];
/** Three hosts on one disk are three writers. */
const WRITERS: readonly number[] = [1, 3];

/** Every size with one writer and with three, `durationMs` for each. */
export async function measureDisk(durationMs: number): Promise<DiskFigures[]> {
  const dir = await mkdtemp(join(tmpdir(), 'drakkar-bench-'));
  try {
    const paths = Array.from({ length: Math.max(...WRITERS) }, (_, i) => join(dir, `file-${i}`));
    await Promise.all(paths.map(fill));
    const figures: DiskFigures[] = [];
    for (const writers of WRITERS) {
      for (const groupBytes of GROUPS) {
        const start = performance.now();
        const groups = await Promise.all(paths.slice(0, writers).map((path) => write(path, groupBytes, durationMs)));
        const seconds = (performance.now() - start) / 1000;
        const groupsPerSecond = Math.round(groups.reduce((total, count) => total + count, 0) / seconds);
        figures.push({ writers, groupBytes, groupsPerSecond, bytesPerSecond: groupsPerSecond * groupBytes });
      }
    }
    return figures;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function fill(path: string): Promise<void> {
  const file = await open(path, 'w');
  for (let at = 0; at < FILE_BYTES; at += ZEROS.length) await file.write(ZEROS, 0, ZEROS.length, at);
  await file.sync();
  await file.close();
}

async function write(path: string, groupBytes: number, durationMs: number): Promise<number> {
  const file = await open(path, constants.O_RDWR | constants.O_DSYNC);
  const group = Buffer.alloc(groupBytes, 1);
  const end = performance.now() + durationMs;
  let groups = 0;
  for (let at = 0; performance.now() < end; at = (at + groupBytes) % FILE_BYTES) {
    await file.write(group, 0, groupBytes, at);
    groups++;
  }
  await file.close();
  return groups;
}

export function diskLines(figures: readonly DiskFigures[]): string[] {
  return figures.map(
    ({ writers, groupBytes, groupsPerSecond, bytesPerSecond }) =>
      `  disk, ${writers} writer${writers > 1 ? 's' : ''} of ${groupBytes / 1024} KiB: ${groupsPerSecond} groups/s, ${Math.round(bytesPerSecond / 1e6)} MB/s`,
  );
}
