/**
 * Client sessions: how a command is applied at most once though its client asks again (thesis §6.3). Part of the replicated
 * state: what is known, and in which order sessions are forgotten, is the same on every replica and in every snapshot.
 *
 * At most `maxSessions` are kept; using one makes it the newest, a new one pushes out the oldest.
 */
import { Session, decodeRow, encodeRow, getSession, malformed, putSession, sessionWords } from './session.ts';
import type { SessionChange } from './state-machine.ts';

export const SESSIONS_MAX = 4096;

/** For all shards that no session was opened in; never written to. */
const NOBODY = new Map<bigint, Session>();

export class Sessions {
  private readonly max: number;
  /** Least recently used first: a Map remembers the order of insertion. */
  private byClient = NOBODY;
  /** Sessions that an on-disk state machine has not stored yet as they are; undefined when nobody asks. */
  private changed: Set<bigint> | undefined;

  constructor(max: number = SESSIONS_MAX) {
    this.max = max;
  }

  get count(): number {
    return this.byClient.size;
  }

  get hasChanges(): boolean {
    return this.changed !== undefined && this.changed.size > 0;
  }

  /** From now on `takeChanges` tells what happens. */
  trackChanges(): void {
    this.changed = new Set();
  }

  /** Makes the session the newest one. */
  use(clientHigh: number, clientLow: number, index = 0): Session | undefined {
    const key = keyOf(clientHigh, clientLow);
    const session = this.byClient.get(key);
    if (session === undefined) return undefined;
    this.byClient.delete(key);
    this.byClient.set(key, session);
    session.lastUsed = index;
    this.changed?.add(key);
    return session;
  }

  /** Registering twice is fine: the second is the client's retry (scenario 65). */
  register(clientHigh: number, clientLow: number, index = 0): void {
    if (this.use(clientHigh, clientLow, index) !== undefined) return;
    const session = new Session(clientHigh, clientLow);
    session.lastUsed = index;
    this.add(session);
    this.changed?.add(keyOf(clientHigh, clientLow));
    if (this.byClient.size <= this.max) return;
    const [oldest] = this.byClient.keys();
    this.byClient.delete(oldest);
    this.changed?.add(oldest);
  }

  private add(session: Session): void {
    if (this.byClient === NOBODY) this.byClient = new Map();
    this.byClient.set(keyOf(session.clientHigh, session.clientLow), session);
  }

  /** Fine for an unknown one: the client's retry. */
  unregister(clientHigh: number, clientLow: number): void {
    const key = keyOf(clientHigh, clientLow);
    if (this.byClient.delete(key)) this.changed?.add(key);
  }

  /** What changed since it was last asked, as rows of a table. */
  takeChanges(): SessionChange[] {
    const { changed } = this;
    if (changed === undefined || changed.size === 0) return [];
    const changes = [...changed].map((key) => this.rowOf(key));
    changed.clear();
    return changes;
  }

  /** All sessions as rows. */
  rows(): SessionChange[] {
    return [...this.byClient.keys()].map((key) => this.rowOf(key));
  }

  private rowOf(key: bigint): SessionChange {
    const session = this.byClient.get(key);
    return { key: key.toString(16).padStart(16, '0'), value: session && encodeRow(session) };
  }

  /** From the rows of a table, in any order. Throws `ERR_SNAPSHOT_CORRUPT`. */
  static fromRows(rows: Iterable<readonly [key: string, value: Uint8Array]>, max: number = SESSIONS_MAX): Sessions {
    const sessions = new Sessions(max);
    const all: Session[] = [];
    for (const [key, value] of rows) {
      const session = decodeRow(value);
      if (keyOf(session.clientHigh, session.clientLow).toString(16).padStart(16, '0') !== key) throw malformed();
      if (all.push(session) > max) throw malformed();
    }
    all.sort((a, b) => a.lastUsed - b.lastUsed);
    for (const session of all) sessions.add(session);
    if (sessions.count !== all.length) throw malformed();
    return sessions;
  }

  /** u32 count, then the sessions, least recently used first. */
  encode(): Uint8Array {
    let words = 1;
    for (const session of this.byClient.values()) words += sessionWords(session);
    const u8 = new Uint8Array(words << 2);
    const u32 = new Uint32Array(u8.buffer);
    u32[0] = this.byClient.size;
    let word = 1;
    for (const session of this.byClient.values()) word = putSession(u8, u32, word, session);
    return u8;
  }

  /** Throws `ERR_SNAPSHOT_CORRUPT` on anything that `encode` could not have made. */
  static decode(bytes: Uint8Array, max: number = SESSIONS_MAX): Sessions {
    const sessions = new Sessions(max);
    const u8 = bytes.slice(); // aligned
    if (u8.length < 4 || (u8.length & 3) !== 0) throw malformed();
    const u32 = new Uint32Array(u8.buffer);
    const count = u32[0];
    if (count > max) throw malformed();
    let word = 1;
    for (let at = 1; at <= count; at++) {
      const { session, end } = getSession(u8, u32, word);
      // Each was used by an entry of its own, so that any later one has a larger index than its rank.
      session.lastUsed = at;
      sessions.add(session);
      word = end;
    }
    if (word !== u32.length || sessions.count !== count) throw malformed();
    return sessions;
  }
}

const keyOf = (high: number, low: number): bigint => (BigInt(high) << 32n) | BigInt(low);
