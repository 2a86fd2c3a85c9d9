/** Waits for a machine that does little else, so that runs can be compared. Linux only; elsewhere it does not wait. */
import { busySeconds, hasProc } from './machine.ts';

const SAMPLE_MS = 400;
/** Of one core. */
const BUSY_SHARE = 0.25;
const ATTEMPTS = 40;

export async function quietMachine(): Promise<boolean> {
  if (!hasProc) return true;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = busySeconds();
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    if ((busySeconds() - before) / (SAMPLE_MS / 1000) < BUSY_SHARE) return true;
  }
  console.error('the machine does not come to rest; figures will be low');
  return false;
}
