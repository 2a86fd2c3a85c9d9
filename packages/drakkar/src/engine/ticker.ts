/**
 * Time for the replicas of an engine: one timer, and a list of those that need ticks. A silent replica is not in it, so that a tick
 * costs what is awake, not what is there.
 */
import type { Timer } from '../env/env.ts';
import type { Engine } from './engine.ts';
import { GUEST_CHECK_TICKS } from './limits.ts';
import type { Replica } from './replica.ts';
import { needsTicks, restEngine, restReplica } from './rest.ts';

export class Ticker {
  private readonly engine: Engine;
  private readonly tickMs: number;
  private readonly active: Replica[] = [];
  private timer: Timer | undefined;
  private isStopped = false;

  constructor(engine: Engine, tickMs: number) {
    this.engine = engine;
    this.tickMs = tickMs;
  }

  /** Replicas that get ticks. */
  get activeCount(): number {
    return this.active.length;
  }

  start(): void {
    this.timer = this.engine.env.scheduler.after(this.tickMs, this.onTimer);
  }

  stop(): void {
    this.isStopped = true;
    this.timer?.cancel();
  }

  /** Ticks `replica` until it neither runs timers nor has callers whose deadlines pass. */
  activate(replica: Replica): void {
    if (replica.isTicking) return;
    replica.isTicking = true;
    this.active.push(replica);
  }

  /** After a stall of the loop the input that waits is handled first, and a late timer counts as one tick (design §5). */
  private readonly onTimer = (): void => {
    if (!this.isStopped) this.engine.env.scheduler.defer(this.tick);
  };

  private readonly tick = (): void => {
    if (this.isStopped) return;
    const { engine, active } = this;
    const tickCount = ++engine.tickCount;
    engine.liveness.tick(tickCount);
    engine.formats.tick(tickCount);
    if (tickCount % GUEST_CHECK_TICKS === 0) engine.ways.checkGuests();
    let kept = 0;
    for (let i = 0; i < active.length; i++) {
      const replica = active[i];
      if (replica.status === 'running') {
        try {
          replica.tick(tickCount);
          if (replica.raft.needsCatchUp) engine.markReady(replica);
        } catch (error) {
          engine.failReplica(replica, error);
        }
      }
      if (replica.status === 'running' && needsTicks(replica)) active[kept++] = replica;
      else {
        replica.isTicking = false;
        restReplica(replica);
      }
    }
    if (kept === 0 && active.length > 0) restEngine(engine);
    active.length = kept;
    this.start();
  };
}
