/**
 * Files that a state machine adds to its snapshots. They stand inside the image, in front of the state, so that everything that holds for
 * images holds for them: checksums, streaming, verification before use.
 *
 *     section  u32 count, then for each: id (2 words), size in bytes (2), length of the metadata, metadata padded to 4
 *     then the bytes of each, in the same order
 */
import { DrakkarError } from '../errors.ts';
import type { File, FileSystem } from '../env/env.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';
import { encodeSection, type SectionReader } from './image.ts';
import type { SnapshotFile } from './state-machine.ts';

export const SNAPSHOT_FILES_MAX = 4096;
export const METADATA_MAX_BYTES = 64 * 1024;
const COPY_BYTES = 256 * 1024;
const FILE_WORDS = 5;
const EMPTY = new Uint8Array(0);

interface ListedFile {
  readonly id: number;
  readonly sizeBytes: number;
  readonly metadata: Uint8Array;
}

/** Throws `ERR_STATE_MACHINE` when what a state machine lists cannot be put into a snapshot. */
export function checkFiles(files: readonly SnapshotFile[]): void {
  const wrong = (why: string): DrakkarError => new DrakkarError('ERR_STATE_MACHINE', `snapshotFiles gave ${why}`);
  if (!Array.isArray(files) || files.length > SNAPSHOT_FILES_MAX) {
    throw wrong(`no list of at most ${SNAPSHOT_FILES_MAX} files`);
  }
  const ids = new Set<number>();
  for (const { id, path, metadata } of files) {
    if (!Number.isSafeInteger(id) || id < 0 || ids.has(id))
      throw wrong(`the id ${String(id)}; expected unique numbers`);
    if (typeof path !== 'string' || path === '') throw wrong(`no path for file ${id}`);
    if (metadata !== undefined && !(metadata instanceof Uint8Array && metadata.length <= METADATA_MAX_BYTES)) {
      throw wrong(`metadata of file ${id} that is not bytes, ${METADATA_MAX_BYTES} at most`);
    }
    ids.add(id);
  }
}

/** The part of a payload that holds the files. */
export async function* encodeFiles(fs: FileSystem, files: readonly SnapshotFile[]): AsyncGenerator<Uint8Array> {
  const opened: { file: File; sizeBytes: number }[] = [];
  try {
    const listed: ListedFile[] = [];
    for (const { id, path, metadata = EMPTY } of files) {
      const file = await fs.open(path, 'read');
      const sizeBytes = await file.sizeBytes();
      opened.push({ file, sizeBytes });
      listed.push({ id, sizeBytes, metadata });
    }
    yield encodeSection(encodeTable(listed));
    for (const [at, { file, sizeBytes }] of opened.entries()) {
      for (let from = 0; from < sizeBytes; ) {
        const chunk = new Uint8Array(Math.min(COPY_BYTES, sizeBytes - from));
        const count = await file.read(chunk, 0, chunk.length, from);
        if (count === 0) throw new DrakkarError('ERR_REJECTED', `${files[at].path} shrank while it was copied`);
        from += count;
        yield chunk.subarray(0, count);
      }
    }
  } finally {
    for (const { file } of opened) await file.close();
  }
}

/** Copies the files out of an image into `dir`, which is made anew. */
export async function extractFiles(fs: FileSystem, dir: string, sections: SectionReader): Promise<SnapshotFile[]> {
  const listed = decodeTable(await sections.section());
  await fs.remove(dir);
  await fs.makeDirectory(dir);
  const files: SnapshotFile[] = [];
  for (const { id, sizeBytes, metadata } of listed) {
    const path = `${dir}/${id}`;
    const file = await fs.open(path, 'create');
    try {
      let at = 0;
      for await (const chunk of sections.take(sizeBytes)) {
        await write(file, chunk, at);
        at += chunk.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    files.push({ id, path, metadata });
  }
  return files;
}

function write(file: File, chunk: Uint8Array, at: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(chunk, 0, chunk.length, at, (error) => (error === null ? resolve() : reject(error)));
  });
}

function encodeTable(files: readonly ListedFile[]): Uint8Array {
  let words = 1;
  for (const { metadata } of files) words += FILE_WORDS + ((metadata.length + 3) >>> 2);
  const u8 = new Uint8Array(words << 2);
  const u32 = new Uint32Array(u8.buffer);
  u32[0] = files.length;
  let word = 1;
  for (const { id, sizeBytes, metadata } of files) {
    putU53(u32, word, id);
    putU53(u32, word + 2, sizeBytes);
    u32[word + 4] = metadata.length;
    u8.set(metadata, (word + FILE_WORDS) << 2);
    word += FILE_WORDS + ((metadata.length + 3) >>> 2);
  }
  return u8;
}

function decodeTable(bytes: Uint8Array): ListedFile[] {
  const malformed = (): DrakkarError =>
    new DrakkarError('ERR_SNAPSHOT_CORRUPT', 'the list of files in the snapshot is malformed');
  const u8 = bytes.slice(); // aligned
  if (u8.length < 4 || (u8.length & 3) !== 0) throw malformed();
  const u32 = new Uint32Array(u8.buffer);
  if (u32[0] > SNAPSHOT_FILES_MAX) throw malformed();
  const files: ListedFile[] = [];
  let word = 1;
  for (let left = u32[0]; left > 0; left--) {
    if (word + FILE_WORDS > u32.length || !isU53(u32, word) || !isU53(u32, word + 2)) throw malformed();
    const length = u32[word + 4];
    if (length > METADATA_MAX_BYTES) throw malformed();
    const at = (word + FILE_WORDS) << 2;
    if (at + length > u8.length) throw malformed();
    files.push({ id: getU53(u32, word), sizeBytes: getU53(u32, word + 2), metadata: u8.slice(at, at + length) });
    word += FILE_WORDS + ((length + 3) >>> 2);
  }
  if (word !== u32.length) throw malformed();
  return files;
}
