/**
 * A disk in memory that knows what is durable. A process that dies leaves everything; power that goes leaves what was synced, and of
 * writes under way any of their sectors. Every operation takes virtual time and can be made to fail.
 */
import type { DirectoryLock, File, FileStat, FileSystem, OpenMode, OpenOptions } from '../env.ts';
import type { World } from './world.ts';

const SECTOR_BYTES = 512;

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

interface PendingWrite {
  readonly position: number;
  readonly bytes: Uint8Array;
}

class Node {
  readonly isDirectory: boolean;
  mode: number;
  /** As processes see it. */
  bytes: Uint8Array = new Uint8Array(0);
  sizeBytes = 0;
  /** As a power cut leaves it. */
  durable: Uint8Array = new Uint8Array(0);
  /** Written and not durable. */
  pending: PendingWrite[] = [];

  constructor(isDirectory: boolean) {
    this.isDirectory = isDirectory;
    this.mode = isDirectory ? 0o700 : 0o600;
  }

  put(position: number, bytes: Uint8Array): void {
    const end = position + bytes.length;
    if (end > this.bytes.length) this.bytes = grown(this.bytes, Math.max(end, this.bytes.length * 2));
    this.bytes.set(bytes, position);
    if (end > this.sizeBytes) this.sizeBytes = end;
  }

  makeDurable(write: PendingWrite): void {
    const end = write.position + write.bytes.length;
    if (end > this.durable.length) this.durable = grown(this.durable, end);
    this.durable.set(write.bytes, write.position);
    this.pending = this.pending.filter((other) => other !== write);
  }

  makeAllDurable(): void {
    this.durable = this.bytes.slice(0, this.sizeBytes);
    this.pending = [];
  }
}

function grown(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const larger = new Uint8Array(sizeBytes);
  larger.set(bytes);
  return larger;
}

export interface DiskOptions {
  /** Virtual milliseconds of a write, a read, a sync. Default 0.1. */
  readonly latencyMs?: number;
  /** Bytes of all files together. Default: without a bound. */
  readonly capacityBytes?: number;
}

export class MemoryDisk {
  private readonly world: World;
  readonly latencyMs: number;
  /** May be changed at any time: a disk fills, and is cleaned up. */
  capacityBytes: number;
  fault: DiskFault = () => undefined;
  nodes = new Map<string, Node>();
  private durableNodes = new Map<string, Node>();
  readonly locks = new Map<string, object>();

  constructor(world: World, options: DiskOptions = {}) {
    this.world = world;
    this.latencyMs = options.latencyMs ?? 0.1;
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
  }

  get usedBytes(): number {
    let used = 0;
    for (const node of this.nodes.values()) used += node.sizeBytes;
    return used;
  }

  /** The file system as one process sees it; after `isAlive` gives false none of its operations ends. */
  mount(isAlive: () => boolean): FileSystem {
    return new MemoryFileSystem(this, this.world, isAlive);
  }

  /** The process that held locks is gone. */
  releaseLocks(): void {
    this.locks.clear();
  }

  /** What was not made durable is gone; of writes under way each sector arrived or not, by `keep`. */
  losePower(keep: () => boolean = () => false): void {
    for (const node of this.durableNodes.values()) {
      for (const write of node.pending) tear(node, write, keep);
      node.pending = [];
      node.bytes = node.durable.slice();
      node.sizeBytes = node.durable.length;
    }
    this.nodes = new Map(this.durableNodes);
    this.locks.clear();
  }

  /** The file's bytes, to look at or to damage; what is changed is changed durably, too. */
  edit(path: string, change: (bytes: Uint8Array) => void): void {
    const node = this.nodes.get(path);
    if (node === undefined) throw new Error(`there is no ${path}`);
    change(node.bytes.subarray(0, node.sizeBytes));
    node.makeAllDurable();
  }

  paths(): string[] {
    return [...this.nodes.keys()].sort();
  }

  setMode(path: string, mode: number): void {
    this.nodes.get(path)!.mode = mode;
  }

  remove(path: string): void {
    for (const known of this.paths()) {
      if (known !== path && !known.startsWith(`${path}/`)) continue;
      this.nodes.delete(known);
      this.durableNodes.delete(known);
    }
  }

  /** For the file system. */
  entriesDurable(directory: string): void {
    for (const [path] of this.durableNodes) {
      if (parentOf(path) === directory && !this.nodes.has(path)) this.durableNodes.delete(path);
    }
    for (const [path, node] of this.nodes) if (parentOf(path) === directory) this.durableNodes.set(path, node);
  }
}

function tear(node: Node, write: PendingWrite, keep: () => boolean): void {
  const end = write.position + write.bytes.length;
  for (let at = write.position; at < end; ) {
    const next = Math.min(end, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
    if (keep())
      node.makeDurable({ position: at, bytes: write.bytes.subarray(at - write.position, next - write.position) });
    at = next;
  }
}

const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));

/** With the code that the real one has. */
export function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

class MemoryFileSystem implements FileSystem {
  private readonly disk: MemoryDisk;
  private readonly world: World;
  private readonly isAlive: () => boolean;

  constructor(disk: MemoryDisk, world: World, isAlive: () => boolean) {
    this.disk = disk;
    this.world = world;
    this.isAlive = isAlive;
  }

  /** Runs `work` after the disk's latency, unless a fault or the end of the process prevents it. */
  perform<T>(operation: DiskOperation, path: string, position: number, length: number, work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.world.schedule(this.disk.latencyMs, () => {
        if (!this.isAlive()) return;
        try {
          const error = this.disk.fault(operation, path, position, length);
          if (error !== undefined) throw error;
          if (!this.isAlive()) return; // the fault was the end of the process
          resolve(work());
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  open(path: string, mode: OpenMode, options: OpenOptions = {}): Promise<File> {
    const { disk } = this;
    return this.perform('open', path, 0, 0, () => {
      let node = disk.nodes.get(path);
      if (mode === 'create') {
        if (node !== undefined) throw systemError('EEXIST', path);
        if (disk.nodes.get(parentOf(path))?.isDirectory !== true) throw systemError('ENOENT', path);
        node = new Node(false);
        disk.nodes.set(path, node);
      }
      if (node === undefined) throw systemError('ENOENT', path);
      if (node.isDirectory) throw systemError('EISDIR', path);
      return new MemoryFile(this, disk, path, node, options.dataSync === true, mode !== 'read');
    });
  }

  makeDirectory(path: string): Promise<void> {
    return this.perform('make', path, 0, 0, () => {
      const parts = path.split('/');
      for (let depth = 1; depth <= parts.length; depth++) {
        const part = parts.slice(0, depth).join('/');
        if (part === '' || part === '.') continue;
        const node = this.disk.nodes.get(part);
        if (node !== undefined && !node.isDirectory) throw systemError('EEXIST', part);
        if (node === undefined) this.disk.nodes.set(part, new Node(true));
        this.disk.entriesDurable(parentOf(part));
      }
    });
  }

  list(path: string): Promise<string[]> {
    return this.perform('list', path, 0, 0, () => {
      if (this.disk.nodes.get(path)?.isDirectory !== true) throw systemError('ENOENT', path);
      return this.disk
        .paths()
        .filter((known) => parentOf(known) === path)
        .map((known) => known.slice(path.length + 1));
    });
  }

  stat(path: string): Promise<FileStat | undefined> {
    return this.perform('list', path, 0, 0, () => {
      const node = this.disk.nodes.get(path);
      return node && { sizeBytes: node.sizeBytes, isDirectory: node.isDirectory, mode: node.mode };
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.perform('rename', from, 0, 0, () => {
      const node = this.disk.nodes.get(from);
      if (node === undefined) throw systemError('ENOENT', from);
      this.disk.nodes.delete(from);
      this.disk.nodes.set(to, node);
    });
  }

  remove(path: string): Promise<void> {
    return this.perform('remove', path, 0, 0, () => {
      for (const known of this.disk.paths()) {
        if (known === path || known.startsWith(`${path}/`)) this.disk.nodes.delete(known);
      }
    });
  }

  syncDirectory(path: string): Promise<void> {
    return this.perform('sync-directory', path, 0, 0, () => this.disk.entriesDurable(path));
  }

  lockDirectory(path: string): Promise<DirectoryLock> {
    const { locks } = this.disk;
    return this.perform('open', path, 0, 0, () => {
      if (locks.has(path)) throw Object.assign(new Error('another process has it open'), { code: 'ELOCKED' });
      const owner = {};
      locks.set(path, owner);
      return {
        release: () =>
          this.perform('remove', path, 0, 0, () => {
            if (locks.get(path) === owner) locks.delete(path);
          }),
      };
    });
  }
}

class MemoryFile implements File {
  private readonly fs: MemoryFileSystem;
  private readonly disk: MemoryDisk;
  private readonly path: string;
  private readonly node: Node;
  private readonly dataSync: boolean;
  private readonly isWritable: boolean;

  constructor(
    fs: MemoryFileSystem,
    disk: MemoryDisk,
    path: string,
    node: Node,
    dataSync: boolean,
    isWritable: boolean,
  ) {
    this.fs = fs;
    this.disk = disk;
    this.path = path;
    this.node = node;
    this.dataSync = dataSync;
    this.isWritable = isWritable;
  }

  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
    done: (error: Error | null) => void,
  ): void {
    const { node, disk } = this;
    // The bytes are on their way at once, so that a power cut may tear them.
    const write: PendingWrite = { position, bytes: buffer.slice(offset, offset + length) };
    const growth = Math.max(0, position + length - node.sizeBytes);
    const isFull = growth > 0 && disk.usedBytes + growth > disk.capacityBytes;
    if (!isFull && this.isWritable) {
      node.pending.push(write);
      node.put(position, write.bytes);
    }
    this.fs
      .perform('write', this.path, position, length, () => {
        if (!this.isWritable) throw systemError('EBADF', this.path);
        if (isFull) throw systemError('ENOSPC', this.path);
        if (this.dataSync) node.makeDurable(write);
      })
      .then(
        () => done(null),
        (error: Error) => done(error),
      );
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return this.fs.perform('read', this.path, position, length, () => {
      const count = Math.max(0, Math.min(length, this.node.sizeBytes - position));
      buffer.set(this.node.bytes.subarray(position, position + count), offset);
      return count;
    });
  }

  sync(): Promise<void> {
    return this.fs.perform('sync', this.path, 0, 0, () => this.node.makeAllDurable());
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.fs.perform('truncate', this.path, sizeBytes, 0, () => {
      this.node.bytes = grown(this.node.bytes.subarray(0, Math.min(sizeBytes, this.node.sizeBytes)), sizeBytes);
      this.node.sizeBytes = sizeBytes;
    });
  }

  sizeBytes(): Promise<number> {
    return this.fs.perform('list', this.path, 0, 0, () => this.node.sizeBytes);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
