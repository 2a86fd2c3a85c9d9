/**
 * Packed blocks: consecutive entries of one shard and one term, with all a follower needs to accept them.
 *
 *     word 0        length in bytes, header included
 *     word 1        count of entries
 *     word 2, 3     shard id
 *     word 4, 5     term of every entry inside
 *     word 6, 7     term of the entry before the first (its index is the first's minus one)
 *     word 8, 9     index of the first entry
 *     word 10, 11   commit index of the sender
 *     word 12, 13   replica id of the sender
 *     word 14       flags
 *     word 15       zero
 *
 * Where the words are is known in this file alone. A block may hold entries of an older term than its sender's
 * current one (catch-up), so a sender's term is carried beside: words 16, 17.
 */
import { DrakkarError } from '../errors.ts';
import { entriesAreSound, skipEntries } from './entry.ts';
import { BLOCK_MAX_ENTRIES } from './limits.ts';
import { getU53, isU53, putU53 } from './number.ts';

export const BLOCK_HEADER_WORDS = 18;
export const BLOCK_HEADER_BYTES = BLOCK_HEADER_WORDS << 2;

/** Set by the writer of the log on a block that replaces what stood at its first index; never sent (design §7.3). */
export const BLOCK_TRUNCATES = 1;
/** The one entry inside is a config change; every config change has a block of its own. */
export const BLOCK_CONFIG_CHANGE = 2;
/** Terms and indexes of entries without the entries: what a witness gets. */
export const BLOCK_HOLLOW = 4;

/** With a config change that removes a member: who that is, folded into sixteen bits, so that a leader knows when it may be itself. */
const BLOCK_REMOVES_SHIFT = 16;

/** What a leader may send, and the log keeps. */
export const LASTING_FLAGS = (BLOCK_CONFIG_CHANGE | BLOCK_HOLLOW | (0xffff << BLOCK_REMOVES_SHIFT)) >>> 0;

/** Flags of the block of a config change; `removedId` 0: it removes nobody. */
export function configChangeFlags(removedId: number): number {
  return (BLOCK_CONFIG_CHANGE | (fold(removedId) << BLOCK_REMOVES_SHIFT)) >>> 0;
}

/** Whether the block may hold a change that removes `replicaId`; never false when it does. */
export function mayRemove(flags: number, replicaId: number): boolean {
  return (flags & BLOCK_CONFIG_CHANGE) !== 0 && flags >>> BLOCK_REMOVES_SHIFT === fold(replicaId);
}

const fold = (id: number): number => (id === 0 ? 0 : 1 + (id % 0xffff));
const KNOWN_FLAGS = BLOCK_TRUNCATES | LASTING_FLAGS;

/** A block header as an object; made once and filled again and again. */
export class BlockHeader {
  lengthBytes = 0;
  count = 0;
  shardId = 0;
  /** Term of the entries inside. */
  term = 0;
  prevTerm = 0;
  firstIndex = 0;
  commitIndex = 0;
  senderId = 0;
  /** Current term of the sender; equals `term` but when old entries are sent again. */
  senderTerm = 0;
  flags = 0;

  get lastIndex(): number {
    return this.firstIndex + this.count - 1;
  }
}

export function blockLengthBytes(u32: Uint32Array, word: number): number {
  return u32[word];
}

export function blockCount(u32: Uint32Array, word: number): number {
  return u32[word + 1];
}

export function blockShardId(u32: Uint32Array, word: number): number {
  return getU53(u32, word + 2);
}

export function blockFirstIndex(u32: Uint32Array, word: number): number {
  return getU53(u32, word + 8);
}

export function writeBlockHeader(u32: Uint32Array, word: number, header: BlockHeader): void {
  u32[word] = header.lengthBytes;
  u32[word + 1] = header.count;
  putU53(u32, word + 2, header.shardId);
  putU53(u32, word + 4, header.term);
  putU53(u32, word + 6, header.prevTerm);
  putU53(u32, word + 8, header.firstIndex);
  putU53(u32, word + 10, header.commitIndex);
  putU53(u32, word + 12, header.senderId);
  u32[word + 14] = header.flags;
  u32[word + 15] = 0;
  putU53(u32, word + 16, header.senderTerm);
}

export function readBlockHeader(u32: Uint32Array, word: number, into: BlockHeader): void {
  into.lengthBytes = u32[word]!;
  into.count = u32[word + 1]!;
  into.shardId = getU53(u32, word + 2);
  into.term = getU53(u32, word + 4);
  into.prevTerm = getU53(u32, word + 6);
  into.firstIndex = getU53(u32, word + 8);
  into.commitIndex = getU53(u32, word + 10);
  into.senderId = getU53(u32, word + 12);
  into.flags = u32[word + 14]!;
  into.senderTerm = getU53(u32, word + 16);
}

/**
 * Whether a well-formed block starts at `word` and ends at or before `endWord`: lengths inside bounds, numbers below 2^53,
 * terms in order, exactly `count` sound entries. Bytes that enter are walked once by this, later walks trust them.
 */
export function blockIsSound(u32: Uint32Array, word: number, endWord: number): boolean {
  if (word + BLOCK_HEADER_WORDS > endWord) return false;
  const length = u32[word];
  if (length < BLOCK_HEADER_BYTES || (length & 3) !== 0 || word + (length >>> 2) > endWord) return false;
  const count = u32[word + 1];
  if (count > BLOCK_MAX_ENTRIES) return false;
  for (let w = word + 2; w < word + 14; w += 2) if (!isU53(u32, w)) return false;
  if (!isU53(u32, word + 16)) return false;
  const flags = u32[word + 14];
  if ((flags & ~KNOWN_FLAGS) !== 0 || u32[word + 15] !== 0) return false;
  if ((flags & BLOCK_CONFIG_CHANGE) === 0 ? flags >>> BLOCK_REMOVES_SHIFT !== 0 : count !== 1) return false;
  const term = getU53(u32, word + 4);
  const firstIndex = getU53(u32, word + 8);
  if (firstIndex < 1 || getU53(u32, word + 6) > term || term > getU53(u32, word + 16)) return false;
  if (!Number.isSafeInteger(firstIndex + count)) return false;
  if ((flags & BLOCK_HOLLOW) !== 0) return length === BLOCK_HEADER_BYTES && count > 0;
  return entriesAreSound(u32, word + BLOCK_HEADER_WORDS, word + (length >>> 2), count);
}

/** The word at which the entry `skip` places behind the one at `word` starts, in a block with `flags`. */
export function skipInBlock(flags: number, u32: Uint32Array, word: number, skip: number): number {
  return (flags & BLOCK_HOLLOW) !== 0 ? word : skipEntries(u32, word, skip);
}

/** Checks every block of a frame of blocks in `[word, endWord)`; throws `ERR_FRAME`. */
export function checkBlocks(u32: Uint32Array, word: number, endWord: number, count: number): void {
  for (let left = count; left > 0; left--) {
    if (!blockIsSound(u32, word, endWord)) throw new DrakkarError('ERR_FRAME', 'a frame holds a malformed block');
    word += u32[word] >>> 2;
  }
  if (word !== endWord) throw new DrakkarError('ERR_FRAME', 'a frame of blocks does not end where its last block does');
}

/**
 * Copies words. A loop wins below some 320 bytes, `set` above, since it makes a view (hot-path §7.2).
 */
export function copyWords(from: Uint32Array, fromWord: number, to: Uint32Array, toWord: number, words: number): void {
  if (words <= 80) for (let i = 0; i < words; i++) to[toWord + i] = from[fromWord + i]!;
  else to.set(from.subarray(fromWord, fromWord + words), toWord);
}
