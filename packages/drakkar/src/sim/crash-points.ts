/**
 * Every file operation of a run as a crash: at each, what a crash could leave of the disk is recovered by a host of its own, and held
 * against all that the host had promised up to that moment.
 */
import { replicasOf } from '../inspect.ts';
import { NodeHost } from '../nodehost.ts';
import { MemoryMachines, type Keep } from '../testing.ts';
import { openWal } from '../wal/wal.ts';
import { Dice } from './dice.ts';
import { DATA_DIR, describe, type SimHost } from './host.ts';
import { WatchedMachine } from './machine.ts';
import { checkLogKept, type Observer } from './observer.ts';
import { simulate, type SimulationReport } from './simulate.ts';
import { Violation, holds } from './violation.ts';
import type { Workload } from './workload.ts';

/** What becomes of the sectors and names that are not flushed. */
export const CRASHES = ['killed', 'dropped', 'kept', 'torn', 'reordered'] as const;
export type Crash = (typeof CRASHES)[number];

export interface CrashPointOptions {
  readonly seed: number;
  readonly workload: () => Workload;
  readonly operations?: number;
  /** Every so many file operations of each host. Default 1: all. */
  readonly every?: number;
}

export interface CrashPointReport extends SimulationReport {
  readonly states: number;
}

export async function crashPoints(options: CrashPointOptions): Promise<CrashPointReport> {
  const { seed, workload, every = 1 } = options;
  const dice = new Dice(seed, 'crash points');
  let states = 0;
  let operations = 0;
  const report = await simulate({
    seed,
    workload: workload(),
    operations: options.operations ?? 200,
    // Restarts, snapshots and changes of leaders make the reference run write all that can be written.
    faults: ['crash', 'isolate-leader', 'leader-transfer', 'forced-snapshot'],
    onDiskOperation(host, observer) {
      if (operations++ % every !== 0) return;
      for (const crash of CRASHES) {
        recover(host, observer, crash, dice, workload());
        states++;
      }
    },
  });
  return { ...report, states };
}

function keepFor(crash: Crash, dice: Dice): Keep {
  if (crash === 'kept') return () => true;
  if (crash === 'torn') return () => dice.chance(0.5);
  if (crash !== 'reordered') return () => false;
  // The first of what waits is lost, what comes after it is there.
  let asked = 0;
  const lost = 1 + dice.below(4);
  return () => ++asked > lost;
}

function recover(host: SimHost, observer: Observer, crash: Crash, dice: Dice, workload: Workload): void {
  const machines = new MemoryMachines(1);
  const machine = machines.add(host.name);
  machine.disk = host.machine.disk.clone();
  if (crash === 'killed') machine.disk.releaseLocks();
  else machine.disk.losePower(keepFor(crash, dice));
  const env = machine.boot();
  const run = async (): Promise<void> => {
    const recovered = await open(host, env, observer, workload);
    for (const { shardId } of host.plan.shards) check(recovered, host, observer, shardId);
  };
  try {
    machines.world.settleNow(run());
  } catch (error) {
    if (error instanceof Violation) throw new Violation(error.kind, error.rule, `${error.message} (crash: ${crash})`);
    throw new Violation('safety', 'every crash is recovered from', `${host.name}, ${crash}: ${describe(error)}`);
  } finally {
    machine.kill();
  }
}

async function open(
  host: SimHost,
  env: Parameters<typeof openWal>[0]['env'],
  observer: Observer,
  workload: Workload,
): Promise<NodeHost> {
  const { plan } = host;
  const opened = await NodeHost.open({
    dir: DATA_DIR,
    raftAddress: host.address,
    rttMs: plan.rttMs,
    env,
    logDb: (context) => openWal({ ...context, segmentBytes: plan.segmentBytes }),
  });
  for (const { shardId } of plan.shards.filter(({ memberIds }) => memberIds.includes(host.id))) {
    const truth = observer.truths.get(shardId)!;
    const makes = (): WatchedMachine => {
      return new WatchedMachine(workload.createStateMachine(shardId, host.id), {
        onApplied: (...args) => truth.applies(...args),
        onDigest: (...args) => truth.hasDigest(...args),
      });
    };
    await opened.startReplica(host.replicaOptions(shardId), makes);
  }
  return opened;
}

function check(recovered: NodeHost, host: SimHost, observer: Observer, shardId: number): void {
  const promised = observer.promiseOf(host, shardId);
  if (promised === undefined) return;
  const who = `${host.name}, shard ${shardId}`;
  const view = [...replicasOf(recovered)].find((each) => each.shardId === shardId)!;
  const { term, vote } = view;
  holds(term >= promised.term, 'a restart keeps the term', () => `${who}: ${promised.term} was durable, now ${term}`);
  const keepsVote = term > promised.term || promised.vote === 0 || vote === promised.vote;
  holds(keepsVote, 'a restart keeps the vote', () => `${who}: ${promised.vote} of term ${term}, now ${vote}`);
  checkLogKept(who, promised.view, view);
}
