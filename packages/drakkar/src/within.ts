/** A caller's patience: its deadline and its signal. Knows nothing of what is waited for. */
import type { CallOptions } from './config.ts';
import type { Env } from './env/env.ts';
import { DrakkarError, type Outcome } from './errors.ts';

/** What a host knows of time. */
export interface Waiter {
  readonly env: Env;
  readonly tickMs: number;
  /** Of calls that name none. */
  readonly timeoutMs: number;
}

/** `work` under the caller's deadline and signal; it goes on without them. */
export function within<T>(
  waiter: Waiter,
  work: Promise<T>,
  options: CallOptions,
  meanwhile: string,
  outcome: Outcome = 'unknown',
): Promise<T> {
  const { signal, timeoutMs = waiter.timeoutMs } = options;
  return new Promise((resolve, reject) => {
    const timer = waiter.env.scheduler.after(timeoutMs, () => {
      reject(new DrakkarError('ERR_TIMEOUT', `not done within ${timeoutMs} ms; ${meanwhile}`, { outcome }));
    });
    const onAbort = (): void =>
      reject(new DrakkarError('ERR_ABORTED', `the call was aborted; ${meanwhile}`, { cause: signal?.reason, outcome }));
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => {
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
    });
  });
}
