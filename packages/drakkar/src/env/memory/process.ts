/**
 * One process in memory: whatever happens to it (its timers, its disk, its sockets) goes through `run`, so that it can be killed, stopped
 * and continued (SIGSTOP), and so that its clock can drift. After `end` none of its tasks runs any more. A thread is a process inside another: it stops, drifts and
 * ends with that one, and can end by itself.
 */
import type { Clock, Scheduler, Timer } from '../env.ts';
import type { World } from './world.ts';

/** Tasks that a stopped process keeps; more means that the test forgot it. */
const BACKLOG_MAX = 1_000_000;

export class Process implements Clock, Scheduler {
  readonly world: World;
  /** A task ran, here or in a thread, since somebody set it to false. */
  hasRun = false;
  private hasEnded = false;
  private isStopped = false;
  /** Raised when it is stopped and when it goes on: odd while it stands still. */
  standstills = 0;
  private backlog: (() => void)[] = [];
  /** Milliseconds of its clock per virtual millisecond. */
  private rate = 1;
  private clockBase = 0;
  private worldBase: number;

  private readonly parent: Process | undefined;

  constructor(world: World, parent?: Process) {
    this.world = world;
    this.parent = parent;
    this.worldBase = world.nowMs();
    this.clockBase = this.worldBase;
  }

  get isAlive(): boolean {
    return !this.hasEnded && this.parent?.isAlive !== false;
  }

  /** Runs `task` now, when the process continues, or never. */
  run(task: () => void): void {
    if (this.hasEnded) return;
    if (this.parent !== undefined) {
      this.parent.run(() => {
        if (!this.hasEnded) task();
      });
    } else if (!this.isStopped) {
      this.hasRun = true;
      task();
    } else if (this.backlog.push(task) > BACKLOG_MAX) throw new Error(`more than ${BACKLOG_MAX} tasks wait`);
  }

  /** Runs `task` after `delayMs` of virtual time: what comes from outside. */
  enter(delayMs: number, task: () => void): Timer {
    return this.world.schedule(delayMs, () => this.run(task));
  }

  defer(task: () => void): void {
    this.enter(0, task);
  }

  after(delayMs: number, task: () => void): Timer {
    let isCancelled = false;
    const timer = this.enter(delayMs / (this.parent ?? this).rate, () => {
      if (!isCancelled) task();
    });
    return {
      cancel() {
        isCancelled = true;
        timer.cancel();
      },
    };
  }

  nowMs(): number {
    if (this.parent !== undefined) return this.parent.nowMs();
    return this.clockBase + (this.world.nowMs() - this.worldBase) * this.rate;
  }

  /** The clock runs `rate` times as fast from now on, and jumps forward by `stepMs` (a suspended machine). */
  adjustClock(rate: number, stepMs = 0): void {
    this.clockBase = this.nowMs() + stepMs;
    this.worldBase = this.world.nowMs();
    this.rate = rate;
  }

  /** SIGSTOP. */
  stop(): void {
    if (!this.isStopped) this.standstills++;
    this.isStopped = true;
  }

  /** SIGCONT: what came meanwhile is handled in order, each by itself. */
  continue(): void {
    if (!this.isStopped) return;
    this.isStopped = false;
    this.standstills++;
    for (const task of this.backlog.splice(0)) this.enter(0, task);
  }

  end(): void {
    this.hasEnded = true;
    this.backlog = [];
  }
}
