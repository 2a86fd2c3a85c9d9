/**
 * What a chaos suite is and what it reports. A suite that cannot run here says what it misses; it never passes silently.
 */
import type { Sandbox } from './probes.ts';

export interface SuiteReport {
  readonly suite: string;
  /** Why it did not run; then the rest is empty. */
  readonly skipped?: string;
  readonly seconds: number;
  /** Requests of the recorded clients, and how they ended. */
  readonly operations: number;
  readonly succeeded: number;
  readonly refused: number;
  readonly unknown: number;
  /** Writes under keys of their own that were acknowledged, and how many of them some host does not have. */
  readonly acknowledged: number;
  readonly acknowledgedLost: number;
  readonly keysChecked: number;
  readonly verdict: 'linearizable' | 'violation' | 'unknown' | 'not checked';
  readonly digestsEqual: boolean;
  /** What the suite did and measured, by name. */
  readonly figures: Readonly<Record<string, number>>;
  /** What is wrong, in words; empty when all is well. */
  readonly shortfalls: readonly string[];
}

/** What a suite is given. */
export interface Context {
  readonly seed: number;
  /** Processes the kill suite kills; the other suites take their number of rounds from it. */
  readonly kills: number;
  /** Directory of this run: on a real disk, and removed afterwards unless something is wrong. */
  readonly root: string;
  /** First of the ports on this machine. */
  readonly port: number;
  readonly cleanup: Cleanup;
  log(line: string): void;
}

export interface Suite {
  readonly name: string;
  readonly what: string;
  /** Runs in namespaces of its own, so that nothing it mounts or cuts can outlive it. */
  readonly sandbox: Sandbox;
  /** What it needs and does not find here. */
  missing(): string | undefined;
  run(context: Context): Promise<SuiteReport>;
}

export function skippedReport(suite: string, reason: string): SuiteReport {
  return {
    suite,
    skipped: reason,
    seconds: 0,
    operations: 0,
    succeeded: 0,
    refused: 0,
    unknown: 0,
    acknowledged: 0,
    acknowledgedLost: 0,
    keysChecked: 0,
    verdict: 'not checked',
    digestsEqual: false,
    figures: {},
    shortfalls: [],
  };
}

/** A report of a suite that ended with an error instead of figures. */
export function failedReport(suite: string, reason: string): SuiteReport {
  const { skipped: _, ...empty } = skippedReport(suite, reason);
  return { ...empty, shortfalls: [reason] };
}

/** What must be undone whatever happens: run backwards, once, at the end, at an error, or at Ctrl-C. */
export class Cleanup {
  private steps: { readonly what: string; readonly undo: () => unknown }[] = [];

  /** Gives a function that undoes it now. */
  add(what: string, undo: () => unknown): () => Promise<void> {
    const step = { what, undo };
    this.steps.push(step);
    return async () => {
      if (!this.steps.includes(step)) return;
      this.steps = this.steps.filter((other) => other !== step);
      await undo();
    };
  }

  /** Tells what could not be undone, and goes on. */
  async run(): Promise<void> {
    for (let step = this.steps.pop(); step !== undefined; step = this.steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        console.error(`  cleaning up: ${step.what}: ${(error as Error).message}`);
      }
    }
  }
}

/** Rounds of a suite that does one for every so many kills. */
export function roundsFor(kills: number, killsPerRound: number, max: number): number {
  return Math.max(1, Math.min(max, Math.round(kills / killsPerRound)));
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for a condition, and fails with `what` when it does not come true in time. */
export async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  timeoutMs: number,
  everyMs = 25,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await pause(everyMs);
  }
}
