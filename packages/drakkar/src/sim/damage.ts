/**
 * Damage to a disk that stays: strikes only what can be told from a torn tail. The last group of the log cannot (fault F3), so that
 * everything before it is fair game.
 */
import { pinsOf } from '../inspect.ts';
import { SECTOR_BYTES, type MemoryDisk } from '../testing.ts';
import type { Dice } from './dice.ts';
import { DATA_DIR, STORES_DIR, WAL_DIR, type SimHost } from './host.ts';

const PAGE_BYTES = 4096;

/** Damage that a disk can suffer where it stands. */
export const DAMAGES = ['bit-rot', 'zeroed-sector', 'misdirected-write', 'stale-sector'] as const;
export type Damage = (typeof DAMAGES)[number];

/** The newest write to each log of a host, by its directory: several engines have a log each. */
export type LastLogWrites = Map<string, { readonly path: string; readonly position: number }>;

export const directoryOf = (path: string): string => path.slice(0, path.lastIndexOf('/'));

/** What may be damaged: a host's disk, or a copy of it. */
export interface Damageable {
  readonly disk: MemoryDisk;
  /** They hold the newest groups, which damage must leave alone. */
  readonly lastLogWrites: LastLogWrites;
  /** As the disk was once. */
  readonly older: MemoryDisk | undefined;
}

const LOG_OWNER = `${WAL_DIR}/log-of.json`;

/** Files and the bytes of them that may be damaged. */
function* targets({ disk, lastLogWrites }: Damageable): IterableIterator<{ path: string; endBytes: number }> {
  for (const path of disk.paths()) {
    const size = disk.images.get(path)!.sizeBytes;
    if (size === 0) continue;
    if (path.endsWith('.wal')) {
      const last = lastLogWrites.get(directoryOf(path));
      if (last === undefined || path > last.path) continue;
      const endBytes = path === last.path ? last.position : size;
      if (endBytes > 0) yield { path, endBytes };
    } else if (path.includes('/snapshots/') || path === `${DATA_DIR}/identity.json` || path === LOG_OWNER)
      yield { path, endBytes: size };
  }
}

/** False when there is nothing to damage. */
export function damageDisk(kind: Damage, target: Damageable, dice: Dice): boolean {
  // An older identity is a disk rolled back, which is another fault.
  const all = [...targets(target)].filter(({ path }) => kind !== 'stale-sector' || !path.endsWith('.json'));
  if (all.length === 0) return false;
  const { path, endBytes } = dice.pick(all);
  const { disk, older } = target;
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
      const old = older?.images.get(path)?.bytes.subarray(sector, end);
      bytes.fill(0, sector, end);
      if (old !== undefined) bytes.set(old, sector);
    }
  });
  return true;
}

/**
 * A peer that never heard of this host, or not of its newest starts, cannot tell that its disk was lost or rolled back: then the
 * fault is beyond what is promised.
 */
export function loseDisk(host: SimHost, peers: readonly SimHost[], dice: Dice): boolean {
  if (!isKnown(host, peers, 1)) return false;
  host.loseData();
  // Stores that are left are ahead of the log, and must be noticed.
  if (dice.chance(0.5)) host.machine.disk.remove(STORES_DIR);
  host.lastLogWrites.clear();
  host.isForgetful = true;
  return true;
}

export function rollBackDisk(host: SimHost, peers: readonly SimHost[]): boolean {
  // Every peer has heard of the start that followed the copy, or of a later one.
  const copy = host.backups.find(({ startCounter }) => isKnown(host, peers, startCounter + 1));
  if (copy === undefined) return false;
  host.machine.disk.restore(copy.disk);
  host.isForgetful = true;
  return true;
}

/** Stores of on-disk state machines that are gone, or lost their newest batches: behind the log. False when there is none. */
export function damageStores(disk: MemoryDisk, isLost: boolean, dice: Dice): boolean {
  const journals = disk.paths().filter((path) => path.startsWith(`${STORES_DIR}/`) && path.endsWith('/journal'));
  if (journals.length === 0) return false;
  if (isLost) disk.remove(STORES_DIR);
  else disk.edit(dice.pick(journals), (bytes) => bytes.fill(0, dice.below(bytes.length)));
  return true;
}

/** Whether every peer that shares a shard with `host` has pinned its start `startCounter` or a later one. */
function isKnown(host: SimHost, peers: readonly SimHost[], startCounter: number): boolean {
  return peers.every((peer) => {
    if (peer === host) return true;
    if (!peer.isUp || peer.host === undefined) return false;
    return [...pinsOf(peer.host)].every(({ replicaId, startCounter: pinned }) => {
      return replicaId !== host.id || pinned >= startCounter;
    });
  });
}
