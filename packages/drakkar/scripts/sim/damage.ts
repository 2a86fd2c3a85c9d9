/** Damaged bytes until enough were tried: nothing may be lost silently, nothing may crash, and memory must stay flat. */
import { Pool } from './pool.ts';
import { WORKER, endProgress, progress } from './report.ts';

/** Growth of a worker between its second run and its last; buffers come and go within it. */
const RSS_GROWTH_MAX_BYTES = 200 * 1024 * 1024;

export interface DamageOptions {
  readonly from: number;
  readonly damages: number;
  readonly json: boolean;
}

export async function runDamage({ from, damages: wanted, json }: DamageOptions): Promise<boolean> {
  console.log(`damaged bytes from seed ${from}`);
  const failures: { seed: number; message: string }[] = [];
  let damages = 0;
  let refused = 0;
  let seed = from;
  let rssGrowthBytes = 0;
  const worker = async (): Promise<void> => {
    const pool = new Pool(WORKER, 1);
    let firstRss = 0;
    for (let run = 1; damages < wanted && failures.length === 0; run++) {
      const own = seed++;
      const outcome = await pool.run({ kind: 'damage', seed: own });
      damages += outcome.damages ?? 0;
      refused += outcome.refused ?? 0;
      if (outcome.failure !== undefined) failures.push({ seed: own, message: outcome.failure.message });
      const rss = outcome.rssBytes ?? 0;
      if (run <= 2) firstRss = rss;
      rssGrowthBytes = Math.max(rssGrowthBytes, rss - firstRss);
      progress(`${damages} damages, ${refused} refused`);
    }
    pool.close();
  };
  await Promise.all([worker(), worker()]);
  endProgress();
  for (const failure of failures) console.log(`seed ${failure.seed}: ${failure.message}`);
  const growthMiB = Math.round(rssGrowthBytes / 1024 / 1024);
  console.log(
    `${damages} damages: ${refused} refused, ${damages - refused} harmless, ${failures.length} lost something`,
  );
  console.log(`memory of a worker grew by ${growthMiB} MiB`);
  if (json) console.log(JSON.stringify({ damages, refused, from, failures, rssGrowthBytes }));
  return failures.length === 0 && damages >= wanted && rssGrowthBytes < RSS_GROWTH_MAX_BYTES;
}
