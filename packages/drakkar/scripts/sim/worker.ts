/** Runs one seed after the other for the command that forked it. Also runs from a copy of the sources with a planted bug. */
import { StoreWorkload, crashPoints, damagePoints, simulate } from '../../src/sim/index.ts';
import { Violation } from '../../src/sim/violation.ts';
import { walk } from '../../test/raft/walk.ts';
import type { Answer, Job, Outcome, Verdict } from './messages.ts';

function verdictOfWalk(seed: number): Verdict {
  try {
    walk(seed);
    return { failure: undefined };
  } catch (error) {
    if (error instanceof Violation) return { failure: { kind: error.kind, rule: error.rule, message: error.message } };
    return { failure: { kind: 'crash', rule: 'no replica fails by itself', message: String(error) } };
  }
}

async function run(job: Job): Promise<Outcome | Verdict> {
  const { seed, operations, faults, every } = job;
  if (job.kind === 'walk') return verdictOfWalk(seed);
  const options = {
    seed,
    ...(operations === undefined ? {} : { operations }),
    ...(faults === undefined ? {} : { faults }),
  };
  if (job.kind === 'crash-points') {
    const { trace: _, ...outcome } = await crashPoints({
      ...options,
      workload: () => new StoreWorkload(),
      ...(every === undefined ? {} : { every }),
    });
    return outcome;
  }
  if (job.kind === 'damage') {
    const { trace: _, ...outcome } = await damagePoints({ seed, workload: () => new StoreWorkload() });
    // What is still held, not what nobody collected yet.
    globalThis.gc?.();
    return { ...outcome, rssBytes: process.memoryUsage.rss() };
  }
  const { trace: _, ...outcome } = await simulate({ ...options, workload: new StoreWorkload() });
  return outcome;
}

/** Refusals are many, and nobody reads their stacks: `--seed` has them whole. */
Error.stackTraceLimit = 1;

/** Dead hosts leave megabytes of buffers each, which the collector by itself is slow to give back. */
const COLLECT_EVERY = 10;
let runs = 0;

process.on('message', (job: Job) => {
  run(job).then(
    (outcome) => {
      process.send?.({ id: job.id, outcome } satisfies Answer);
      if (++runs % COLLECT_EVERY === 0) globalThis.gc?.();
    },
    (error: unknown) => {
      console.error(error);
      process.exit(1);
    },
  );
});
process.on('disconnect', () => process.exit(0));
