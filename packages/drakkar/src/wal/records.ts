/**
 * State records: all that is durable about a shard besides its entries, whole in each record, several in a frame.
 *
 *     word 0       length in bytes, a multiple of 4
 *     word 1       flags: resets the log, removed
 *     word 2..17   shard, replica, term, vote, commit, snapshot index and term, compacted index (two words each)
 *     word 18, 19  compacted term
 *     word 20, 21  bootstrap length in bytes, count of pins
 *     pins         replica id (2 words), directory high, low, start counter (2 words)
 *     bootstrap    padded to 4
 */
import { DrakkarError } from '../errors.ts';
import { MEMBERS_MAX } from '../wire/limits.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';
import type { ReplicaPin, ShardState } from './logdb.ts';

const FIXED_WORDS = 22;
const PIN_WORDS = 6;
export const BOOTSTRAP_MAX_BYTES = 64 * 1024;

export const RECORD_RESETS_LOG = 1;
export const RECORD_REMOVED = 2;

export function recordBytes(state: ShardState): number {
  return (FIXED_WORDS + state.pins.length * PIN_WORDS + ((state.bootstrap.length + 3) >>> 2)) << 2;
}

export function writeRecord(u8: Uint8Array, u32: Uint32Array, word: number, state: ShardState, flags: number): void {
  u32[word] = recordBytes(state);
  u32[word + 1] = flags;
  putU53(u32, word + 2, state.shardId);
  putU53(u32, word + 4, state.replicaId);
  putU53(u32, word + 6, state.term);
  putU53(u32, word + 8, state.vote);
  putU53(u32, word + 10, state.commitIndex);
  putU53(u32, word + 12, state.snapshotIndex);
  putU53(u32, word + 14, state.snapshotTerm);
  putU53(u32, word + 16, state.compactedIndex);
  putU53(u32, word + 18, state.compactedTerm);
  u32[word + 20] = state.bootstrap.length;
  u32[word + 21] = state.pins.length;
  let at = word + FIXED_WORDS;
  for (const pin of state.pins) {
    putU53(u32, at, pin.replicaId);
    u32[at + 2] = pin.directoryHigh;
    u32[at + 3] = pin.directoryLow;
    putU53(u32, at + 4, pin.startCounter);
    at += PIN_WORDS;
  }
  if ((state.bootstrap.length & 3) !== 0) u32[at + (state.bootstrap.length >>> 2)] = 0;
  u8.set(state.bootstrap, at << 2);
}

export function recordLengthBytes(u32: Uint32Array, word: number): number {
  return u32[word];
}

export function recordFlags(u32: Uint32Array, word: number): number {
  return u32[word + 1];
}

export function recordShardId(u32: Uint32Array, word: number): number {
  return getU53(u32, word + 2);
}

const malformed = (): DrakkarError => new DrakkarError('ERR_LOG_CORRUPT', 'a state record is malformed');

/** Reads the record at `word` of bytes that end at `endWord`; throws `ERR_LOG_CORRUPT`. */
export function readRecord(u8: Uint8Array, u32: Uint32Array, word: number, endWord: number): ShardState {
  if (word + FIXED_WORDS > endWord) throw malformed();
  const bootstrapBytes = u32[word + 20];
  const pinCount = u32[word + 21];
  if (bootstrapBytes > BOOTSTRAP_MAX_BYTES || pinCount > MEMBERS_MAX) throw malformed();
  const words = FIXED_WORDS + pinCount * PIN_WORDS + ((bootstrapBytes + 3) >>> 2);
  if (u32[word] !== words << 2 || word + words > endWord) throw malformed();
  if ((u32[word + 1] & ~(RECORD_RESETS_LOG | RECORD_REMOVED)) !== 0) throw malformed();
  for (let w = word + 2; w < word + 20; w += 2) if (!isU53(u32, w)) throw malformed();
  const pins: ReplicaPin[] = [];
  let at = word + FIXED_WORDS;
  for (let left = pinCount; left > 0; left--) {
    if (!isU53(u32, at) || !isU53(u32, at + 4)) throw malformed();
    pins.push({
      replicaId: getU53(u32, at),
      directoryHigh: u32[at + 2],
      directoryLow: u32[at + 3],
      startCounter: getU53(u32, at + 4),
    });
    at += PIN_WORDS;
  }
  return {
    shardId: getU53(u32, word + 2),
    replicaId: getU53(u32, word + 4),
    term: getU53(u32, word + 6),
    vote: getU53(u32, word + 8),
    commitIndex: getU53(u32, word + 10),
    snapshotIndex: getU53(u32, word + 12),
    snapshotTerm: getU53(u32, word + 14),
    compactedIndex: getU53(u32, word + 16),
    compactedTerm: getU53(u32, word + 18),
    pins,
    bootstrap: u8.slice(at << 2, (at << 2) + bootstrapBytes),
  };
}
