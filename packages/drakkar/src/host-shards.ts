/** Who answers for a shard of this host: a replica of this thread, or the thread that the shard lives in. */
import type { CallOptions } from './config.ts';
import type { Replica } from './engine/replica.ts';
import { DrakkarError } from './errors.ts';
import type { HostParts } from './host-parts.ts';
import { ShardHandle, type ShardTarget } from './shard-handle.ts';

export class HostShards {
  /** No call is taken any more. */
  isClosing = false;
  private readonly parts: HostParts;
  private readonly handles = new Map<number, ShardHandle>();

  constructor(parts: HostParts) {
    this.parts = parts;
  }

  get failure(): DrakkarError | undefined {
    return (this.parts.threads ?? this.parts.engines).failure;
  }

  assertOpen(): void {
    if (this.isClosing) throw new DrakkarError('ERR_CLOSED', 'the host was closed');
    const { failure } = this;
    if (failure !== undefined) throw failure;
  }

  /** The one that is in use already, for hot paths. */
  known(shardId: number): ShardHandle | undefined {
    return this.handles.get(shardId);
  }

  handle(shardId: number): ShardHandle {
    let handle = this.handles.get(shardId);
    if (handle === undefined) {
      const { tickMs, timeoutMs } = this.parts.waiter;
      handle = new ShardHandle(this.target(shardId), tickMs, timeoutMs);
      this.handles.set(shardId, handle);
    }
    return handle;
  }

  /** Its handle is void: it stopped, or is started anew. */
  forget(shardId: number): void {
    this.handles.delete(shardId);
  }

  close(): void {
    this.isClosing = true;
    this.handles.clear();
  }

  private target(shardId: number): ShardTarget {
    this.assertOpen();
    return this.parts.threads === undefined ? this.replica(shardId) : this.parts.threads.shard(shardId);
  }

  /** Only of this thread. */
  replica(shardId: number): Replica {
    this.assertOpen();
    const replica = this.parts.engines.find(shardId);
    if (replica === undefined) throw this.parts.engines.whyNotHere(shardId);
    return replica;
  }

  isRunning(shardId: number): boolean {
    return this.parts.engines.find(shardId) !== undefined || this.parts.threads?.isRunning(shardId) === true;
  }

  /** Asks the replica itself, or the host in the thread that it lives in: there by the name of the method. */
  async ask<T>(
    shardId: number,
    method: string,
    args: readonly unknown[],
    options: CallOptions,
    here: (replica: Replica) => Promise<T>,
  ): Promise<T> {
    const { threads, waiter } = this.parts;
    if (threads === undefined) return here(this.replica(shardId));
    this.assertOpen();
    const { timeoutMs = waiter.timeoutMs, signal } = options;
    if (signal?.aborted === true)
      throw new DrakkarError('ERR_ABORTED', `${method} was aborted before it began`, { outcome: 'not-applied' });
    return threads.call(shardId, method, [shardId, ...args], timeoutMs);
  }
}
