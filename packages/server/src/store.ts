/**
 * The state machine of one shard: keys with values and versions, in memory. Deterministic; its digest does not depend on the
 * order of the keys and is kept up to date by every write.
 */
import { crc32 } from 'node:zlib';
import type { Entry, StateMachine } from 'drakkar';
import { HEADER_BYTES, Operation, conflict } from './commands.ts';

interface Item {
  readonly value: Uint8Array;
  /** Log index of the write. */
  readonly version: number;
  readonly hash: number;
}

export interface Found {
  readonly value: Uint8Array;
  readonly version: number;
}

export interface Listed extends Found {
  readonly key: string;
}

export type Query =
  | { readonly kind: 'get'; readonly key: string }
  | { readonly kind: 'list'; readonly prefix: string; readonly after: string; readonly limit: number };

/** Header of a key in a snapshot: two lengths and the version. */
const RECORD_BYTES = 16;
const CHUNK_BYTES = 128 * 1024;

/** A mark at the beginning is a part of the key here as it is where entries are applied. */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const encoder = new TextEncoder();

/** For threads, which load this module. */
export default function createStore(): Store {
  return new Store();
}

export class Store implements StateMachine<Query, Found | Listed[] | undefined> {
  private items = new Map<string, Item>();
  private digest = 0;

  update(entries: readonly Entry[]): void {
    for (const entry of entries) entry.result = this.applyOne(entry);
  }

  private applyOne(entry: Entry): number {
    const { bytes, offset, lengthBytes } = entry;
    const operation = bytes[offset];
    const keyEnd = offset + HEADER_BYTES + (bytes[offset + 2] | (bytes[offset + 3] << 8));
    const key = textAt(bytes, offset + HEADER_BYTES, keyEnd);
    const current = this.items.get(key);
    const isConditional = operation === Operation.PutIf || operation === Operation.DeleteIf;
    const version = current?.version ?? 0;
    if (isConditional && expectedVersion(bytes, offset) !== version) return conflict(version);
    if (operation === Operation.Delete || operation === Operation.DeleteIf) {
      if (current === undefined) return 0;
      this.items.delete(key);
      this.digest = (this.digest - current.hash) >>> 0;
      return entry.index;
    }
    this.put(key, bytes.slice(keyEnd, offset + lengthBytes), entry.index);
    return entry.index;
  }

  private put(key: string, value: Uint8Array, version: number): void {
    const current = this.items.get(key);
    if (current !== undefined) this.digest = (this.digest - current.hash) >>> 0;
    const item: Item = { value, version, hash: hashOf(key, value, version) };
    this.items.set(key, item);
    this.digest = (this.digest + item.hash) >>> 0;
  }

  lookup(query: Query): Found | Listed[] | undefined {
    if (query.kind === 'list') return this.list(query.prefix, query.after, query.limit);
    const item = this.items.get(query.key);
    return item === undefined ? undefined : { value: item.value, version: item.version };
  }

  /** Walks all keys of the shard: a listing is for people and small stores. */
  private list(prefix: string, after: string, limit: number): Listed[] {
    const keys: string[] = [];
    for (const key of this.items.keys()) if (key.startsWith(prefix) && key > after) keys.push(key);
    keys.sort();
    return keys.slice(0, limit).map((key) => {
      const { value, version } = this.items.get(key)!;
      return { key, value, version };
    });
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    let chunk: Uint8Array[] = [];
    let size = 0;
    for (const [key, { value, version }] of this.items) {
      const keyBytes = encoder.encode(key);
      const head = new Uint8Array(RECORD_BYTES);
      const view = new DataView(head.buffer);
      view.setUint32(0, keyBytes.length, true);
      view.setUint32(4, value.length, true);
      view.setFloat64(8, version, true);
      chunk.push(head, keyBytes, value);
      size += RECORD_BYTES + keyBytes.length + value.length;
      if (size < CHUNK_BYTES) continue;
      yield Buffer.concat(chunk);
      chunk = [];
      size = 0;
    }
    if (size > 0) yield Buffer.concat(chunk);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
    this.items = new Map();
    this.digest = 0;
    let rest: Uint8Array = new Uint8Array(0);
    for await (const piece of image) {
      const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
      rest = bytes.slice(this.recoverRecords(bytes));
    }
    if (rest.length > 0) throw new Error('the snapshot ends in the middle of a key');
  }

  /** Takes over the whole records at the front; gives where they end. */
  private recoverRecords(bytes: Uint8Array): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    while (at + RECORD_BYTES <= bytes.length) {
      const keyEnd = at + RECORD_BYTES + view.getUint32(at, true);
      const valueEnd = keyEnd + view.getUint32(at + 4, true);
      if (valueEnd > bytes.length) break;
      const key = decoder.decode(bytes.subarray(at + RECORD_BYTES, keyEnd));
      this.put(key, bytes.slice(keyEnd, valueEnd), view.getFloat64(at + 8, true));
      at = valueEnd;
    }
    return at;
  }

  hash(): number {
    return this.digest;
  }

  get size(): number {
    return this.items.size;
  }
}

/** Entries mostly share their memory: one view serves them all, whatever their shard. */
let view: Buffer<ArrayBufferLike> = Buffer.alloc(0);

function textAt(bytes: Uint8Array, start: number, end: number): string {
  if (view.buffer !== bytes.buffer) view = Buffer.from(bytes.buffer);
  return view.toString('utf8', bytes.byteOffset + start, bytes.byteOffset + end);
}

function expectedVersion(bytes: Uint8Array, offset: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset + offset).getFloat64(4, true);
}

/** Over key, value and version. */
function hashOf(key: string, value: Uint8Array, version: number): number {
  const hash = crc32(value, crc32(key));
  return Math.imul(hash ^ (version % 0x1_0000_0000), 0x01000193) >>> 0;
}
