/**
 * One signal for several causes. `AbortSignal.any` would hold whoever listens to it for as long as nobody aborts and nobody stops
 * listening, in a set of the whole process: a simulated host that dies in the middle of a stream would never go.
 */

/** Runs `work` with a signal that aborts with the first of `signals`, and lets go of them when it has ended. */
export async function withEither<T>(
  signals: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const either = new AbortController();
  const onAbort = (event: { readonly target: unknown }): void => either.abort((event.target as AbortSignal).reason);
  for (const signal of signals) {
    if (signal.aborted) either.abort(signal.reason);
    else signal.addEventListener('abort', onAbort, { once: true });
  }
  try {
    return await work(either.signal);
  } finally {
    for (const signal of signals) signal.removeEventListener('abort', onAbort);
  }
}
