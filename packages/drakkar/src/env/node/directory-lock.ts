/**
 * One process for a directory (F18). Node has no file locks, so two things stand together: a file that names the owner, and on
 * Linux an abstract socket, which the system gives back the moment its process dies, however it dies.
 */
import { createHash, randomUUID } from 'node:crypto';
import { promises as fs } from 'node:fs';
import { createServer, type Server } from 'node:net';
import type { DirectoryLock } from '../env.ts';

const LOCK_FILE = 'LOCK';
const held = new Set<string>();

export async function lockDirectory(path: string): Promise<DirectoryLock> {
  const real = await fs.realpath(path);
  const file = `${real}/${LOCK_FILE}`;
  if (held.has(real)) throw locked(`this process, ${process.pid}, has it open already`);
  held.add(real);
  try {
    const server = process.platform === 'linux' ? await bind(real, file) : await claim(file);
    return {
      async release() {
        await fs.rm(file, { force: true });
        await new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));
        held.delete(real);
      },
    };
  } catch (error) {
    held.delete(real);
    throw error;
  }
}

/** Linux: whoever has the socket has the directory; the file only tells people who that is. */
async function bind(real: string, file: string): Promise<Server> {
  const name = `\0drakkar-${createHash('sha256').update(real).digest('hex').slice(0, 40)}`;
  const server = createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(name, resolve);
    });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause;
    throw locked(`process ${await ownerOf(file)} has it open`);
  }
  server.unref();
  await fs.rm(file, { force: true });
  await fs.writeFile(file, `${process.pid}\n`, { mode: 0o600 });
  return server;
}

/** Elsewhere: a file made exclusively; one whose process is gone is taken over. */
async function claim(file: string): Promise<undefined> {
  for (let attempt = 0; ; attempt++) {
    try {
      await fs.writeFile(file, `${process.pid}\n`, { mode: 0o600, flag: 'wx' });
      return undefined;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
      const owner = Number.parseInt(await ownerOf(file), 10);
      if (attempt > 0 || isAlive(owner)) throw locked(`process ${owner} has it open`);
      // Moved aside under a name of its own, so that of two who take over only one removes it.
      await fs.rename(file, `${file}.${randomUUID()}`).catch(() => {});
    }
  }
}

async function ownerOf(file: string): Promise<string> {
  try {
    return (await fs.readFile(file, 'utf8')).trim();
  } catch {
    return 'unknown';
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function locked(why: string): Error {
  return Object.assign(new Error(why), { code: 'ELOCKED' });
}
