/**
 * A snapshot for elsewhere: a directory with an image and what it is of. Made for backups and for the repair of a shard that lost its
 * majority. Nothing refers to it; it is whole exactly when its metadata is there, which is written last.
 *
 *     image.snapshot    an image as replicas keep it (image.ts)
 *     metadata.json     format, shard, index, term, members, size and CRC-32 of the image, checksum of all that
 */
import { DrakkarError, diskErrorOf } from '../errors.ts';
import type { FileSystem } from '../env/env.ts';
import { checksum } from '../wire/checksum.ts';
import { decodeMembership, type Membership } from '../wire/membership.ts';
import { BUILT_IN_CODECS, type Codecs } from './codec.ts';
import { ImageReader, SectionReader, type ImageInfo } from './image.ts';
import { readFileChunks, writeFileChunks } from './image-file.ts';

const EXPORT_FORMAT = 1;
const IMAGE_FILE = 'image.snapshot';
const METADATA_FILE = 'metadata.json';
const METADATA_MAX_BYTES = 64 * 1024;

export interface ExportedSnapshot extends ImageInfo {
  /** Replica that made it. */
  readonly replicaId: number;
  /** Members at `index`, as in the image: replica id to address. */
  readonly voters: Readonly<Record<string, string>>;
  readonly nonVotings: Readonly<Record<string, string>>;
  readonly witnesses: Readonly<Record<string, string>>;
  /** Replica ids that can never come back. */
  readonly removed: readonly number[];
  readonly imageBytes: number;
  readonly imageChecksum: number;
}

interface Metadata extends ExportedSnapshot {
  readonly format: number;
}

/** Makes the directory `dir`, which must be empty or missing, from an image; everything is read back and verified before this resolves. */
export async function writeExport(
  fs: FileSystem,
  dir: string,
  replicaId: number,
  image: AsyncIterable<Uint8Array>,
  codecs: Codecs = BUILT_IN_CODECS,
): Promise<ExportedSnapshot> {
  try {
    await fs.makeDirectory(dir);
    if ((await fs.list(dir)).length > 0) {
      throw new DrakkarError('ERR_INVALID_OPTION', `${dir} is not empty; name a new directory for the snapshot`);
    }
    const path = `${dir}/${IMAGE_FILE}`;
    try {
      const written = await writeFileChunks(fs, path, image);
      const { info, membership } = await readImage(fs, path, codecs);
      const exported: ExportedSnapshot = {
        ...info,
        replicaId,
        ...describeMembership(membership),
        imageBytes: written.sizeBytes,
        imageChecksum: written.checksum,
      };
      await writeMetadata(fs, dir, { format: EXPORT_FORMAT, ...exported });
      return await verifyExport(fs, dir, codecs);
    } catch (error) {
      for (const name of [METADATA_FILE, `${METADATA_FILE}.new`, IMAGE_FILE])
        await fs.remove(`${dir}/${name}`).catch(() => {});
      throw error;
    }
  } catch (error) {
    throw diskErrorOf(error, `the snapshot exported to ${dir}`);
  }
}

/** Whole or not at all (fault F11). */
async function writeMetadata(fs: FileSystem, dir: string, metadata: Metadata): Promise<void> {
  const text = `${JSON.stringify({ ...metadata, checksum: checksumOf(metadata) }, undefined, 2)}\n`;
  const path = `${dir}/${METADATA_FILE}`;
  await writeFileChunks(fs, `${path}.new`, [new TextEncoder().encode(text)]);
  await fs.rename(`${path}.new`, path);
  await fs.syncDirectory(dir);
}

/** Reads an exported snapshot to its end. Throws `ERR_SNAPSHOT_CORRUPT`, or `ERR_DIR_FORMAT` for one of a newer version. */
export async function verifyExport(
  fs: FileSystem,
  dir: string,
  codecs: Codecs = BUILT_IN_CODECS,
): Promise<ExportedSnapshot> {
  try {
    const metadata = await readMetadata(fs, dir);
    const path = `${dir}/${IMAGE_FILE}`;
    let sizeBytes = 0;
    let digest = 0;
    if ((await fs.stat(path)) === undefined) throw corrupt(dir, `${IMAGE_FILE} is missing`);
    for await (const chunk of readFileChunks(fs, path)) {
      sizeBytes += chunk.length;
      digest = checksum(chunk, digest);
    }
    if (sizeBytes !== metadata.imageBytes)
      throw corrupt(dir, `${IMAGE_FILE} has ${sizeBytes} bytes, not ${metadata.imageBytes}`);
    if (digest !== metadata.imageChecksum) throw corrupt(dir, `the checksum of ${IMAGE_FILE} is wrong`);
    const { info, membership } = await readImage(fs, path, codecs);
    const isOf = { ...info, ...describeMembership(membership) };
    for (const [field, value] of Object.entries(isOf)) {
      if (JSON.stringify(value) !== JSON.stringify(metadata[field as keyof Metadata]))
        throw corrupt(dir, `the image is of another ${field} than ${METADATA_FILE} says`);
    }
    const { format: _, ...exported } = metadata;
    return exported;
  } catch (error) {
    throw diskErrorOf(error, `the snapshot exported to ${dir}`);
  }
}

/** The image of an exported snapshot, with `membership` in place of its own. What is read is verified as it streams by. */
export async function* exportedPayload(
  fs: FileSystem,
  dir: string,
  membership: Uint8Array,
  codecs: Codecs = BUILT_IN_CODECS,
): AsyncGenerator<Uint8Array> {
  const reader = new ImageReader(readFileChunks(fs, `${dir}/${IMAGE_FILE}`), codecs);
  await reader.header();
  const sections = new SectionReader(reader.payload());
  await sections.section();
  yield membership;
  yield* sections.rest();
}

async function readImage(
  fs: FileSystem,
  path: string,
  codecs: Codecs,
): Promise<{ info: ImageInfo; membership: Membership }> {
  const reader = new ImageReader(readFileChunks(fs, path), codecs);
  const info = await reader.header();
  const sections = new SectionReader(reader.payload());
  const membership = decodeMembership(await sections.section());
  for await (const piece of sections.rest()) void piece;
  return { info, membership };
}

/** Members for people and for comparisons. */
export function describeMembership(
  membership: Membership,
): Pick<ExportedSnapshot, 'voters' | 'nonVotings' | 'witnesses' | 'removed'> {
  return {
    voters: Object.fromEntries(membership.voters),
    nonVotings: Object.fromEntries(membership.nonVotings),
    witnesses: Object.fromEntries(membership.witnesses),
    removed: [...membership.removed],
  };
}

async function readMetadata(fs: FileSystem, dir: string): Promise<Metadata> {
  const path = `${dir}/${METADATA_FILE}`;
  const stat = await fs.stat(path);
  if (stat === undefined) throw corrupt(dir, `${METADATA_FILE} is missing: it is no export, or one that did not end`);
  if (stat.sizeBytes > METADATA_MAX_BYTES) throw corrupt(dir, `${METADATA_FILE} is too long`);
  let record: Partial<Metadata> & { checksum?: unknown };
  try {
    let text = '';
    const decoder = new TextDecoder('utf-8', { fatal: true });
    for await (const chunk of readFileChunks(fs, path)) text += decoder.decode(chunk, { stream: true });
    record = JSON.parse(text) as Partial<Metadata>;
  } catch (cause) {
    throw corrupt(dir, `${METADATA_FILE} is not readable`, cause);
  }
  if (typeof record !== 'object' || record === null) throw corrupt(dir, `${METADATA_FILE} is not readable`);
  if (typeof record.format === 'number' && record.format > EXPORT_FORMAT) {
    throw new DrakkarError(
      'ERR_DIR_FORMAT',
      `${dir} has format ${record.format}, made by a newer version; this one knows up to ${EXPORT_FORMAT}; upgrade`,
    );
  }
  const { checksum: stored, ...metadata } = record;
  if (stored !== checksumOf(metadata)) throw corrupt(dir, `the checksum of ${METADATA_FILE} is wrong`);
  return metadata as Metadata;
}

function checksumOf(metadata: object): string {
  return checksum(new TextEncoder().encode(JSON.stringify(metadata)))
    .toString(16)
    .padStart(8, '0');
}

function corrupt(dir: string, why: string, cause?: unknown): DrakkarError {
  return new DrakkarError('ERR_SNAPSHOT_CORRUPT', `${dir} holds no whole snapshot: ${why}; use another copy`, {
    cause,
  });
}
