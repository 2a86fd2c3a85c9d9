/** A disk in memory as one process sees it: what `env.ts` promises of files and directories. */
import type { DirectoryLock, File, FileStat, FileSystem, OpenMode, OpenOptions } from '../env.ts';
import { parentOf, systemError, type DiskOperation, type MemoryDisk } from './disk.ts';
import { FileImage } from './image.ts';
import type { Process } from './process.ts';

export class MemoryFileSystem implements FileSystem {
  readonly disk: MemoryDisk;
  readonly owner: Process;

  constructor(disk: MemoryDisk, owner: Process) {
    this.disk = disk;
    this.owner = owner;
  }

  /** Runs `work` after the disk's latency, or `failed` when a fault prevents it; nothing when the process ends before. */
  start(
    operation: DiskOperation,
    path: string,
    position: number,
    length: number,
    work: () => void,
    failed: (error: Error) => void,
  ): void {
    const { disk, owner } = this;
    owner.enter(disk.latencyOf(operation, length), () => {
      const error = disk.fault(operation, path, position, length);
      if (!owner.isAlive) return; // the fault was the end of the process
      if (error === undefined) work();
      else failed(error);
    });
  }

  perform<T>(operation: DiskOperation, path: string, work: () => T, position = 0, length = 0): Promise<T> {
    return new Promise((resolve, reject) => {
      const attempt = (): void => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      };
      this.start(operation, path, position, length, attempt, reject);
    });
  }

  open(path: string, mode: OpenMode, options: OpenOptions = {}): Promise<File> {
    const { disk } = this;
    return this.perform('open', path, () => {
      let image = disk.images.get(path);
      if (mode === 'create') {
        if (image !== undefined) throw systemError('EEXIST', path);
        if (disk.images.get(parentOf(path))?.isDirectory !== true) throw systemError('ENOENT', path);
        image = new FileImage(false);
        disk.addName(path, image);
      }
      if (image === undefined) throw systemError('ENOENT', path);
      if (image.isDirectory) throw systemError('EISDIR', path);
      return new MemoryFile(this, path, image, options.dataSync === true, mode !== 'read');
    });
  }

  allocate(sizeBytes: number): ArrayBuffer {
    return new ArrayBuffer(sizeBytes);
  }

  makeDirectory(path: string): Promise<void> {
    return this.perform('make', path, () => {
      const parts = path.split('/');
      for (let depth = 1; depth <= parts.length; depth++) {
        const part = parts.slice(0, depth).join('/');
        if (part === '' || part === '.') continue;
        const known = this.disk.images.get(part);
        if (known !== undefined && !known.isDirectory) throw systemError('EEXIST', part);
        if (known === undefined) this.disk.addName(part, new FileImage(true));
        this.disk.syncNames(parentOf(part));
      }
    });
  }

  list(path: string): Promise<string[]> {
    return this.perform('list', path, () => {
      if (this.disk.images.get(path)?.isDirectory !== true) throw systemError('ENOENT', path);
      const inside = this.disk.paths().filter((known) => parentOf(known) === path);
      return inside.map((known) => known.slice(path.length + 1));
    });
  }

  stat(path: string): Promise<FileStat | undefined> {
    return this.perform('list', path, () => {
      const image = this.disk.images.get(path);
      return image && { sizeBytes: image.sizeBytes, isDirectory: image.isDirectory, mode: image.mode };
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.perform('rename', from, () => {
      if (!this.disk.images.has(from)) throw systemError('ENOENT', from);
      this.disk.moveName(from, to);
    });
  }

  remove(path: string): Promise<void> {
    return this.perform('remove', path, () => this.disk.removeName(path));
  }

  syncDirectory(path: string): Promise<void> {
    return this.perform('sync-directory', path, () => this.disk.syncNames(path));
  }

  lockDirectory(path: string): Promise<DirectoryLock> {
    const { locks } = this.disk;
    return this.perform('open', path, () => {
      if (locks.has(path)) throw Object.assign(new Error('another owner has it open'), { code: 'ELOCKED' });
      const owner = {};
      locks.set(path, owner);
      const release = (): void => {
        if (locks.get(path) === owner) locks.delete(path);
      };
      return { release: () => this.perform('remove', path, release) };
    });
  }
}

class MemoryFile implements File {
  private readonly fs: MemoryFileSystem;
  private readonly path: string;
  private readonly image: FileImage;
  private readonly dataSync: boolean;
  private readonly isWritable: boolean;

  constructor(fs: MemoryFileSystem, path: string, image: FileImage, dataSync: boolean, isWritable: boolean) {
    this.fs = fs;
    this.path = path;
    this.image = image;
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
    const { image, path, fs } = this;
    const { disk } = fs;
    const growth = image.roomFor(position, length);
    const isFull = growth > 0 && disk.usedBytes + growth > disk.capacityBytes;
    const isRefused = isFull || !this.isWritable;
    // The bytes are on their way at once, so that a power cut may tear them.
    const change = isRefused ? undefined : image.write(position, buffer.slice(offset, offset + length));
    const finish = (): void => {
      if (change === undefined) done(systemError(isFull ? 'ENOSPC' : 'EBADF', path));
      else {
        if (this.dataSync) image.makeDurable(change);
        done(null);
      }
    };
    const failed = (error: Error): void => {
      if (change !== undefined) image.loseFlush(disk.keepOnError, change);
      done(error);
    };
    fs.start('write', path, position, length, finish, failed);
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    const { path, image, fs } = this;
    const work = (): number => {
      const count = Math.max(0, Math.min(length, image.sizeBytes - position));
      buffer.set(image.bytes.subarray(position, position + count), offset);
      fs.disk.readFault?.(path, buffer.subarray(offset, offset + count), position);
      return count;
    };
    return fs.perform('read', path, work, position, length);
  }

  sync(): Promise<void> {
    const { fs, path, image } = this;
    return new Promise((resolve, reject) => {
      const work = (): void => {
        image.sync();
        resolve();
      };
      const failed = (error: Error): void => {
        image.loseFlush(fs.disk.keepOnError);
        reject(error);
      };
      fs.start('sync', path, 0, 0, work, failed);
    });
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.fs.perform('truncate', this.path, () => this.image.truncate(sizeBytes), sizeBytes);
  }

  sizeBytes(): Promise<number> {
    return this.fs.perform('list', this.path, () => this.image.sizeBytes);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
