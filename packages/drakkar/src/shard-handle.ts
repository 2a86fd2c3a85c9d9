/** One shard of a host as its callers see it: the shortest way to `propose` and `read`. */
import type { CallOptions, ProposeOptions } from './config.ts';
import { checkCallOptions, checkProposeOptions } from './config-checks.ts';
import type { Onlookers } from './engine/onlookers.ts';
import type { ProposeCallback } from './engine/pending-ring.ts';
import { BARRIER } from './engine/replica.ts';
import { DrakkarError } from './errors.ts';
import type { SessionEntry } from './threads/protocol.ts';
import type { Result } from './rsm/state-machine.ts';
import type { ConfigChange } from './wire/config-change.ts';
import type { EntryType, SessionFields } from './wire/entry.ts';

/** A replica of this thread, or what stands for one of another thread. */
export interface ShardTarget {
  readonly shardId: number;
  propose(command: Uint8Array, timeoutTicks: number): Promise<Result>;
  proposeBatch(commands: readonly Uint8Array[], timeoutTicks: number): Promise<Result[]>;
  proposeCallback(command: Uint8Array, callback: ProposeCallback, cookie: number, timeoutTicks: number): void;
  proposeSession(type: EntryType, session: SessionFields, command: Uint8Array, timeoutTicks: number): Promise<Result>;
  read(query: unknown, timeoutTicks: number): Promise<unknown>;
  staleRead(query: unknown): unknown;
  /** Absent where the shard lives in another thread: its host there is asked as a whole. */
  changeMembership?(change: ConfigChange, timeoutTicks: number): Promise<Result>;
  /** Absent where the shard lives in another thread: who looks on does so there. */
  readonly onlookers?: Onlookers;
  /** In place of `onlookers.noticed` there. */
  proposeNoticed?(
    onCommit: (index: number) => void,
    command: Uint8Array,
    timeoutTicks: number,
    session: SessionEntry | undefined,
  ): Promise<Result>;
}

const NO_OPTIONS: CallOptions = {};

export class ShardHandle {
  readonly shardId: number;
  private readonly replica: ShardTarget;
  private readonly tickMs: number;
  private readonly defaultTicks: number;

  constructor(replica: ShardTarget, tickMs: number, timeoutMs: number) {
    this.replica = replica;
    this.shardId = replica.shardId;
    this.tickMs = tickMs;
    this.defaultTicks = ticksOf(timeoutMs, tickMs);
  }

  /** See `NodeHost.propose`. */
  propose(command: Uint8Array, options: ProposeOptions = NO_OPTIONS): Promise<Result> {
    if (!(command instanceof Uint8Array)) return Promise.reject(notBytes('propose'));
    if (options === NO_OPTIONS) return this.replica.propose(command, this.defaultTicks);
    const { onCommit } = options;
    return this.guarded(
      'propose',
      options,
      (ticks) => {
        if (onCommit === undefined) return this.replica.propose(command, ticks);
        return proposeNoticed(this.replica, onCommit, command, ticks, undefined);
      },
      checkProposeOptions,
    );
  }

  /** See `NodeHost.proposeBatch`. */
  proposeBatch(commands: readonly Uint8Array[], options: CallOptions = NO_OPTIONS): Promise<Result[]> {
    for (let i = 0; i < commands.length; i++) {
      if (!(commands[i] instanceof Uint8Array)) return Promise.reject(notBytes('proposeBatch'));
    }
    if (options === NO_OPTIONS) return this.replica.proposeBatch(commands, this.defaultTicks);
    return this.guarded('proposeBatch', options, (ticks) => this.replica.proposeBatch(commands, ticks));
  }

  /** Calls `callback` exactly once, never inside this call. */
  proposeCallback(command: Uint8Array, callback: ProposeCallback, cookie = 0): void {
    if (!(command instanceof Uint8Array)) throw notBytes('proposeCallback');
    this.replica.proposeCallback(command, callback, cookie, this.defaultTicks);
  }

  /** For sessions. */
  proposeSession(
    type: EntryType,
    fields: SessionFields,
    command: Uint8Array,
    timeoutMs: number,
    onCommit?: (index: number) => void,
  ): Promise<Result> {
    if (!(command instanceof Uint8Array)) return Promise.reject(notBytes('propose'));
    const ticks = ticksOf(timeoutMs, this.tickMs);
    if (onCommit === undefined) return this.replica.proposeSession(type, fields, command, ticks);
    return proposeNoticed(this.replica, onCommit, command, ticks, [type, fields]);
  }

  /** See `NodeHost.addReplica` and its sisters; `what` is the call's name. */
  async changeMembership(what: string, change: ConfigChange, options: CallOptions): Promise<number> {
    const { timeoutMs, signal } = options;
    const call: CallOptions = {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(signal === undefined ? {} : { signal }),
    };
    return (await this.guarded(what, call, (ticks) => this.replica.changeMembership!(change, ticks))) as number;
  }

  /** See `NodeHost.read`. */
  read(query: unknown, options: CallOptions = NO_OPTIONS): Promise<unknown> {
    if (options === NO_OPTIONS) return this.replica.read(query, this.defaultTicks);
    return this.guarded('read', options, (ticks) => this.replica.read(query, ticks));
  }

  /** See `NodeHost.staleRead`. */
  staleRead(query: unknown): unknown {
    return this.replica.staleRead(query);
  }

  /** Resolves when everything that was committed at the call is applied here. */
  async barrier(timeoutMs: number): Promise<void> {
    await this.replica.read(BARRIER, ticksOf(timeoutMs, this.tickMs));
  }

  private guarded<T>(
    what: string,
    options: CallOptions,
    call: (ticks: number) => Promise<T>,
    checkOptions = checkCallOptions,
  ): Promise<T> {
    try {
      checkOptions(what, options);
    } catch (error) {
      return Promise.reject(error);
    }
    const { signal } = options;
    const ticks = options.timeoutMs === undefined ? this.defaultTicks : ticksOf(options.timeoutMs, this.tickMs);
    if (signal === undefined) return call(ticks);
    if (signal.aborted) {
      return Promise.reject(
        new DrakkarError('ERR_ABORTED', `${what} was aborted before it began`, { outcome: 'not-applied' }),
      );
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void =>
        reject(new DrakkarError('ERR_ABORTED', `${what} was aborted; it may still be applied`));
      signal.addEventListener('abort', onAbort, { once: true });
      call(ticks)
        .then(resolve, reject)
        .finally(() => signal.removeEventListener('abort', onAbort));
    });
  }
}

function ticksOf(timeoutMs: number, tickMs: number): number {
  return Math.max(1, Math.ceil(timeoutMs / tickMs));
}

/** Proposes a command whose caller wants to hear of its commit. */
export function proposeNoticed(
  target: ShardTarget,
  onCommit: (index: number) => void,
  command: Uint8Array,
  ticks: number,
  session: SessionEntry | undefined,
): Promise<Result> {
  const { onlookers } = target;
  if (onlookers === undefined) return target.proposeNoticed!(onCommit, command, ticks, session);
  return onlookers.noticed(onCommit, () =>
    session === undefined ? target.propose(command, ticks) : target.proposeSession(...session, command, ticks),
  );
}

function notBytes(what: string): DrakkarError {
  return new DrakkarError('ERR_INVALID_OPTION', `${what}: a command is bytes; expected a Uint8Array`);
}
