/** The state machine that the project itself is tested with: registers and counters under a few keys. */
import type { Entry, RecoveryContext, StateMachine } from '../rsm/state-machine.ts';

const text = new TextEncoder();
const untext = new TextDecoder();

export type StoreCommand =
  | { readonly f: 'put'; readonly key: string; readonly value: number }
  | { readonly f: 'cas'; readonly key: string; readonly from: number | null; readonly to: number }
  | { readonly f: 'delete'; readonly key: string };

/** Keys with numbers; answers 1 when something changed, 0 when not. */
export class Store implements StateMachine<string, number | null> {
  private values = new Map<string, number>();

  update(entries: readonly Entry[]): void {
    for (const entry of entries) {
      const { bytes, offset, lengthBytes } = entry;
      const command = JSON.parse(untext.decode(bytes.subarray(offset, offset + lengthBytes))) as StoreCommand;
      entry.result = this.apply(command) ? 1 : 0;
    }
  }

  private apply(command: StoreCommand): boolean {
    const { values } = this;
    if (command.f === 'put') values.set(command.key, command.value);
    else if (command.f === 'delete') return values.delete(command.key);
    else if ((values.get(command.key) ?? null) !== command.from) return false;
    else values.set(command.key, command.to);
    return true;
  }

  lookup(key: string): number | null {
    return this.values.get(key) ?? null;
  }

  all(): [key: string, value: number][] {
    return [...this.values];
  }

  load(values: Iterable<readonly [key: string, value: number]>): void {
    this.values = new Map(values);
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    const bytes = text.encode(JSON.stringify([...this.values]));
    // In small pieces, as a large state would come.
    for (let at = 0; at < bytes.length; at += 40) yield bytes.subarray(at, at + 40);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, _context?: RecoveryContext): Promise<void> {
    let json = '';
    for await (const chunk of image) json += untext.decode(chunk);
    this.values = new Map(JSON.parse(json) as [string, number][]);
  }

  hash(): number {
    let hash = 0;
    for (const [key, value] of this.values)
      hash = (hash + Math.imul(key.charCodeAt(0), 2654435761) * (value + 1)) >>> 0;
    return hash;
  }
}
