/** Reference runs with a crash at every file operation, until enough states were recovered. */
import { Pool } from './pool.ts';
import { WORKER, endProgress, progress } from './report.ts';

export interface CrashPointsOptions {
  readonly from: number;
  readonly states: number;
  readonly json: boolean;
}

export async function runCrashPoints({ from, states: wanted, json }: CrashPointsOptions): Promise<boolean> {
  console.log(`crash points from seed ${from}`);
  const pool = new Pool(WORKER);
  const failures: { seed: number; message: string }[] = [];
  let states = 0;
  let runs = 0;
  let seed = from;
  const worker = async (): Promise<void> => {
    while (states < wanted && failures.length === 0) {
      const own = seed++;
      const outcome = await pool.run({ kind: 'crash-points', seed: own });
      runs++;
      states += outcome.states ?? 0;
      if (outcome.failure !== undefined) failures.push({ seed: own, message: outcome.failure.message });
      progress(`${states} crash states`);
    }
  };
  await Promise.all([worker(), worker()]);
  pool.close();
  endProgress();
  for (const failure of failures) console.log(`seed ${failure.seed}: ${failure.message}`);
  console.log(`${states} crash states of ${runs} runs recovered, ${failures.length} failures`);
  if (json) console.log(JSON.stringify({ states, runs, from, failures }));
  return failures.length === 0 && states >= wanted;
}
