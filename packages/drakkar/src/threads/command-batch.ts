/**
 * Commands of one turn on their way to a thread: one buffer, in which each shard's commands are packed as entries, encoded once where they
 * were proposed. The thread copies them into its open blocks and puts its own keys in.
 *
 *     word 0, 1   shard    word 2   port, to answer to    word 3   words of the entries that follow
 *     entries     their keys: sequence = number of the caller, nonce = ticks until it gives up
 */
import type { BlockBuffer } from '../engine/open-block.ts';
import { BLOCK_HEADER_WORDS, copyWords } from '../wire/block.ts';
import { entryWords, keyNonce, keySequence } from '../wire/entry.ts';
import { getU53, putU53 } from '../wire/number.ts';

const SECTION_WORDS = 4;

export interface CommandSection {
  readonly shardId: number;
  readonly port: number;
  readonly block: BlockBuffer;
}

export function encodeCommands(sections: readonly CommandSection[]): ArrayBuffer {
  let words = 0;
  for (const { block } of sections) words += SECTION_WORDS + block.endWord - BLOCK_HEADER_WORDS;
  const u32 = new Uint32Array(words);
  let word = 0;
  for (const { shardId, port, block } of sections) {
    const length = block.endWord - BLOCK_HEADER_WORDS;
    putU53(u32, word, shardId);
    u32[word + 2] = port;
    u32[word + 3] = length;
    copyWords(block.u32, BLOCK_HEADER_WORDS, u32, word + SECTION_WORDS, length);
    word += SECTION_WORDS + length;
  }
  return u32.buffer;
}

export interface CommandVisitor {
  /** The commands that follow are for this shard. */
  onShard(shardId: number, port: number): void;
  /** The entry at `word` of the caller `sequence`, who waits `ticks`. */
  onCommand(u32: Uint32Array, word: number, sequence: number, ticks: number): void;
}

export function visitCommands(buffer: ArrayBuffer, visitor: CommandVisitor): void {
  const u32 = new Uint32Array(buffer);
  let word = 0;
  while (word < u32.length) {
    visitor.onShard(getU53(u32, word), u32[word + 2]);
    const end = word + SECTION_WORDS + u32[word + 3];
    for (word += SECTION_WORDS; word < end; word += entryWords(u32, word)) {
      visitor.onCommand(u32, word, keySequence(u32, word), keyNonce(u32, word));
    }
  }
}
