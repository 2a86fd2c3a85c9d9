/**
 * Errors on their way between threads. A structured clone makes a plain `Error` of ours, without code and outcome; so they travel as values,
 * wherever they stand in what a call gives or an event carries.
 */
import { DrakkarError, ERROR_TABLE, type AvailableRange, type ErrorCode, type Outcome } from '../errors.ts';

const TAG = 'drakkar.error.packed';
/** Causes of causes, and values within values: deeper ones are cut off. */
const DEPTH_MAX = 6;

interface PackedError {
  readonly [TAG]: true;
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly code: unknown;
  /** Set for ours only. */
  readonly outcome: Outcome | undefined;
  readonly available: AvailableRange | undefined;
  readonly cause: unknown;
}

export function packError(error: unknown, depth = 0): PackedError {
  if (!(error instanceof Error)) {
    return packError(new Error(typeof error === 'string' ? error : `not an error: ${String(error)}`), depth);
  }
  const { code } = error as { code?: unknown };
  return {
    [TAG]: true,
    name: error.name,
    message: error.message,
    stack: error.stack,
    code: typeof code === 'string' || typeof code === 'number' ? code : undefined,
    outcome: DrakkarError.is(error) ? error.outcome : undefined,
    available: DrakkarError.is(error) ? error.available : undefined,
    cause: error.cause instanceof Error && depth < DEPTH_MAX ? packError(error.cause, depth + 1) : undefined,
  };
}

export function unpackError(packed: unknown): Error {
  const { name, message, stack, code, outcome, available, cause } = packed as PackedError;
  const options = cause === undefined ? {} : { cause: unpackError(cause) };
  let error: Error;
  if (outcome !== undefined && typeof code === 'string' && code in ERROR_TABLE) {
    error = new DrakkarError(code as ErrorCode, message, {
      ...options,
      outcome,
      ...(available === undefined ? {} : { available }),
    });
  } else {
    error = new Error(message, options);
    if (name !== 'Error') error.name = name;
    if (code !== undefined) Object.assign(error, { code });
  }
  // Where it was thrown, not where it arrived.
  if (stack !== undefined) Object.defineProperty(error, 'stack', { value: stack, configurable: true, writable: true });
  return error;
}

/** A copy with every error packed, in plain objects and arrays; other values as they are. */
export function packErrors(value: unknown, depth = 0): unknown {
  if (value instanceof Error) return packError(value);
  return mapPlain(value, packErrors, depth);
}

export function unpackErrors(value: unknown, depth = 0): unknown {
  if (typeof value === 'object' && value !== null && TAG in value) return unpackError(value);
  return mapPlain(value, unpackErrors, depth);
}

function mapPlain(value: unknown, map: (value: unknown, depth: number) => unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || depth >= DEPTH_MAX) return value;
  if (Array.isArray(value)) return value.map((item) => map(item, depth + 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, map(item, depth + 1)]));
}
