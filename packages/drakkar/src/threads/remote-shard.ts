/**
 * A shard that lives in another thread, as its callers here see it: the same ways in as a replica's. Commands are encoded where they are
 * proposed, and wait here under a number for the answer that comes back.
 */
import { OpenBlock } from '../engine/open-block.ts';
import { UNSEALED_BYTES_MAX } from '../engine/limits.ts';
import { PendingRing, type ProposeCallback } from '../engine/pending-ring.ts';
import { DrakkarError } from '../errors.ts';
import type { Result } from '../rsm/state-machine.ts';
import { EntryType, type SessionFields } from '../wire/entry.ts';
import { ENTRY_MAX_BYTES } from '../wire/limits.ts';
import type { Leadership } from '../engine/leader-watch.ts';
import type { LogEntry } from '../engine/log-entries.ts';
import type { ThreadClient } from './client.ts';
import { GRACE_TICKS, THREAD_BYTES_MAX } from './limits.ts';
import type { SessionEntry } from './protocol.ts';
import { watchLeaderRemote, watchRemote, type StreamOptions } from './remote-stream.ts';

export class RemoteShard {
  readonly shardId: number;
  readonly replicaId: number;
  /** What its answers are addressed to: those of an earlier start of the shard must not be taken for its own. */
  readonly port: number;
  readonly openBlock: OpenBlock;
  readonly pending = new PendingRing();
  /** In the list of what the next turn sends. */
  isDirty = false;
  /** Set when the replica was stopped or its thread died. */
  ended: DrakkarError | undefined;
  readonly client: ThreadClient;
  private readonly isWitness: boolean;

  constructor(client: ThreadClient, shardId: number, replicaId: number, port: number, isWitness = false) {
    this.client = client;
    this.isWitness = isWitness;
    this.openBlock = new OpenBlock(client.blockBuffers);
    this.shardId = shardId;
    this.replicaId = replicaId;
    this.port = port;
  }

  /** The reason why nothing can be sent right now; the thread may have others. */
  private refusal(bytes: number, count: number): DrakkarError | undefined {
    if (this.ended !== undefined) return notApplied(this.ended);
    if (bytes > ENTRY_MAX_BYTES) {
      return new DrakkarError('ERR_PAYLOAD_TOO_BIG', `a command of ${bytes} bytes exceeds ${ENTRY_MAX_BYTES}`);
    }
    if (!this.pending.hasRoom(count)) return this.busy('too many proposals wait for their answers');
    const { pendingBytes } = this.openBlock;
    if (pendingBytes + bytes > UNSEALED_BYTES_MAX || this.client.sentBytes + pendingBytes + bytes > THREAD_BYTES_MAX)
      return this.busy('its thread cannot keep up');
    return undefined;
  }

  private busy(why: string): DrakkarError {
    return new DrakkarError('ERR_SYSTEM_BUSY', `shard ${this.shardId} is busy: ${why}; try again later`);
  }

  propose(command: Uint8Array, timeoutTicks: number): Promise<Result> {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const sequence = this.pending.nextSequence;
      this.pending.addPromise(resolve, reject, this.deadline(timeoutTicks));
      this.put(sequence, timeoutTicks, command);
    });
  }

  proposeCallback(command: Uint8Array, callback: ProposeCallback, cookie: number, timeoutTicks: number): void {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) {
      this.client.env.scheduler.defer(() => callback(refusal, 0, cookie));
      return;
    }
    const sequence = this.pending.nextSequence;
    this.pending.addCallback(callback, cookie, this.deadline(timeoutTicks));
    this.put(sequence, timeoutTicks, command);
  }

  proposeBatch(commands: readonly Uint8Array[], timeoutTicks: number): Promise<Result[]> {
    let largest = 0;
    for (let i = 0; i < commands.length; i++) largest = Math.max(largest, commands[i].length);
    const refusal = this.refusal(largest, commands.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (commands.length === 0) return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      const settle = batchOf(commands.length, resolve, reject);
      for (let i = 0; i < commands.length; i++) {
        const sequence = this.pending.nextSequence;
        this.pending.addCallback(settle, i, this.deadline(timeoutTicks));
        this.put(sequence, timeoutTicks, commands[i]);
      }
    });
  }

  proposeSession(type: EntryType, session: SessionFields, command: Uint8Array, timeoutTicks: number): Promise<Result> {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const sequence = this.pending.nextSequence;
      this.pending.addPromise(resolve, reject, this.deadline(timeoutTicks));
      this.openBlock.putSession(type, sequence, timeoutTicks, session, command);
      this.client.markDirty(this);
    });
  }

  read(query: unknown, timeoutTicks: number): Promise<unknown> {
    if (this.ended !== undefined) return Promise.reject(notApplied(this.ended));
    return this.client.read(this.shardId, query, timeoutTicks);
  }

  /** A promise: the answer comes from the other thread. */
  staleRead(query: unknown): Promise<unknown> {
    if (this.ended !== undefined) return Promise.reject(notApplied(this.ended));
    return this.client.read(this.shardId, query, 0);
  }

  /** See `NodeHost.propose`: `onCommit`. Not in a batch with others, but behind those that were proposed before it. */
  proposeNoticed(
    onCommit: (index: number) => void,
    command: Uint8Array,
    timeoutTicks: number,
    session: SessionEntry | undefined,
  ): Promise<Result> {
    const refusal = this.refusal(command.length, 1);
    if (refusal !== undefined) return Promise.reject(refusal);
    const { client, shardId } = this;
    // A copy: a clone of a part of a buffer is one of all of it.
    const args = [shardId, new Uint8Array(command), timeoutTicks, session];
    return client.proposeNoticed(args, command.length, timeoutTicks, (index) => {
      Promise.resolve(index as number)
        .then(onCommit)
        .catch((err: unknown) => client.env.logger.error({ shardId, err }, 'a commit listener threw'));
    });
  }

  /** See `NodeHost.watch`. */
  watch(options: StreamOptions): AsyncIterable<LogEntry> {
    this.assertWatchable();
    if (this.isWitness)
      throw new DrakkarError(
        'ERR_WITNESS',
        `the replica of shard ${this.shardId} on this host is a witness and keeps no entries; ask another host`,
      );
    return watchRemote(this, options);
  }

  /** See `NodeHost.watchLeader`. */
  watchLeader(options: StreamOptions): AsyncIterable<Leadership> {
    this.assertWatchable();
    return watchLeaderRemote(this, options);
  }

  private assertWatchable(): void {
    if (this.ended !== undefined) throw notApplied(this.ended);
  }

  private put(sequence: number, ticks: number, command: Uint8Array): void {
    this.openBlock.put(EntryType.Command, sequence, ticks, command);
    if (!this.isDirty) this.client.markDirty(this);
  }

  /** The thread says so itself; this is for one that does not come to it. */
  private deadline(ticks: number): number {
    return this.client.tickCount + ticks + GRACE_TICKS;
  }

  sweep(tickCount: number): void {
    if (this.pending.count === 0) {
      this.openBlock.release();
      this.pending.release();
      return;
    }
    const { shardId } = this;
    this.pending.expire(tickCount, () => {
      return new DrakkarError('ERR_TIMEOUT', `a proposal to shard ${shardId} was not answered in time`);
    });
  }

  /** Ends all waiting. What never left for the thread certainly was not applied. */
  end(error: DrakkarError): void {
    this.ended = error;
    const unsent = notApplied(error);
    for (let block = this.openBlock.take(); block !== undefined; block = this.openBlock.take()) {
      const { pending } = this;
      block.forEach((sequence) => pending.fail(sequence, unsent));
    }
    this.pending.failAll(error);
  }
}

/** Answers a whole batch. Only when no command was taken it is certain that none will be applied. */
function batchOf(
  size: number,
  resolve: (results: Result[]) => void,
  reject: (error: DrakkarError) => void,
): ProposeCallback {
  const results: Result[] = new Array(size).fill(0);
  let left = size;
  let notTaken = 0;
  let first: DrakkarError | undefined;
  return (error, result, position) => {
    if (error === null) results[position] = result;
    else {
      first ??= error;
      if (error.outcome === 'not-applied') notTaken++;
    }
    if (--left > 0) return;
    if (first === undefined) resolve(results);
    else if (notTaken === size || first.outcome === 'unknown') reject(first);
    else reject(new DrakkarError(first.code, first.message, { cause: first, outcome: 'unknown' }));
  };
}

function notApplied(error: DrakkarError): DrakkarError {
  if (error.outcome === 'not-applied') return error;
  return new DrakkarError(error.code, error.message, { cause: error.cause, outcome: 'not-applied' });
}
