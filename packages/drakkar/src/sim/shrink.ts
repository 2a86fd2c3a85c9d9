/** Makes a failing run small: fewer kinds of faults, then fewer calls, as long as the same invariant breaks. */
import type { FaultKind } from './faults.ts';
import { simulate, type SimulationOptions, type SimulationReport } from './simulate.ts';
import type { Workload } from './workload.ts';

export interface ShrinkOptions extends Omit<SimulationOptions, 'workload'> {
  /** A fresh one for every try. */
  readonly workload: () => Workload;
}

export interface Shrunk {
  readonly faults: readonly FaultKind[];
  readonly operations: number;
  /** With its trace. */
  readonly report: SimulationReport;
}

/** `failed` is the report of the run with these options. */
export async function shrink(options: ShrinkOptions, failed: SimulationReport): Promise<Shrunk> {
  let { faults } = failed.plan;
  let { operations } = failed.plan;
  const stillFails = async (tried: readonly FaultKind[], count: number): Promise<boolean> => {
    const report = await simulate({ ...options, workload: options.workload(), faults: tried, operations: count });
    return report.failure?.rule === failed.failure?.rule;
  };
  for (const kind of faults) {
    const fewer = faults.filter((other) => other !== kind);
    if (await stillFails(fewer, operations)) faults = fewer;
  }
  for (let fewer = operations >>> 1; fewer >= 1; fewer >>>= 1) {
    if (!(await stillFails(faults, fewer))) break;
    operations = fewer;
  }
  const report = await simulate({ ...options, workload: options.workload(), faults, operations, trace: true });
  return { faults, operations, report };
}
