/** The event loop's own queues. Timers do not keep the process alive. */
import type { Scheduler } from '../env.ts';

export const nodeScheduler: Scheduler = {
  defer(task) {
    setImmediate(task);
  },
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
