/**
 * The host's end of the channel to one thread: sends what callers want of its shards, one message for each turn and kind, and hands out what
 * comes back. When the thread dies everything that waits for it ends with a typed error.
 */
import { BlockBuffers } from '../engine/open-block.ts';
import type { Env, Logger, Thread, Timer } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import type { ShardView } from '../registry/shard-views.ts';
import type { Result } from '../rsm/state-machine.ts';
import { visitAnswers, type AnswerVisitor } from './answer-batch.ts';
import { encodeCommands, type CommandSection } from './command-batch.ts';
import { packError, unpackError, unpackErrors } from './error-codec.ts';
import {
  ASK_TIMEOUT_MS,
  CLOSE_TIMEOUT_MS,
  GRACE_TICKS,
  SWEEP_TICKS,
  THREAD_CALLS_MAX,
  THREAD_READS_MAX,
} from './limits.ts';
import type { FromThread, Opening, ReadRequest, Reply, ToThread } from './protocol.ts';
import { RemoteShard } from './remote-shard.ts';

interface Waiting {
  readonly resolve: (value: any) => void;
  readonly reject: (error: unknown) => void;
  readonly deadlineTick: number;
  /** Ends listening to the caller's signal. */
  readonly done: (() => void) | undefined;
  /** Hears what the thread tells before its answer. */
  readonly onTold?: (value: unknown) => void;
}

export interface ThreadClientOptions {
  readonly env: Env;
  readonly thread: Thread;
  /** For messages to people. */
  readonly name: string;
  readonly tickMs: number;
  onEvent(name: string, payload: unknown): void;
  condemn(newestStart: number): Promise<void>;
  enableFormat(format: number): Promise<void>;
  tellShard(view: ShardView): void;
  resolve(target: string): string | undefined;
  onDied(error: DrakkarError): void;
}

export class ThreadClient {
  readonly env: Env;
  readonly name: string;
  /** Ticks since the start; deadlines are in it. */
  tickCount = 0;
  /** Bytes of commands that the thread has not taken over yet. */
  sentBytes = 0;
  readonly blockBuffers = new BlockBuffers();
  /** By shard, those that run. */
  readonly shards = new Map<number, RemoteShard>();
  private readonly ports = new Map<number, RemoteShard>();
  private lastPort = 0;
  failure: DrakkarError | undefined;
  private readonly thread: Thread;
  private readonly options: ThreadClientOptions;
  private readonly calls = new Map<number, Waiting>();
  private readonly reads = new Map<number, Waiting>();
  private lastId = 0;
  private dirty: RemoteShard[] = [];
  private readRequests: ReadRequest[] = [];
  private isFlushScheduled = false;
  private isClosing = false;
  private timer: Timer | undefined;
  private readonly exited: Promise<void>;

  constructor(options: ThreadClientOptions) {
    this.options = options;
    this.env = options.env;
    this.name = options.name;
    this.thread = options.thread;
    this.thread.onMessage = (message) => this.onMessage(message as FromThread);
    this.exited = new Promise((resolve) => {
      this.thread.onExit = (error) => {
        this.died(error);
        resolve();
      };
    });
    this.arm();
  }

  // Shards.

  addShard(shardId: number, replicaId: number, isWitness = false): void {
    const shard = new RemoteShard(this, shardId, replicaId, ++this.lastPort, isWitness);
    this.shards.set(shardId, shard);
    this.ports.set(shard.port, shard);
  }

  endShard(shardId: number, error: DrakkarError): void {
    const shard = this.shards.get(shardId);
    if (shard === undefined) return;
    this.shards.delete(shardId);
    this.ports.delete(shard.port);
    shard.end(error);
  }

  // Calls.

  open(opening: Opening): Promise<any> {
    return this.wait(this.calls, Number.POSITIVE_INFINITY, undefined, (id) => ({ kind: 'open', id, opening }));
  }

  /** Of a stream that is iterated here. */
  newStreamId(): number {
    return ++this.lastId;
  }

  /** Behind the commands of this turn, and counted as they are. */
  proposeNoticed(
    args: readonly unknown[],
    lengthBytes: number,
    ticks: number,
    onCommit: (index: unknown) => void,
  ): Promise<Result> {
    if (this.dirty.length > 0) this.flushCommands();
    this.sentBytes += lengthBytes;
    const messageOf = (id: number): ToThread => {
      return { kind: 'call', id, method: 'proposeNoticed', args, signalAt: undefined, tells: true };
    };
    return this.wait(this.calls, ticks, undefined, messageOf, onCommit).finally(() => (this.sentBytes -= lengthBytes));
  }

  /** Calls a method of the host in the thread. `timeoutMs` is a bound for a thread that does not answer at all. */
  call(method: string, args: readonly unknown[], timeoutMs = Number.POSITIVE_INFINITY): Promise<any> {
    const signalAt = args.findIndex(hasSignal);
    const signal = signalAt < 0 ? undefined : (args[signalAt] as { signal: AbortSignal }).signal;
    const plain =
      signal === undefined ? args : args.with(signalAt, { ...(args[signalAt] as object), signal: undefined });
    const ticks = Math.ceil(timeoutMs / this.options.tickMs);
    return this.wait(this.calls, ticks, signal, (id) => {
      return { kind: 'call', id, method, args: plain, signalAt: signal === undefined ? undefined : signalAt };
    });
  }

  private wait(
    waiting: Map<number, Waiting>,
    ticks: number,
    signal: AbortSignal | undefined,
    messageOf: (id: number) => ToThread,
    onTold?: (value: unknown) => void,
  ): Promise<any> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (waiting.size >= THREAD_CALLS_MAX)
      return Promise.reject(new DrakkarError('ERR_SYSTEM_BUSY', `${THREAD_CALLS_MAX} calls wait for ${this.name}`));
    return new Promise((resolve, reject) => {
      const id = ++this.lastId;
      try {
        this.post(messageOf(id));
      } catch (cause) {
        reject(uncloneable('an argument', cause));
        return;
      }
      const abort = (): void => this.post({ kind: 'abort', id });
      signal?.addEventListener('abort', abort, { once: true });
      const done = signal && ((): void => signal.removeEventListener('abort', abort));
      const deadlineTick = this.tickCount + ticks + GRACE_TICKS;
      waiting.set(id, { resolve, reject, deadlineTick, done, ...(onTold === undefined ? {} : { onTold }) });
      if (signal?.aborted === true) abort();
    });
  }

  /** Waits for the answer with this thread standing still: for what a host tells about itself. */
  ask(method: string, args: readonly unknown[]): any {
    if (this.failure !== undefined) throw this.failure;
    const reply = this.thread.ask({ method, args }, ASK_TIMEOUT_MS) as Reply | undefined;
    if (reply === undefined) {
      throw new DrakkarError(
        'ERR_TIMEOUT',
        `${this.name} did not come to answer ${method} within ${ASK_TIMEOUT_MS} ms`,
        {
          outcome: 'not-applied',
        },
      );
    }
    if (reply.error !== undefined) throw unpackError(reply.error);
    return unpackErrors(reply.value);
  }

  // What goes out once a turn.

  markDirty(shard: RemoteShard): void {
    if (shard.isDirty) return;
    shard.isDirty = true;
    this.dirty.push(shard);
    this.scheduleFlush();
  }

  /** `ticks` 0: a stale read. */
  read(shardId: number, query: unknown, ticks: number): Promise<unknown> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (this.reads.size >= THREAD_READS_MAX) {
      const why = `shard ${shardId} is busy: too many reads wait for their answers; try again later`;
      return Promise.reject(new DrakkarError('ERR_SYSTEM_BUSY', why));
    }
    return new Promise((resolve, reject) => {
      const id = ++this.lastId;
      this.readRequests.push([shardId, id, query, ticks]);
      const patience = ticks === 0 ? Math.ceil(ASK_TIMEOUT_MS / this.options.tickMs) : ticks + GRACE_TICKS;
      this.reads.set(id, { resolve, reject, deadlineTick: this.tickCount + patience, done: undefined });
      this.scheduleFlush();
    });
  }

  private scheduleFlush(): void {
    if (this.isFlushScheduled) return;
    this.isFlushScheduled = true;
    this.env.scheduler.defer(this.flush);
  }

  private readonly flush = (): void => {
    this.isFlushScheduled = false;
    if (this.failure !== undefined) return;
    if (this.dirty.length > 0) this.flushCommands();
    if (this.readRequests.length > 0) this.flushReads();
  };

  private flushCommands(): void {
    const { dirty } = this;
    this.dirty = [];
    const sections: CommandSection[] = [];
    for (const { shardId, port, openBlock } of dirty) {
      for (let block = openBlock.take(); block !== undefined; block = openBlock.take())
        sections.push({ shardId, port, block });
    }
    const buffer = encodeCommands(sections);
    for (const { block } of sections) this.blockBuffers.give(block);
    for (const shard of dirty) shard.isDirty = false;
    if (buffer.byteLength === 0) return;
    this.sentBytes += buffer.byteLength;
    this.post({ kind: 'propose', buffer }, [buffer]);
  }

  private flushReads(): void {
    const reads = this.readRequests;
    this.readRequests = [];
    try {
      this.post({ kind: 'read', reads });
    } catch {
      // One of them cannot be cloned: each by itself, so that only its caller hears of it.
      for (const read of reads) this.sendRead(read);
    }
  }

  private sendRead(read: ReadRequest): void {
    try {
      this.post({ kind: 'read', reads: [read] });
    } catch (cause) {
      this.take(this.reads, read[1])?.reject(uncloneable('the query', cause));
    }
  }

  private post(message: ToThread, transfer?: readonly ArrayBuffer[]): void {
    this.thread.post(message, transfer);
  }

  // What comes back.

  private onMessage(message: FromThread): void {
    switch (message.kind) {
      case 'answers':
        this.sentBytes -= message.taken;
        visitAnswers(message.buffer, new Answers(this.ports, message.errors, this.env.logger));
        break;
      case 'read':
        for (const [id, value, error] of message.answers) this.settle(this.reads, id, value, error);
        break;
      case 'answer':
        this.settle(this.calls, message.id, unpackErrors(message.value), message.error);
        break;
      case 'told':
        this.calls.get(message.id)?.onTold?.(message.value);
        break;
      case 'event':
        this.options.onEvent(message.name, unpackErrors(message.payload));
        break;
      case 'log':
        this.log(message.level, unpackErrors(message.fields) as object, message.message);
        break;
      case 'resolve':
        this.learn(message.target, this.options.resolve(message.target));
        break;
      case 'shard':
        this.options.tellShard(message.view);
        break;
      case 'enableFormat':
        this.options.enableFormat(message.format).then(
          () => this.post({ kind: 'formatEnabled', error: undefined }),
          (error: unknown) => this.post({ kind: 'formatEnabled', error: packError(error) }),
        );
        break;
      case 'condemn':
        this.options.condemn(message.newestStart).then(
          () => this.post({ kind: 'condemned', error: undefined }),
          (error: unknown) => this.post({ kind: 'condemned', error: packError(error) }),
        );
        break;
    }
  }

  /** The host's directory may hold this format. */
  learnFormat(format: number): void {
    if (this.failure === undefined) this.post({ kind: 'format', format });
  }

  /** Tells the thread where a host is. */
  learn(target: string, address: string | undefined): void {
    if (this.failure === undefined) this.post({ kind: 'address', target, address });
  }

  private log(level: string, fields: object, message: string): void {
    const { logger } = this.env;
    if (level === 'error') logger.error(fields, message);
    else if (level === 'warn') logger.warn(fields, message);
    else if (level === 'info') logger.info(fields, message);
    else logger.debug(fields, message);
  }

  private settle(waiting: Map<number, Waiting>, id: number, value: unknown, error: unknown): void {
    const waiter = this.take(waiting, id);
    if (waiter === undefined) return;
    if (error === undefined) waiter.resolve(value);
    else waiter.reject(unpackError(error));
  }

  private take(waiting: Map<number, Waiting>, id: number): Waiting | undefined {
    const waiter = waiting.get(id);
    waiting.delete(id);
    waiter?.done?.();
    return waiter;
  }

  // Time and ends.

  private arm(): void {
    this.timer = this.env.scheduler.after(this.options.tickMs * SWEEP_TICKS, () => {
      this.tickCount += SWEEP_TICKS;
      for (const shard of this.shards.values()) shard.sweep(this.tickCount);
      this.sweep(this.calls);
      this.sweep(this.reads);
      this.arm();
    });
  }

  private sweep(waiting: Map<number, Waiting>): void {
    for (const [id, { deadlineTick }] of waiting) {
      if (deadlineTick > this.tickCount) continue;
      this.take(waiting, id)!.reject(new DrakkarError('ERR_TIMEOUT', `${this.name} did not answer in time`));
    }
  }

  private died(cause: Error | undefined): void {
    this.timer?.cancel();
    if (this.failure !== undefined) return;
    const error = this.isClosing
      ? new DrakkarError('ERR_CLOSED', 'the host was closed', { outcome: 'unknown' })
      : new DrakkarError(
          'ERR_ENGINE_FAILED',
          `${this.name} died (${cause?.message ?? 'it ended by itself'}); start the host again`,
          { cause },
        );
    this.failure = error;
    for (const waiting of [this.calls, this.reads]) {
      for (const id of [...waiting.keys()]) this.take(waiting, id)!.reject(error);
    }
    if (this.isClosing) for (const shard of this.shards.values()) shard.end(error);
    else this.options.onDied(error);
  }

  /** Closes the host in the thread, and ends the thread. */
  async close(): Promise<void> {
    this.isClosing = true;
    if (this.failure === undefined) {
      // What cannot be closed in order ends all the same.
      await this.call('close', [], CLOSE_TIMEOUT_MS).catch((error: unknown) => {
        if (!DrakkarError.is(error, 'ERR_CLOSED')) this.log('warn', { err: error }, `${this.name} did not close`);
      });
      await this.thread.terminate();
    }
    await this.exited;
  }
}

/** Hands the answers of one message to their callers. */
class Answers implements AnswerVisitor {
  private readonly ports: ReadonlyMap<number, RemoteShard>;
  private readonly errors: readonly DrakkarError[];
  private readonly logger: Logger;
  private shard: RemoteShard | undefined;

  constructor(ports: ReadonlyMap<number, RemoteShard>, errors: readonly unknown[], logger: Logger) {
    this.logger = logger;
    this.ports = ports;
    this.errors = errors.map((error) => unpackError(error) as DrakkarError);
  }

  onPort(port: number): void {
    this.shard = this.ports.get(port);
  }

  onResult(sequence: number, result: Result): void {
    try {
      this.shard?.pending.complete(sequence, result);
    } catch (error) {
      this.threw(error);
    }
  }

  onError(sequence: number, place: number): void {
    try {
      this.shard?.pending.fail(sequence, this.errors[place]);
    } catch (error) {
      this.threw(error);
    }
  }

  /** One callback must not keep the others from their answers. */
  private threw(err: unknown): void {
    this.logger.error({ shardId: this.shard?.shardId, err }, 'the callback of a proposal threw');
  }
}

function hasSignal(value: unknown): boolean {
  return typeof value === 'object' && value !== null && (value as { signal?: unknown }).signal instanceof AbortSignal;
}

function uncloneable(what: string, cause: unknown): DrakkarError {
  return new DrakkarError('ERR_INVALID_OPTION', `${what} cannot be sent to another thread: ${String(cause)}`, {
    cause,
  });
}
