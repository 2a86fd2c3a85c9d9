/**
 * Snapshot images: header, blocks with a checksum each, and an end with the length and digest of it all. Nothing of a block is
 * handed out before its checksum held (F17).
 *
 *     header   64 bytes: magic, format, shard, index, term, flags, name of the codec (24 bytes), zeros, CRC-32 of what is before it
 *     block    word 0 length (1 to 256 KiB), word 1 CRC-32 of what follows seeded with the block's number; payload
 *     end      word 0 zero, word 1 CRC-32 of all payload bytes, words 2, 3 count of payload bytes
 *
 * Of a compressed image a block has its uncompressed length in word 2, in front of the payload and under its checksum; where that is the stored length, it
 * is stored as it is. Checksums and counts are of what is stored.
 *
 * The payload begins with the membership and the sessions, each behind its length, and the files where there are any (`files.ts`); what
 * follows is the state machine's.
 */
import { DrakkarError } from '../errors.ts';
import { checksum, checksumRange } from '../wire/checksum.ts';
import {
  BUILT_IN_CODECS,
  CODEC_NAME_MAX,
  codecNamed,
  compressBlock,
  isCodecName,
  uncompressBlock,
  type Codecs,
  type SnapshotCodec,
} from './codec.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';

export const IMAGE_FORMAT = 1;
export const IMAGE_BLOCK_BYTES = 256 * 1024;
/** Most images are small: the buffer grows to a block's size. */
const FIRST_BLOCK_BYTES = 4096;
const IMAGE_MAGIC = 0x4e53_4b44; // "DKSN"
const HEADER_BYTES = 64;
const BLOCK_HEADER_BYTES = 8;
/** Where the name of the codec stands, padded with zeros. */
const CODEC_AT = 36;
const END_BYTES = 16;
/** Membership or sessions: 4096 sessions with small answers take some hundred KiB. */
const SECTION_MAX_BYTES = 64 * 1024 * 1024;

/** The state is not in it: the replica's state machine keeps it itself. */
export const IMAGE_WITHOUT_STATE = 1;
/** Files stand before the state. */
export const IMAGE_WITH_FILES = 2;
/** It replaces whatever an on-disk state machine has stored, however new that is: the shard went back to it. */
export const IMAGE_IMPORTED = 4;
/** Blocks are compressed, each alone, by the codec that the header names. */
const IMAGE_COMPRESSED = 8;

export interface ImageInfo {
  readonly shardId: number;
  readonly index: number;
  readonly term: number;
  /** Default 0. */
  readonly flags?: number;
  /** Name of the codec that its blocks were compressed with; absent when they are not. */
  readonly codec?: string;
}

/** How an image is written. */
export interface Packing {
  /** Default: none. */
  readonly codec?: SnapshotCodec | undefined;
  /** Bytes of a block before it is compressed; at most and by default 256 KiB. */
  readonly blockBytes?: number | undefined;
}

/** One object for all replicas that want nothing else. */
export const PLAIN: Packing = {};

export type ImageHeader = Required<Omit<ImageInfo, 'codec'>> & Pick<ImageInfo, 'codec'>;

const corrupt = (why: string): DrakkarError =>
  new DrakkarError('ERR_SNAPSHOT_CORRUPT', `the snapshot image is damaged: ${why}`);

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** The image of a payload, in pieces. What `info` says of a codec is not looked at. */
export async function* encodeImage(
  info: ImageInfo,
  payload: Chunks,
  packing: Packing = PLAIN,
): AsyncGenerator<Uint8Array> {
  const { codec, blockBytes = IMAGE_BLOCK_BYTES } = packing;
  const header = new Uint8Array(HEADER_BYTES);
  const words = new Uint32Array(header.buffer);
  words[0] = IMAGE_MAGIC;
  words[1] = IMAGE_FORMAT;
  putU53(words, 2, info.shardId);
  putU53(words, 4, info.index);
  putU53(words, 6, info.term);
  words[8] = ((info.flags ?? 0) & ~IMAGE_COMPRESSED) | (codec === undefined ? 0 : IMAGE_COMPRESSED);
  if (codec !== undefined) new TextEncoder().encodeInto(codec.name, header.subarray(CODEC_AT));
  words[15] = checksumRange(header, 0, 60);
  yield header;
  let block: Uint8Array = new Uint8Array(Math.min(blockBytes, FIRST_BLOCK_BYTES));
  let filled = 0;
  let number = 0;
  let total = 0;
  let digest = 0;
  const seal = (): Uint8Array => {
    const whole = block.subarray(0, filled);
    const stored = codec === undefined ? whole : compressBlock(codec, whole);
    digest = checksum(stored, digest);
    total += stored.length;
    const sealed = sealBlock(stored, codec === undefined ? 0 : filled, number++);
    filled = 0;
    return sealed;
  };
  for await (const chunk of payload) {
    for (let at = 0; at < chunk.length; ) {
      const count = Math.min(chunk.length - at, blockBytes - filled);
      if (filled + count > block.length) block = widened(block, Math.min(blockBytes, 2 * (filled + count)));
      block.set(chunk.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled === blockBytes) yield seal();
    }
  }
  if (filled > 0) yield seal();
  const end = new Uint32Array(END_BYTES >>> 2);
  end[1] = digest;
  putU53(end, 2, total);
  yield new Uint8Array(end.buffer);
}

function widened(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  const wider = new Uint8Array(sizeBytes);
  wider.set(bytes);
  return wider;
}

/** `sizeBytes` uncompressed; 0 in an image that is not compressed. */
function sealBlock(stored: Uint8Array, sizeBytes: number, number: number): Uint8Array {
  const at = BLOCK_HEADER_BYTES + (sizeBytes > 0 ? 4 : 0);
  const sealed = new Uint8Array(at + stored.length);
  const words = new Uint32Array(sealed.buffer, 0, at >>> 2);
  words[0] = stored.length;
  if (sizeBytes > 0) words[2] = sizeBytes;
  sealed.set(stored, at);
  words[1] = checksum(sealed.subarray(BLOCK_HEADER_BYTES), number);
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

function decodeHeader(bytes: Uint8Array | undefined): ImageHeader {
  if (bytes === undefined) throw corrupt('it is empty');
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, HEADER_BYTES >>> 2);
  if (words[0] !== IMAGE_MAGIC || words[15] !== checksumRange(bytes, 0, 60)) throw corrupt('its header is not one');
  if (words[1] > IMAGE_FORMAT) {
    throw new DrakkarError(
      'ERR_DIR_FORMAT',
      `the snapshot has format ${words[1]}; this version knows up to ${IMAGE_FORMAT}; upgrade`,
    );
  }
  for (let w = 2; w <= 6; w += 2) if (!isU53(words, w)) throw corrupt('its header holds no number');
  const info = { shardId: getU53(words, 2), index: getU53(words, 4), term: getU53(words, 6), flags: words[8] };
  if ((words[8] & IMAGE_COMPRESSED) === 0) return info;
  const name = bytes.subarray(CODEC_AT, CODEC_AT + CODEC_NAME_MAX);
  const codec = new TextDecoder().decode(name.subarray(0, name.indexOf(0) >>> 0));
  if (!isCodecName(codec)) throw corrupt('its header names no codec');
  return { ...info, codec };
}

/** Checks an image as it streams by; `payload` gives its verified bytes, once. Throws `ERR_SNAPSHOT_CORRUPT`. */
export class ImageReader {
  private readonly puller: Puller;
  private readonly codecs: Codecs;
  private codec: SnapshotCodec | undefined;

  constructor(chunks: Chunks, codecs: Codecs = BUILT_IN_CODECS) {
    this.puller = new Puller(chunks);
    this.codecs = codecs;
  }

  /** Throws `ERR_SNAPSHOT_CODEC`, too. */
  async header(): Promise<ImageHeader> {
    const header = decodeHeader(await this.puller.pull(HEADER_BYTES));
    if (header.codec !== undefined) this.codec = codecNamed(this.codecs, header.codec);
    return header;
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
        const at = this.codec === undefined ? 0 : 4;
        const block = await this.puller.pull(at + length);
        if (block === undefined || checksum(block, number) !== words[1])
          throw corrupt(`block ${number} does not verify`);
        const stored = block.subarray(at);
        digest = checksum(stored, digest);
        total += length;
        if (this.codec === undefined) yield stored;
        else {
          const sizeBytes = new Uint32Array(block.buffer, 0, 1)[0];
          if (sizeBytes < length || sizeBytes > IMAGE_BLOCK_BYTES) throw corrupt('a block has no plausible length');
          yield uncompressBlock(this.codec, stored, sizeBytes);
        }
      }
    } finally {
      await this.puller.end();
    }
  }
}

/** Reads an image to its end; gives what its header says. */
export async function verifyImage(chunks: Chunks, codecs?: Codecs): Promise<ImageInfo> {
  const reader = new ImageReader(chunks, codecs);
  const info = await reader.header();
  for await (const block of reader.payload()) void block;
  return info;
}

/** Bytes at the end of an image that identify it, together with its size, index and term (`digestOf`). */
export const IMAGE_END_BYTES = END_BYTES;

/** CRC-32 of all that is stored, from the end of an image. */
export function digestOf(end: Uint8Array): number {
  return new DataView(end.buffer, end.byteOffset, END_BYTES).getUint32(4, true);
}

/** Throws as `ImageReader.header` unless an image that begins with `bytes` is of that index and term, and can be read here. */
export function checkHead(bytes: Uint8Array, index: number, term: number, codecs: Codecs): void {
  const header = decodeHeader(bytes.slice(0, HEADER_BYTES));
  if (header.index !== index || header.term !== term)
    throw corrupt(`it is of index ${header.index}, not of ${index} as announced`);
  if (header.codec !== undefined) codecNamed(codecs, header.codec);
}

export const IMAGE_HEAD_BYTES = HEADER_BYTES;

/** How many bytes of an image that may be cut off or torn anywhere are its header and whole blocks; 0 when it is no image of that index and term. */
export async function soundPart(chunks: Chunks, index: number, term: number): Promise<number> {
  const puller = new Puller(chunks);
  let sound = 0;
  try {
    const header = decodeHeader(await puller.pull(HEADER_BYTES));
    if (header.index !== index || header.term !== term) return 0;
    sound = HEADER_BYTES;
    const at = header.codec === undefined ? 0 : 4;
    for (let number = 0; ; number++) {
      const head = await puller.pull(BLOCK_HEADER_BYTES);
      if (head === undefined) return sound;
      const words = new Uint32Array(head.buffer);
      if (words[0] === 0 || words[0] > IMAGE_BLOCK_BYTES) return sound;
      const block = await puller.pull(at + words[0]);
      if (block === undefined || checksum(block, number) !== words[1]) return sound;
      sound += BLOCK_HEADER_BYTES + block.length;
    }
  } catch (error) {
    if (DrakkarError.is(error)) return sound;
    throw error;
  } finally {
    await puller.end();
  }
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
