/** The state machine of the benchmark: numbers under numbers in memory. Commands: u32 key, u32 value, padding. */
import type { Entry, EntryCursor, StateMachine } from 'drakkar';
import type { MachineForm } from './options.ts';

const word = (bytes: Uint8Array, at: number): number =>
  (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;

/** Asked for like a key: how many commands were applied. */
export const APPLIED = -1;

export abstract class NumberStore {
  /** Commands so far; part of the state. */
  applied = 0;
  protected readonly values = new Map<number, number>();

  lookup(key: number): number | undefined {
    return key === APPLIED ? this.applied : this.values.get(key);
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    yield new Uint8Array(Float64Array.of(this.applied).buffer);
    yield new Uint8Array(Uint32Array.from([...this.values].flat()).buffer);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of image) chunks.push(chunk);
    const u8 = Buffer.concat(chunks);
    this.applied = u8.readDoubleLE(0);
    this.values.clear();
    for (let at = 8; at < u8.length; at += 8) this.values.set(word(u8, at), word(u8, at + 4));
  }

  hash(): number {
    let hash = 0;
    for (const [key, value] of this.values)
      hash = (hash + Math.imul(key + 1, 0x9e3779b1) * (value + 7)) % 0x1fffffffffff;
    return hash;
  }
}

class ArrayStore extends NumberStore implements StateMachine<number, number | undefined> {
  update(entries: readonly Entry[]): void {
    this.applied += entries.length;
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i];
      const { bytes, offset } = entry;
      const value = word(bytes, offset + 4);
      this.values.set(word(bytes, offset), value);
      entry.result = value;
    }
  }
}

class CursorStore extends ArrayStore {
  updateCursor(cursor: EntryCursor): void {
    this.applied += cursor.count;
    while (cursor.next()) {
      const { bytes, offset } = cursor;
      const value = word(bytes, offset + 4);
      this.values.set(word(bytes, offset), value);
      cursor.setResult(value);
    }
  }
}

/** As a module that engines load. */
export default function createStore(
  _shardId: number,
  _replicaId: number,
  form: MachineForm,
): StateMachine<number, number | undefined> {
  return makeStore(form);
}

export function makeStore(form: MachineForm): ArrayStore {
  return form === 'cursor' ? new CursorStore() : new ArrayStore();
}
