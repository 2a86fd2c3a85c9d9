/** A small record in a file of its own: JSON with a checksum, written whole or not at all. */
import { DrakkarError } from '../errors.ts';
import type { FileSystem } from '../env/env.ts';
import { checksum } from '../wire/checksum.ts';

const RECORD_MAX_BYTES = 64 * 1024;

/** What stands in the file, before anything of it is believed; undefined when there is none. */
export async function readRecord(fs: FileSystem, path: string): Promise<Record<string, unknown> | undefined> {
  const stat = await fs.stat(path);
  if (stat === undefined) return undefined;
  await checkMode(fs, path, 0o077);
  if (stat.sizeBytes > RECORD_MAX_BYTES) throw corrupt(path, 'it is too long');
  const bytes = await readWhole(fs, path, stat.sizeBytes);
  let record: unknown;
  try {
    record = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw corrupt(path, 'it is not readable', cause);
  }
  if (typeof record !== 'object' || record === null) throw corrupt(path, 'it is no record');
  return record as Record<string, unknown>;
}

/** The fields without their checksum, which holds. A flipped bit must not make another host, or an older start, of this one (F2). */
export function soundFields(path: string, record: Record<string, unknown>): Record<string, unknown> {
  const { checksum: stored, ...fields } = record;
  if (stored !== checksumOf(fields)) throw corrupt(path, 'its checksum is wrong');
  return fields;
}

function checksumOf(record: object): string {
  return checksum(new TextEncoder().encode(JSON.stringify(record)))
    .toString(16)
    .padStart(8, '0');
}

async function readWhole(fs: FileSystem, path: string, sizeBytes: number): Promise<Uint8Array> {
  const file = await fs.open(path, 'read');
  try {
    const bytes = new Uint8Array(sizeBytes);
    await file.read(bytes, 0, sizeBytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}

/** Whole or not at all: temporary file, sync, rename, sync of the directory (fault F11). */
export async function writeRecord(fs: FileSystem, dir: string, name: string, record: object): Promise<void> {
  const path = `${dir}/${name}`;
  const temporary = `${path}.new`;
  await fs.remove(temporary);
  const bytes = new TextEncoder().encode(
    `${JSON.stringify({ ...record, checksum: checksumOf(record) }, undefined, 2)}\n`,
  );
  const file = await fs.open(temporary, 'create');
  try {
    await new Promise<void>((resolve, reject) => {
      file.write(bytes, 0, bytes.length, 0, (error) => (error === null ? resolve() : reject(error)));
    });
    await file.sync();
  } finally {
    await file.close();
  }
  await fs.rename(temporary, path);
  await fs.syncDirectory(dir);
}

export async function checkMode(fs: FileSystem, path: string, forbidden: number): Promise<void> {
  const stat = await fs.stat(path);
  if (stat === undefined || (stat.mode & forbidden) === 0) return;
  throw new DrakkarError(
    'ERR_DIR_PERMISSIONS',
    `${path} has mode ${stat.mode.toString(8)}: others may reach it; expected at most ${(0o777 & ~forbidden).toString(8)}, run chmod`,
  );
}

export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
export const isHex = (value: unknown, digits: number): value is string =>
  typeof value === 'string' && value.length === digits && /^[0-9a-f]+$/.test(value);

export function corrupt(path: string, why: string, cause?: unknown): DrakkarError {
  return new DrakkarError('ERR_DIR_CORRUPT', `${path} is damaged: ${why}; restore it from a backup`, { cause });
}
