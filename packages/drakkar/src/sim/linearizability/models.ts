/**
 * What the operations mean: the state of one key and how each operation changes it. Every model is of one key, so that a history is
 * checked key by key (Herlihy and Wing's locality; Horn and Kroening, arXiv 1504.00204).
 */
import type { Operation } from './history.ts';

export interface Model<S = unknown> {
  readonly name: string;
  /** State of a key that nothing was done to. */
  readonly initial: S;
  /** The state after the operation; undefined when its answer is impossible in `state`. Any answer fits one whose outcome is unknown. */
  step(state: S, operation: Operation): { readonly state: S } | undefined;
  /** Equal for equal states. */
  keyOf(state: S): string;
  isRead(operation: Operation): boolean;
  /**
   * Whether a write of unknown outcome can be left out: true only when nothing in `others` can tell whether it happened. Leaving it
   * out never accepts what is wrong; leaving out too much rejects what is right.
   */
  isUnseen(write: Operation, others: readonly Operation[]): boolean;
}

const next = <S>(state: S): { readonly state: S } => ({ state });

interface Swap {
  readonly from: unknown;
  readonly to: unknown;
}

/** `read` → value (null before the first write), `write` value. Values written are unique, or unknown writes are kept. */
export const registerModel: Model = {
  name: 'register',
  initial: null,
  step: (state, { f, input, output, isUnknown }) => {
    if (f === 'write') return next(input);
    return isUnknown || same(state, output) ? next(state) : undefined;
  },
  keyOf: (state) => JSON.stringify(state),
  isRead: ({ f }) => f === 'read',
  isUnseen: (write, others) => others.every(({ f, output }) => f !== 'read' || !same(output, write.input)),
};

/** As `register`, and `cas` {from, to} → whether it was swapped. */
export const casModel: Model = {
  ...registerModel,
  name: 'compare-and-swap',
  step: (state, operation) => {
    const { f, input, output, isUnknown } = operation;
    if (f !== 'cas') return registerModel.step(state, operation);
    const { from, to } = input as Swap;
    const swaps = same(state, from);
    return isUnknown || swaps === (output === true) ? next(swaps ? to : state) : undefined;
  },
  // A failed swap may be the write's doing, so that only a history without swaps can do without it.
  isUnseen: (write, others) =>
    write.f === 'write' && others.every(({ f }) => f !== 'cas') && registerModel.isUnseen(write, others),
};

/** `add` n → the new total, `read` → the total. */
export const counterModel: Model<number> = {
  name: 'counter',
  initial: 0,
  step: (state, { f, input, output, isUnknown }) => {
    const after = f === 'add' ? state + (input as number) : state;
    return isUnknown || output === after ? next(after) : undefined;
  },
  keyOf: String,
  isRead: ({ f }) => f === 'read',
  isUnseen: () => false,
};

/** `append` value → the new length, `read` → all values. */
export const listModel: Model<readonly unknown[]> = {
  name: 'list',
  initial: [],
  step: (state, { f, input, output, isUnknown }) => {
    if (f === 'append') {
      return isUnknown || output === state.length + 1 ? next([...state, input]) : undefined;
    }
    return isUnknown || same(state, output) ? next(state) : undefined;
  },
  keyOf: (state) => JSON.stringify(state),
  isRead: ({ f }) => f === 'read',
  isUnseen: () => false,
};

/** `put` value, `get` → value or null, `delete` → whether there was one, `cas` {from, to} → whether it was swapped (null: absent). */
export const keyValueModel: Model = {
  name: 'key-value',
  initial: null,
  step: (state, { f, input, output, isUnknown }) => {
    switch (f) {
      case 'put':
        return next(input);
      case 'get':
        return isUnknown || same(state, output ?? null) ? next(state) : undefined;
      case 'delete':
        return isUnknown || typeof output !== 'boolean' || output === (state !== null) ? next(null) : undefined;
      case 'cas': {
        const { from, to } = input as Swap;
        const swaps = same(state, from);
        return isUnknown || swaps === (output === true) ? next(swaps ? to : state) : undefined;
      }
      default:
        throw new Error(`the key-value model has no operation ${f}`);
    }
  },
  keyOf: (state) => JSON.stringify(state),
  isRead: ({ f }) => f === 'get',
  isUnseen: (write, others) =>
    write.f === 'put' &&
    others.every(({ f, output }) => f === 'put' || (f === 'get' && !same(output ?? null, write.input))),
};

function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
