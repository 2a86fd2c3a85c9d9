/**
 * Snapshot images: header, blocks with a checksum each, and an end with the length and digest of it all. Nothing of a block is
 * handed out before its checksum held (F17).
 *
 *     header   64 bytes: magic, format, shard, index, term, flags, zeros, CRC-32 of what is before it
 *     block    word 0 length (1 to 256 KiB), word 1 CRC-32 of the payload seeded with the block's number; payload
 *     end      word 0 zero, word 1 CRC-32 of all payload bytes, words 2, 3 count of payload bytes
 *
 * The payload begins with the membership and the sessions, each behind its length, and the files where there are any (`files.ts`); what
 * follows is the state machine's.
 */
import { DrakkarError } from '../errors.ts';
import { checksum, checksumRange } from '../wire/checksum.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';

export const IMAGE_FORMAT = 1;
export const IMAGE_BLOCK_BYTES = 256 * 1024;
const IMAGE_MAGIC = 0x4e53_4b44; // "DKSN"
const HEADER_BYTES = 64;
const BLOCK_HEADER_BYTES = 8;
const END_BYTES = 16;
/** Membership or sessions: 4096 sessions with small answers take some hundred KiB. */
const SECTION_MAX_BYTES = 64 * 1024 * 1024;

/** The state is not in it: the replica's state machine keeps it itself. */
export const IMAGE_WITHOUT_STATE = 1;
/** Files stand before the state. */
export const IMAGE_WITH_FILES = 2;
/** It replaces whatever an on-disk state machine has stored, however new that is: the shard went back to it. */
export const IMAGE_IMPORTED = 4;

export interface ImageInfo {
  readonly shardId: number;
  readonly index: number;
  readonly term: number;
  /** Default 0. */
  readonly flags?: number;
}

const corrupt = (why: string): DrakkarError =>
  new DrakkarError('ERR_SNAPSHOT_CORRUPT', `the snapshot image is damaged: ${why}`);

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** The image of a payload, in pieces. */
export async function* encodeImage(info: ImageInfo, payload: Chunks): AsyncGenerator<Uint8Array> {
  const header = new Uint8Array(HEADER_BYTES);
  const words = new Uint32Array(header.buffer);
  words[0] = IMAGE_MAGIC;
  words[1] = IMAGE_FORMAT;
  putU53(words, 2, info.shardId);
  putU53(words, 4, info.index);
  putU53(words, 6, info.term);
  words[8] = info.flags ?? 0;
  words[15] = checksumRange(header, 0, 60);
  yield header;
  const block = new Uint8Array(IMAGE_BLOCK_BYTES);
  let filled = 0;
  let number = 0;
  let total = 0;
  let digest = 0;
  for await (const chunk of payload) {
    for (let at = 0; at < chunk.length; ) {
      const count = Math.min(chunk.length - at, IMAGE_BLOCK_BYTES - filled);
      block.set(chunk.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled === IMAGE_BLOCK_BYTES) {
        digest = checksum(block, digest);
        total += filled;
        yield sealBlock(block, filled, number++);
        filled = 0;
      }
    }
  }
  if (filled > 0) {
    digest = checksumRange(block, 0, filled, digest);
    total += filled;
    yield sealBlock(block, filled, number++);
  }
  const end = new Uint32Array(END_BYTES >>> 2);
  end[1] = digest;
  putU53(end, 2, total);
  yield new Uint8Array(end.buffer);
}

function sealBlock(block: Uint8Array, lengthBytes: number, number: number): Uint8Array {
  const sealed = new Uint8Array(BLOCK_HEADER_BYTES + lengthBytes);
  const words = new Uint32Array(sealed.buffer, 0, 2);
  words[0] = lengthBytes;
  words[1] = checksumRange(block, 0, lengthBytes, number);
  sealed.set(block.subarray(0, lengthBytes), BLOCK_HEADER_BYTES);
  return sealed;
}

/** Reads exact counts of bytes from chunks of any size. */
class Puller {
  private readonly source: AsyncIterator<Uint8Array> | Iterator<Uint8Array>;
  private chunk: Uint8Array = new Uint8Array(0);
  private at = 0;

  constructor(chunks: Chunks) {
    this.source = Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
  }

  /** A copy of the next `count` bytes; undefined at the end. */
  async pull(count: number): Promise<Uint8Array | undefined> {
    const bytes = new Uint8Array(count);
    let filled = 0;
    if (count === 0) return bytes;
    while (filled < count) {
      if (this.at === this.chunk.length) {
        const next = await this.source.next();
        if (next.done === true) {
          if (filled > 0) throw corrupt('it ends too early');
          return undefined;
        }
        this.chunk = next.value;
        this.at = 0;
        continue;
      }
      const some = Math.min(count - filled, this.chunk.length - this.at);
      bytes.set(this.chunk.subarray(this.at, this.at + some), filled);
      filled += some;
      this.at += some;
    }
    return bytes;
  }

  /** What is at hand, or the next chunk; undefined at the end. */
  async some(): Promise<Uint8Array | undefined> {
    while (this.at === this.chunk.length) {
      const next = await this.source.next();
      if (next.done === true) return undefined;
      this.chunk = next.value;
      this.at = 0;
    }
    const piece = this.chunk.subarray(this.at);
    this.at = this.chunk.length;
    return piece;
  }

  async end(): Promise<void> {
    await this.source.return?.(undefined);
  }
}

/** Checks an image as it streams by; `payload` gives its verified bytes, once. Throws `ERR_SNAPSHOT_CORRUPT`. */
export class ImageReader {
  private readonly puller: Puller;

  constructor(chunks: Chunks) {
    this.puller = new Puller(chunks);
  }

  async header(): Promise<Required<ImageInfo>> {
    const bytes = await this.puller.pull(HEADER_BYTES);
    if (bytes === undefined) throw corrupt('it is empty');
    const words = new Uint32Array(bytes.buffer);
    if (words[0] !== IMAGE_MAGIC || words[15] !== checksumRange(bytes, 0, 60)) throw corrupt('its header is not one');
    if (words[1] > IMAGE_FORMAT) {
      throw new DrakkarError(
        'ERR_DIR_FORMAT',
        `the snapshot has format ${words[1]}; this version knows up to ${IMAGE_FORMAT}; upgrade`,
      );
    }
    for (let w = 2; w <= 6; w += 2) if (!isU53(words, w)) throw corrupt('its header holds no number');
    return { shardId: getU53(words, 2), index: getU53(words, 4), term: getU53(words, 6), flags: words[8] };
  }

  async *payload(): AsyncGenerator<Uint8Array> {
    let digest = 0;
    let total = 0;
    try {
      for (let number = 0; ; number++) {
        const head = await this.puller.pull(BLOCK_HEADER_BYTES);
        if (head === undefined) throw corrupt('its end is missing');
        const words = new Uint32Array(head.buffer);
        const length = words[0];
        if (length === 0) {
          const tail = await this.puller.pull(END_BYTES - BLOCK_HEADER_BYTES);
          const matches =
            tail !== undefined && words[1] === digest && getU53(new Uint32Array(tail.buffer), 0) === total;
          if (!matches) throw corrupt('its end does not match');
          if ((await this.puller.pull(1)) !== undefined) throw corrupt('something follows its end');
          return;
        }
        if (length > IMAGE_BLOCK_BYTES) throw corrupt('a block is too long');
        const block = await this.puller.pull(length);
        if (block === undefined || checksum(block, number) !== words[1])
          throw corrupt(`block ${number} does not verify`);
        digest = checksum(block, digest);
        total += length;
        yield block;
      }
    } finally {
      await this.puller.end();
    }
  }
}

/** Reads an image to its end; gives what its header says. */
export async function verifyImage(chunks: Chunks): Promise<ImageInfo> {
  const reader = new ImageReader(chunks);
  const info = await reader.header();
  for await (const block of reader.payload()) void block;
  return info;
}

/** A section of the payload behind its length. */
export function encodeSection(bytes: Uint8Array): Uint8Array {
  const section = new Uint8Array(4 + bytes.length);
  new DataView(section.buffer).setUint32(0, bytes.length, true);
  section.set(bytes, 4);
  return section;
}

/** Cuts the sections off the front of a payload. */
export class SectionReader {
  private readonly puller: Puller;

  constructor(payload: Chunks) {
    this.puller = new Puller(payload);
  }

  async section(): Promise<Uint8Array> {
    const head = await this.puller.pull(4);
    const length = head === undefined ? SECTION_MAX_BYTES + 1 : new DataView(head.buffer).getUint32(0, true);
    if (length > SECTION_MAX_BYTES) throw corrupt('a section has no plausible length');
    const bytes = await this.puller.pull(length);
    if (bytes === undefined) throw corrupt('a section is missing');
    return bytes;
  }

  /** The next `count` bytes in pieces. */
  async *take(count: number): AsyncGenerator<Uint8Array> {
    for (let left = count; left > 0; ) {
      const piece = await this.puller.pull(Math.min(left, IMAGE_BLOCK_BYTES));
      if (piece === undefined) throw corrupt('a file in it ends too early');
      left -= piece.length;
      yield piece;
    }
  }

  /** What follows the sections; to its end, so that everything was verified. */
  async *rest(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const piece = await this.puller.some();
      if (piece === undefined) return;
      yield piece;
    }
  }
}
