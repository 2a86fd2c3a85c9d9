/**
 * Stands between Drakkar and the state machine under test: takes the token off each command, and reports what was applied, what was
 * answered and which digest the state has at which index. The state machine inside cannot tell that it is watched.
 */
import type { Entry, EntryCursor, Result, SnapshotContext, StateMachine } from '../rsm/state-machine.ts';

/** Each command begins with the number of its call. */
export const TOKEN_BYTES = 4;
/** In front of a snapshot: index of the last command in it. */
const PREFIX_BYTES = 8;

export interface ApplyWatcher {
  /** `result` is of the state machine under test; bytes are valid during the call. */
  onApplied(index: number, token: number, command: Uint8Array, result: Result): void;
  /** The state machine's own digest with everything up to `index` applied. */
  onDigest(index: number, hash: number): void;
}

/** What a look-up gives: the answer, and how far the state had come. */
export interface WatchedAnswer {
  readonly appliedIndex: number;
  readonly value: unknown;
}

export function withToken(token: number, command: Uint8Array): Uint8Array {
  const whole = new Uint8Array(TOKEN_BYTES + command.length);
  new DataView(whole.buffer).setUint32(0, token, true);
  whole.set(command, TOKEN_BYTES);
  return whole;
}

export class WatchedMachine implements StateMachine {
  private readonly inner: StateMachine;
  private readonly watcher: ApplyWatcher;
  private readonly cursor = new ListCursor();
  /** Index of the last command applied. */
  private appliedIndex = 0;
  private readonly tokens: number[] = [];

  constructor(inner: StateMachine, watcher: ApplyWatcher) {
    this.inner = inner;
    this.watcher = watcher;
  }

  update(entries: readonly Entry[]): void {
    const { tokens, watcher, inner } = this;
    tokens.length = 0;
    for (const entry of entries) {
      const { bytes, offset } = entry;
      tokens.push(
        (bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16) | (bytes[offset + 3] << 24)) >>> 0,
      );
      entry.offset += TOKEN_BYTES;
      entry.lengthBytes -= TOKEN_BYTES;
    }
    if (inner.updateCursor === undefined) inner.update(entries);
    else inner.updateCursor(this.cursor.over(entries));
    for (const [at, entry] of entries.entries()) {
      const command = entry.bytes.subarray(entry.offset, entry.offset + entry.lengthBytes);
      watcher.onApplied(entry.index, tokens[at], command, entry.result);
      this.appliedIndex = entry.index;
    }
    this.reportDigest();
  }

  lookup(query: unknown): WatchedAnswer {
    return { appliedIndex: this.appliedIndex, value: this.inner.lookup(query) };
  }

  async *saveSnapshot(context: SnapshotContext): AsyncGenerator<Uint8Array> {
    const prefix = new Uint8Array(PREFIX_BYTES);
    new DataView(prefix.buffer).setFloat64(0, this.appliedIndex, true);
    yield prefix;
    yield* this.inner.saveSnapshot(context);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: SnapshotContext): Promise<void> {
    const prefix = new Uint8Array(PREFIX_BYTES);
    let filled = 0;
    async function* rest(): AsyncGenerator<Uint8Array> {
      for await (const chunk of image) {
        const count = Math.min(PREFIX_BYTES - filled, chunk.length);
        prefix.set(chunk.subarray(0, count), filled);
        filled += count;
        if (count < chunk.length) yield chunk.subarray(count);
      }
    }
    await this.inner.recoverFromSnapshot(rest(), context);
    this.appliedIndex = new DataView(prefix.buffer).getFloat64(0, true);
    this.reportDigest();
  }

  hash(): number {
    return this.inner.hash?.() ?? 0;
  }

  async close(): Promise<void> {
    await this.inner.close?.();
  }

  private reportDigest(): void {
    if (this.inner.hash !== undefined && this.appliedIndex > 0)
      this.watcher.onDigest(this.appliedIndex, this.inner.hash());
  }
}

/** For state machines that take a cursor. */
class ListCursor implements EntryCursor {
  private entries: readonly Entry[] = [];
  private at = -1;

  over(entries: readonly Entry[]): this {
    this.entries = entries;
    this.at = -1;
    return this;
  }

  get count(): number {
    return this.entries.length;
  }

  get index(): number {
    return this.entries[this.at].index;
  }

  get bytes(): Uint8Array {
    return this.entries[this.at].bytes;
  }

  get offset(): number {
    return this.entries[this.at].offset;
  }

  get lengthBytes(): number {
    return this.entries[this.at].lengthBytes;
  }

  next(): boolean {
    return ++this.at < this.entries.length;
  }

  setResult(result: Result): void {
    this.entries[this.at].result = result;
  }
}
