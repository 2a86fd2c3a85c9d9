/** Many walks of the protocol cores alone: every promise is checked at every step, and each must end healed. */
import type { Verdict } from './messages.ts';
import { Pool } from './pool.ts';
import { WORKER, endProgress, progress } from './report.ts';

export interface WalksOptions {
  readonly walks: number;
  readonly from: number;
  readonly json: boolean;
}

export async function runWalks({ walks, from, json }: WalksOptions): Promise<boolean> {
  console.log(`${walks} walks from ${from}`);
  const pool = new Pool(WORKER);
  const failures: { seed: number; message: string }[] = [];
  let done = 0;
  await Promise.all(
    Array.from({ length: walks }, async (_, i) => {
      const { failure } = await pool.run<Verdict>({ kind: 'walk', seed: from + i });
      if (failure !== undefined) failures.push({ seed: from + i, message: failure.message });
      if (++done % 100 === 0) progress(`${done} of ${walks} walks, ${failures.length} failures`);
    }),
  );
  pool.close();
  endProgress();
  for (const { seed, message } of failures) {
    console.log(`walk ${seed}: ${message}\n  npm run sim -- --walks 1 --from ${seed}`);
  }
  console.log(`${walks} walks, ${failures.length} failures`);
  if (json) console.log(JSON.stringify({ walks, from, failures }));
  return failures.length === 0;
}
