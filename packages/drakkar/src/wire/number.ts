/** Numbers below 2^53 as two 32-bit words, low word first. Ids, indexes and terms are JavaScript numbers (design §2). */
import { DrakkarError } from '../errors.ts';

const TWO_32 = 4294967296;
const MAX_HIGH = 0x1fffff;

export function putU53(u32: Uint32Array, word: number, value: number): void {
  u32[word] = value;
  u32[word + 1] = value / TWO_32;
}

/** For bytes that were checked where they entered. */
export function getU53(u32: Uint32Array, word: number): number {
  const high = u32[word + 1];
  // The sum would be a boxed double, and so would every field that it is ever stored in.
  return high === 0 ? u32[word] : u32[word] + high * TWO_32;
}

/** For bytes that enter: refuses what a JavaScript number cannot hold (reliability §3, scenario 9). */
export function checkedU53(u32: Uint32Array, word: number, what: string): number {
  const high = u32[word + 1];
  if (high > MAX_HIGH) throw new DrakkarError('ERR_FRAME', `${what} exceeds 2^53 - 1`);
  return high === 0 ? u32[word] : u32[word] + high * TWO_32;
}

export function isU53(u32: Uint32Array, word: number): boolean {
  return u32[word + 1] <= MAX_HIGH;
}
