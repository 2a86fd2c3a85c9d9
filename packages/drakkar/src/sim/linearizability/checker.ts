/**
 * Is there an order of the operations that agrees with their times and in which every answer is right? The search of Wing and Gong (1993)
 * with Lowe's cache of states that led nowhere (2017). Exponential in the operations that overlap, so that it is bounded: then it says
 * that it does not know.
 */
import type { Operation } from './history.ts';
import type { Model } from './models.ts';

export type Verdict = 'linearizable' | 'violation' | 'unknown';

export interface CheckResult {
  readonly verdict: Verdict;
  /** Operations tried. */
  readonly steps: number;
  /** Of a violation, or of where it gave up. */
  readonly key?: string;
  readonly explanation?: string;
}

/** Operations tried for one key before giving up. */
export const STEPS_MAX = 5_000_000;
/** States remembered for one key; each takes some hundred bytes. */
export const STATES_MAX = 2_000_000;

export interface CheckOptions {
  /** Default `STEPS_MAX`. */
  readonly maxSteps?: number;
}

export function checkLinearizability<S>(
  operations: readonly Operation[],
  model: Model<S>,
  options: CheckOptions = {},
): CheckResult {
  const byKey = new Map<string, Operation[]>();
  for (const operation of operations) {
    const list = byKey.get(operation.key);
    if (list === undefined) byKey.set(operation.key, [operation]);
    else list.push(operation);
  }
  let steps = 0;
  let gaveUp: CheckResult | undefined;
  for (const [key, list] of byKey) {
    const result = checkKey(key, relevant(list, model), model, options.maxSteps ?? STEPS_MAX);
    steps += result.steps;
    if (result.verdict === 'violation') return { ...result, steps };
    if (result.verdict === 'unknown') gaveUp ??= result;
  }
  return gaveUp === undefined ? { verdict: 'linearizable', steps } : { ...gaveUp, steps };
}

/** Without what nobody can have seen. */
function relevant<S>(operations: readonly Operation[], model: Model<S>): Operation[] {
  return operations.filter((operation) => {
    if (!operation.isUnknown) return true;
    return !model.isRead(operation) && !model.isUnseen(operation, operations);
  });
}

/** A call or a return; linked in order, and unlinked while its operation is linearized. */
interface Entry {
  readonly at: number;
  readonly operation: number;
  /** Of a call: its return. */
  readonly match: Entry | undefined;
  previous: Entry | undefined;
  next: Entry | undefined;
}

function link(operations: readonly Operation[]): Entry {
  const entries: Entry[] = [];
  for (const [operation, { call, return: end }] of operations.entries()) {
    const back: Entry = { at: end, operation, match: undefined, previous: undefined, next: undefined };
    entries.push(back, { at: call, operation, match: back, previous: undefined, next: undefined });
  }
  // What begins when something else ends may overlap it.
  entries.sort((a, b) => a.at - b.at || Number(a.match === undefined) - Number(b.match === undefined));
  const head: Entry = { at: -1, operation: -1, match: undefined, previous: undefined, next: undefined };
  let last = head;
  for (const entry of entries) {
    entry.previous = last;
    last.next = entry;
    last = entry;
  }
  return head;
}

function unlink(entry: Entry): void {
  entry.previous!.next = entry.next;
  if (entry.next !== undefined) entry.next.previous = entry.previous;
}

function relink(entry: Entry): void {
  entry.previous!.next = entry;
  if (entry.next !== undefined) entry.next.previous = entry;
}

function checkKey<S>(key: string, operations: readonly Operation[], model: Model<S>, maxSteps: number): CheckResult {
  const ordered = [...operations].sort((a, b) => a.call - b.call);
  const head = link(ordered);
  const done = new Done(ordered.length);
  const dead = new Set<string>();
  const stack: { readonly entry: Entry; readonly state: S }[] = [];
  let state = model.initial;
  let steps = 0;
  let longest: Operation[] = [];
  // All operations that must have happened have; those of unknown outcome may be left.
  let mustDo = ordered.filter(({ isUnknown }) => !isUnknown).length;
  let entry = head.next;
  while (mustDo > 0) {
    if (entry?.match !== undefined) {
      if (++steps > maxSteps || dead.size > STATES_MAX) {
        return { verdict: 'unknown', steps, key, explanation: `gave up on ${key} after ${steps} steps` };
      }
      const operation = ordered[entry.operation];
      const after = model.step(state, operation);
      if (after !== undefined) {
        done.add(entry.operation);
        const mark = `${done.key()}|${model.keyOf(after.state)}`;
        if (!dead.has(mark)) {
          dead.add(mark);
          stack.push({ entry, state });
          state = after.state;
          unlink(entry.match);
          unlink(entry);
          if (!operation.isUnknown) mustDo--;
          if (stack.length > longest.length) longest = stack.map((item) => ordered[item.entry.operation]);
          entry = head.next;
          continue;
        }
        done.remove(entry.operation);
      }
      entry = entry.next;
      continue;
    }
    // A return whose operation is not done, or the end: the last choice was wrong.
    const last = stack.pop();
    if (last === undefined) return { verdict: 'violation', steps, key, explanation: explain(key, ordered, longest) };
    ({ state } = last);
    const { entry: undone } = last;
    done.remove(undone.operation);
    if (!ordered[undone.operation].isUnknown) mustDo++;
    relink(undone);
    relink(undone.match!);
    entry = undone.next;
  }
  return { verdict: 'linearizable', steps };
}

/** The operations that are done: all up to a point, and a few beyond. */
class Done {
  private readonly flags: Uint8Array;
  /** Everything before it is done. */
  private prefix = 0;
  private count = 0;

  constructor(size: number) {
    this.flags = new Uint8Array(size);
  }

  add(operation: number): void {
    this.flags[operation] = 1;
    this.count++;
    while (this.prefix < this.flags.length && this.flags[this.prefix] === 1) this.prefix++;
  }

  remove(operation: number): void {
    this.flags[operation] = 0;
    this.count--;
    if (operation < this.prefix) this.prefix = operation;
  }

  /** Equal for equal sets. */
  key(): string {
    let key = String(this.prefix);
    let left = this.count - this.prefix;
    for (let i = this.prefix; left > 0; i++) {
      if (this.flags[i] === 0) continue;
      key += `,${i}`;
      left--;
    }
    return key;
  }
}

const EXPLAINED_MAX = 8;

function explain(key: string, operations: readonly Operation[], longest: readonly Operation[]): string {
  const fitted = new Set(longest);
  const show = ({ process, f, input, output, isUnknown }: Operation): string =>
    `  process ${process}: ${f} ${JSON.stringify(input ?? null)} → ${isUnknown ? '?' : JSON.stringify(output ?? null)}`;
  const before = longest.slice(-EXPLAINED_MAX).map(show);
  const left = operations.filter((operation) => !fitted.has(operation)).slice(0, EXPLAINED_MAX);
  return [
    `key ${key}: ${longest.length} of ${operations.length} operations fit in an order; the last of them`,
    ...before,
    'and then none of these can follow:',
    ...left.map(show),
  ].join('\n');
}
