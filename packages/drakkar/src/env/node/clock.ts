/** Monotonic time of this machine. */
import type { Clock } from '../env.ts';

export const nodeClock: Clock = {
  nowMs: () => performance.now(),
};
