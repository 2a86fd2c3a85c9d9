/**
 * The files of the log: segments in use, spare ones to come, and their recycling. A segment gets its size once, is made durable with
 * its name, and only then used (fault F11). It is filled with zeros: a file that grows costs two to nine times the flush
 * (hot-path §2). That does not hold of groups near 1 MiB, where the note of new room costs less than writing all bytes twice: then a
 * new segment is of holes, which read as zeros, too.
 */
import { DrakkarError } from '../errors.ts';
import type { Env, File } from '../env/env.ts';
import { PAGE_BYTES, readSegmentHeader, type SegmentHeader } from './layout.ts';

const SPARES_MAX = 2;
const FILL_BYTES = 1024 * 1024;

export class Segment {
  readonly epoch: number;
  readonly path: string;
  readonly file: File;
  readonly header: SegmentHeader | undefined;
  /** Offset of the next group; the end once the segment is not written any more. */
  offset: number;
  /** Written to it since it was opened. */
  groups = 0;
  /** Shards with blocks in it. */
  readonly blockShards = new Set<number>();
  /** Reads under way; the file is not recycled before they end. */
  readers = 0;

  constructor(epoch: number, path: string, file: File, header: SegmentHeader | undefined, offset: number) {
    this.epoch = epoch;
    this.path = path;
    this.file = file;
    this.header = header;
    this.offset = offset;
  }
}

export class SegmentFiles {
  readonly env: Env;
  readonly dir: string;
  readonly segmentBytes: number;
  private readonly spares: string[] = [];
  private spareNumber = 0;
  /** What spares are filled with; made with the first. */
  private zeros: Uint8Array | undefined;
  private making: Promise<void> | undefined;

  constructor(env: Env, dir: string, segmentBytes: number) {
    this.env = env;
    this.dir = dir;
    this.segmentBytes = segmentBytes;
  }

  /** Opens the segments that are there, oldest first; spares are remembered, half-made ones removed. */
  /** Opens all that are there, oldest first; on an error, `segments` holds those that are open. */
  async openAll(segments: Segment[]): Promise<void> {
    const { fs } = this.env;
    for (const name of await fs.list(this.dir)) {
      const path = `${this.dir}/${name}`;
      const match = /^([0-9a-f]{16})\.wal$/.exec(name);
      if (match !== null) {
        await this.checkMode(path);
        const file = await fs.open(path, 'write', { dataSync: true });
        const epoch = Number.parseInt(match[1], 16);
        try {
          const header = await readSegmentHeaderOf(file);
          const isOwn = header !== undefined && header.epoch === epoch;
          segments.push(new Segment(epoch, path, file, isOwn ? header : undefined, PAGE_BYTES));
        } catch (error) {
          await file.close().catch(() => {});
          throw error;
        }
      } else if (/^spare-\d+$/.test(name)) {
        const number = Number(name.slice(6));
        this.spareNumber = Math.max(this.spareNumber, number);
        const stat = await fs.stat(path);
        if (stat?.sizeBytes === this.segmentBytes && this.spares.length < SPARES_MAX) this.spares.push(path);
        else await fs.remove(path);
      } else if (/^spare-\d+\.new$/.test(name)) await fs.remove(path);
    }
    segments.sort((a, b) => a.epoch - b.epoch);
  }

  private async checkMode(path: string): Promise<void> {
    const stat = await this.env.fs.stat(path);
    if (stat === undefined || (stat.mode & 0o077) === 0) return;
    throw new DrakkarError(
      'ERR_DIR_PERMISSIONS',
      `${path} has mode ${stat.mode.toString(8)}: others may reach it; expected 600, run chmod`,
    );
  }

  get hasSpare(): boolean {
    return this.spares.length > 0;
  }

  /**
   * Sees to it that a spare is there, filled or of holes; concurrent calls share the work. Rejects with the system's error.
   */
  ensureSpare(isFilled: boolean): Promise<void> {
    if (this.hasSpare) return Promise.resolve();
    this.making ??= this.makeSpare(isFilled).finally(() => {
      this.making = undefined;
    });
    return this.making;
  }

  private async makeSpare(isFilled: boolean): Promise<void> {
    const { fs } = this.env;
    const path = `${this.dir}/spare-${++this.spareNumber}`;
    const temporary = `${path}.new`;
    try {
      await fs.remove(temporary);
      const file = await fs.open(temporary, 'create', { direct: true });
      try {
        if (isFilled) await this.fill(file);
        else await file.truncate(this.segmentBytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await fs.rename(temporary, path);
      await fs.syncDirectory(this.dir);
    } catch (error) {
      // Half a spare only takes the room that is missing.
      await fs.remove(temporary).catch(() => {});
      throw error;
    }
    this.spares.push(path);
  }

  private async fill(file: File): Promise<void> {
    const fillBytes = Math.min(FILL_BYTES, this.segmentBytes);
    this.zeros ??= new Uint8Array(this.env.fs.allocate(fillBytes), 0, fillBytes);
    const { zeros } = this;
    for (let at = 0; at < this.segmentBytes; at += zeros.length) {
      await writeAll(file, zeros, Math.min(zeros.length, this.segmentBytes - at), at);
    }
  }

  /** Turns a spare into the segment of `epoch`; the caller writes its header. */
  async activate(epoch: number, isFilled: boolean): Promise<Segment> {
    await this.ensureSpare(isFilled);
    const spare = this.spares.shift()!;
    const path = `${this.dir}/${epoch.toString(16).padStart(16, '0')}.wal`;
    await this.env.fs.rename(spare, path);
    await this.env.fs.syncDirectory(this.dir);
    const file = await this.env.fs.open(path, 'write', { dataSync: true, direct: true });
    return new Segment(epoch, path, file, undefined, PAGE_BYTES);
  }

  /** The segment holds nothing that is needed: its file becomes a spare, or goes. */
  async recycle(segment: Segment): Promise<void> {
    const { fs } = this.env;
    const size = await segment.file.sizeBytes();
    await segment.file.close();
    if (this.spares.length < SPARES_MAX && size === this.segmentBytes) {
      const path = `${this.dir}/spare-${++this.spareNumber}`;
      await fs.rename(segment.path, path);
      await fs.syncDirectory(this.dir);
      this.spares.push(path);
    } else {
      await fs.remove(segment.path);
      await fs.syncDirectory(this.dir);
    }
  }

  /** Waits for a spare that is being made. */
  async settle(): Promise<void> {
    await this.making?.catch(() => {});
  }
}

export async function readSegmentHeaderOf(file: File): Promise<SegmentHeader | undefined> {
  const page = new Uint8Array(PAGE_BYTES);
  if ((await file.read(page, 0, PAGE_BYTES, 0)) < PAGE_BYTES) return undefined;
  return readSegmentHeader(page);
}

export function writeAll(file: File, bytes: Uint8Array, lengthBytes: number, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(bytes, 0, lengthBytes, position, (error) => (error === null ? resolve() : reject(error)));
  });
}

/**
 * What was read may be in the page cache only, and after a failed flush the system takes it for clean: another flush would do nothing.
 * Written again, the same bytes, it is durable before anything is promised on it (F5; Rebello et al., ATC 2020). Only the newest
 * group, and the newest segment's header, can be such: whatever came before was acknowledged.
 */
export async function rewrite(segment: Segment, offset: number, sizeBytes: number): Promise<void> {
  const bytes = new Uint8Array(sizeBytes);
  await segment.file.read(bytes, 0, sizeBytes, offset);
  await writeAll(segment.file, bytes, sizeBytes, offset);
}
