/**
 * A disk in a file: ext4 on a loop device, mounted for one host. It can lose power, which drops everything that was not flushed, and its
 * room can be taken away. Only for a process with a mount namespace of its own: with it, the mounts are gone.
 */
import { execFile } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { must, run, systemEnvironment } from './probes.ts';

export const DISK_COMMANDS = ['unshare', 'mount', 'umount', 'mkfs.ext4', 'e2fsck', 'truncate'];

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH: from now on nothing reaches the disk, its journal included. */
const SHUTDOWN = `
import fcntl, os, struct, sys
for path in sys.argv[1:]:
    fcntl.ioctl(os.open(path, os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
`;

/** Smallest trial of a loop mount; with `python3`, of a power cut, too. */
export function diskProbe(withPowerCut: boolean): string {
  const powerCut = `python3 -c "$SHUTDOWN" $dir/disk\nif touch $dir/disk/after 2> /dev/null; then exit 1; fi\n`;
  return `
SHUTDOWN="${SHUTDOWN}"
dir=$(mktemp -d)
trap 'umount $dir/disk 2> /dev/null || true; rm -rf $dir' EXIT
mkdir $dir/disk
truncate -s 16M $dir/image
mkfs.ext4 -qF $dir/image
mount -o loop $dir/image $dir/disk
touch $dir/disk/before
${withPowerCut ? powerCut : ''}`;
}

const execute = promisify(execFile);
const BALLAST_CHUNK_BYTES = 1024 * 1024;

export class LoopDisk {
  readonly path: string;
  private readonly image: string;
  private isMounted = false;

  /** `dir`: where the image lies. */
  constructor(dir: string, name: string, sizeMiB: number) {
    this.image = join(dir, `${name}.img`);
    this.path = join(dir, name);
    mkdirSync(this.path, { recursive: true });
    must('truncate', ['-s', `${sizeMiB}M`, this.image]);
    // Without discard: an image in memory must not look larger than it is.
    must('mkfs.ext4', ['-qF', '-m', '0', '-E', 'nodiscard', this.image]);
    this.mount();
  }

  mount(): void {
    must('mount', ['-o', 'loop', this.image, this.path]);
    this.isMounted = true;
  }

  unmount(): void {
    if (!this.isMounted) return;
    must('umount', [this.path]);
    this.isMounted = false;
  }

  /** As after a crash: the journal is replayed, and what it does not heal is repaired. */
  repair(): void {
    // 1: errors were repaired.
    const { status, output } = run('e2fsck', ['-fy', this.image]);
    if (status !== 0 && status !== 1) throw new Error(`e2fsck ended with ${status}: ${output}`);
  }
}

/** All at the same moment; the processes on them do not learn of it before they write. */
export async function cutPower(disks: readonly LoopDisk[]): Promise<void> {
  await execute('python3', ['-c', SHUTDOWN, ...disks.map(({ path }) => path)], { env: systemEnvironment });
}

/** Takes all the room that is left under `dir`; gives what frees it again. */
export function fillUp(dir: string): () => void {
  const path = join(dir, 'ballast');
  const file = openSync(path, 'w');
  const chunk = Buffer.alloc(BALLAST_CHUNK_BYTES, 1);
  // Ever smaller pieces, so that not a page is left.
  for (let size = chunk.length; size > 0; ) {
    try {
      if (writeSync(file, chunk, 0, size) < size) size >>>= 1;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      size >>>= 1;
    }
  }
  closeSync(file);
  return () => {
    if (existsSync(path)) rmSync(path);
  };
}
