/**
 * `npm run sim`: the simulator over many seeds, on all cores. Prints what was reached and exits with 1 when something fell short.
 */
import { parseArgs } from 'node:util';
import { FAULT_KINDS, type FaultKind } from '../src/sim/index.ts';
import { runCrashPoints } from './sim/crash-points.ts';
import { runDamage } from './sim/damage.ts';
import { runDeterminism } from './sim/determinism.ts';
import { runPlanted } from './sim/planted.ts';
import { replaySeed } from './sim/replay.ts';
import { runSeeds } from './sim/seeds.ts';
import { runWalks } from './sim/walks.ts';

const HELP = `npm run sim -- [what] [options]

What (default --seeds 100):
  --seeds N            N runs with a seed each; every invariant after every step, then liveness
  --walks N            N walks of the protocol cores alone, without hosts, through loss, crashes and late disks
  --determinism N      N seeds twice each; every pair must be equal event for event; --against PATH: the second with another Node
  --planted            bugs planted into a copy of the sources, each must be caught; --only NAME for some of them
  --crash-points       every file operation of reference runs as a crash, five ways each
  --damage N           N damaged bytes, sectors and pages of logs, snapshots and identities, one at a time
  --seed S             one seed with its trace; a failure is shrunk

Options:
  --from S             first seed (default: drawn; printed)
  --operations N       client calls of a run (default: 500 or a little more)
  --faults a,b         only these kinds of faults
  --states N           crash states to reach (default 20000)
  --lines N            lines of the trace (default 60)
  --only a,b           names of planted bugs
  --against PATH       another Node, for --determinism
  --json               one object on the last line`;

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    walks: { type: 'string' },
    determinism: { type: 'string' },
    damage: { type: 'string' },
    planted: { type: 'boolean', default: false },
    'crash-points': { type: 'boolean', default: false },
    seed: { type: 'string' },
    from: { type: 'string' },
    operations: { type: 'string' },
    faults: { type: 'string' },
    states: { type: 'string' },
    lines: { type: 'string' },
    only: { type: 'string' },
    against: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function count(name: keyof typeof values, fallback: number): number {
  const text = values[name];
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new Error(`--${name} is ${String(text)}; expected a whole number`);
  return value;
}

function faults(): readonly FaultKind[] | undefined {
  if (values.faults === undefined) return undefined;
  return values.faults
    .split(',')
    .filter(Boolean)
    .map((name) => {
      const kind = FAULT_KINDS.find((known) => known === name);
      if (kind === undefined) throw new Error(`there is no fault ${name}; there are ${FAULT_KINDS.join(', ')}`);
      return kind;
    });
}

/** Below 2^31, so that seeds are short to read. */
const drawn = (): number => Math.floor(Math.random() * 0x7fff_ffff);

async function main(): Promise<boolean> {
  const common = {
    from: values.from === undefined ? drawn() : count('from', 0),
    operations: values.operations === undefined ? undefined : count('operations', 0),
    faults: faults(),
  };
  if (values.seed !== undefined) return replaySeed({ ...common, seed: count('seed', 0), lines: count('lines', 60) });
  if (values.planted) return runPlanted({ only: values.only?.split(','), from: count('from', 1), json: values.json });
  if (values['crash-points'])
    return runCrashPoints({ from: common.from, states: count('states', 20_000), json: values.json });
  if (values.walks !== undefined) return runWalks({ from: common.from, walks: count('walks', 0), json: values.json });
  if (values.damage !== undefined)
    return runDamage({ from: common.from, damages: count('damage', 0), json: values.json });
  if (values.determinism !== undefined) {
    return runDeterminism({ ...common, seeds: count('determinism', 0), json: values.json, against: values.against });
  }
  return runSeeds({ ...common, seeds: count('seeds', 100), json: values.json });
}

if (values.help) console.log(HELP);
else {
  try {
    process.exitCode = (await main()) ? 0 : 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 2;
  }
}
