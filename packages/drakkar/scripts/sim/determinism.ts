/** Every seed twice, in processes of their own, maybe of another Node: the same seed must give the same run. */
import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { JOB_TIMEOUT_MS, Pool } from './pool.ts';
import { WORKER, endProgress, progress, replayCommand, type Selection } from './report.ts';

export interface DeterminismOptions extends Selection {
  readonly seeds: number;
  readonly from: number;
  readonly json: boolean;
  /** Path of another Node for every second run. */
  readonly against: string | undefined;
}

function versionOf(node: string): string {
  return execFileSync(node, ['--version'], { encoding: 'utf8' }).trim();
}

export async function runDeterminism(options: DeterminismOptions): Promise<boolean> {
  const { seeds, from, operations, faults, json, against } = options;
  const other = against === undefined ? process.version : versionOf(against);
  console.log(`${seeds} seeds twice, from ${from}, Node ${process.version} and ${other}`);
  const size = Math.max(1, availableParallelism() >>> 1);
  const pools = [new Pool(WORKER, size), new Pool(WORKER, size, JOB_TIMEOUT_MS, against)];
  let equal = 0;
  let done = 0;
  // One hash over all, to be compared between versions of Node.
  let all = 0;
  await Promise.all(
    Array.from({ length: seeds }, async (_, i) => {
      const seed = from + i;
      const job = { kind: 'seed', seed, operations, faults } as const;
      const [first, second] = await Promise.all(pools.map((pool) => pool.run(job)));
      if (first.traceHash === second.traceHash) equal++;
      else
        console.log(`seed ${seed} differs: ${first.traceHash}, ${second.traceHash}\n  ${replayCommand(seed, options)}`);
      all ^= Number.parseInt(first.traceHash.slice(0, 8), 16);
      progress(`${++done} of ${seeds} seeds, ${equal} equal`);
    }),
  );
  for (const pool of pools) pool.close();
  endProgress();
  const hash = (all >>> 0).toString(16).padStart(8, '0');
  console.log(`${equal} of ${seeds} equal; hash of all ${hash}`);
  if (json) console.log(JSON.stringify({ seeds, from, equal, hash, node: process.version, other }));
  return equal === seeds;
}
