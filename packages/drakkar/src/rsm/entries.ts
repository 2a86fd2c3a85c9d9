/** The reused objects that commands are handed to state machines with. */
import { Entry, type EntryCursor, type Result } from './state-machine.ts';

/** Commands given to one `update` at most. */
export const BATCH_MAX = 1024;

/** A growing list of entries of which the first `count` are in use. */
export class EntryBatch {
  /** What `update` gets; its length is set before the call. */
  readonly entries: Entry[] = [];
  private readonly pool: Entry[] = [];
  /** Key of each entry, for the answer. */
  readonly sequences: Uint32Array = new Uint32Array(BATCH_MAX);
  readonly nonces: Uint32Array = new Uint32Array(BATCH_MAX);
  count = 0;

  add(index: number, bytes: Uint8Array, offset: number, lengthBytes: number, sequence: number, nonce: number): void {
    const at = this.count++;
    let entry = this.pool[at];
    if (entry === undefined) {
      entry = new Entry();
      this.pool.push(entry);
    }
    entry.index = index;
    entry.bytes = bytes;
    entry.offset = offset;
    entry.lengthBytes = lengthBytes;
    entry.result = 0;
    this.sequences[at] = sequence;
    this.nonces[at] = nonce;
  }

  /** Puts the entries in use into `entries`. */
  expose(): readonly Entry[] {
    const { entries, pool, count } = this;
    while (entries.length > count) entries.pop();
    for (let i = entries.length; i < count; i++) entries.push(pool[i]);
    return entries;
  }

  clear(): void {
    this.count = 0;
  }
}

/** Walks a batch the cursor's way. */
export class BatchCursor implements EntryCursor {
  private batch: EntryBatch | undefined;
  private entry = new Entry();
  private at = -1;
  count = 0;

  start(batch: EntryBatch): void {
    this.batch = batch;
    this.count = batch.count;
    this.at = -1;
    batch.expose();
  }

  next(): boolean {
    if (++this.at >= this.count) return false;
    this.entry = this.batch!.entries[this.at]!;
    return true;
  }

  get index(): number {
    return this.entry.index;
  }

  get bytes(): Uint8Array {
    return this.entry.bytes;
  }

  get offset(): number {
    return this.entry.offset;
  }

  get lengthBytes(): number {
    return this.entry.lengthBytes;
  }

  setResult(result: Result): void {
    this.entry.result = result;
  }
}
