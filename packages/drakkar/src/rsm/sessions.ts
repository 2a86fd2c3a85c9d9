/**
 * Client sessions: how a command is applied at most once though its client asks again (thesis §6.3). Part of the replicated
 * state: what is known, and in which order sessions are forgotten, is the same on every replica and in every snapshot.
 *
 * At most `maxSessions` are kept; using one makes it the newest, a new one pushes out the oldest.
 */
import { DrakkarError } from '../errors.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';
import type { Result } from './state-machine.ts';

export const SESSIONS_MAX = 4096;
/** Answers kept for one session; its client has one command under way, so more means that it ignores answers. */
export const ANSWERS_MAX = 64;

export class Session {
  readonly clientHigh: number;
  readonly clientLow: number;
  /** The client has the answers up to this series. */
  respondedTo = 0;
  /** Answers the client may still ask for, by series, oldest first. */
  readonly answers = new Map<number, Result>();

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

/** For all shards that no session was opened in; never written to. */
const NOBODY = new Map<bigint, Session>();

export class Sessions {
  private readonly max: number;
  /** Least recently used first: a Map remembers the order of insertion. */
  private byClient = NOBODY;

  constructor(max: number = SESSIONS_MAX) {
    this.max = max;
  }

  get count(): number {
    return this.byClient.size;
  }

  /** Makes the session the newest one. */
  use(clientHigh: number, clientLow: number): Session | undefined {
    const key = keyOf(clientHigh, clientLow);
    const session = this.byClient.get(key);
    if (session === undefined) return undefined;
    this.byClient.delete(key);
    this.byClient.set(key, session);
    return session;
  }

  /** Registering twice is fine: the second is the client's retry (scenario 65). */
  register(clientHigh: number, clientLow: number): void {
    if (this.use(clientHigh, clientLow) !== undefined) return;
    this.add(new Session(clientHigh, clientLow));
    if (this.byClient.size <= this.max) return;
    const [oldest] = this.byClient.keys();
    this.byClient.delete(oldest);
  }

  private add(session: Session): void {
    if (this.byClient === NOBODY) this.byClient = new Map();
    this.byClient.set(keyOf(session.clientHigh, session.clientLow), session);
  }

  /** Fine for an unknown one: the client's retry. */
  unregister(clientHigh: number, clientLow: number): void {
    this.byClient.delete(keyOf(clientHigh, clientLow));
  }

  /**
   *     u32 count, then for each session, least recently used first:
   *     client high, low, responded-to (2), count of answers, then for each:
   *     series (2), kind (0 number, 1 bytes), number as float64 (2) or length and bytes padded to 4
   */
  encode(): Uint8Array {
    let bytes = 4;
    for (const session of this.byClient.values()) {
      bytes += 20;
      for (const result of session.answers.values()) {
        bytes += 12 + (typeof result === 'number' ? 8 : 4 + ((result.length + 3) & ~3));
      }
    }
    const u8 = new Uint8Array(bytes);
    const u32 = new Uint32Array(u8.buffer);
    const view = new DataView(u8.buffer);
    u32[0] = this.byClient.size;
    let word = 1;
    for (const session of this.byClient.values()) {
      u32[word] = session.clientHigh;
      u32[word + 1] = session.clientLow;
      putU53(u32, word + 2, session.respondedTo);
      u32[word + 4] = session.answers.size;
      word += 5;
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
    }
    return u8;
  }

  /** Throws `ERR_SNAPSHOT_CORRUPT` on anything that `encode` could not have made. */
  static decode(bytes: Uint8Array, max: number = SESSIONS_MAX): Sessions {
    const sessions = new Sessions(max);
    const u8 = bytes.slice(); // aligned
    if (u8.length < 4 || (u8.length & 3) !== 0) throw malformed();
    const u32 = new Uint32Array(u8.buffer);
    const view = new DataView(u8.buffer);
    const end = u32.length;
    const count = u32[0];
    if (count > max) throw malformed();
    let word = 1;
    for (let left = count; left > 0; left--) {
      if (word + 5 > end || !isU53(u32, word + 2)) throw malformed();
      const session = new Session(u32[word], u32[word + 1]);
      session.respondedTo = getU53(u32, word + 2);
      const answers = u32[word + 4];
      if (answers > ANSWERS_MAX) throw malformed();
      word += 5;
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
      sessions.add(session);
    }
    if (word !== end || sessions.count !== count) throw malformed();
    return sessions;
  }
}

const keyOf = (high: number, low: number): bigint => (BigInt(high) << 32n) | BigInt(low);

const malformed = (): DrakkarError =>
  new DrakkarError('ERR_SNAPSHOT_CORRUPT', 'the sessions of a snapshot are malformed');
