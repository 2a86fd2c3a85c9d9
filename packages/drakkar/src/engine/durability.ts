/**
 * Those who wait until something is durable: a replica's write, or the state record of a shard that does not run. Promises that everyone goes
 * on, also when it never will be (the log failed): whoever waited looks at `engine.failure`.
 *
 * Must not touch replicas: what becomes durable is told to their cores by the engine, before those who wait here go on.
 */
import type { Engine } from './engine.ts';
import type { Replica } from './replica.ts';

/** Called when a shard's write number is durable, or at its end. */
interface Waiter {
  readonly replica: Replica;
  readonly write: number;
  readonly resolve: () => void;
}

export class Durability {
  private readonly engine: Engine;
  private waiters: Waiter[] = [];
  /** By shards that do not run. */
  private readonly stateWaiters = new Map<number, () => void>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** Resolves when the replica's write is durable, or when it never will be. */
  whenDurable(replica: Replica, write: number): Promise<void> {
    if (replica.raft.durableWrite >= write || this.engine.failure !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.waiters.push({ replica, write, resolve });
      this.engine.log.flush();
    });
  }

  /** Resolves when the next state record of a shard that does not run is durable, or when it never will be. */
  whenStateDurable(shardId: number): Promise<void> {
    if (this.engine.failure !== undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.stateWaiters.set(shardId, () => {
        this.stateWaiters.delete(shardId);
        resolve();
      });
    });
  }

  stateDurable(shardId: number): void {
    if (this.stateWaiters.size > 0) this.stateWaiters.get(shardId)?.();
  }

  groupDurable(): void {
    if (this.waiters.length === 0) return;
    const { waiters } = this;
    this.waiters = [];
    for (const waiter of waiters) {
      if (waiter.replica.raft.durableWrite >= waiter.write) waiter.resolve();
      else this.waiters.push(waiter);
    }
  }

  /** Nothing will be durable any more. */
  end(): void {
    for (const waiter of this.waiters.splice(0)) waiter.resolve();
    for (const wake of [...this.stateWaiters.values()]) wake();
  }
}
