/**
 * Bugs planted into a copy of the sources: each must be caught, by a seed that the sources as they are pass. One that is not is a hole in
 * the checks; one whose text is gone from the sources is planted anew, never dropped.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PLANTS, type Plant } from './plants.ts';
import { Pool, WorkerFailure } from './pool.ts';
import type { Job, Verdict } from './messages.ts';
import { WORKER, endProgress, progress } from './report.ts';

const HOME = fileURLToPath(new URL('../..', import.meta.url));
const SEEDS_MAX = 1000;
/** A reference run has thousands of file operations: a part of them for each seed. */
const CRASH_POINT_SEEDS_MAX = 60;
const CRASH_POINTS_EVERY = 10;
/** A bug may make a run spin. */
const SEED_TIMEOUT_MS = 120_000;

export interface PlantedOptions {
  readonly only: readonly string[] | undefined;
  readonly from: number;
  readonly json: boolean;
}

interface Catch {
  readonly name: string;
  readonly seeds: number;
  readonly by: string | undefined;
}

export async function runPlanted({ only, from, json }: PlantedOptions): Promise<boolean> {
  const plants = PLANTS.filter(({ name }) => only === undefined || only.includes(name));
  for (const plant of plants) sourceOf(plant, HOME);
  const root = mkdtempSync(join(tmpdir(), 'drakkar-planted-'));
  const caught: Catch[] = [];
  const baseline = new Baseline();
  try {
    const queue = [...plants];
    const next = async (): Promise<void> => {
      for (let plant = queue.shift(); plant !== undefined; plant = queue.shift()) {
        const result = await hunt(plant, join(root, plant.name), from, baseline);
        caught.push(result);
        endProgress();
        const how = result.by === undefined ? 'NOT CAUGHT' : `caught by seed ${result.seeds}: ${result.by}`;
        console.log(`${plant.name.padEnd(40)} ${how}`);
      }
    };
    await Promise.all([next(), next()]);
  } finally {
    baseline.close();
    rmSync(root, { recursive: true, force: true });
  }
  const missed = caught.filter(({ by }) => by === undefined).map(({ name }) => name);
  for (const seed of baseline.broken) console.log(`fails without a planted bug: ${seed}`);
  console.log(`${caught.length - missed.length} of ${plants.length} planted bugs caught`);
  if (json)
    console.log(
      JSON.stringify({ planted: plants.length, caught: caught.length - missed.length, missed, bugs: caught }),
    );
  return missed.length === 0 && baseline.broken.size === 0 && plants.length > 0;
}

async function ruleBrokenBy(pool: Pool, job: Omit<Job, 'id'>): Promise<string | undefined> {
  try {
    return (await pool.run<Verdict>(job)).failure?.rule;
  } catch (error) {
    if (!(error instanceof WorkerFailure)) throw error;
    return 'the process died or hung';
  }
}

/** Whether the sources as they are pass a seed: else it proves nothing about a plant. */
class Baseline {
  readonly broken = new Set<string>();
  private readonly pool = new Pool(WORKER, 1, SEED_TIMEOUT_MS);
  private readonly known = new Map<string, Promise<boolean>>();

  passes(job: Omit<Job, 'id'>): Promise<boolean> {
    const { kind, seed, faults = [], operations = '' } = job;
    const key = `${kind} ${seed} ${faults.join(',')} ${operations}`;
    let answer = this.known.get(key);
    if (answer === undefined) {
      answer = ruleBrokenBy(this.pool, job).then((rule) => {
        if (rule !== undefined) this.broken.add(`${key.trim()}: ${rule}`);
        return rule === undefined;
      });
      this.known.set(key, answer);
    }
    return answer;
  }

  close(): void {
    this.pool.close();
  }
}

async function hunt(plant: Plant, dir: string, from: number, baseline: Baseline): Promise<Catch> {
  copySources(dir);
  apply(plant, dir);
  const pool = new Pool(join(dir, 'scripts/sim/worker.ts'), 1, SEED_TIMEOUT_MS);
  const kind = plant.kind ?? 'seed';
  const most = kind === 'crash-points' ? CRASH_POINT_SEEDS_MAX : SEEDS_MAX;
  try {
    for (let tried = 1; tried <= most; tried++) {
      progress(`${plant.name}: seed ${tried}`);
      const { faults, operations } = plant;
      const every = kind === 'crash-points' ? CRASH_POINTS_EVERY : undefined;
      const job = { kind, seed: from + tried - 1, faults, operations, every } as const;
      const rule = await ruleBrokenBy(pool, job);
      if (rule !== undefined && (await baseline.passes(job))) return { name: plant.name, seeds: tried, by: rule };
    }
    return { name: plant.name, seeds: most, by: undefined };
  } finally {
    pool.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

function copySources(dir: string): void {
  const parts = ['src', 'scripts', 'test/raft', 'package.json'];
  for (const part of parts) cpSync(join(HOME, part), join(dir, part), { recursive: true });
}

export function apply(plant: Plant, dir: string): void {
  const planted = sourceOf(plant, dir).replace(plant.from, () => plant.to);
  writeFileSync(join(dir, 'src', plant.file), planted);
}

/** The file that the plant changes. Throws when its text stands there not exactly once. */
function sourceOf({ name, file, from }: Plant, dir: string): string {
  const source = readFileSync(join(dir, 'src', file), 'utf8');
  const times = source.split(from).length - 1;
  if (times !== 1) throw new Error(`${name}: its text stands in ${file} ${times} times, not once`);
  return source;
}
