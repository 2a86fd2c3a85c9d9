/** The file system of this machine. Writes of the hot path go through callbacks, everything else through promises. */
import * as nodeFs from 'node:fs';
import { dirname } from 'node:path';
import type { File, FileStat, FileSystem, OpenMode, OpenOptions } from '../env.ts';
import { allocatePages, isWholePages } from './aligned.ts';
import { lockDirectory } from './directory-lock.ts';

const { O_CREAT, O_DSYNC, O_EXCL, O_RDONLY, O_RDWR } = nodeFs.constants;
const { promises } = nodeFs;
const EDQUOT = -122;

/** Linux only. Halves the CPU of a flush and takes a third off a small one; nothing of the log fills the system's cache. */
const O_DIRECT: number | undefined = nodeFs.constants.O_DIRECT;

const FLAGS: Record<OpenMode, number> = { read: O_RDONLY, write: O_RDWR, create: O_RDWR | O_CREAT | O_EXCL };

/** Node has no name for a quota that is used up; for us it is a full disk (reliability §2, F10). */
function named(error: NodeJS.ErrnoException | null): Error | null {
  if (error !== null && error.errno === EDQUOT) error.code = 'ENOSPC';
  return error;
}

class NodeFile implements File {
  private readonly fd: number;
  /** The same file, opened to be written past the cache. */
  private readonly directFd: number | undefined;
  private isDirect: boolean;

  constructor(fd: number, directFd: number | undefined) {
    this.fd = fd;
    this.directFd = directFd;
    this.isDirect = directFd !== undefined;
  }

  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
    done: (error: Error | null) => void,
  ): void {
    const isDirect = this.isDirect && isWholePages(buffer, offset, length, position);
    nodeFs.write(isDirect ? this.directFd! : this.fd, buffer, offset, length, position, (error, written) => {
      if (error !== null && isDirect && error.code === 'EINVAL') {
        // The file system wants it otherwise than we can know.
        this.isDirect = false;
        this.write(buffer, offset, length, position, done);
      } else if (error !== null) done(named(error));
      else if (written === length) done(null);
      else if (written === 0) done(Object.assign(new Error('the disk took nothing'), { code: 'ENOSPC' }));
      else this.write(buffer, offset + written, length - written, position + written, done);
    });
  }

  async read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    let total = 0;
    while (total < length) {
      const count = await new Promise<number>((resolve, reject) => {
        nodeFs.read(this.fd, buffer, offset + total, length - total, position + total, (error, read) =>
          error === null ? resolve(read) : reject(error),
        );
      });
      if (count === 0) break;
      total += count;
    }
    return total;
  }

  sync(): Promise<void> {
    return settle((done) => nodeFs.fsync(this.fd, done));
  }

  truncate(sizeBytes: number): Promise<void> {
    return settle((done) => nodeFs.ftruncate(this.fd, sizeBytes, done));
  }

  sizeBytes(): Promise<number> {
    return new Promise((resolve, reject) => {
      nodeFs.fstat(this.fd, (error, stats) => (error === null ? resolve(stats.size) : reject(error)));
    });
  }

  async close(): Promise<void> {
    if (this.directFd !== undefined) await settle((done) => nodeFs.close(this.directFd!, done));
    await settle((done) => nodeFs.close(this.fd, done));
  }
}

function settle(call: (done: (error: NodeJS.ErrnoException | null | undefined) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error === null || error === undefined ? resolve() : reject(named(error))));
  });
}

async function open(path: string, mode: OpenMode, options: OpenOptions = {}): Promise<File> {
  const sync = options.dataSync === true ? O_DSYNC : 0;
  const fd = await openFd(path, FLAGS[mode] | sync);
  if (options.direct !== true || O_DIRECT === undefined) return new NodeFile(fd, undefined);
  // Not every file system knows it.
  return new NodeFile(fd, await openFd(path, O_RDWR | O_DIRECT | sync).catch(() => undefined));
}

function openFd(path: string, flags: number): Promise<number> {
  return new Promise((resolve, reject) => {
    nodeFs.open(path, flags, 0o600, (error, fd) => (error === null ? resolve(fd) : reject(named(error))));
  });
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await promises.open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    // Windows cannot sync a directory; its names are durable without.
    if (process.platform !== 'win32') throw error;
  } finally {
    await handle.close();
  }
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await promises.mkdir(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT') throw error;
    await makeDirectory(dirname(path));
    await makeDirectory(path);
    return;
  }
  await syncDirectory(dirname(path));
}

export const nodeFileSystem: FileSystem = {
  open,
  allocate: allocatePages,
  makeDirectory,
  syncDirectory,
  lockDirectory,
  async list(path) {
    return (await promises.readdir(path)).sort();
  },
  async stat(path): Promise<FileStat | undefined> {
    try {
      const stats = await promises.stat(path);
      return { sizeBytes: stats.size, isDirectory: stats.isDirectory(), mode: stats.mode & 0o777 };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  },
  rename: (from, to) => promises.rename(from, to),
  remove: (path) => promises.rm(path, { recursive: true, force: true }),
};
