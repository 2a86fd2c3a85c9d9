/**
 * The codec of snapshots in runs: bytes that are zero, or whose eighth bits are, take less. Its own, so that a run does not depend on which zstd a
 * Node has; it refuses what it did not make itself.
 */
import type { SnapshotCodec } from '../rsm/codec.ts';

export const SIMPLE = 'simple';

/** First byte of what is compressed. */
const SEVEN_BITS = 7;
const NO_ZEROS = 0;

export function simpleCodec(count: (name: string) => void = () => {}): SnapshotCodec {
  return {
    name: SIMPLE,
    compress(bytes) {
      const packed = bytes.some((byte) => byte > 127) ? dropZeros(bytes) : dropEighthBits(bytes);
      if (packed.length < bytes.length) count('snapshotBlocksCompressed');
      return packed;
    },
    uncompress(bytes, sizeBytes) {
      count('snapshotBlocksUncompressed');
      if (bytes[0] === NO_ZEROS) return putZeros(bytes, sizeBytes);
      if (bytes[0] === SEVEN_BITS) return putEighthBits(bytes, sizeBytes);
      throw new Error('this was compressed by something else');
    },
  };
}

function dropEighthBits(bytes: Uint8Array): Uint8Array {
  const packed = new Uint8Array(1 + ((bytes.length * 7 + 7) >>> 3));
  packed[0] = SEVEN_BITS;
  for (const [i, byte] of bytes.entries()) {
    const at = 1 + ((i * 7) >>> 3);
    const shift = (i * 7) & 7;
    packed[at] |= byte << shift;
    if (shift > 1) packed[at + 1] |= byte >>> (8 - shift);
  }
  return packed;
}

function putEighthBits(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  if (bytes.length !== 1 + ((sizeBytes * 7 + 7) >>> 3)) throw new Error('another number of bytes was compressed');
  return Uint8Array.from({ length: sizeBytes }, (_, i) => {
    const at = 1 + ((i * 7) >>> 3);
    return ((bytes[at] | (bytes[at + 1] << 8)) >>> ((i * 7) & 7)) & 127;
  });
}

/** A bit for each byte says whether it is zero; the others follow. */
function dropZeros(bytes: Uint8Array): Uint8Array {
  const bitBytes = (bytes.length + 7) >>> 3;
  const packed = new Uint8Array(1 + bitBytes + bytes.length);
  packed[0] = NO_ZEROS;
  let end = 1 + bitBytes;
  for (const [i, byte] of bytes.entries()) {
    if (byte === 0) continue;
    packed[1 + (i >>> 3)] |= 1 << (i & 7);
    packed[end++] = byte;
  }
  return packed.subarray(0, end);
}

function putZeros(bytes: Uint8Array, sizeBytes: number): Uint8Array {
  let at = 1 + ((sizeBytes + 7) >>> 3);
  const result = new Uint8Array(sizeBytes);
  for (let i = 0; i < sizeBytes; i++) if ((bytes[1 + (i >>> 3)] >>> (i & 7)) & 1) result[i] = bytes[at++];
  if (at !== bytes.length) throw new Error('another number of bytes was compressed');
  return result;
}
