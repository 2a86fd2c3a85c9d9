/** Waits for a machine that does little else, so that runs can be compared. Linux only; elsewhere it does not wait. */
import { existsSync, readFileSync } from 'node:fs';

const SAMPLE_MS = 400;
/** Of one core. */
const BUSY_SHARE = 0.25;
const ATTEMPTS = 40;
const STAT = '/proc/stat';

/** CPU time that everybody used since boot, in hundredths of a second. */
function busyTicks(): number {
  const fields = readFileSync(STAT, 'utf8').split('\n', 1)[0].trim().split(/\s+/).slice(1).map(Number);
  return fields[0] + fields[1] + fields[2] + fields[5] + fields[6];
}

export async function quietMachine(): Promise<void> {
  if (!existsSync(STAT)) return;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = busyTicks();
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    if ((busyTicks() - before) / (SAMPLE_MS / 10) < BUSY_SHARE) return;
  }
  console.error('the machine does not come to rest; figures will be low');
}
