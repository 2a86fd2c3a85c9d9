/**
 * The block that a shard's proposals are encoded into, once, as they are made. The engine's turn copies it into a frame and
 * empties it. Blocks that became full within one turn wait in `full`.
 *
 * Room for the block's header is left in front, so that sealing copies one piece.
 */
import { BLOCK_HEADER_BYTES, BLOCK_HEADER_WORDS, copyWords } from '../wire/block.ts';
import {
  ENTRY_HEADER_WORDS,
  entryBytes,
  entryWords,
  keyNonce,
  keySequence,
  putEntry,
  putSessionEntry,
  rekey,
  type EntryType,
  type SessionFields,
} from '../wire/entry.ts';
import { FREE_BLOCK_BYTES_MAX } from './limits.ts';
import { BLOCK_MAX_ENTRIES, BLOCK_TARGET_BYTES } from '../wire/limits.ts';

const FIRST_BYTES = 4096;

export class BlockBuffer {
  u8: Uint8Array;
  u32: Uint32Array;
  /** The word behind the last entry. */
  endWord = BLOCK_HEADER_WORDS;
  count = 0;

  constructor(sizeBytes = FIRST_BYTES) {
    const buffer = new ArrayBuffer(sizeBytes);
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
  }

  get lengthBytes(): number {
    return this.endWord << 2;
  }

  clear(): void {
    this.endWord = BLOCK_HEADER_WORDS;
    this.count = 0;
  }

  /** Makes room for `bytes` more. */
  reserve(bytes: number): void {
    const needed = this.lengthBytes + bytes;
    if (needed <= this.u8.length) return;
    let size = this.u8.length * 2;
    while (size < needed) size *= 2;
    const buffer = new ArrayBuffer(size);
    const u32 = new Uint32Array(buffer);
    copyWords(this.u32, 0, u32, 0, this.endWord);
    this.u8 = new Uint8Array(buffer);
    this.u32 = u32;
  }

  /** Calls `visit` with the key sequence of every entry. */
  forEach(visit: (sequence: number) => void): void {
    for (let word = BLOCK_HEADER_WORDS; word < this.endWord; word += entryWords(this.u32, word)) {
      visit(keySequence(this.u32, word));
    }
  }

  /** Calls `visit` with the key sequence of every entry that carries `nonce`. */
  forEachOwn(nonce: number, visit: (sequence: number) => void): void {
    forEachOwnEntry(this.u32, BLOCK_HEADER_WORDS, this.endWord, nonce, visit);
  }
}

export function forEachOwnEntry(
  u32: Uint32Array,
  word: number,
  endWord: number,
  nonce: number,
  visit: (sequence: number) => void,
): void {
  for (; word < endWord; word += entryWords(u32, word)) {
    if (keyNonce(u32, word) === nonce) visit(keySequence(u32, word));
  }
}

/** Buffers that no shard is filling, for all shards of an engine: an idle one holds none. */
export class BlockBuffers {
  private readonly free: BlockBuffer[] = [];
  private freeBytes = 0;

  take(): BlockBuffer {
    const block = this.free.pop();
    if (block === undefined) return new BlockBuffer();
    this.freeBytes -= block.u8.length;
    return block;
  }

  clear(): void {
    this.free.length = this.freeBytes = 0;
  }

  give(block: BlockBuffer): void {
    const { length } = block.u8;
    if (length > BLOCK_TARGET_BYTES || this.freeBytes + length > FREE_BLOCK_BYTES_MAX) return;
    block.clear();
    this.freeBytes += length;
    this.free.push(block);
  }
}

/** Stands for a buffer where there is none. Full as it is, so that the first entry finds no room in it; never written to. */
const NONE = new BlockBuffer(BLOCK_HEADER_BYTES);

/** Of all that are not under a burst; never written to. */
const NONE_FULL: BlockBuffer[] = [];

export class OpenBlock {
  /** The one that is being filled. */
  private current = NONE;
  /** Filled and not sealed, oldest first. Empty but under bursts. */
  private full = NONE_FULL;
  private fullBytes = 0;
  private readonly buffers: BlockBuffers;

  constructor(buffers: BlockBuffers) {
    this.buffers = buffers;
  }

  get isEmpty(): boolean {
    return this.current.count === 0 && this.full.length === 0;
  }

  get pendingBytes(): number {
    return this.fullBytes + this.current.lengthBytes - BLOCK_HEADER_BYTES;
  }

  put(type: EntryType, sequence: number, nonce: number, payload: Uint8Array): void {
    const block = this.roomFor((ENTRY_HEADER_WORDS << 2) + ((payload.length + 3) & ~3));
    block.endWord = putEntry(block.u8, block.u32, block.endWord, type, sequence, nonce, payload);
    block.count++;
  }

  putSession(type: EntryType, sequence: number, nonce: number, session: SessionFields, payload: Uint8Array): void {
    const block = this.roomFor(entryBytes(payload.length, true));
    block.endWord = putSessionEntry(block.u8, block.u32, block.endWord, type, sequence, nonce, session, payload);
    block.count++;
  }

  /** Takes over an entry that another replica encoded. */
  putCopy(u32: Uint32Array, word: number): void {
    const words = entryWords(u32, word);
    const block = this.roomFor(words << 2);
    copyWords(u32, word, block.u32, block.endWord, words);
    block.endWord += words;
    block.count++;
  }

  /** The same under another key. */
  putCopyAs(u32: Uint32Array, word: number, sequence: number, nonce: number): void {
    this.putCopy(u32, word);
    const block = this.current;
    rekey(block.u32, block.endWord - entryWords(u32, word), sequence, nonce);
  }

  private roomFor(bytes: number): BlockBuffer {
    const block = this.current;
    if (block.count > 0 && (block.lengthBytes + bytes > BLOCK_TARGET_BYTES || block.count === BLOCK_MAX_ENTRIES)) {
      if (this.full === NONE_FULL) this.full = [];
      this.full.push(block);
      this.fullBytes += block.lengthBytes;
      this.current = this.buffers.take();
    }
    if (this.current.lengthBytes + bytes > this.current.u8.length) this.makeRoom(bytes);
    return this.current;
  }

  private makeRoom(bytes: number): void {
    if (this.current === NONE) this.current = this.buffers.take();
    this.current.reserve(bytes);
  }

  /** Takes out the oldest block with entries, to be copied and then given back with `recycle`. */
  take(): BlockBuffer | undefined {
    const full = this.full.shift();
    if (full !== undefined) {
      this.fullBytes -= full.lengthBytes;
      return full;
    }
    if (this.current.count === 0) return undefined;
    const block = this.current;
    this.current = NONE;
    return block;
  }

  recycle(block: BlockBuffer): void {
    this.buffers.give(block);
  }

  /** Gives an empty buffer back. */
  release(): void {
    if (this.full.length === 0) this.full = NONE_FULL;
    if (this.current === NONE || this.current.count > 0) return;
    this.buffers.give(this.current);
    this.current = NONE;
  }
}
