/** Many seeds: none may fail, and together they must reach every interesting state. */
import { FAULT_KINDS } from '../../src/sim/index.ts';
import { Pool } from './pool.ts';
import { WORKER, commit, endProgress, printCounters, progress, replayCommand, type Selection } from './report.ts';

/** A swarm that never comes here does not test what it claims to. */
const MUST_REACH = [
  'elections',
  'truncations',
  'snapshotsCreated',
  'snapshotsInstalled',
  'logCompactions',
  'segmentsFreed',
  'blocksMoved',
  'transfersDone',
  'transfersAborted',
  'recoveries',
  'sectorsTorn',
  'framesLost',
  'framesRepeated',
  'framesReordered',
  'framesReplayed',
  'bytesCorrupted',
  'hostFailures',
  'writesFailed',
  'readsFailed',
  'readsFlipped',
  'diskFullPeriods',
  'membersRefused',
  'damagedHostsHalted',
  'majoritiesLost',
  'sessionsOpened',
  'entriesStreamed',
  'streamsOvertaken',
  'queriesAnswered',
  'queriesTooLate',
  'queriesTooEarly',
  'leadersWatched',
  'commitsNoticed',
  'proposalsHeldBack',
  'diskStalls',
  'error ERR_DISK_STALLED',
  'snapshotsWithoutState',
  'imagesStreamed',
  'imagesShrunk',
  'storesBehind',
  'storesRefused',
  'error ERR_SESSION_NOT_FOUND',
  'error ERR_DROPPED',
  'error ERR_TIMEOUT',
  'error ERR_NO_LEADER',
] as const;
/** Below it chance alone may keep a counter at zero. */
const SEEDS_TO_REACH_ALL = 1500;

export interface SeedsOptions extends Selection {
  readonly seeds: number;
  readonly from: number;
  readonly json: boolean;
}

export async function runSeeds(options: SeedsOptions): Promise<boolean> {
  const { seeds, from, operations, faults, json } = options;
  const started = performance.now();
  console.log(`${seeds} seeds from ${from}, commit ${commit()}, Node ${process.version}`);
  const pool = new Pool(WORKER);
  const counters = new Map<string, number>();
  const replicas = new Map<number, number>();
  const failures: { seed: number; kind: string; message: string }[] = [];
  let fewestOperations = Number.POSITIVE_INFINITY;
  let done = 0;
  await Promise.all(
    Array.from({ length: seeds }, async (_, i) => {
      const seed = from + i;
      try {
        const outcome = await pool.run({ kind: 'seed', seed, operations, faults });
        for (const [name, value] of Object.entries(outcome.counters)) add(counters, name, value);
        add(replicas, outcome.plan.hostCount, 1);
        fewestOperations = Math.min(fewestOperations, outcome.plan.operations);
        if (outcome.failure !== undefined) failures.push({ seed, ...outcome.failure });
      } catch (error) {
        failures.push({ seed, kind: 'crash', message: String(error) });
      }
      progress(`${++done} of ${seeds} seeds, ${failures.length} failures`);
    }),
  );
  pool.close();
  endProgress();
  const seconds = (performance.now() - started) / 1000;
  const faultKinds = FAULT_KINDS.filter((kind) => (counters.get(`fault ${kind}`) ?? 0) > 0).length;
  const missing = seeds < SEEDS_TO_REACH_ALL || faults !== undefined ? [] : missed(counters);
  printCounters(counters);
  for (const { seed, kind, message } of failures) {
    console.log(`\nseed ${seed}, ${kind}: ${message}\n  ${replayCommand(seed, options)}`);
  }
  for (const name of missing) console.log(`never reached: ${name}`);
  const safety = failures.filter(({ kind }) => kind !== 'liveness').length;
  const summary = {
    seeds,
    from,
    seconds: Math.round(seconds),
    safetyFailures: safety,
    livenessFailures: failures.length - safety,
    faultKinds,
    fewestOperations,
    replicas: Object.fromEntries([...replicas].sort(([a], [b]) => a - b)),
    neverReached: missing,
    counters: Object.fromEntries([...counters].sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  console.log(
    `${seeds} seeds in ${summary.seconds} s: ${safety} safety and ${summary.livenessFailures} liveness failures, ` +
      `${faultKinds} kinds of faults, runs by number of hosts ${JSON.stringify(summary.replicas)}`,
  );
  if (json) console.log(JSON.stringify(summary));
  return failures.length === 0 && missing.length === 0;
}

function missed(counters: ReadonlyMap<string, number>): string[] {
  const kinds = FAULT_KINDS.map((kind) => `fault ${kind}`);
  return [...MUST_REACH, ...kinds].filter((name) => (counters.get(name) ?? 0) === 0);
}

function add<K>(counts: Map<K, number>, name: K, value: number): void {
  counts.set(name, (counts.get(name) ?? 0) + value);
}
