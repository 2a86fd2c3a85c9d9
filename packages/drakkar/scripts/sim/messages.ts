/** What the command and its worker processes say to each other. */
import type { CrashPointReport, DamagePointReport, FaultKind, SimulationReport } from '../../src/sim/index.ts';

export interface Job {
  readonly id: number;
  readonly kind: 'seed' | 'crash-points' | 'damage' | 'walk';
  readonly seed: number;
  readonly operations?: number | undefined;
  readonly faults?: readonly FaultKind[] | undefined;
  /** For crash points: every so many file operations. */
  readonly every?: number | undefined;
}

export type Outcome = Omit<SimulationReport, 'trace'> &
  Partial<Pick<CrashPointReport, 'states'>> &
  Partial<Pick<DamagePointReport, 'damages' | 'refused'>> & { readonly rssBytes?: number };

/** All that a walk of the cores says of itself. */
export type Verdict = Pick<Outcome, 'failure'>;

export interface Answer {
  readonly id: number;
  readonly outcome: Outcome | Verdict;
}
