/**
 * A client session: its commands are applied at most once each, however often they are sent (thesis §6.3). Retries by itself, with
 * the same series, until the deadline. One command is under way at a time; further calls queue behind it.
 */
import { DrakkarError } from './errors.ts';
import type { CallOptions, ProposeOptions } from './config.ts';
import type { Env } from './env/env.ts';
import type { Result } from './rsm/state-machine.ts';
import { EntryType, type SessionFields } from './wire/entry.ts';

/** Calls that wait in one session, and their bytes. */
const QUEUE_MAX = 1024;
const QUEUE_MAX_BYTES = 32 * 1024 * 1024;
/** Pause before a retry; a new leader is usually found within a few. */
const RETRY_MS = 50;
/** Part of the deadline that one try may take before it is sent again. */
const TRY_MS = 1000;

/** Sends one entry of a session; rejects like `propose`. */
export type SessionSender = (
  type: EntryType,
  fields: SessionFields,
  command: Uint8Array,
  timeoutMs: number,
  onCommit?: (index: number) => void,
) => Promise<Result>;

const EMPTY = new Uint8Array(0);

export class Session {
  readonly shardId: number;
  private readonly env: Env;
  private readonly send: SessionSender;
  private readonly defaultTimeoutMs: number;
  private readonly clientHigh: number;
  private readonly clientLow: number;
  private nextSeries = 1;
  private respondedTo = 0;
  private tail: Promise<unknown> = Promise.resolve();
  private queued = 0;
  private queuedBytes = 0;
  private isClosed = false;

  constructor(shardId: number, env: Env, send: SessionSender, defaultTimeoutMs: number) {
    this.shardId = shardId;
    this.env = env;
    this.send = send;
    this.defaultTimeoutMs = defaultTimeoutMs;
    this.clientHigh = env.random.u32();
    this.clientLow = env.random.u32();
  }

  /** For the host: makes the session known to the shard. Registering again, in a retry, is fine. */
  async register(options: CallOptions): Promise<void> {
    await this.untilDeadline(EntryType.SessionRegister, 0, EMPTY, options);
  }

  /**
   * Replicates `command`; resolves with what the state machine answered. After `ERR_TIMEOUT` the outcome is unknown, and the
   * next command may be proposed: the old one is applied at most once, too.
   */
  propose(command: Uint8Array, options: ProposeOptions = {}): Promise<Result> {
    if (this.isClosed)
      return Promise.reject(new DrakkarError('ERR_INVALID_SESSION', 'the session is closed; open another'));
    // One command may wait however large it is.
    const lengthBytes = command instanceof Uint8Array ? command.length : 0;
    const isFull = this.queued >= QUEUE_MAX || this.queuedBytes + lengthBytes > QUEUE_MAX_BYTES;
    if (isFull && this.queued > 0) {
      return Promise.reject(
        new DrakkarError('ERR_SYSTEM_BUSY', `${this.queued} commands wait in this session; open more sessions`, {
          outcome: 'not-applied',
        }),
      );
    }
    this.queuedBytes += lengthBytes;
    const deadlineMs = this.deadlineOf(options);
    return this.enqueue(async () => {
      this.queuedBytes -= lengthBytes;
      this.assertInTime(deadlineMs, options);
      const series = this.nextSeries++;
      const result = await this.untilDeadline(EntryType.SessionCommand, series, command, options, deadlineMs);
      this.respondedTo = series;
      return result;
    });
  }

  /** Frees the session in the shard. */
  async close(options: CallOptions = {}): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    await this.enqueue(() => this.untilDeadline(EntryType.SessionUnregister, 0, EMPTY, options));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private deadlineOf(options: CallOptions): number {
    return this.env.clock.nowMs() + (options.timeoutMs ?? this.defaultTimeoutMs);
  }

  /** When a command's turn comes too late it was never sent. */
  private assertInTime(deadlineMs: number, { signal }: CallOptions): void {
    const outcome = 'not-applied';
    if (signal?.aborted === true) {
      throw new DrakkarError('ERR_ABORTED', 'the call was aborted before its turn came', {
        cause: signal.reason,
        outcome,
      });
    }
    if (this.env.clock.nowMs() >= deadlineMs) {
      throw new DrakkarError('ERR_TIMEOUT', 'the commands in front of it took all of its time; it was not sent', {
        outcome,
      });
    }
  }

  private enqueue<T>(run: () => Promise<T>): Promise<T> {
    this.queued++;
    const result = this.tail.then(run, run).finally(() => {
      this.queued--;
    });
    this.tail = result.catch(() => {});
    return result;
  }

  private async untilDeadline(
    type: EntryType,
    series: number,
    command: Uint8Array,
    options: ProposeOptions,
    deadline = this.deadlineOf(options),
  ): Promise<Result> {
    const { clock } = this.env;
    const { signal } = options;
    const fields: SessionFields = {
      clientHigh: this.clientHigh,
      clientLow: this.clientLow,
      series,
      respondedTo: this.respondedTo,
    };
    // Only the first try that is committed counts: the others are not applied.
    let isTold = false;
    const { onCommit } = options;
    const once = (index: number): void => {
      if (isTold) return;
      isTold = true;
      onCommit?.(index);
    };
    // What one try left open stays open, whatever a later one says.
    let mayBeApplied = false;
    for (;;) {
      const leftMs = deadline - clock.nowMs();
      try {
        if (signal?.aborted === true)
          throw new DrakkarError('ERR_ABORTED', 'the call was aborted', { cause: signal.reason });
        if (leftMs <= 0) throw new DrakkarError('ERR_TIMEOUT', `shard ${this.shardId} did not answer in time`);
        return await this.send(
          type,
          fields,
          command,
          Math.min(leftMs, TRY_MS),
          onCommit === undefined ? undefined : once,
        );
      } catch (error) {
        if (!DrakkarError.is(error)) throw error;
        mayBeApplied ||= error.outcome === 'unknown';
        const isFinal = !error.retryable || error.code === 'ERR_ABORTED' || error.code === 'ERR_SESSION_NOT_FOUND';
        if (isFinal || clock.nowMs() + RETRY_MS >= deadline) {
          if (error.outcome === 'unknown' || !mayBeApplied) throw error;
          throw new DrakkarError(error.code, error.message, { cause: error, outcome: 'unknown' });
        }
        await new Promise<void>((resolve) => void this.env.scheduler.after(RETRY_MS, resolve));
      }
    }
  }
}
