/** One seed, with its trace; a failure is shrunk first. */
import { StoreWorkload, shrink, simulate } from '../../src/sim/index.ts';
import { commit, replayCommand, type Selection } from './report.ts';

export interface ReplayOptions extends Selection {
  readonly seed: number;
  readonly lines: number;
}

export async function replaySeed(options: ReplayOptions): Promise<boolean> {
  const { seed, operations, faults, lines } = options;
  const fixed = {
    seed,
    ...(operations === undefined ? {} : { operations }),
    ...(faults === undefined ? {} : { faults }),
  };
  const report = await simulate({ ...fixed, workload: new StoreWorkload(), trace: true });
  const { plan, failure } = report;
  if (failure === undefined) {
    for (const line of report.trace.slice(lines === 0 ? Infinity : -lines)) console.log(line);
    console.log(`seed ${seed} passes: ${plan.hostCount} hosts, faults ${plan.faults.join(', ') || 'none'}`);
    console.log(`trace hash ${report.traceHash}`);
    return true;
  }
  console.log(`seed ${seed} fails: ${failure.message}\nshrinking …`);
  const small = await shrink({ ...fixed, workload: () => new StoreWorkload() }, report);
  for (const line of small.report.trace.slice(lines === 0 ? Infinity : -lines)) console.log(line);
  console.log(
    [
      `\nseed ${seed}, commit ${commit()}, Node ${process.version}: ${failure.kind}`,
      failure.message,
      `smallest: ${small.operations} calls, faults ${small.faults.join(', ') || 'none'}`,
      replayCommand(seed, small),
    ].join('\n'),
  );
  return false;
}
