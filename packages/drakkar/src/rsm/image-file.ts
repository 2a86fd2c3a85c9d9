/** Files of bytes that are made once, from front to back, and read the same way. */
import type { File, FileSystem } from '../env/env.ts';
import { checksum } from '../wire/checksum.ts';

const READ_BYTES = 256 * 1024;

/** What a file holds, as it was written. */
export interface WrittenFile {
  readonly sizeBytes: number;
  /** CRC-32 of all of it. */
  readonly checksum: number;
}

/**
 * Makes `path` durable with all that `chunks` give. Its name is durable when its directory is. It must not exist, unless there is an offset: then the file keeps
 * its bytes up to there, and what is told of it is of what follows.
 */
export async function writeFileChunks(
  fs: FileSystem,
  path: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  offsetBytes = 0,
): Promise<WrittenFile> {
  const file = await fs.open(path, offsetBytes === 0 ? 'create' : 'write');
  try {
    if (offsetBytes > 0) await file.truncate(offsetBytes);
    let sizeBytes = 0;
    let digest = 0;
    for await (const chunk of chunks) {
      await writeChunk(file, chunk, offsetBytes + sizeBytes);
      sizeBytes += chunk.length;
      digest = checksum(chunk, digest);
    }
    await file.sync();
    return { sizeBytes, checksum: digest };
  } finally {
    await file.close();
  }
}

export async function* readFileChunks(fs: FileSystem, path: string, offsetBytes = 0): AsyncGenerator<Uint8Array> {
  const file = await fs.open(path, 'read');
  try {
    for (let at = offsetBytes; ; ) {
      const chunk = new Uint8Array(READ_BYTES);
      const count = await file.read(chunk, 0, READ_BYTES, at);
      if (count > 0) yield chunk.subarray(0, count);
      if (count < READ_BYTES) return;
      at += count;
    }
  } finally {
    await file.close();
  }
}

function writeChunk(file: File, chunk: Uint8Array, at: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(chunk, 0, chunk.length, at, (error) => (error === null ? resolve() : reject(error)));
  });
}
