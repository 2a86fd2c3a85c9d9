/**
 * Damage to a disk that stays: strikes only what can be told from a torn tail. The last group of the log cannot (fault F3), so that
 * everything before it is fair game.
 */
import { SECTOR_BYTES } from '../testing.ts';
import type { Dice } from './dice.ts';
import { DATA_DIR, type SimHost } from './host.ts';

const PAGE_BYTES = 4096;
/** Starts that must lie between a copy of a disk and now, so that peers have seen a later one. */
const ROLL_BACK_STARTS = 3;

/** Files and the bytes of them that may be damaged. */
function* targets(host: SimHost): IterableIterator<{ path: string; endBytes: number }> {
  const { disk } = host.machine;
  const last = host.lastLogWrite;
  for (const path of disk.paths()) {
    const size = disk.images.get(path)!.sizeBytes;
    if (size === 0) continue;
    if (path.endsWith('.wal')) {
      if (last === undefined || path > last.path) continue;
      const endBytes = path === last.path ? last.position : size;
      if (endBytes > 0) yield { path, endBytes };
    } else if (path.includes('/snapshots/') || path === `${DATA_DIR}/identity.json`) yield { path, endBytes: size };
  }
}

/** False when there is nothing to damage. */
export function damageDisk(
  kind: 'bit-rot' | 'zeroed-sector' | 'misdirected-write' | 'stale-sector',
  host: SimHost,
  dice: Dice,
): boolean {
  const all = [...targets(host)];
  if (all.length === 0) return false;
  const { path, endBytes } = dice.pick(all);
  const { disk } = host.machine;
  const sector = dice.below(Math.ceil(endBytes / SECTOR_BYTES)) * SECTOR_BYTES;
  const end = Math.min(sector + SECTOR_BYTES, endBytes);
  disk.edit(path, (bytes) => {
    if (kind === 'bit-rot') bytes[sector + dice.below(end - sector)] ^= 1 << dice.below(8);
    else if (kind === 'zeroed-sector') bytes.fill(0, sector, end);
    else if (kind === 'misdirected-write') {
      const from = Math.floor(sector / PAGE_BYTES) * PAGE_BYTES;
      const to = dice.below(Math.ceil(endBytes / PAGE_BYTES)) * PAGE_BYTES;
      bytes.copyWithin(to, from, Math.min(from + PAGE_BYTES, from + endBytes - to, endBytes));
    } else {
      const old = host.backups[0]?.disk.images.get(path)?.bytes.subarray(sector, end);
      bytes.fill(0, sector, end);
      if (old !== undefined) bytes.set(old, sector);
    }
  });
  return true;
}

export function loseDisk(host: SimHost): boolean {
  host.machine.disk.remove(DATA_DIR);
  host.lastLogWrite = undefined;
  return true;
}

/** A copy that is older than what peers have heard of this host since. */
export function rollBackDisk(host: SimHost): boolean {
  const copy = host.backups.find(({ start }) => host.longStarts - start >= ROLL_BACK_STARTS);
  if (copy === undefined) return false;
  host.machine.disk.restore(copy.disk);
  return true;
}
