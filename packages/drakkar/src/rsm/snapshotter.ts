/**
 * Snapshot files of one shard. An image gets its name only when it is whole and durable; the log's record says which one counts
 * (F14). The one before it is kept until the next.
 *
 *     <index as 16 hex>.snapshot      whole
 *     <index as 16 hex>.generating    being made here, or left by a crash
 *     <index as 16 hex>.receiving     being received, or left by a crash
 *     <index as 16 hex>.importing     being imported, or left by a crash
 *     <index as 16 hex>.<stamp>.imported   whole; counts once the log's record has the bootstrap that the stamp is of
 *     <index as 16 hex>.files/        copied out of an image for its recovery, or left by a crash
 */
import { DrakkarError, diskErrorOf } from '../errors.ts';
import type { FileSystem } from '../env/env.ts';
import { checksum } from '../wire/checksum.ts';
import { readFileChunks, writeFileChunks } from './image-file.ts';
import { verifyImage } from './image.ts';

const NOTHING = new Uint8Array(0);

export interface OpenedImage {
  readonly sizeBytes: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export class Snapshotter {
  private readonly fs: FileSystem;
  private readonly dir: string;
  /** Images being read; they are not removed. */
  private readers: Map<number, number> | undefined;
  private isMade = false;

  constructor(fs: FileSystem, dir: string) {
    this.fs = fs;
    this.dir = dir;
  }

  private path(index: number): string {
    return `${this.dir}/${index.toString(16).padStart(16, '0')}.snapshot`;
  }

  /** Writes an image made here. */
  async save(index: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    await this.write(index, 'generating', chunks, undefined);
  }

  /** Writes an image that is received; it is read back and verified whole before it gets its name. */
  async receive(index: number, term: number, chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    await this.write(index, 'receiving', chunks, async (path) => {
      signal.throwIfAborted();
      const info = await verifyImage(readFileChunks(this.fs, path));
      if (info.index !== index || info.term !== term) {
        throw new DrakkarError(
          'ERR_SNAPSHOT_CORRUPT',
          `the image is of index ${info.index}, not of ${index} as announced`,
        );
      }
    });
  }

  /**
   * Writes an image for offline repair, beside those that are there: it takes its place only when the record that names it, whose
   * bootstrap is `bootstrap`, is durable (`processOrphans`). So a crash leaves the old image with the old record or the new with the new.
   */
  async stageImport(index: number, bootstrap: Uint8Array, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const verify = async (path: string): Promise<void> => {
      await verifyImage(readFileChunks(this.fs, path));
    };
    const target = this.path(index).replace(/snapshot$/, `${stampOf(bootstrap)}.imported`);
    await this.write(index, 'importing', chunks, verify, target);
  }

  private async write(
    index: number,
    kind: string,
    chunks: AsyncIterable<Uint8Array>,
    verify: ((path: string) => Promise<void>) | undefined,
    target: string = this.path(index),
  ): Promise<void> {
    const path = this.path(index);
    const temporary = path.replace(/snapshot$/, kind);
    try {
      if (!this.isMade) await this.fs.makeDirectory(this.dir);
      this.isMade = true;
      await this.fs.remove(temporary);
      await writeFileChunks(this.fs, temporary, chunks);
      await verify?.(temporary);
      await this.fs.rename(temporary, target);
      await this.fs.syncDirectory(this.dir);
    } catch (error) {
      await this.fs.remove(temporary).catch(() => {});
      // Whoever made the chunks must hear that nobody wants them any more.
      throw diskErrorOf(error, `the snapshot ${temporary}`);
    }
  }

  async open(index: number): Promise<OpenedImage> {
    const path = this.path(index);
    const stat = await this.fs.stat(path);
    if (stat === undefined)
      throw new DrakkarError('ERR_SNAPSHOT_CORRUPT', `${path} is missing though the log names it`);
    const readers = (this.readers ??= new Map());
    readers.set(index, (readers.get(index) ?? 0) + 1);
    const release = (): void => void readers.set(index, readers.get(index)! - 1);
    const source = readFileChunks(this.fs, path);
    async function* chunks(): AsyncGenerator<Uint8Array> {
      try {
        yield* source;
      } finally {
        release();
      }
    }
    return { sizeBytes: stat.sizeBytes, chunks: chunks() };
  }

  /** Indexes of whole images, ascending. */
  async list(): Promise<number[]> {
    if ((await this.fs.stat(this.dir)) === undefined) return [];
    const names = await this.fs.list(this.dir);
    return names.filter((name) => /^[0-9a-f]{16}\.snapshot$/.test(name)).map((name) => Number.parseInt(name, 16));
  }

  /** Keeps the image at `newest` and the one before it; removes those older, unless they are being read, and gives their indexes. */
  async retain(newest: number): Promise<number[]> {
    const removed: number[] = [];
    const older = (await this.list()).filter((index) => index < newest);
    for (const index of older.slice(0, -1)) {
      if ((this.readers?.get(index) ?? 0) > 0) continue;
      await this.fs.remove(this.path(index));
      removed.push(index);
    }
    if (older.length > 1) await this.fs.syncDirectory(this.dir);
    return removed;
  }

  /**
   * At the start: what a crash left behind goes, and an import whose record is durable ends. `recorded` is the index that the log names, 0 for
   * none, `bootstrap` the shard's bootstrap record.
   */
  async processOrphans(recorded: number, bootstrap: Uint8Array = NOTHING): Promise<void> {
    if ((await this.fs.stat(this.dir)) === undefined) return;
    for (const name of await this.fs.list(this.dir)) {
      const path = `${this.dir}/${name}`;
      const isTemporary = /^[0-9a-f]{16}\.(generating|receiving|importing|files)$/.test(name);
      const isUnrecorded = /^[0-9a-f]{16}\.snapshot$/.test(name) && Number.parseInt(name, 16) > recorded;
      const imported = /^([0-9a-f]{16})\.([0-9a-f]{8})\.imported$/.exec(name);
      if (imported !== null && Number.parseInt(imported[1], 16) === recorded && imported[2] === stampOf(bootstrap)) {
        await this.fs.rename(path, this.path(recorded));
      } else if (imported !== null || isTemporary || isUnrecorded) await this.fs.remove(path);
    }
    await this.fs.syncDirectory(this.dir);
  }

  async removeAll(): Promise<void> {
    await this.fs.remove(this.dir);
  }
}

function stampOf(bootstrap: Uint8Array): string {
  return checksum(bootstrap).toString(16).padStart(8, '0');
}
