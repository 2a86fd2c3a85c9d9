/**
 * A disk in memory that knows what is durable. A process that dies leaves everything; power that goes leaves what was synced, and of
 * writes under way any of their sectors, of unsynced names any. Every operation takes virtual time and can be made to fail.
 */
import type { FileSystem } from '../env.ts';
import { MemoryFileSystem } from './file-system.ts';
import { FileImage, type Keep } from './image.ts';
import type { Process } from './process.ts';

export type DiskOperation =
  | 'open'
  | 'write'
  | 'read'
  | 'sync'
  | 'truncate'
  | 'rename'
  | 'remove'
  | 'make'
  | 'list'
  | 'sync-directory';

/** Asked before each operation; what it gives is the operation's error. */
export type DiskFault = (operation: DiskOperation, path: string, position: number, length: number) => Error | undefined;

/** A name that was made, moved or removed and is not durable. */
interface NameChange {
  readonly from: string | undefined;
  readonly to: string | undefined;
  readonly image: FileImage | undefined;
}

export interface DiskOptions {
  /** Virtual milliseconds of an operation. Default 0.1. */
  readonly latencyMs?: number;
  /** Bytes of all files together. Default: without a bound. */
  readonly capacityBytes?: number;
}

const nothing: Keep = () => false;

export class MemoryDisk {
  latencyMs: number;
  /** May be changed at any time: a disk fills, and is cleaned up. */
  capacityBytes: number;
  fault: DiskFault = () => undefined;
  /** Virtual milliseconds of an operation; `latencyMs` unless it is replaced. */
  latencyOf: (operation: DiskOperation, length: number) => number = () => this.latencyMs;
  /** What is read may be damaged on the way: called with what a read gives. */
  readFault: ((path: string, bytes: Uint8Array, position: number) => void) | undefined;
  /** Of a write or sync that fails: which sectors reach the disk all the same. */
  keepOnError: Keep = nothing;
  images: Map<string, FileImage> = new Map();
  private durableImages: Map<string, FileImage> = new Map();
  private nameChanges: NameChange[] = [];
  readonly locks: Map<string, object> = new Map();

  constructor(options: DiskOptions = {}) {
    this.latencyMs = options.latencyMs ?? 0.1;
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
  }

  get usedBytes(): number {
    let used = 0;
    for (const image of this.images.values()) used += image.usedBytes;
    return used;
  }

  /** The file system as one process sees it; when the process has ended none of its operations ends. */
  mount(owner: Process): FileSystem {
    return new MemoryFileSystem(this, owner);
  }

  /** The process that held locks is gone. */
  releaseLocks(): void {
    this.locks.clear();
  }

  /** What was not made durable is gone, but for what `keep` lets through. */
  losePower(keep: Keep = nothing): void {
    const dropped = new Set<string>();
    for (const change of this.nameChanges) {
      const paths = [change.from, change.to].filter((path) => path !== undefined);
      // What builds on a lost change is lost, too.
      if (keep() && !paths.some((path) => dropped.has(path))) this.carryOut(change);
      else for (const path of paths) dropped.add(path);
    }
    this.nameChanges = [];
    for (const image of this.durableImages.values()) image.losePower(keep);
    this.images = new Map(this.durableImages);
    this.locks.clear();
  }

  /** The file's bytes, to look at or to damage; what is changed is changed durably, too. */
  edit(path: string, change: (bytes: Uint8Array) => void): void {
    const image = this.images.get(path);
    if (image === undefined) throw new Error(`there is no ${path}`);
    image.edit(change);
  }

  paths(): string[] {
    return [...this.images.keys()].sort();
  }

  setMode(path: string, mode: number): void {
    this.images.get(path)!.mode = mode;
  }

  /** Removes `path` and all below, durably. */
  remove(path: string): void {
    this.removeName(path);
    this.flushNames(() => true);
  }

  /** A copy as of now, for looking at what a crash here would leave. */
  clone(): MemoryDisk {
    const copy = new MemoryDisk(this);
    const copies = new Map<FileImage, FileImage>();
    const copyOf = (image: FileImage): FileImage => {
      let known = copies.get(image);
      if (known === undefined) copies.set(image, (known = image.clone()));
      return known;
    };
    for (const [path, image] of this.images) copy.images.set(path, copyOf(image));
    for (const [path, image] of this.durableImages) copy.durableImages.set(path, copyOf(image));
    copy.nameChanges = this.nameChanges.map(({ from, to, image }) => ({ from, to, image: image && copyOf(image) }));
    return copy;
  }

  /** Puts back what `clone` kept. */
  restore(copy: MemoryDisk): void {
    const again = copy.clone();
    this.images = again.images;
    this.durableImages = again.durableImages;
    this.nameChanges = again.nameChanges;
  }

  // For the file system.

  addName(path: string, image: FileImage): void {
    this.images.set(path, image);
    this.nameChanges.push({ from: undefined, to: path, image });
  }

  moveName(from: string, to: string): void {
    const image = this.images.get(from)!;
    this.images.delete(from);
    this.images.set(to, image);
    this.nameChanges.push({ from, to, image });
  }

  removeName(path: string): void {
    for (const known of this.paths()) {
      if (known !== path && !known.startsWith(`${path}/`)) continue;
      this.images.delete(known);
      this.nameChanges.push({ from: known, to: undefined, image: undefined });
    }
  }

  /** The names in `directory` are durable as they are, and what is gone is gone with all below it. */
  syncNames(directory: string): void {
    const isHere = (path: string | undefined): boolean => path !== undefined && parentOf(path) === directory;
    const isBelow = (path: string): boolean => path.startsWith(`${directory}/`) && !this.images.has(path);
    this.flushNames(({ from, to }) => isHere(from) || isHere(to) || (from !== undefined && isBelow(from)));
  }

  private flushNames(isFlushed: (change: NameChange) => boolean): void {
    const left: NameChange[] = [];
    for (const change of this.nameChanges) {
      if (isFlushed(change)) this.carryOut(change);
      else left.push(change);
    }
    this.nameChanges = left;
  }

  private carryOut({ from, to, image }: NameChange): void {
    if (from !== undefined) this.durableImages.delete(from);
    if (to !== undefined && image !== undefined) this.durableImages.set(to, image);
  }
}

export const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));

/** With the code that the real one has. */
export function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
