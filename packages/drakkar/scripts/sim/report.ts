/** What all parts of the command print in the same way. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FaultKind } from '../../src/sim/index.ts';

export const WORKER: string = fileURLToPath(new URL('worker.ts', import.meta.url));

export interface Selection {
  readonly operations: number | undefined;
  readonly faults: readonly FaultKind[] | undefined;
}

/** Repeats a run. */
export function replayCommand(seed: number, { operations, faults }: Selection): string {
  const more = [
    operations === undefined ? '' : ` --operations ${operations}`,
    faults === undefined ? '' : ` --faults ${faults.join(',')}`,
  ];
  return `npm run sim -- --seed ${seed}${more.join('')}`;
}

/** Of the sources that run; "unknown" outside a clone. */
export function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return 'unknown';
  }
}

export function progress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${line}`);
}

export function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}

export function printCounters(counters: ReadonlyMap<string, number>): void {
  const rows = [...counters].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [name, value] of rows) console.log(`  ${name.padEnd(28)} ${value}`);
}
