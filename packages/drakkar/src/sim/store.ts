/**
 * The state machine and the clients that the project itself is tested with: registers, counters and lists under a few keys, and the
 * history of all calls for the linearizability checker.
 */
import type { Entry, StateMachine } from '../rsm/state-machine.ts';
import type { Dice } from './dice.ts';
import { checkLinearizability, keyValueModel, type Operation } from './linearizability/index.ts';
import { Violation } from './violation.ts';
import type { CallOutcome, Workload, WorkloadCall } from './workload.ts';

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f'];
/** Written by hundreds of calls at once, which no checker can order; the truth of the shard covers it. */
const FLOODED = 'z';
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

  *saveSnapshot(): Iterable<Uint8Array> {
    const bytes = text.encode(JSON.stringify([...this.values]));
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

export class StoreWorkload implements Workload {
  private readonly calls = new Map<number, WorkloadCall>();
  private readonly operations: Operation[] = [];
  private readonly newest = new Map<string, number>();
  private nextValue = 1;
  /** Calls and ends, in order. */
  private clock = 0;

  createStateMachine = (): Store => new Store();

  command(dice: Dice, client: number): Uint8Array {
    const key = client === 0 ? FLOODED : dice.pick(KEYS);
    const value = this.nextValue++;
    const kind = dice.below(10);
    let command: StoreCommand = { f: 'put', key, value };
    if (kind < 3) command = { f: 'cas', key, from: this.newest.get(key) ?? null, to: value };
    else if (kind === 3) command = { f: 'delete', key };
    if (dice.chance(0.7)) this.newest.set(key, value);
    return text.encode(JSON.stringify(command));
  }

  query(dice: Dice): string {
    return dice.pick(KEYS);
  }

  onCall(call: WorkloadCall): void {
    if (call.client === 0) return;
    this.calls.set(call.id, { ...call, startMs: this.clock++ });
  }

  onEnd({ id }: WorkloadCall, outcome: CallOutcome, answer: unknown): void {
    const call = this.calls.get(id);
    if (call === undefined) return;
    this.calls.delete(id);
    if (outcome === 'ok') this.operations.push(operationOf(call, answer, this.clock++));
    else if (outcome === 'unknown') this.calls.set(id, call);
  }

  /** What clients were told fits one order for each key. */
  check(appliedAt: (call: WorkloadCall) => number | undefined): void {
    const unknown: Operation[] = [];
    for (const call of this.calls.values()) {
      // The log tells which of the unknown writes happened.
      if (!call.isRead && appliedAt(call) !== undefined) {
        unknown.push(operationOf(call, undefined, Number.POSITIVE_INFINITY));
      }
    }
    const result = checkLinearizability([...this.operations, ...unknown], keyValueModel);
    if (result.verdict === 'linearizable') return;
    const rule = result.verdict === 'unknown' ? 'the history is decided' : 'linearizable';
    throw new Violation('safety', rule, result.explanation ?? '');
  }
}

function operationOf(call: WorkloadCall, answer: unknown, end: number): Operation {
  const { client: process, isRead, input, shardId, startMs } = call;
  const isUnknown = end === Number.POSITIVE_INFINITY;
  const common = { process, call: startMs, return: end, isUnknown };
  if (isRead) return { ...common, f: 'get', key: `${shardId}/${input as string}`, input: null, output: answer };
  const command = JSON.parse(untext.decode(input as Uint8Array)) as StoreCommand;
  const { f } = command;
  const key = `${shardId}/${command.key}`;
  const output = isUnknown ? undefined : answer === 1;
  if (f === 'put') return { ...common, f, key, input: command.value, output };
  return { ...common, f, key, input: f === 'cas' ? { from: command.from, to: command.to } : null, output };
}
