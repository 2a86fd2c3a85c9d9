/**
 * Frames of a snapshot stream, each on a connection of its own: header, numbered chunks, end; from the receiver, progress and its status.
 *
 *     header   shard, from, to, term, index, term of the index, image bytes: two words each; word 14 digest, word 15 one if there is one
 *     progress word 0 one (begin) or zero (alive), words 1, 2 offset in bytes of what is wanted first
 *     chunk    word 0 number, word 1 length in bytes, bytes padded to 4
 *     end      words 0, 1 bytes sent; word 2 count of chunks
 *     status   word 0 zero or one (refused), word 1 length in bytes, text
 */
import { DrakkarError } from '../errors.ts';
import { FRAME_HEADER_BYTES, FRAME_HEADER_WORDS, FrameType, sealFrame } from '../wire/frame.ts';
import { checkedU53, getU53, putU53 } from '../wire/number.ts';
import { Slab } from '../wire/slab.ts';
import { SNAPSHOT_CHUNK_BYTES } from './limits.ts';
import type { SnapshotHeader } from './transport.ts';

const STATUS_TEXT_MAX = 1024;

function frame(
  type: FrameType,
  contentBytes: number,
  fill: (u32: Uint32Array, word: number, u8: Uint8Array) => void,
): Slab {
  const lengthBytes = FRAME_HEADER_BYTES + ((contentBytes + 3) & ~3);
  const slab = new Slab(lengthBytes);
  fill(slab.u32, FRAME_HEADER_WORDS, slab.u8);
  slab.usedBytes = lengthBytes;
  sealFrame(slab.u8, slab.u32, 0, lengthBytes, type, 1);
  return slab;
}

function need(lengthBytes: number, contentBytes: number): void {
  if (lengthBytes < FRAME_HEADER_BYTES + contentBytes)
    throw new DrakkarError('ERR_FRAME', 'a snapshot frame is cut off');
}

export function encodeSnapshotHeader(header: SnapshotHeader): Slab {
  return frame(FrameType.SnapshotHeader, 64, (u32, w) => {
    putU53(u32, w, header.shardId);
    putU53(u32, w + 2, header.from);
    putU53(u32, w + 4, header.to);
    putU53(u32, w + 6, header.term);
    putU53(u32, w + 8, header.index);
    putU53(u32, w + 10, header.indexTerm);
    putU53(u32, w + 12, header.imageBytes);
    u32[w + 14] = header.imageDigest ?? 0;
    u32[w + 15] = header.imageDigest === undefined ? 0 : 1;
  });
}

export function decodeSnapshotHeader(u32: Uint32Array, offset: number, lengthBytes: number): SnapshotHeader {
  need(lengthBytes, 64);
  const w = (offset >>> 2) + FRAME_HEADER_WORDS;
  return {
    shardId: checkedU53(u32, w, 'a shard id'),
    from: checkedU53(u32, w + 2, 'a replica id'),
    to: checkedU53(u32, w + 4, 'a replica id'),
    term: checkedU53(u32, w + 6, 'a term'),
    index: checkedU53(u32, w + 8, 'an index'),
    indexTerm: checkedU53(u32, w + 10, 'a term'),
    imageBytes: checkedU53(u32, w + 12, 'a size'),
    ...(u32[w + 15] === 1 ? { imageDigest: u32[w + 14] } : {}),
  };
}

/** `offsetBytes` undefined: only alive. */
export function encodeProgress(offsetBytes: number | undefined): Slab {
  return frame(FrameType.SnapshotProgress, 12, (u32, w) => {
    u32[w] = offsetBytes === undefined ? 0 : 1;
    putU53(u32, w + 1, offsetBytes ?? 0);
  });
}

/** Where to begin; undefined when it says only that the receiver is there. */
export function decodeProgress(u32: Uint32Array, offset: number, lengthBytes: number): number | undefined {
  need(lengthBytes, 12);
  const w = (offset >>> 2) + FRAME_HEADER_WORDS;
  return u32[w] === 1 ? checkedU53(u32, w + 1, 'an offset') : undefined;
}

/** `bytes` are at most `SNAPSHOT_CHUNK_BYTES`. */
export function encodeChunk(number: number, bytes: Uint8Array): Slab {
  return frame(FrameType.SnapshotChunk, 8 + bytes.length, (u32, w, u8) => {
    u32[w] = number;
    u32[w + 1] = bytes.length;
    u8.set(bytes, (w + 2) << 2);
  });
}

/** A copy of the chunk's bytes. */
export function decodeChunk(
  u8: Uint8Array,
  u32: Uint32Array,
  offset: number,
  lengthBytes: number,
  expected: number,
): Uint8Array {
  need(lengthBytes, 8);
  const w = (offset >>> 2) + FRAME_HEADER_WORDS;
  const length = u32[w + 1];
  if (u32[w] !== expected) throw new DrakkarError('ERR_FRAME', `chunk ${u32[w]} came in place of ${expected}`);
  if (length > SNAPSHOT_CHUNK_BYTES) throw new DrakkarError('ERR_FRAME', 'a snapshot chunk is too long');
  need(lengthBytes, 8 + length);
  return u8.slice((w + 2) << 2, ((w + 2) << 2) + length);
}

export function encodeEnd(imageBytes: number, chunks: number): Slab {
  return frame(FrameType.SnapshotEnd, 12, (u32, w) => {
    putU53(u32, w, imageBytes);
    u32[w + 2] = chunks;
  });
}

export function checkEnd(
  u32: Uint32Array,
  offset: number,
  lengthBytes: number,
  imageBytes: number,
  chunks: number,
): void {
  need(lengthBytes, 12);
  const w = (offset >>> 2) + FRAME_HEADER_WORDS;
  if (getU53(u32, w) !== imageBytes || u32[w + 2] !== chunks) {
    throw new DrakkarError('ERR_FRAME', 'a snapshot stream ended with other counts than it began');
  }
}

/** An empty text: installed. */
export function encodeStatus(refusal: string): Slab {
  const text = new TextEncoder().encode(refusal).subarray(0, STATUS_TEXT_MAX);
  return frame(FrameType.SnapshotStatus, 8 + text.length, (u32, w, u8) => {
    u32[w] = text.length > 0 ? 1 : 0;
    u32[w + 1] = text.length;
    u8.set(text, (w + 2) << 2);
  });
}

export function decodeStatus(u8: Uint8Array, u32: Uint32Array, offset: number, lengthBytes: number): string {
  need(lengthBytes, 8);
  const w = (offset >>> 2) + FRAME_HEADER_WORDS;
  const length = u32[w + 1];
  if (length > STATUS_TEXT_MAX) throw new DrakkarError('ERR_FRAME', 'a snapshot status is too long');
  need(lengthBytes, 8 + length);
  if (u32[w] === 0) return '';
  return new TextDecoder().decode(u8.subarray((w + 2) << 2, ((w + 2) << 2) + length)) || 'refused';
}
