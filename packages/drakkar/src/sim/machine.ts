/**
 * Stands between Drakkar and the state machine under test: takes the token off each command, and reports what was applied, what was
 * answered and which digest the state has at which index. The state machine inside cannot tell that it is watched.
 */
import type {
  AnyStateMachine,
  ConcurrentStateMachine,
  DiskBatch,
  DiskRecoveryContext,
  Entry,
  EntryCursor,
  OnDiskStateMachine,
  OpenedState,
  RecoveryContext,
  Result,
  SnapshotContext,
  StateMachine,
} from '../rsm/state-machine.ts';

/** Each command begins with the number of its call. */
export const TOKEN_BYTES = 4;
/** In front of a snapshot: index of the last command in it. */
const PREFIX_BYTES = 8;

export interface ApplyWatcher {
  /** An on-disk state machine is about to be given this, as `onApplied` tells it once the update has ended. */
  onGiven(index: number, token: number, command: Uint8Array): void;
  /** `result` is of the state machine under test; bytes are valid during the call. */
  onApplied(index: number, token: number, command: Uint8Array, result: Result): void;
  /** The state machine's own digest with everything up to `index` applied. */
  onDigest(index: number, hash: number): void;
  /** An on-disk state machine was opened and has stored what came up to `index`. */
  onOpened(index: number): void;
  /** An on-disk state machine is given what it has stored already. */
  onRepeated(index: number, storedIndex: number): void;
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

const commandOf = ({ bytes, offset, lengthBytes }: Entry): Uint8Array => bytes.subarray(offset, offset + lengthBytes);

/** The state machine under watch, of the same kind. */
export function watchMachine(inner: AnyStateMachine, watcher: ApplyWatcher): AnyStateMachine {
  if (inner.kind === 'on-disk') return new WatchedDisk(inner, watcher);
  if (inner.kind === 'concurrent') return new WatchedConcurrent(inner, watcher);
  return new WatchedRegular(inner, watcher);
}

/** What is the same for all kinds. */
class Watch {
  readonly inner: AnyStateMachine;
  readonly watcher: ApplyWatcher;
  /** Index of the last command applied. */
  appliedIndex = 0;
  private readonly tokens: number[] = [];

  constructor(inner: AnyStateMachine, watcher: ApplyWatcher) {
    this.inner = inner;
    this.watcher = watcher;
  }

  begin(entries: readonly Entry[]): void {
    const { tokens } = this;
    tokens.length = 0;
    for (const entry of entries) {
      const { bytes, offset } = entry;
      tokens.push(
        (bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16) | (bytes[offset + 3] << 24)) >>> 0,
      );
      entry.offset += TOKEN_BYTES;
      entry.lengthBytes -= TOKEN_BYTES;
    }
  }

  reportGiven(entries: readonly Entry[]): void {
    for (const [at, entry] of entries.entries()) {
      this.watcher.onGiven(entry.index, this.tokens[at], commandOf(entry));
    }
  }

  end(entries: readonly Entry[]): void {
    for (const [at, entry] of entries.entries()) {
      const command = commandOf(entry);
      this.watcher.onApplied(entry.index, this.tokens[at], command, entry.result);
      this.appliedIndex = entry.index;
    }
    this.reportDigest();
  }

  updateInMemory(inner: StateMachine | ConcurrentStateMachine, cursor: ListCursor, entries: readonly Entry[]): void {
    this.begin(entries);
    if (inner.updateCursor === undefined) inner.update(entries);
    else inner.updateCursor(cursor.over(entries));
    this.end(entries);
  }

  async *prefixed(
    appliedIndex: number,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    const prefix = new Uint8Array(PREFIX_BYTES);
    new DataView(prefix.buffer).setFloat64(0, appliedIndex, true);
    yield prefix;
    yield* chunks;
  }

  /** Takes the prefix off on the way; what it says counts once `recover` is done. */
  async recover(
    image: AsyncIterable<Uint8Array>,
    recover: (rest: AsyncIterable<Uint8Array>) => Promise<void>,
  ): Promise<void> {
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
    await recover(rest());
    this.appliedIndex = new DataView(prefix.buffer).getFloat64(0, true);
    this.reportDigest();
  }

  reportDigest(): void {
    if (this.inner.hash !== undefined && this.appliedIndex > 0) {
      this.watcher.onDigest(this.appliedIndex, this.inner.hash());
    }
  }
}

class WatchedRegular implements StateMachine {
  private readonly inner: StateMachine;
  private readonly watch: Watch;
  private readonly cursor = new ListCursor();

  constructor(inner: StateMachine, watcher: ApplyWatcher) {
    this.inner = inner;
    this.watch = new Watch(inner, watcher);
  }

  update(entries: readonly Entry[]): void {
    this.watch.updateInMemory(this.inner, this.cursor, entries);
  }

  lookup(query: unknown): WatchedAnswer {
    return { appliedIndex: this.watch.appliedIndex, value: this.inner.lookup(query) };
  }

  saveSnapshot(context: SnapshotContext): AsyncGenerator<Uint8Array> {
    return this.watch.prefixed(this.watch.appliedIndex, this.inner.saveSnapshot(context));
  }

  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: RecoveryContext): Promise<void> {
    return this.watch.recover(image, (rest) => this.inner.recoverFromSnapshot(rest, context));
  }

  hash(): number {
    return this.inner.hash?.() ?? 0;
  }

  async close(): Promise<void> {
    await this.inner.close?.();
  }
}

interface Prepared {
  readonly appliedIndex: number;
  readonly inner: unknown;
}

class WatchedConcurrent implements ConcurrentStateMachine<unknown, WatchedAnswer, Prepared> {
  readonly kind = 'concurrent';
  private readonly inner: ConcurrentStateMachine;
  private readonly watch: Watch;
  private readonly cursor = new ListCursor();

  constructor(inner: ConcurrentStateMachine, watcher: ApplyWatcher) {
    this.inner = inner;
    this.watch = new Watch(inner, watcher);
  }

  update(entries: readonly Entry[]): void {
    this.watch.updateInMemory(this.inner, this.cursor, entries);
  }

  lookup(query: unknown): WatchedAnswer {
    return { appliedIndex: this.watch.appliedIndex, value: this.inner.lookup(query) };
  }

  prepareSnapshot(): Prepared {
    return { appliedIndex: this.watch.appliedIndex, inner: this.inner.prepareSnapshot() };
  }

  saveSnapshot(prepared: Prepared, context: SnapshotContext): AsyncGenerator<Uint8Array> {
    return this.watch.prefixed(prepared.appliedIndex, this.inner.saveSnapshot(prepared.inner, context));
  }

  releaseSnapshot(prepared: Prepared): void | Promise<void> {
    return this.inner.releaseSnapshot?.(prepared.inner);
  }

  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: RecoveryContext): Promise<void> {
    return this.watch.recover(image, (rest) => this.inner.recoverFromSnapshot(rest, context));
  }

  hash(): number {
    return this.inner.hash?.() ?? 0;
  }

  async close(): Promise<void> {
    await this.inner.close?.();
  }
}

class WatchedDisk implements OnDiskStateMachine<unknown, Promise<WatchedAnswer>, Prepared> {
  readonly kind = 'on-disk';
  private readonly inner: OnDiskStateMachine;
  private readonly watch: Watch;

  constructor(inner: OnDiskStateMachine, watcher: ApplyWatcher) {
    this.inner = inner;
    this.watch = new Watch(inner, watcher);
  }

  async open(context: SnapshotContext): Promise<OpenedState> {
    const opened = await this.inner.open(context);
    this.watch.appliedIndex = opened.appliedIndex;
    this.watch.watcher.onOpened(opened.appliedIndex);
    return opened;
  }

  async update(entries: readonly Entry[], batch: DiskBatch): Promise<void> {
    const { watch } = this;
    for (const { index } of entries) {
      if (index <= watch.appliedIndex) watch.watcher.onRepeated(index, watch.appliedIndex);
    }
    watch.begin(entries);
    watch.reportGiven(entries);
    await this.inner.update(entries, batch);
    watch.end(entries);
  }

  async sync(): Promise<void> {
    await this.inner.sync?.();
  }

  async lookup(query: unknown): Promise<WatchedAnswer> {
    const { appliedIndex } = this.watch;
    return { appliedIndex, value: await this.inner.lookup(query) };
  }

  prepareSnapshot(): Prepared {
    return { appliedIndex: this.watch.appliedIndex, inner: this.inner.prepareSnapshot() };
  }

  saveSnapshot(prepared: Prepared, context: SnapshotContext): AsyncGenerator<Uint8Array> {
    return this.watch.prefixed(prepared.appliedIndex, this.inner.saveSnapshot(prepared.inner, context));
  }

  releaseSnapshot(prepared: Prepared): void | Promise<void> {
    return this.inner.releaseSnapshot?.(prepared.inner);
  }

  recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: DiskRecoveryContext): Promise<void> {
    return this.watch.recover(image, (rest) => this.inner.recoverFromSnapshot(rest, context));
  }

  hash(): number {
    return this.inner.hash?.() ?? 0;
  }

  async close(): Promise<void> {
    await this.inner.close?.();
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
