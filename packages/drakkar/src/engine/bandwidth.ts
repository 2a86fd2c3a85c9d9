/**
 * A bound on bytes per second that several streams share: a token bucket on the env's clock. Streams take what they are about to move, in
 * pieces so small that none of them stands still for long, and are served in the order in which they asked.
 */
import type { Env } from '../env/env.ts';
import { BANDWIDTH_BURST_MS, BANDWIDTH_PIECES_PER_SECOND } from './limits.ts';

export class Bandwidth {
  private readonly env: Env;
  private readonly bytesPerMs: number;
  private readonly pieceBytes: number;
  /** Everything before this moment is spoken for. */
  private freeAtMs = Number.NEGATIVE_INFINITY;

  /** `bytesPerSecond` 0: no bound. */
  constructor(env: Env, bytesPerSecond: number) {
    this.env = env;
    this.bytesPerMs = bytesPerSecond / 1000;
    this.pieceBytes = Math.max(1, Math.floor(bytesPerSecond / BANDWIDTH_PIECES_PER_SECOND));
  }

  /** The same bytes, as fast as they may go. Throws the reason of `signal`. */
  pace(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.bytesPerMs === 0 ? chunks : this.paced(chunks, signal);
  }

  private async *paced(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length; at += this.pieceBytes) {
        const piece = chunk.subarray(at, at + this.pieceBytes);
        await this.take(piece.length, signal);
        yield piece;
      }
    }
  }

  /** Resolves when `bytes` more may go. */
  take(bytes: number, signal: AbortSignal): Promise<void> {
    const nowMs = this.env.clock.nowMs();
    // What was not used is lost, but for a little: a bound is a bound also after a pause.
    this.freeAtMs = Math.max(this.freeAtMs, nowMs - BANDWIDTH_BURST_MS) + bytes / this.bytesPerMs;
    const waitMs = this.freeAtMs - nowMs;
    if (waitMs <= 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        timer.cancel();
        reject(signal.reason);
      };
      const timer = this.env.scheduler.after(waitMs, () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}
