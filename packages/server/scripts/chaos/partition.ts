/**
 * Cut and lossy networks between the hosts: the leader alone, deaf or mute, two hosts that do not see each other while the third sees
 * both, connections reset, a tenth to a third of all packets lost, a link that flaps. The majority must go on; what an isolated
 * leader answers must not be stale; nothing that it accepted and could not replicate may be taken for acknowledged.
 */
import { HOST_IDS } from '../cluster.ts';
import {
  NETWORK_COMMANDS,
  NETWORK_PROBE,
  addressOf,
  buildNetworks,
  countHits,
  launcherOf,
  setRules,
  type Rule,
} from './networks.ts';
import { missingCommands, missingInSandbox } from './probes.ts';
import { pause, roundsFor, type Context, type Suite, type SuiteReport } from './suite.ts';
import { ELECTION_TIMEOUT_MS, runTrial, type Trial } from './trial.ts';

const KILLS_PER_ROUND = 25;
const ROUNDS_MAX = 60;
/** Election timeouts that a cut lasts. */
const CUT_TIMEOUTS = [4, 12] as const;
const LOSS_PERCENT = [10, 33] as const;
const FLAPS = 5;
const FLAP_MS = [50, 500] as const;
const REQUESTS_BETWEEN = 100;
const TAKEOVER_MAX_MS = 10_000;

const KINDS = ['alone', 'deaf', 'mute', 'reset', 'pair', 'loss', 'flap'] as const;
type Kind = (typeof KINDS)[number];

const othersOf = (id: number): number[] => HOST_IDS.filter((other) => other !== id);

function cut(id: number, directions: readonly Rule['direction'][], verdict = 'drop'): Rule[] {
  return othersOf(id).flatMap((peer) => directions.map((direction) => ({ at: id, direction, peer, verdict })));
}

function rulesOf(kind: Kind, victim: number, trial: Trial): Rule[] {
  switch (kind) {
    case 'alone':
    case 'flap':
      return cut(victim, ['in', 'out']);
    case 'deaf':
      return cut(victim, ['in']);
    case 'mute':
      return cut(victim, ['out']);
    case 'reset':
      // A reset is for what comes in; what it sends is then for connections that the other side no longer has.
      return cut(victim, ['in'], 'reject with tcp reset').map((rule) => ({ ...rule, condition: 'meta l4proto tcp' }));
    case 'pair': {
      const peer = trial.dice.pick(othersOf(victim));
      return cut(victim, ['in', 'out']).filter((rule) => rule.peer === peer);
    }
    case 'loss': {
      const condition = `numgen random mod 100 < ${trial.dice.between(...LOSS_PERCENT)}`;
      return HOST_IDS.flatMap((id) => cut(id, ['in']).map((rule) => ({ ...rule, condition })));
    }
  }
}

/** Whether the two others can elect and must take writes while the victim is cut off. */
function leavesMajority(kind: Kind): boolean {
  return kind === 'alone' || kind === 'deaf' || kind === 'mute' || kind === 'reset';
}

async function flap(trial: Trial, rules: readonly Rule[]): Promise<number> {
  let hits = 0;
  for (let i = 0; i < FLAPS; i++) {
    setRules(rules);
    await pause(trial.dice.between(...FLAP_MS));
    hits += countHits();
    setRules([]);
    await pause(trial.dice.between(...FLAP_MS));
  }
  return hits;
}

async function harm(trial: Trial): Promise<void> {
  const { dice, figures } = trial;
  const rounds = roundsFor(trial.context.kills, KILLS_PER_ROUND, ROUNDS_MAX);
  const takeoverMs: number[] = [0];
  const kinds = dice.shuffle(KINDS);
  let dropped = 0;
  for (let round = 0; round < rounds; round++) {
    const kind = kinds[round % kinds.length];
    const victim = await trial.findLeader();
    const rules = rulesOf(kind, victim.id, trial);
    let hits: number;
    if (kind === 'flap') hits = await flap(trial, rules);
    else {
      const lasted = pause(dice.between(...CUT_TIMEOUTS) * ELECTION_TIMEOUT_MS);
      setRules(rules);
      if (leavesMajority(kind)) takeoverMs.push(await trial.untilWritable(trial.othersOf(victim)));
      await lasted;
      hits = countHits();
      setRules([]);
    }
    if (hits === 0) trial.shortfalls.push(`round ${round}, ${kind}: no packet met a rule`);
    dropped += hits;
    const healedMs = await trial.untilWritable();
    trial.log(`${kind} (host ${victim.id}): ${hits} packets dropped; writable ${Math.round(healedMs)} ms after it`);
    await trial.untilMoreSucceed(REQUESTS_BETWEEN);
  }
  const worst = Math.round(Math.max(...takeoverMs));
  Object.assign(figures, { rounds, kinds: Math.min(rounds, kinds.length), 'packets dropped': dropped });
  figures['takeover max ms'] = worst;
  if (worst > TAKEOVER_MAX_MS) trial.shortfalls.push(`the others took over after ${worst} ms > ${TAKEOVER_MAX_MS} ms`);
}

async function runPartition(context: Context): Promise<SuiteReport> {
  buildNetworks();
  return runTrial(context, 'partition', { layout: { addressOf }, launcherOf }, harm);
}

export const partition: Suite = {
  name: 'partition',
  what: 'cut, one-way, partial, lossy, flapping and resetting networks between the hosts',
  sandbox: 'network',
  missing: () =>
    missingCommands(...NETWORK_COMMANDS) ?? missingInSandbox('network', 'nft in a namespace', NETWORK_PROBE),
  run: runPartition,
};
