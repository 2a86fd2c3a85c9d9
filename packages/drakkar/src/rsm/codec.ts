/**
 * Codecs for the blocks of images. Each block is compressed alone, so that an image can be read, checked and gone on with from any block;
 * one that does not become smaller stays as it is.
 */
import { DrakkarError } from '../errors.ts';
import { zstd } from './zstd.ts';

/** Compresses blocks of snapshots, at most 256 KiB each. Both functions must give the same result everywhere. */
export interface SnapshotCodec {
  /** Stands in every image that it made: 1 to 24 of `a-z`, `0-9`, `-`. */
  readonly name: string;
  compress(bytes: Uint8Array): Uint8Array;
  /** `bytes` as `compress` gave them, or damaged: then it throws. The result has `sizeBytes` bytes; it must not become larger. */
  uncompress(bytes: Uint8Array, sizeBytes: number): Uint8Array;
}

export type Codecs = ReadonlyMap<string, SnapshotCodec>;

export const CODEC_NAME_MAX = 24;
export const NO_COMPRESSION = 'none';

export const BUILT_IN_CODECS: Codecs = new Map(zstd === undefined ? [] : [[zstd.name, zstd]]);

export function isCodecName(name: unknown): boolean {
  return typeof name === 'string' && /^[a-z0-9-]{1,24}$/.test(name) && name !== NO_COMPRESSION;
}

/** Those that are built in and those that were given, which go first. */
export function codecsOf(given: readonly SnapshotCodec[] | undefined): Codecs {
  if (given === undefined || given.length === 0) return BUILT_IN_CODECS;
  return new Map([...BUILT_IN_CODECS, ...given.map((codec) => [codec.name, codec] as const)]);
}

/** Throws `ERR_SNAPSHOT_CODEC` for one that is not there. */
export function codecNamed(codecs: Codecs, name: string): SnapshotCodec {
  const codec = codecs.get(name);
  if (codec !== undefined) return codec;
  const why = name === 'zstd' ? 'this Node has no zstd; take Node 22.15 or newer' : 'give it in snapshotCodecs';
  const known = [...codecs.keys()].join(', ') || 'none';
  throw new DrakkarError('ERR_SNAPSHOT_CODEC', `there is no codec ${name} here (there are ${known}): ${why}`);
}

/** The block as it is to be stored: as it is, when it does not become smaller. */
export function compressBlock(codec: SnapshotCodec, block: Uint8Array): Uint8Array {
  let stored: Uint8Array;
  try {
    stored = codec.compress(block);
  } catch (cause) {
    throw new DrakkarError('ERR_SNAPSHOT_CODEC', `codec ${codec.name} could not compress a block`, { cause });
  }
  return stored.length < block.length ? stored : block;
}

/** A block whose checksum held. Throws `ERR_SNAPSHOT_CODEC`: it was made by another codec of that name. */
export function uncompressBlock(codec: SnapshotCodec, stored: Uint8Array, sizeBytes: number): Uint8Array {
  if (stored.length === sizeBytes) return stored;
  let block: Uint8Array | undefined;
  let cause: unknown;
  try {
    block = codec.uncompress(stored, sizeBytes);
  } catch (error) {
    cause = error;
  }
  if (block?.length === sizeBytes) return block;
  throw new DrakkarError(
    'ERR_SNAPSHOT_CODEC',
    `codec ${codec.name} could not read a block that is as it was written: it was made by another codec of that name`,
    { cause },
  );
}
