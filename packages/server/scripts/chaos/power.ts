/**
 * Power cuts: each host has a disk of its own, and a cut drops everything that was not flushed, on one disk, on two, or on all three at
 * the same moment, under load. Then the disks are mounted again, the hosts start, and everything acknowledged must be there.
 *
 * A control runs the same with hosts that skip every flush: it must lose acknowledged writes, or the cuts prove nothing.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HOST_IDS, type ClusterHost } from '../cluster.ts';
import { DISK_COMMANDS, LoopDisk, cutPower, diskProbe } from './loop-disk.ts';
import { missingCommands, missingInSandbox, missingRoot } from './probes.ts';
import { pause, roundsFor, type Context, type Suite, type SuiteReport } from './suite.ts';
import { runTrial, type Trial, type TrialSetup } from './trial.ts';

const KILLS_PER_CUT = 15;
const CUTS_MAX = 400;
/** Sparse: only what is written takes room. */
const DISK_MIB = 4096;
const LEADER_SHARE = 0.4;
const PAIR_SHARE = 0.55;
/** Load between recovery and cut, of random length. */
const GAP_MAX_MS = 400;
const REQUESTS_BETWEEN = 100;
const CONTROL_REQUESTS = 1000;
const NO_FLUSH = fileURLToPath(new URL('no-flush.ts', import.meta.url));

interface Disks {
  readonly of: ReadonlyMap<number, LoopDisk>;
  /** What a trial needs to use them. */
  readonly setup: TrialSetup;
  readonly dir: string;
  unmount(): Promise<void>;
}

/** Disks in files beside the trial's directory. */
function makeDisks(context: Context, name: string): Disks {
  const dir = join(context.root, `${name}-disks`);
  const disks = new Map<number, LoopDisk>();
  const unmount = context.cleanup.add(`the disks of ${name}`, () => {
    for (const disk of disks.values()) disk.unmount();
  });
  for (const id of HOST_IDS) disks.set(id, new LoopDisk(dir, `disk-${id}`, DISK_MIB));
  return { of: disks, setup: { layout: { dirOf: (id) => join(disks.get(id)!.path, 'host') } }, dir, unmount };
}

async function chooseVictims(trial: Trial): Promise<readonly ClusterHost[]> {
  const drawn = trial.dice.unit();
  const leader = await trial.findLeader();
  if (drawn < LEADER_SHARE) return [leader];
  if (drawn < PAIR_SHARE) return [leader, trial.dice.pick(trial.othersOf(leader))];
  return trial.cluster.hosts;
}

async function cutAndRestart(trial: Trial, disks: Disks, victims: readonly ClusterHost[]): Promise<void> {
  const { cluster, mayEnd } = trial;
  for (const host of victims) mayEnd.add(host);
  const hit = victims.map((host) => disks.of.get(host.id)!);
  await cutPower(hit);
  await Promise.all(victims.map((host) => cluster.kill(host)));
  for (const disk of hit) {
    disk.unmount();
    disk.mount();
  }
  for (const host of victims) mayEnd.delete(host);
  await Promise.all(victims.map((host) => cluster.startHost(host)));
  await trial.untilWritable();
}

async function harm(trial: Trial, disks: Disks): Promise<void> {
  const cuts = roundsFor(trial.context.kills, KILLS_PER_CUT, CUTS_MAX);
  let disksCut = 0;
  for (let cut = 0; cut < cuts; cut++) {
    const victims = await chooseVictims(trial);
    await cutAndRestart(trial, disks, victims);
    disksCut += victims.length;
    await trial.untilMoreSucceed(REQUESTS_BETWEEN);
    await pause(trial.dice.unit() * GAP_MAX_MS);
  }
  Object.assign(trial.figures, { 'power cuts': cuts, 'disks cut': disksCut });
}

/** Acknowledged writes that are lost when nothing is flushed. */
async function runControl(context: Context): Promise<{ acknowledged: number; lost: number }> {
  const name = 'power-control';
  const disks = makeDisks(context, name);
  const nodeFlags = [`--import=${NO_FLUSH}`];
  const report = await runTrial(context, name, { ...disks.setup, nodeFlags }, async (trial) => {
    await trial.untilMoreSucceed(CONTROL_REQUESTS);
    await cutAndRestart(trial, disks, trial.cluster.hosts);
  });
  await disks.unmount();
  for (const dir of [disks.dir, join(context.root, name)]) rmSync(dir, { recursive: true, force: true });
  return { acknowledged: report.acknowledged, lost: report.acknowledgedLost };
}

async function runPower(context: Context): Promise<SuiteReport> {
  const disks = makeDisks(context, 'power');
  const report = await runTrial(context, 'power', disks.setup, (trial) => harm(trial, disks));
  await disks.unmount();
  // What is left of the hosts tells why something is missing.
  if (report.shortfalls.length === 0) rmSync(disks.dir, { recursive: true });
  context.log('the control: hosts that skip every flush must lose something');
  const control = await runControl(context);
  const figures = { ...report.figures, 'control acknowledged': control.acknowledged, 'control lost': control.lost };
  const shortfalls = [...report.shortfalls];
  if (control.lost === 0) shortfalls.push('hosts that skip every flush lost nothing: the cuts prove nothing');
  return { ...report, figures, shortfalls };
}

export const power: Suite = {
  name: 'power',
  what: 'power cuts of one, two and all disks; everything not flushed is gone',
  sandbox: 'mounts',
  missing: () =>
    missingCommands(...DISK_COMMANDS, 'python3') ??
    missingRoot() ??
    missingInSandbox('mounts', 'a power cut of ext4 on a loop device', diskProbe(true)),
  run: runPower,
};
