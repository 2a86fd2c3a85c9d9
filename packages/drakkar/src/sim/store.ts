/**
 * The state machine and the clients that the project itself is tested with: registers, counters and lists under a few keys, and the
 * history of all calls for the linearizability checker.
 */
import type { Entry, StateMachine } from '../rsm/state-machine.ts';
import type { Dice } from './dice.ts';
import type { CallOutcome, Workload, WorkloadCall } from './workload.ts';

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f'];
const text = new TextEncoder();
const untext = new TextDecoder();

export type StoreCommand =
  | { readonly f: 'put'; readonly key: string; readonly value: number }
  | { readonly f: 'cas'; readonly key: string; readonly from: number; readonly to: number }
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
    else if ((values.get(command.key) ?? 0) !== command.from) return false;
    else values.set(command.key, command.to);
    return true;
  }

  lookup(key: string): number | null {
    return this.values.get(key) ?? null;
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    const bytes = text.encode(JSON.stringify([...this.values].sort()));
    // In small pieces, as a large state would come.
    for (let at = 0; at < bytes.length; at += 40) yield bytes.subarray(at, at + 40);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
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

/** One call as the checker wants it. */
export interface StoreCall extends WorkloadCall {
  outcome: CallOutcome | undefined;
  answer: unknown;
  endMs: number;
}

export class StoreWorkload implements Workload {
  readonly calls: StoreCall[] = [];
  private readonly byId = new Map<number, StoreCall>();
  private nextValue = 1;

  createStateMachine = (): Store => new Store();

  command(dice: Dice): Uint8Array {
    const key = dice.pick(KEYS);
    const value = this.nextValue++;
    const kind = dice.below(10);
    let command: StoreCommand = { f: 'put', key, value };
    if (kind < 3) command = { f: 'cas', key, from: dice.below(this.nextValue), to: value };
    else if (kind === 3) command = { f: 'delete', key };
    return text.encode(JSON.stringify(command));
  }

  query(dice: Dice): string {
    return dice.pick(KEYS);
  }

  onCall(call: WorkloadCall): void {
    const kept: StoreCall = { ...call, outcome: undefined, answer: undefined, endMs: Number.POSITIVE_INFINITY };
    this.calls.push(kept);
    this.byId.set(call.id, kept);
  }

  onEnd(call: WorkloadCall, outcome: CallOutcome, answer: unknown, nowMs: number): void {
    const kept = this.byId.get(call.id)!;
    kept.outcome = outcome;
    kept.answer = answer;
    kept.endMs = nowMs;
  }
}
