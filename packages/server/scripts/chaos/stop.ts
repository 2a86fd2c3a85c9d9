/**
 * SIGSTOP and SIGCONT under load: a host stands still for several election timeouts, keeps its connections and what it believed, and
 * then goes on. The others must elect meanwhile, and what the host answers when it wakes, to requests that waited in its
 * sockets, must not be stale. Some rounds stop a majority, or let the leader stutter.
 */
import { pause, roundsFor, type Suite } from './suite.ts';
import { ELECTION_TIMEOUT_MS, runTrial, type Trial } from './trial.ts';

const KILLS_PER_ROUND = 25;
const ROUNDS_MAX = 40;
/** Election timeouts that a host stands still for. */
const STOP_TIMEOUTS = [3, 10] as const;
const STUTTERS = 8;
const STUTTER_STOP_MS = [20, 400] as const;
const STUTTER_RUN_MS = [5, 100] as const;
const REQUESTS_BETWEEN = 100;
/** More than any stop: such requests are answered by the host that wakes, about what it believed. */
const PATIENCE_MS = 3000;
const PATIENT_SHARE = 0.7;
const TAKEOVER_MAX_MS = 10_000;

/** The leader stands still; the others must take writes for all its shards before it wakes. Gives how long they took. */
async function stopLeader(trial: Trial): Promise<number> {
  const { cluster, dice } = trial;
  const leader = await trial.findLeader();
  const stopped = pause(dice.between(...STOP_TIMEOUTS) * ELECTION_TIMEOUT_MS);
  cluster.pause(leader);
  const [takeoverMs] = await Promise.all([trial.untilWritable(trial.othersOf(leader)), stopped]);
  cluster.resume(leader);
  return takeoverMs;
}

/** Two of three stand still: nothing can be acknowledged by the third, and all goes on afterwards. */
async function stopMajority(trial: Trial): Promise<void> {
  const { cluster, dice } = trial;
  const two = dice.shuffle(cluster.hosts).slice(0, 2);
  for (const host of two) cluster.pause(host);
  await pause(dice.between(...STOP_TIMEOUTS) * ELECTION_TIMEOUT_MS);
  for (const host of two) cluster.resume(host);
}

async function stutter(trial: Trial): Promise<void> {
  const { cluster, dice } = trial;
  const leader = await trial.findLeader();
  for (let i = 0; i < STUTTERS; i++) {
    cluster.pause(leader);
    await pause(dice.between(...STUTTER_STOP_MS));
    cluster.resume(leader);
    await pause(dice.between(...STUTTER_RUN_MS));
  }
}

async function harm(trial: Trial): Promise<void> {
  const rounds = roundsFor(trial.context.kills, KILLS_PER_ROUND, ROUNDS_MAX);
  const takeoverMs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    if (round % 4 === 2) await stutter(trial);
    else if (round % 4 === 3) await stopMajority(trial);
    else takeoverMs.push(await stopLeader(trial));
    await trial.untilWritable();
    await trial.untilMoreSucceed(REQUESTS_BETWEEN);
  }
  const worst = Math.round(Math.max(...takeoverMs));
  Object.assign(trial.figures, { rounds, 'takeover max ms': worst });
  if (worst > TAKEOVER_MAX_MS) trial.shortfalls.push(`the others took over after ${worst} ms > ${TAKEOVER_MAX_MS} ms`);
}

export const stop: Suite = {
  name: 'stop',
  what: 'SIGSTOP and SIGCONT of leaders and majorities: no stale read, no lost write',
  sandbox: 'none',
  missing: () => (process.platform === 'win32' ? 'Windows has no SIGSTOP' : undefined),
  run: (context) => runTrial(context, 'stop', { patientShare: PATIENT_SHARE, patienceMs: PATIENCE_MS }, harm),
};
