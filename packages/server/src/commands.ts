/**
 * Commands of the store as bytes, and what they answer.
 *
 *     byte 0   operation        bytes 2, 3   length of the key
 *     bytes 4..11   expected version (float64), for conditional writes
 *     key (UTF-8), value
 *
 * Answers are numbers: the new version of the key (its log index, so it only grows) when the write was done; 0 when there was
 * nothing to delete; below zero when the condition did not hold, see `conflictVersion`.
 */

export const Operation = {
  Put: 1,
  Delete: 2,
  /** Only when the key's version is the expected one; 0: only when there is no such key. */
  PutIf: 3,
  DeleteIf: 4,
} as const;
export type Operation = (typeof Operation)[keyof typeof Operation];

export const KEY_MAX_BYTES = 1024;
export const VALUE_MAX_BYTES = 1024 * 1024;
export const HEADER_BYTES = 12;

const EMPTY = new Uint8Array(0);
const expected = new Float64Array(1);
const expectedBytes = new Uint8Array(expected.buffer);

export function encodeCommand(operation: Operation, key: string, value: Uint8Array = EMPTY, version = 0): Uint8Array {
  const keyBytes = Buffer.byteLength(key);
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + keyBytes + value.length);
  bytes[0] = operation;
  bytes[1] = 0;
  bytes[2] = keyBytes & 0xff;
  bytes[3] = keyBytes >>> 8;
  expected[0] = version;
  bytes.set(expectedBytes, 4);
  bytes.write(key, HEADER_BYTES);
  bytes.set(value, HEADER_BYTES + keyBytes);
  return bytes;
}

/** The answer of a conditional write that found `version`, 0 for no such key. */
export function conflict(version: number): number {
  return -1 - version;
}

export function isConflict(answer: number): boolean {
  return answer < 0;
}

/** The version that a failed condition found; 0: no such key. */
export function conflictVersion(answer: number): number {
  return -1 - answer;
}
