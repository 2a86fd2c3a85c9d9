/** The clients that the project itself is tested with, and the history of all calls for the linearizability checker. */
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import type { Dice } from './dice.ts';
import { ConcurrentStore, DiskStore } from './disk-store.ts';
import { checkLinearizability, keyValueModel, type Operation } from './linearizability/index.ts';
import { Store, type StoreCommand } from './store.ts';
import { Violation } from './violation.ts';
import type { CallOutcome, MachinePlace, Workload, WorkloadCall } from './workload.ts';

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f'];
/** Written by hundreds of calls at once, which no checker can order; the truth of the shard covers it. */
const FLOODED = 'z';
const text = new TextEncoder();
const untext = new TextDecoder();

export class StoreWorkload implements Workload {
  private readonly calls = new Map<number, WorkloadCall>();
  private readonly operations: Operation[] = [];
  private readonly newest = new Map<string, number>();
  private nextValue = 1;
  /** Calls and ends, in order. */
  private clock = 0;

  createStateMachine(_shardId: number, _replicaId: number, place: MachinePlace): AnyStateMachine {
    if (place.kind === 'on-disk') return new DiskStore(place);
    return place.kind === 'concurrent' ? new ConcurrentStore(place) : new Store();
  }

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
