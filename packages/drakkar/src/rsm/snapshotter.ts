/**
 * Snapshot files of one shard. An image gets its name only when it is whole and durable; the log's record says which one counts
 * (F14). The one before it is kept until the next.
 *
 *     <index as 16 hex>.snapshot      whole
 *     <index as 16 hex>.generating    being made here, or left by a crash
 *     <index as 16 hex>.receiving     being received, or left by a crash
 *     <index as 16 hex>.<digest>-<size>.receiving   the same of an image that can be gone on with: the newest is kept when its stream breaks
 *     <index as 16 hex>.importing     being imported, or left by a crash
 *     <index as 16 hex>.<stamp>.imported   whole; counts once the log's record has the bootstrap that the stamp is of
 *     <index as 16 hex>.files/        copied out of an image for its recovery, or left by a crash
 */
import { DrakkarError, diskErrorOf } from '../errors.ts';
import type { FileSystem } from '../env/env.ts';
import { checksum } from '../wire/checksum.ts';
import { readFileChunks, writeFileChunks } from './image-file.ts';
import { BUILT_IN_CODECS, type Codecs } from './codec.ts';
import { IMAGE_END_BYTES, IMAGE_HEAD_BYTES, checkHead, digestOf, soundPart, verifyImage } from './image.ts';

const NOTHING = new Uint8Array(0);

export interface OpenedImage {
  readonly sizeBytes: number;
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Of an image; see `SnapshotHeader`. */
  readonly digest: number;
  /** All bytes from there on. */
  readonly from: (offsetBytes: number) => AsyncIterable<Uint8Array>;
  /** It is not read any more; by itself when `chunks` were read or given up. */
  readonly release: () => void;
}

/** An image that comes in parts: what it is, and how much of it is here. */
export interface ImagePart {
  readonly name: string;
  /** Header and whole blocks. */
  readonly offsetBytes: number;
}

interface WriteOptions {
  readonly verify?: (path: string) => Promise<void>;
  /** Default: the image of the index. */
  readonly target?: string;
  /** So much of it is there already. */
  readonly offsetBytes?: number;
  /** Asked when it fails: whether what there is of it is to stay. */
  readonly staysOnError?: () => boolean;
}

const PART = /^([0-9a-f]{16})\.[0-9a-f]{8}-[0-9a-f]{1,14}\.receiving$/;

export class Snapshotter {
  /** There is a part of an image that waits for its rest. */
  hasPart = false;
  readonly fs: FileSystem;
  private readonly snapshotsDir: string;
  private readonly shardId: number;
  private readonly codecs: Codecs;
  /** Images being read; they are not removed. */
  private readers: Map<number, number> | undefined;
  private isMade = false;

  /** `snapshotsDir` is that of all shards. */
  constructor(fs: FileSystem, snapshotsDir: string, shardId: number, codecs: Codecs = BUILT_IN_CODECS) {
    this.fs = fs;
    this.snapshotsDir = snapshotsDir;
    this.shardId = shardId;
    this.codecs = codecs;
  }

  /** Put together when it is needed: a path for each of many idle shards would be kept for nothing. */
  get dir(): string {
    return `${this.snapshotsDir}/${this.shardId}`;
  }

  private path(index: number): string {
    return `${this.dir}/${this.nameOf(index, 'snapshot')}`;
  }

  private nameOf(index: number, kind: string): string {
    return `${index.toString(16).padStart(16, '0')}.${kind}`;
  }

  /** Writes an image made here. */
  async save(index: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    await this.write(index, 'generating', chunks);
  }

  /**
   * What is here of an image that is to be received, after a stream of it broke; checked, since a crash may have torn it. Parts of others are
   * given up: one is kept at most.
   */
  async partOf(index: number, term: number, imageBytes: number, digest: number): Promise<ImagePart> {
    const id = `${digest.toString(16).padStart(8, '0')}-${imageBytes.toString(16)}`;
    const name = this.nameOf(index, `${id}.receiving`);
    await this.dropParts(Number.POSITIVE_INFINITY, name);
    const path = `${this.dir}/${name}`;
    if ((await this.fs.stat(path)) === undefined) return { name, offsetBytes: 0 };
    return { name, offsetBytes: await soundPart(readFileChunks(this.fs, path), index, term) };
  }

  /** Parts up to that index are of no use any more. */
  async dropParts(index: number = Number.POSITIVE_INFINITY, except?: string): Promise<void> {
    if ((await this.fs.stat(this.dir)) === undefined) return;
    let left = 0;
    for (const name of await this.fs.list(this.dir)) {
      const of = PART.exec(name)?.[1];
      if (of === undefined) continue;
      if (name === except || Number.parseInt(of, 16) > index) left++;
      else await this.fs.remove(`${this.dir}/${name}`);
    }
    this.hasPart = left > 0;
  }

  /**
   * Writes an image that is received; it is read back and verified whole before it gets its name. With a `part`, `chunks` are what follows it,
   * and what has come of it stays when they break off.
   */
  async receive(
    index: number,
    term: number,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    part?: ImagePart,
  ): Promise<void> {
    if (part === undefined) await this.dropParts();
    const { codecs } = this;
    let hasBroken = false;
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        yield* chunks;
      } catch (error) {
        hasBroken = true;
        throw error;
      }
    }
    const offsetBytes = part?.offsetBytes ?? 0;
    const checked = offsetBytes > 0 ? source() : headChecked(source(), (head) => checkHead(head, index, term, codecs));
    await this.write(index, part?.name.slice(17) ?? 'receiving', checked, {
      offsetBytes,
      staysOnError: () => {
        this.hasPart = hasBroken && part !== undefined;
        return this.hasPart;
      },
      verify: async (path) => {
        signal.throwIfAborted();
        await verifyImage(readFileChunks(this.fs, path), codecs);
      },
    });
    this.hasPart = false;
  }

  /**
   * Writes an image for offline repair, beside those that are there: it takes its place only when the record that names it, whose
   * bootstrap is `bootstrap`, is durable (`processOrphans`). So a crash leaves the old image with the old record or the new with the new.
   */
  async stageImport(index: number, bootstrap: Uint8Array, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const verify = async (path: string): Promise<void> => {
      await verifyImage(readFileChunks(this.fs, path), this.codecs);
    };
    const target = this.path(index).replace(/snapshot$/, `${stampOf(bootstrap)}.imported`);
    await this.write(index, 'importing', chunks, { verify, target });
  }

  private async write(
    index: number,
    kind: string,
    chunks: AsyncIterable<Uint8Array>,
    options: WriteOptions = {},
  ): Promise<void> {
    const { target = this.path(index), offsetBytes = 0, verify, staysOnError } = options;
    const temporary = `${this.dir}/${this.nameOf(index, kind)}`;
    try {
      if (!this.isMade) await this.fs.makeDirectory(this.dir);
      this.isMade = true;
      if (offsetBytes === 0) await this.fs.remove(temporary);
      await writeFileChunks(this.fs, temporary, chunks, offsetBytes);
      await verify?.(temporary);
      await this.fs.rename(temporary, target);
      await this.fs.syncDirectory(this.dir);
    } catch (error) {
      if (staysOnError?.() !== true) await this.fs.remove(temporary).catch(() => {});
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
    let isHeld = true;
    const release = (): void => {
      if (isHeld) readers.set(index, readers.get(index)! - 1);
      isHeld = false;
    };
    const source = readFileChunks(this.fs, path);
    async function* chunks(): AsyncGenerator<Uint8Array> {
      try {
        yield* source;
      } finally {
        release();
      }
    }
    const from = (offsetBytes: number): AsyncIterable<Uint8Array> => readFileChunks(this.fs, path, offsetBytes);
    try {
      const digest = await this.digest(path, stat.sizeBytes);
      return { sizeBytes: stat.sizeBytes, digest, chunks: chunks(), from, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  private async digest(path: string, sizeBytes: number): Promise<number> {
    const end = new Uint8Array(IMAGE_END_BYTES);
    const file = await this.fs.open(path, 'read');
    try {
      await file.read(end, 0, end.length, Math.max(0, sizeBytes - end.length));
    } finally {
      await file.close();
    }
    return digestOf(end);
  }

  /** Indexes of whole images, ascending. */
  async list(): Promise<number[]> {
    if ((await this.fs.stat(this.dir)) === undefined) return [];
    const names = await this.fs.list(this.dir);
    return names.filter((name) => /^[0-9a-f]{16}\.snapshot$/.test(name)).map((name) => Number.parseInt(name, 16));
  }

  /** Keeps the image at `newest` and the one before it; removes those older, and parts of them, unless they are being read, and gives their indexes. */
  async retain(newest: number): Promise<number[]> {
    const removed: number[] = [];
    const older = (await this.list()).filter((index) => index < newest);
    for (const index of older.slice(0, -1)) {
      if ((this.readers?.get(index) ?? 0) > 0) continue;
      await this.fs.remove(this.path(index));
      removed.push(index);
    }
    if (this.hasPart) await this.dropParts(newest);
    if (older.length > 1) await this.fs.syncDirectory(this.dir);
    return removed;
  }

  /**
   * At the start: what a crash left behind goes, but for the newest part of an image to come, and an import whose record is durable ends. `recorded` is the index that the log names, 0 for
   * none, `bootstrap` the shard's bootstrap record.
   */
  async processOrphans(recorded: number, bootstrap: Uint8Array = NOTHING): Promise<void> {
    if ((await this.fs.stat(this.dir)) === undefined) return;
    const names = await this.fs.list(this.dir);
    const newestPart = names.findLast((name) => PART.test(name));
    this.hasPart = newestPart !== undefined && Number.parseInt(newestPart, 16) > recorded;
    const isImage = (name: string): boolean => /^[0-9a-f]{16}\.snapshot$/.test(name);
    // A crash may have come between a record and what it replaces.
    const before = names.findLast((name) => isImage(name) && Number.parseInt(name, 16) < recorded);
    for (const name of names) {
      if (this.hasPart && name === newestPart) continue;
      const path = `${this.dir}/${name}`;
      const isTemporary = /^[0-9a-f]{16}\.(generating|receiving|importing|files)$/.test(name) || PART.test(name);
      const isUnrecorded = isImage(name) && Number.parseInt(name, 16) !== recorded && name !== before;
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

/** The same chunks, once their first bytes were looked at. */
async function* headChecked(
  chunks: AsyncIterable<Uint8Array>,
  check: (head: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  let waiting: Uint8Array[] | undefined = [];
  let head: Uint8Array = NOTHING;
  for await (const chunk of chunks) {
    if (waiting === undefined) {
      yield chunk;
      continue;
    }
    waiting.push(chunk);
    head = concat(head, chunk.subarray(0, IMAGE_HEAD_BYTES - head.length));
    if (head.length < IMAGE_HEAD_BYTES) continue;
    check(head);
    yield* waiting;
    waiting = undefined;
  }
  if (waiting !== undefined) yield* waiting; // too short: whoever verifies it says so
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

function stampOf(bootstrap: Uint8Array): string {
  return checksum(bootstrap).toString(16).padStart(8, '0');
}
