/**
 * One session, and how it is written as bytes: in the images of snapshots, one behind the other, and as a row of the table that an on-disk state machine keeps.
 *
 *     client high, low, responded-to (2), count of answers, then for each:
 *     series (2), kind (0 number, 1 bytes), number as float64 (2) or length and bytes padded to 4
 *
 * A row begins with the index of its last use (2 words), from which the order in which sessions are forgotten follows.
 */
import { DrakkarError } from '../errors.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';
import type { Result } from './state-machine.ts';

const FIXED_WORDS = 5;
/** Answers kept for one session; its client has one command under way, so more means that it ignores answers. */
export const ANSWERS_MAX = 64;

export class Session {
  readonly clientHigh: number;
  readonly clientLow: number;
  /** The client has the answers up to this series. */
  respondedTo = 0;
  /** Answers the client may still ask for, by series, oldest first. */
  readonly answers: Map<number, Result> = new Map();
  /** Index of the entry that last used it; grows from the oldest session to the newest. */
  lastUsed = 0;
  /** A command of it is in the batch that is being applied: its answer is not known yet. Not part of the state. */
  isBatched = false;

  constructor(clientHigh: number, clientLow: number) {
    this.clientHigh = clientHigh;
    this.clientLow = clientLow;
  }

  /** The client has seen all answers up to `series`. */
  respond(series: number): void {
    if (series <= this.respondedTo) return;
    this.respondedTo = series;
    for (const known of this.answers.keys()) if (known <= series) this.answers.delete(known);
  }

  keep(series: number, result: Result): void {
    this.answers.set(series, result);
    if (this.answers.size <= ANSWERS_MAX) return;
    const [oldest] = this.answers.keys();
    this.answers.delete(oldest);
    this.respond(oldest);
  }
}

export function sessionWords(session: Session): number {
  let words = FIXED_WORDS;
  for (const result of session.answers.values()) {
    words += 3 + (typeof result === 'number' ? 2 : 1 + ((result.length + 3) >>> 2));
  }
  return words;
}

/** Gives the word behind it. `u8` and `u32` are of the same bytes. */
export function putSession(u8: Uint8Array, u32: Uint32Array, word: number, session: Session): number {
  const view = new DataView(u8.buffer);
  u32[word] = session.clientHigh;
  u32[word + 1] = session.clientLow;
  putU53(u32, word + 2, session.respondedTo);
  u32[word + 4] = session.answers.size;
  word += FIXED_WORDS;
  for (const [series, result] of session.answers) {
    putU53(u32, word, series);
    if (typeof result === 'number') {
      u32[word + 2] = 0;
      view.setFloat64((word + 3) << 2, result, true);
      word += 5;
    } else {
      u32[word + 2] = 1;
      u32[word + 3] = result.length;
      u8.set(result, (word + 4) << 2);
      word += 4 + ((result.length + 3) >>> 2);
    }
  }
  return word;
}

/** A session and the word behind it. Throws `ERR_SNAPSHOT_CORRUPT` on anything that `putSession` could not have made. */
export function getSession(u8: Uint8Array, u32: Uint32Array, word: number): { session: Session; end: number } {
  const view = new DataView(u8.buffer);
  const end = u32.length;
  if (word + FIXED_WORDS > end || !isU53(u32, word + 2)) throw malformed();
  const session = new Session(u32[word], u32[word + 1]);
  session.respondedTo = getU53(u32, word + 2);
  const answers = u32[word + 4];
  if (answers > ANSWERS_MAX) throw malformed();
  word += FIXED_WORDS;
  for (let a = 0; a < answers; a++) {
    if (word + 4 > end || !isU53(u32, word)) throw malformed();
    const series = getU53(u32, word);
    if (u32[word + 2] === 0) {
      if (word + 5 > end) throw malformed();
      session.answers.set(series, view.getFloat64((word + 3) << 2, true));
      word += 5;
    } else if (u32[word + 2] === 1) {
      const length = u32[word + 3];
      const words = 4 + Math.ceil(length / 4);
      if (word + words > end) throw malformed();
      const at = (word + 4) << 2;
      session.answers.set(series, u8.slice(at, at + length));
      word += words;
    } else throw malformed();
  }
  return { session, end: word };
}

export function encodeRow(session: Session): Uint8Array {
  const u8 = new Uint8Array((2 + sessionWords(session)) << 2);
  const u32 = new Uint32Array(u8.buffer);
  putU53(u32, 0, session.lastUsed);
  putSession(u8, u32, 2, session);
  return u8;
}

export function decodeRow(bytes: Uint8Array): Session {
  const u8 = bytes.slice(); // aligned
  if (u8.length < 8 || (u8.length & 3) !== 0) throw malformed();
  const u32 = new Uint32Array(u8.buffer);
  if (!isU53(u32, 0)) throw malformed();
  const { session, end } = getSession(u8, u32, 2);
  if (end !== u32.length) throw malformed();
  session.lastUsed = getU53(u32, 0);
  return session;
}

export const malformed = (): DrakkarError => new DrakkarError('ERR_SNAPSHOT_CORRUPT', 'a session record is malformed');
