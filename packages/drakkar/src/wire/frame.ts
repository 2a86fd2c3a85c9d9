/**
 * Frames: the unit of sending, of writing to the log, and of checksumming.
 *
 *     word 0  length in bytes, this header included; a multiple of 4
 *     word 1  CRC-32 of everything behind this word, seeded with the length
 *     word 2  type | format << 8 | check of length, type and version << 16
 *     word 3  count of the blocks, messages or records inside; free for other types
 *
 * The check lets a receiver find a garbled length before it waits for bytes that will never come: the CRC is known to be wrong only
 * when the whole frame is there.
 *
 * A frame says nothing of who sent it: the connection it came on does (HELLO), blocks and messages name their replica.
 */
import { DrakkarError } from '../errors.ts';
import { checksumRange } from './checksum.ts';
import { FORMAT_NEWEST, FORMAT_OLDEST } from './formats.ts';
import { FRAME_MAX_BYTES } from './limits.ts';

export const FRAME_HEADER_BYTES = 16;
export const FRAME_HEADER_WORDS = 4;

export const FrameType = {
  /** Blocks from a leader; written to the log as they are. */
  Blocks: 1,
  /** Fixed-size messages (`message.ts`). */
  Messages: 2,
  /** Blocks that a replica passes on to its leader to be proposed there. */
  Forward: 3,
  /** First frame of a connection, both ways. */
  Hello: 4,
  SnapshotHeader: 5,
  SnapshotChunk: 6,
  SnapshotEnd: 7,
  SnapshotStatus: 8,
  /** From the receiver of a snapshot: where to begin, and that it is still there. */
  SnapshotProgress: 9,
  /** From the host that was dialled: which shards live in which of its engines. */
  Engines: 12,
  /** Local to the log: records of shard state (`wal/`). */
  Records: 16,
  /** Local to the log: blocks copied out of an old segment, each with its original place. */
  Moved: 17,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export function frameLengthBytes(u32: Uint32Array, word: number): number {
  return u32[word];
}

export function frameType(u32: Uint32Array, word: number): number {
  return u32[word + 2] & 0xff;
}

export function frameFormat(u32: Uint32Array, word: number): number {
  return (u32[word + 2] >>> 8) & 0xff;
}

export function frameCount(u32: Uint32Array, word: number): number {
  return u32[word + 3];
}

export function frameChecksum(u32: Uint32Array, word: number): number {
  return u32[word + 1];
}

/** Fills the header of the frame that occupies `[offset, offset + lengthBytes)` and checksums it. */
export function sealFrame(
  u8: Uint8Array,
  u32: Uint32Array,
  offset: number,
  lengthBytes: number,
  type: FrameType,
  count: number,
  format: number = FORMAT_OLDEST,
): void {
  const word = offset >>> 2;
  u32[word] = lengthBytes;
  u32[word + 2] = type | (format << 8);
  u32[word + 2] |= headerCheck(u32, word) << 16;
  u32[word + 3] = count;
  u32[word + 1] = checksumRange(u8, offset + 8, offset + lengthBytes, lengthBytes);
}

/** Whether the length at `word` can be one; the cheap test before more bytes are awaited or allocated. */
export function isFrameLength(lengthBytes: number, maxBytes: number = FRAME_MAX_BYTES): boolean {
  return lengthBytes >= FRAME_HEADER_BYTES && lengthBytes <= maxBytes && (lengthBytes & 3) === 0;
}

/** 16 bits of the length and of the lower half of word 2. */
function headerCheck(u32: Uint32Array, word: number): number {
  return (Math.imul(u32[word], 0x9e3779b1) ^ Math.imul(u32[word + 2] & 0xffff, 0x85ebca6b)) >>> 16;
}

/** Bytes of a header that `isHeaderSound` looks at. */
export const FRAME_CHECKED_BYTES = 12;

/** Whether length, type and format at `word` belong together. */
export function isHeaderSound(u32: Uint32Array, word: number): boolean {
  return u32[word + 2] >>> 16 === headerCheck(u32, word);
}

/** Whether the whole frame at `offset` has the checksum it names. Its length was checked before. */
export function frameIsIntact(u8: Uint8Array, u32: Uint32Array, offset: number): boolean {
  const word = offset >>> 2;
  const length = u32[word];
  return checksumRange(u8, offset + 8, offset + length, length) === u32[word + 1];
}

/** Checks length, checksum and format of the frame at `offset` in bytes that enter; throws `ERR_FRAME`. */
export function checkFrame(
  u8: Uint8Array,
  u32: Uint32Array,
  offset: number,
  endBytes: number,
  maxBytes: number = FRAME_MAX_BYTES,
  newestFormat: number = FORMAT_NEWEST,
): void {
  const length = u32[offset >>> 2];
  if (endBytes - offset < FRAME_HEADER_BYTES || !isFrameLength(length, maxBytes) || offset + length > endBytes) {
    throw new DrakkarError('ERR_FRAME', `a frame claims ${length} bytes of ${endBytes - offset}`);
  }
  if (!isHeaderSound(u32, offset >>> 2) || !frameIsIntact(u8, u32, offset))
    throw new DrakkarError('ERR_FRAME', 'a frame has a wrong checksum');
  const format = frameFormat(u32, offset >>> 2);
  if (format < FORMAT_OLDEST || format > newestFormat) {
    throw new DrakkarError(
      'ERR_FRAME',
      `a frame has format ${format}, this host reads ${FORMAT_OLDEST} to ${newestFormat}; upgrade the older of the two hosts`,
    );
  }
}
