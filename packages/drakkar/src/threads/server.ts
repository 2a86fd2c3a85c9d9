/**
 * The thread's end of the channel: opens the thread's part of the host, does what the host asks of it, and sends back answers and events, those
 * of one turn together. Knows the part only as `ServedHost`.
 */
import type { HostDirectory } from '../engine/directory.ts';
import type { ProposeCallback } from '../engine/pending-ring.ts';
import type { Replica } from '../engine/replica.ts';
import type { Env, Logger, ThreadSide } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import { payloadLengthBytes } from '../wire/entry.ts';
import { createStaticRegistry, type Registry } from '../registry/registry.ts';
import { AnswerBatch } from './answer-batch.ts';
import { visitCommands } from './command-batch.ts';
import { packError, packErrors, unpackError } from './error-codec.ts';
import { RemoteRegistry } from './remote-registry.ts';
import type { FromThread, Opening, Question, ReadAnswer, ReadRequest, Reply, ToThread } from './protocol.ts';

/** What runs in the thread. */
export interface ServedHost {
  /** Throws `ERR_SHARD_NOT_FOUND` and the like. */
  replicaOf(shardId: number): Replica;
  /** One of the host's methods. */
  call(method: string, args: readonly unknown[]): unknown;
}

export interface ThreadOpening {
  readonly env: Env;
  readonly directory: HostDirectory;
  readonly registry: Registry;
  /** Hosts are known by their ids. */
  readonly mayMove: boolean;
  readonly options: Opening['options'];
  readonly onEvent: (name: string, payload: unknown) => void;
}

export type OpenServed = (opening: ThreadOpening) => Promise<ServedHost>;

export function serveThread(side: ThreadSide, env: Env, open: OpenServed): void {
  const server = new ThreadServer(side, { ...env, logger: forwardingLogger(side) }, open);
  side.onMessage = (message) => server.onMessage(message as ToThread);
  side.onAsk = (question) => server.answer(question as Question);
}

function forwardingLogger(side: ThreadSide): Logger {
  const forward = (level: string) => (fields: object, message: string) => {
    post(side, { kind: 'log', level, fields: packErrors(fields), message });
  };
  return { debug: forward('debug'), info: forward('info'), warn: forward('warn'), error: forward('error') };
}

function post(side: ThreadSide, message: FromThread, transfer?: readonly ArrayBuffer[]): void {
  side.post(message, transfer);
}

class ThreadServer {
  private readonly side: ThreadSide;
  private readonly env: Env;
  private readonly open: OpenServed;
  private host: ServedHost | undefined;
  private readonly answers = new AnswerBatch();
  private readAnswers: ReadAnswer[] = [];
  private takenBytes = 0;
  private isFlushScheduled = false;
  private readonly aborts = new Map<number, AbortController>();
  private readonly callbacks = new WeakMap<Replica, { readonly port: number; readonly callback: ProposeCallback }>();
  private readonly registry: RemoteRegistry;
  private condemned: ((error: unknown) => void) | undefined;
  private format = 0;
  private readonly enabling: ((error: unknown) => void)[] = [];

  constructor(side: ThreadSide, env: Env, open: OpenServed) {
    this.side = side;
    this.env = env;
    this.open = open;
    this.registry = new RemoteRegistry((target) => post(side, { kind: 'resolve', target }));
  }

  private get opened(): ServedHost {
    if (this.host === undefined) throw new DrakkarError('ERR_CLOSED', 'the engine is not open');
    return this.host;
  }

  onMessage(message: ToThread): void {
    switch (message.kind) {
      case 'propose':
        this.propose(message.buffer);
        break;
      case 'read':
        for (const read of message.reads) this.read(read);
        break;
      case 'call':
        this.call(message, [...message.args]);
        break;
      case 'abort':
        this.aborts.get(message.id)?.abort();
        break;
      case 'open':
        this.settle(message.id, () => this.openHost(message.opening));
        break;
      case 'address':
        this.registry.learn(message.target, message.address);
        break;
      case 'format':
        this.format = message.format;
        break;
      case 'formatEnabled':
        this.enabling.shift()?.(message.error);
        break;
      case 'condemned':
        this.condemned?.(message.error);
        break;
    }
  }

  /** A question of a thread that stands still: between two turns of this one. */
  answer({ method, args }: Question): Reply {
    try {
      return { value: packErrors(this.opened.call(method, args)), error: undefined };
    } catch (error) {
      return { value: undefined, error: packError(error) };
    }
  }

  private async openHost({ options, identity, format, engines, hasRegistry, wantsShards }: Opening): Promise<unknown> {
    this.format = format;
    if (wantsShards) this.registry.tellShard = (view) => post(this.side, { kind: 'shard', view });
    const newestKnown = (): number => this.format;
    const directory: HostDirectory = {
      get format() {
        return newestKnown();
      },
      enableFormat: (wanted) => this.enableFormat(wanted),
      identity,
      engines,
      condemn: (newestStart) => this.condemn(newestStart),
      // The host that started this thread has it.
      release: () => Promise.resolve(),
    };
    this.host = await this.open({
      env: this.env,
      directory,
      registry: hasRegistry ? this.registry : createStaticRegistry({ env: this.env, identity }),
      mayMove: hasRegistry,
      options,
      onEvent: (name, payload) => {
        this.flush(); // who waits for a shard hears why it ended before it hears that it did
        post(this.side, { kind: 'event', name, payload: packErrors(payload) });
      },
    });
    return this.opened.call('engineReports', []);
  }

  private enableFormat(format: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.enabling.push((error) => (error === undefined ? resolve() : reject(unpackError(error))));
      post(this.side, { kind: 'enableFormat', format });
    });
  }

  private condemn(newestStart: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.condemned = (error) => (error === undefined ? resolve() : reject(unpackError(error)));
      post(this.side, { kind: 'condemn', newestStart });
    });
  }

  // Calls.

  private call({ id, method, signalAt, tells }: Extract<ToThread, { kind: 'call' }>, args: unknown[]): void {
    if (tells === true) args.push((value: unknown) => post(this.side, { kind: 'told', id, value }));
    if (signalAt !== undefined) {
      const controller = new AbortController();
      this.aborts.set(id, controller);
      args[signalAt] = { ...(args[signalAt] as object), signal: controller.signal };
    }
    this.settle(id, async () => {
      try {
        return await this.opened.call(method, args);
      } finally {
        this.aborts.delete(id);
      }
    });
  }

  private settle(id: number, run: () => Promise<unknown>): void {
    run().then(
      (value) => this.reply(id, packErrors(value), undefined),
      (error: unknown) => this.reply(id, undefined, packError(error)),
    );
  }

  private reply(id: number, value: unknown, error: unknown): void {
    try {
      post(this.side, { kind: 'answer', id, value, error });
    } catch (cause) {
      post(this.side, { kind: 'answer', id, value: undefined, error: packError(uncloneable('the answer', cause)) });
    }
  }

  // Writes.

  private propose(buffer: ArrayBuffer): void {
    this.takenBytes += buffer.byteLength;
    this.scheduleFlush();
    let port = 0;
    let replica: Replica | undefined;
    let refusal: DrakkarError | undefined;
    let callback: ProposeCallback;
    visitCommands(buffer, {
      onShard: (shardId, to) => {
        port = to;
        refusal = replica = undefined;
        try {
          replica = this.opened.replicaOf(shardId);
          callback = this.callbackOf(replica, to);
        } catch (error) {
          refusal = error as DrakkarError;
        }
      },
      onCommand: (u32, word, sequence, ticks) => {
        const error = refusal ?? replica!.refusal(payloadLengthBytes(u32, word), 1);
        if (error === undefined) takeOver(replica!, u32, word, callback, sequence, ticks);
        else this.answers.add(port, sequence, error, 0);
      },
    });
  }

  /** One for each port, so that a command needs none of its own. */
  private callbackOf(replica: Replica, port: number): ProposeCallback {
    const known = this.callbacks.get(replica);
    if (known?.port === port) return known.callback;
    const callback: ProposeCallback = (error, result, cookie) => {
      this.answers.add(port, cookie, error, result);
      if (!this.isFlushScheduled) this.scheduleFlush();
    };
    this.callbacks.set(replica, { port, callback });
    return callback;
  }

  private scheduleFlush(): void {
    if (this.isFlushScheduled) return;
    this.isFlushScheduled = true;
    this.env.scheduler.defer(this.flush);
  }

  private readonly flush = (): void => {
    this.isFlushScheduled = false;
    if (!this.answers.isEmpty || this.takenBytes > 0) {
      const { buffer, errors } = this.answers.take();
      const taken = this.takenBytes;
      this.takenBytes = 0;
      post(this.side, { kind: 'answers', buffer, errors: errors.map((error) => packError(error)), taken }, [buffer]);
    }
    if (this.readAnswers.length > 0) this.flushReads();
  };

  // Reads.

  private read([shardId, id, query, ticks]: ReadRequest): void {
    try {
      const replica = this.opened.replicaOf(shardId);
      if (ticks === 0) this.answerRead([id, replica.staleRead(query), undefined]);
      else {
        replica.read(query, ticks).then(
          (value) => this.answerRead([id, value, undefined]),
          (error: unknown) => this.answerRead([id, undefined, packError(error)]),
        );
      }
    } catch (error) {
      this.answerRead([id, undefined, packError(error)]);
    }
  }

  private answerRead(answer: ReadAnswer): void {
    this.readAnswers.push(answer);
    this.scheduleFlush();
  }

  private flushReads(): void {
    const answers = this.readAnswers;
    this.readAnswers = [];
    try {
      post(this.side, { kind: 'read', answers });
    } catch {
      // One of them cannot be cloned: each by itself, so that only its caller hears of it.
      for (const answer of answers) this.sendRead(answer);
    }
  }

  private sendRead(answer: ReadAnswer): void {
    try {
      post(this.side, { kind: 'read', answers: [answer] });
    } catch (cause) {
      const error = packError(uncloneable('what the state machine answered', cause));
      post(this.side, { kind: 'read', answers: [[answer[0], undefined, error]] });
    }
  }
}

function takeOver(
  replica: Replica,
  u32: Uint32Array,
  word: number,
  callback: ProposeCallback,
  cookie: number,
  ticks: number,
): void {
  const sequence = replica.pending.nextSequence;
  replica.pending.addCallback(callback, cookie, replica.engine.tickCount + ticks);
  replica.openBlock.putCopyAs(u32, word, sequence, replica.nonce);
  if (!replica.isReady) replica.engine.markReady(replica);
}

function uncloneable(what: string, cause: unknown): DrakkarError {
  return new DrakkarError('ERR_STATE_MACHINE', `${what} cannot be sent to another thread: ${String(cause)}`, {
    cause,
    outcome: 'unknown',
  });
}
