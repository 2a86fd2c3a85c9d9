/**
 * SIGKILL again and again under load: mostly of the host that leads, sometimes of a follower, of two at once, of all three, or of a
 * host that is just starting. The next kill comes as soon as every shard takes writes again, so most kills meet hosts that have
 * hardly recovered from the one before.
 */
import type { ClusterHost } from '../cluster.ts';
import { pause, type Context, type Suite, type SuiteReport } from './suite.ts';
import { runTrial, type Trial } from './trial.ts';

const LEADER_SHARE = 0.65;
const FOLLOWER_SHARE = 0.85;
const PAIR_SHARE = 0.95;
/** Of the restarts, this share is killed again on its way up. */
const STARTING_SHARE = 0.1;
const STARTING_KILL_MS = [30, 900] as const;
/** A moment of load in between, of random length: kills must not all meet the same phase. */
const GAP_MAX_MS = 120;
const TOLD_EVERY = 20;
/** Generous: two cores start a process, elect and serve at the same time. */
const FAILOVER_P99_MAX_MS = 5000;

interface Victims {
  readonly hosts: readonly ClusterHost[];
  /** The host that led most shards, alone: how long until all take writes again is a failover. */
  readonly isLeader: boolean;
}

async function chooseVictims(trial: Trial, left: number): Promise<Victims> {
  const { dice } = trial;
  const drawn = dice.unit();
  const leader = await trial.findLeader();
  const others = dice.shuffle(trial.othersOf(leader));
  if (drawn < LEADER_SHARE || left < 2) return { hosts: [leader], isLeader: true };
  if (drawn < FOLLOWER_SHARE) return { hosts: others.slice(0, 1), isLeader: false };
  if (drawn < PAIR_SHARE || left < 3) return { hosts: [leader, others[0]], isLeader: false };
  return { hosts: [leader, ...others], isLeader: false };
}

/** Starts it again; gives how often it was killed on the way. */
async function restart(trial: Trial, host: ClusterHost, mayKill: boolean): Promise<number> {
  const { cluster, dice } = trial;
  if (!mayKill || !dice.chance(STARTING_SHARE)) {
    await cluster.startHost(host);
    return 0;
  }
  const started = cluster.startHost(host).catch(() => {}); // it ends before it serves: that is the point
  await pause(dice.between(...STARTING_KILL_MS));
  await cluster.kill(host);
  await started;
  await cluster.startHost(host);
  return 1;
}

async function harm(trial: Trial): Promise<void> {
  const { cluster, dice, context } = trial;
  const failoverMs: number[] = [];
  const start = performance.now();
  let kills = 0;
  let told = 0;
  while (kills < context.kills) {
    const { hosts, isLeader } = await chooseVictims(trial, context.kills - kills);
    await Promise.all(hosts.map((host) => cluster.kill(host)));
    kills += hosts.length;
    const restarts = hosts.map((host) => restart(trial, host, kills < context.kills));
    const [writableMs, ...again] = await Promise.all([trial.untilWritable(), ...restarts]);
    if (isLeader) failoverMs.push(writableMs);
    kills += again.reduce((sum, times) => sum + times, 0);
    await trial.untilWritable();
    if (kills - told >= TOLD_EVERY) {
      told = kills;
      trial.log(`${kills} of ${context.kills} kills after ${((performance.now() - start) / 1000).toFixed(0)} s`);
    }
    await pause(dice.unit() * GAP_MAX_MS);
  }
  failoverMs.sort((a, b) => a - b);
  const at = (share: number): number => Math.round(failoverMs[Math.floor(share * (failoverMs.length - 1))] ?? 0);
  Object.assign(trial.figures, { kills, 'leader kills': failoverMs.length });
  Object.assign(trial.figures, { 'failover p50 ms': at(0.5), 'failover p99 ms': at(0.99), 'failover max ms': at(1) });
  if (kills < context.kills) trial.shortfalls.push(`only ${kills} of ${context.kills} kills`);
  if (at(0.99) > FAILOVER_P99_MAX_MS) trial.shortfalls.push(`failover p99 ${at(0.99)} ms > ${FAILOVER_P99_MAX_MS} ms`);
}

export const kill: Suite = {
  name: 'kill',
  what: 'SIGKILL of leaders, followers, pairs, all, and hosts that are starting',
  sandbox: 'none',
  missing: () => (process.platform === 'win32' ? 'SIGKILL is not what Windows does' : undefined),
  run: (context: Context): Promise<SuiteReport> => runTrial(context, 'kill', {}, harm),
};
