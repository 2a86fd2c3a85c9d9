/** One checksum everywhere: CRC-32 as zlib computes it. One per frame, never one per entry (hot-path §1). */
import { crc32 } from 'node:zlib';

/** `seed` continues an earlier checksum, or mixes a value in that must match. */
export function checksum(bytes: Uint8Array, seed = 0): number {
  return crc32(bytes, seed);
}

export function checksumRange(bytes: Uint8Array, start: number, end: number, seed = 0): number {
  return crc32(bytes.subarray(start, end), seed);
}
