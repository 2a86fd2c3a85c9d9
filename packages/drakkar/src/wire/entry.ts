/**
 * Entries: commands packed one behind the other inside a block.
 *
 *     word 0     payload length in bytes (24 bits) | type << 24
 *     word 1, 2  key: sequence number, and a nonce of the replica that proposed; answers find their caller by it
 *     word 3..8  only for session types: client id (two words), series, responded-to
 *     payload, padded to 4 bytes
 *
 * Encoded once, at `propose()`; after that an entry is only copied, and read in place.
 */
import { ENTRY_MAX_BYTES } from './limits.ts';
import { isU53, putU53 } from './number.ts';

export const EntryType = {
  /** A command of a caller without a session. */
  Command: 0,
  /** Appended by a new leader to commit what its predecessors left (thesis §6.4). */
  Noop: 1,
  ConfigChange: 2,
  /** A command with a session: carries client id, series and responded-to. */
  SessionCommand: 4,
  SessionRegister: 5,
  SessionUnregister: 6,
} as const;
export type EntryType = (typeof EntryType)[keyof typeof EntryType];

const LAST_TYPE = 6;
/** Types with this bit carry the six session words. */
const SESSION_BIT = 4;

export const ENTRY_HEADER_WORDS = 3;
export const SESSION_HEADER_WORDS = 9;
const LENGTH_MASK = 0xffffff;

/** Below this size copying word by word, or byte by byte, beats `set` (hot-path §1). */
const SMALL_COPY_BYTES = 48;

export function entryType(u32: Uint32Array, word: number): number {
  return u32[word] >>> 24;
}

export function payloadLengthBytes(u32: Uint32Array, word: number): number {
  return u32[word] & LENGTH_MASK;
}

export function isSessionEntry(u32: Uint32Array, word: number): boolean {
  return (u32[word] & (SESSION_BIT << 24)) !== 0;
}

export function keySequence(u32: Uint32Array, word: number): number {
  return u32[word + 1];
}

export function keyNonce(u32: Uint32Array, word: number): number {
  return u32[word + 2];
}

/** Gives an entry that was copied another key. */
export function rekey(u32: Uint32Array, word: number, sequence: number, nonce: number): void {
  u32[word + 1] = sequence;
  u32[word + 2] = nonce;
}

/** Word offsets inside a session entry, behind its start. */
export const SESSION_CLIENT_WORD = 3;
export const SESSION_SERIES_WORD = 5;
export const SESSION_RESPONDED_WORD = 7;

export function headerWords(u32: Uint32Array, word: number): number {
  return (u32[word] & (SESSION_BIT << 24)) === 0 ? ENTRY_HEADER_WORDS : SESSION_HEADER_WORDS;
}

/** Words of the whole entry, header and padding included. */
export function entryWords(u32: Uint32Array, word: number): number {
  const first = u32[word];
  const header = (first & (SESSION_BIT << 24)) === 0 ? ENTRY_HEADER_WORDS : SESSION_HEADER_WORDS;
  return header + (((first & LENGTH_MASK) + 3) >>> 2);
}

export function entryBytes(payloadBytes: number, session: boolean): number {
  return ((session ? SESSION_HEADER_WORDS : ENTRY_HEADER_WORDS) << 2) + ((payloadBytes + 3) & ~3);
}

export interface SessionFields {
  readonly clientHigh: number;
  readonly clientLow: number;
  readonly series: number;
  readonly respondedTo: number;
}

function putPayload(u8: Uint8Array, u32: Uint32Array, word: number, payload: Uint8Array): number {
  const length = payload.length;
  if ((length & 3) !== 0) u32[word + (length >>> 2)] = 0; // padding is part of the checksummed bytes
  const at = word << 2;
  if (length <= SMALL_COPY_BYTES) for (let i = 0; i < length; i++) u8[at + i] = payload[i]!;
  else u8.set(payload, at);
  return word + ((length + 3) >>> 2);
}

/** Writes a command at `word`; gives the word behind it. The room was checked by the caller. */
export function putEntry(
  u8: Uint8Array,
  u32: Uint32Array,
  word: number,
  type: EntryType,
  sequence: number,
  nonce: number,
  payload: Uint8Array,
): number {
  u32[word] = payload.length | (type << 24);
  u32[word + 1] = sequence;
  u32[word + 2] = nonce;
  return putPayload(u8, u32, word + ENTRY_HEADER_WORDS, payload);
}

/** Writes an entry of one of the session types at `word`; gives the word behind it. */
export function putSessionEntry(
  u8: Uint8Array,
  u32: Uint32Array,
  word: number,
  type: EntryType,
  sequence: number,
  nonce: number,
  session: SessionFields,
  payload: Uint8Array,
): number {
  u32[word] = payload.length | (type << 24);
  u32[word + 1] = sequence;
  u32[word + 2] = nonce;
  u32[word + SESSION_CLIENT_WORD] = session.clientLow;
  u32[word + SESSION_CLIENT_WORD + 1] = session.clientHigh;
  putU53(u32, word + SESSION_SERIES_WORD, session.series);
  putU53(u32, word + SESSION_RESPONDED_WORD, session.respondedTo);
  return putPayload(u8, u32, word + SESSION_HEADER_WORDS, payload);
}

/**
 * Whether exactly `count` well-formed entries fill the words `[word, endWord)`. Walks bytes that enter once, so that
 * every later walk may trust them.
 */
export function entriesAreSound(u32: Uint32Array, word: number, endWord: number, count: number): boolean {
  for (let left = count; left > 0; left--) {
    if (word + ENTRY_HEADER_WORDS > endWord) return false;
    const first = u32[word];
    const length = first & LENGTH_MASK;
    if (length > ENTRY_MAX_BYTES || first >>> 24 > LAST_TYPE) return false;
    if ((first & (SESSION_BIT << 24)) === 0) {
      word += ENTRY_HEADER_WORDS + ((length + 3) >>> 2);
    } else {
      if (word + SESSION_HEADER_WORDS > endWord) return false;
      if (!isU53(u32, word + SESSION_SERIES_WORD) || !isU53(u32, word + SESSION_RESPONDED_WORD)) return false;
      word += SESSION_HEADER_WORDS + ((length + 3) >>> 2);
    }
    if (word > endWord) return false;
  }
  return word === endWord;
}

/** The word at which the entry `skip` places behind the one at `word` starts. */
export function skipEntries(u32: Uint32Array, word: number, skip: number): number {
  for (let left = skip; left > 0; left--) word += entryWords(u32, word);
  return word;
}
