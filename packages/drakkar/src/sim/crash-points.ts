/**
 * Every file operation of a run as a crash: at each, what a crash could leave of the disk is recovered by a host of its own, and held
 * against all that the host had promised up to that moment.
 */
import type { Keep } from '../testing.ts';
import { Dice } from './dice.ts';
import type { FaultKind } from './faults.ts';
import { recover } from './recover.ts';
import { REFERENCE_FAULTS, simulate, type SimulationReport } from './simulate.ts';
import type { Workload } from './workload.ts';

/** What becomes of the sectors and names that are not flushed. */
export const CRASHES = ['killed', 'dropped', 'kept', 'torn', 'reordered'] as const;
export type Crash = (typeof CRASHES)[number];

export interface CrashPointOptions {
  readonly seed: number;
  readonly workload: () => Workload;
  readonly operations?: number;
  /** Default: `REFERENCE_FAULTS`. */
  readonly faults?: readonly FaultKind[];
  /** Only operations on these. Default: all. */
  readonly paths?: RegExp;
  /** Every so many file operations of each host. Default 1: all. */
  readonly every?: number;
}

export interface CrashPointReport extends SimulationReport {
  readonly states: number;
  /** How many of them at an operation on which kind of file: by its ending. */
  readonly statesByFile: Readonly<Record<string, number>>;
}

export async function crashPoints(options: CrashPointOptions): Promise<CrashPointReport> {
  const { seed, workload, every = 1, paths = /./ } = options;
  const dice = new Dice(seed, 'crash points');
  let states = 0;
  let operations = 0;
  const byFile: Record<string, number> = {};
  const report = await simulate({
    seed,
    workload: workload(),
    operations: options.operations ?? 200,
    faults: options.faults ?? REFERENCE_FAULTS,
    onDiskOperation(host, observer, path) {
      if (!paths.test(path) || operations++ % every !== 0) return;
      const ending = /\.([a-z]+)$/.exec(path)?.[1] ?? 'directory';
      for (const crash of CRASHES) {
        const disk = host.machine.disk.clone();
        if (crash === 'killed') disk.releaseLocks();
        else disk.losePower(keepFor(crash, dice));
        recover({ host, observer, disk, workload: workload() }, crash);
        states++;
        byFile[ending] = (byFile[ending] ?? 0) + 1;
      }
    },
  });
  return { ...report, states, statesByFile: byFile };
}

function keepFor(crash: Crash, dice: Dice): Keep {
  if (crash === 'kept') return () => true;
  if (crash === 'torn') return () => dice.chance(0.5);
  if (crash !== 'reordered') return () => false;
  // The first of what waits is lost, what comes after it is there.
  let asked = 0;
  const lost = 1 + dice.below(4);
  return () => ++asked > lost;
}
