/** Who waits until a replica knows a leader: woken by the change, so that ten thousand shards that start together are not asked in turn. */
import type { Scheduler } from '../env/env.ts';
import type { Replica } from './replica.ts';

export class LeaderWaits {
  private readonly waiters = new Map<Replica, Set<() => void>>();

  /** Resolves at the next change of the replica's leader, at its end, or after `limitMs`. */
  wait(replica: Replica, scheduler: Scheduler, limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.waiters.get(replica) ?? new Set();
      this.waiters.set(replica, waiting);
      const done = (): void => {
        timer.cancel();
        waiting.delete(done);
        if (waiting.size === 0 && this.waiters.get(replica) === waiting) this.waiters.delete(replica);
        resolve();
      };
      const timer = scheduler.after(limitMs, done);
      waiting.add(done);
    });
  }

  changed(replica: Replica): void {
    const waiting = this.waiters.get(replica);
    if (waiting !== undefined) for (const done of [...waiting]) done();
  }
}
