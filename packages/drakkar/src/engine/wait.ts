/** Somebody who waits for news, and hears the end: the base of streams that callers iterate. One consumer, one wait at a time. */
import type { DrakkarError } from '../errors.ts';

export class Wait {
  private resolve: (() => void) | undefined;
  isEnded = false;
  /** Nothing that is left over is wanted any more. */
  isAborted = false;
  /** Why it ended; undefined for an end that is nobody's fault. */
  error: DrakkarError | undefined;

  /** Resolves at the next `wake` or `end`. */
  next(): Promise<void> {
    if (this.isEnded) return Promise.resolve();
    return new Promise((resolve) => (this.resolve = resolve));
  }

  wake(): void {
    const { resolve } = this;
    this.resolve = undefined;
    resolve?.();
  }

  abort(error: DrakkarError | undefined): void {
    this.isAborted = true;
    this.end(error);
  }

  end(error: DrakkarError | undefined): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.error = error;
    this.wake();
  }
}

/**
 * What a caller iterates: `begin` runs when the iteration does, `finish` once when it ends. A `return` ends a wait at once, also while a
 * `next` is waiting; `signal` ends it with an error.
 */
export function iterable<W extends Wait, T>(
  begin: () => W,
  values: (wait: W) => AsyncGenerator<T, void, void>,
  finish: (wait: W) => void,
  signal: AbortSignal | undefined,
  aborted: () => DrakkarError,
): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator](): AsyncIterableIterator<T> {
      let wait: W | undefined;
      async function* run(): AsyncGenerator<T, void, void> {
        if (signal?.aborted === true) throw aborted();
        const started = (wait = begin());
        const onAbort = (): void => started.abort(aborted());
        signal?.addEventListener('abort', onAbort, { once: true });
        try {
          yield* values(started);
        } finally {
          signal?.removeEventListener('abort', onAbort);
          finish(started);
        }
      }
      const generator = run();
      return {
        next: () => generator.next(),
        return() {
          wait?.abort(undefined);
          return generator.return();
        },
        throw: (error: unknown) => generator.throw(error),
        [Symbol.asyncIterator]() {
          return this;
        },
      };
    },
  };
}
