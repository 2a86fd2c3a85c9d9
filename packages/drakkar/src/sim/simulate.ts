/**
 * One run: whole hosts on simulated machines, clients, faults, and checks after every step; then a healed cluster that must make progress.
 * Everything follows from the seed: the same seed gives the same run, event for event.
 */
import { silentLogger, type Env, type Logger } from '../env/env.ts';
import { MemoryMachines, SimulatedAuthority } from '../testing.ts';
import { Clients } from './clients.ts';
import { Dice } from './dice.ts';
import type { FaultKind } from './faults.ts';
import type { FrameChecks } from './frames.ts';
import { SimHost, type HostOwner } from './host.ts';
import type { StateWatcher } from './log.ts';
import { watchMachine } from './machine.ts';
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import { Nemesis } from './nemesis.ts';
import { Observer } from './observer.ts';
import { Operator } from './operator.ts';
import { staysAlive } from './silence.ts';
import { drawPlan, type Plan, type PlanOptions } from './plan.ts';
import { Readers } from './readers.ts';
import { Trace } from './trace.ts';
import { Violation, describe, holds, type ViolationKind } from './violation.ts';
import type { Workload } from './workload.ts';

export interface SimulationOptions extends PlanOptions {
  readonly seed: number;
  readonly workload: Workload;
  /** Keep readable lines of what happened; slower. Default false. */
  readonly trace?: boolean;
  /** Called right before a file operation of a host is carried out. */
  readonly onDiskOperation?: (host: SimHost, observer: Observer, path: string) => void;
}

/** Restarts, snapshots and changes of leaders: a run with these writes all that can be written to a disk. */
export const REFERENCE_FAULTS: readonly FaultKind[] = [
  'crash',
  'isolate-leader',
  'leader-transfer',
  'forced-snapshot',
  'snapshot-break',
];

export interface SimulationFailure {
  readonly kind: ViolationKind;
  /** Name of the invariant that does not hold. */
  readonly rule: string;
  readonly message: string;
}

export interface SimulationReport {
  readonly seed: number;
  readonly plan: Plan;
  readonly failure: SimulationFailure | undefined;
  /** Equal for equal runs. */
  readonly traceHash: string;
  readonly trace: readonly string[];
  /** How often what was reached: faults, elections, snapshots, truncations, … */
  readonly counters: Readonly<Record<string, number>>;
  readonly virtualMs: number;
}

/** Virtual time in which a healed cluster must elect, commit and answer. */
const PROGRESS_MS = 60_000;
/** Virtual time that the faults may last. */
const FAULTS_MS = 120_000;

/** When most disks are lost, in the runs in which they are, and how long what is under way may take. */
const HALT_AFTER_MS = 400;
const HALT_GRACE_MS = 3000;

export async function simulate(options: SimulationOptions): Promise<SimulationReport> {
  const run = new Run(options);
  const failure = await run.failure();
  return {
    seed: options.seed,
    plan: run.plan,
    failure,
    traceHash: run.trace.hash,
    trace: run.trace.tail(),
    counters: Object.fromEntries([...run.counters].sort(([a], [b]) => (a < b ? -1 : 1))),
    virtualMs: run.machines.world.nowMs(),
  };
}

class Run implements HostOwner {
  readonly plan: Plan;
  readonly machines: MemoryMachines;
  readonly authority: SimulatedAuthority;
  readonly trace: Trace;
  readonly hosts: SimHost[] = [];
  readonly observer: Observer;
  readonly counters = new Map<string, number>();
  readonly logger: Logger;
  readonly idleDice: Dice;
  private readonly workload: Workload;
  private readonly clients: Clients;
  private readonly readers: Readers;
  private readonly operator: Operator;
  private readonly nemesis: Nemesis;
  private violation: Violation | undefined;
  private haltedAt: number | undefined;

  constructor(options: SimulationOptions) {
    const dice = new Dice(options.seed, 'run');
    this.plan = drawPlan(dice.stream('plan'), options);
    this.idleDice = dice.stream('idle');
    this.workload = options.workload;
    this.machines = new MemoryMachines(options.seed);
    this.authority = new SimulatedAuthority(this.machines.world, 'authority');
    const { world } = this.machines;
    this.trace = new Trace(() => world.nowMs(), options.trace === true);
    this.logger = options.trace === true ? this.tracingLogger() : silentLogger;
    for (let id = 1; id <= this.plan.hostCount + this.plan.spareCount; id++) {
      this.hosts.push(new SimHost(id, this.machines.add(`host${id}`), this, dice.stream(`host${id}`)));
    }
    const shardIds = this.plan.shards.map(({ shardId }) => shardId);
    const count = (name: string): void => this.count(name);
    this.observer = new Observer(this.hosts, shardIds, this.trace, count);
    const owner = {
      plan: this.plan,
      world,
      hosts: this.hosts,
      truths: this.observer.truths,
      workload: this.workload,
      trace: this.trace,
      count,
      fail: (error: unknown) => this.caught(error),
    };
    this.clients = new Clients(owner, dice.stream('clients'));
    this.readers = new Readers(owner, dice.stream('readers'));
    this.operator = new Operator(
      {
        hosts: this.hosts,
        truths: this.observer.truths,
        count,
        note: (what, ...details) => this.trace.note('operator', what, ...details),
        fail: (error) => this.caught(error),
      },
      dice.stream('operator'),
    );
    const { plan, machines, hosts, clients, operator } = this;
    this.nemesis = new Nemesis(
      {
        plan,
        machines,
        hosts,
        leaderOf: (shardId) => clients.leaderOf(shardId),
        transferLeader: () => clients.transferLeader(),
        forceSnapshot: () => clients.forceSnapshot(),
        floodProposals: () => clients.floodProposals(),
        floodSessions: () => clients.floodSessions(),
        changeMembership: (shardId) => operator.change(shardId),
        enableFormat: () => operator.enableFormat(),
        note: (what, ...details) => this.trace.note('nemesis', what, ...details),
        count: (name, by) => this.count(name, by),
      },
      dice.stream('faults'),
    );
    const { onDiskOperation } = options;
    if (onDiskOperation !== undefined) {
      for (const host of hosts) {
        const { disk } = host.machine;
        const { fault } = disk;
        disk.fault = (...operation) => {
          this.guarded(() => onDiskOperation(host, this.observer, operation[1]));
          return fault(...operation);
        };
      }
    }
    world.afterEvent = () => {
      if (this.violation === undefined) this.observer.look();
      if (this.violation !== undefined) throw this.violation;
    };
  }

  /** Runs; gives what went wrong. */
  async failure(): Promise<SimulationFailure | undefined> {
    const { world } = this.machines;
    try {
      for (const host of this.hosts) host.start();
      await world.until(() => this.hosts.every((host) => host.isUp), PROGRESS_MS);
      this.nemesis.start();
      this.readers.start();
      if (this.plan.losesMajority) world.schedule(HALT_AFTER_MS, () => this.loseMajority());
      const work = this.clients.run();
      await world.settle(work, FAULTS_MS).catch(rethrowViolation);
      this.clients.stop();
      this.trace.note('run', 'heals');
      this.nemesis.end();
      if (this.plan.losesMajority) await this.staysHalted();
      else await this.progress();
      this.clients.checkEnd(!this.plan.losesMajority);
      this.workload.check?.(({ shardId, id }) => this.observer.truths.get(shardId)?.indexOf.get(id));
      for (const host of this.hosts) if (host.host !== undefined) host.reportCounters(host.host);
      return undefined;
    } catch (error) {
      this.trace.note('run', 'FAILS', describe(error));
      if (error instanceof Violation) return { kind: error.kind, rule: error.rule, message: error.message };
      return { kind: 'crash', rule: 'nothing else is thrown', message: describe(error) };
    }
  }

  /** The liveness mode: every shard elects, commits and answers on every healthy host. */
  private async progress(): Promise<void> {
    const { world } = this.machines;
    this.readers.hurry();
    const deadline = world.nowMs() + PROGRESS_MS;
    const late = (what: string): Violation => {
      return new Violation('liveness', 'a healed cluster makes progress', `${what} within ${PROGRESS_MS} virtual ms`);
    };
    for (const { shardId } of this.plan.shards) {
      for (const host of this.hosts.filter((each) => !each.isDamaged)) {
        const { isMember } = { isMember: (id = 0) => this.observer.truths.get(shardId)!.isMember(id) };
        if (!host.serves(shardId) || !isMember(host.placements.get(shardId)?.replicaId)) continue;
        const done = this.clients.answerOnce(host, shardId, deadline);
        await world.settle(done, 2 * PROGRESS_MS);
        // It may have been removed only now.
        if (!(await done) && isMember(host.placements.get(shardId)?.replicaId))
          throw late(`${host.name} did not answer for shard ${shardId}`);
      }
    }
    for (const { shardId } of this.plan.shards) {
      const isEqual = (): boolean => this.observer.isConverged(shardId);
      await world.until(isEqual, PROGRESS_MS).catch((error: unknown) => {
        rethrowViolation(error);
        throw late(`the replicas of shard ${shardId} did not catch up`);
      });
      this.observer.checkSessions(shardId);
      await world
        .until(() => this.readers.hasRead(shardId), PROGRESS_MS)
        .catch((error: unknown) => {
          rethrowViolation(error);
          const [position, end] = [this.readers.position(shardId), this.observer.truths.get(shardId)!.commitIndex];
          throw late(`the change stream of shard ${shardId} came to ${position} of ${end}, not to its end,`);
        });
      this.observer.truths.get(shardId)!.checkRead();
      await world
        .until(() => this.observer.isRidOfRemoved(shardId), PROGRESS_MS)
        .catch((error: unknown) => {
          rethrowViolation(error);
          throw late(`a removed replica of shard ${shardId} did not stop`);
        });
    }
    this.readers.stop();
    for (const shard of this.plan.shards) await staysAlive(this, shard);
  }

  /** Beyond what can be borne: the disks of most hosts are gone. */
  private loseMajority(): void {
    this.count('majoritiesLost');
    for (const host of this.hosts.slice(0, (this.hosts.length >>> 1) + 1)) {
      this.trace.note('run', 'loses the disk of', host.name);
      host.losePower(() => false);
      host.loseData();
      host.isDamaged = host.isForgetful = host.isWithoutMembers = true;
      host.start();
    }
    // What was under way may still arrive.
    this.after(HALT_GRACE_MS, () => (this.haltedAt = this.observer.truths.get(1)!.commitIndex));
  }

  /** Nothing is committed any more by the few that are left. Shard 1 lives on every host. */
  private async staysHalted(): Promise<void> {
    await this.machines.world.run(HALT_AFTER_MS + HALT_GRACE_MS + PROGRESS_MS / 10);
    const { commitIndex } = this.observer.truths.get(1)!;
    holds(this.haltedAt === commitIndex, 'without a majority nothing is committed', () => {
      return `shard 1 went from ${this.haltedAt} to ${commitIndex} after most disks were lost`;
    });
  }

  // What hosts ask for.

  createStateMachine(host: SimHost, shardId: number, env: Env): AnyStateMachine {
    const truth = this.observer.truths.get(shardId)!;
    return watchMachine(this.workload.createStateMachine(shardId, host.id, host.placeOf(shardId, env)), {
      // What a host believes that forgot what it promised is for its peers to refuse.
      onGiven: (...args) => this.guarded(() => host.isForgetful || truth.gives(...args)),
      onApplied: (...args) => this.guarded(() => host.isForgetful || truth.applies(...args)),
      onDigest: (...args) => this.guarded(() => host.isForgetful || truth.hasDigest(...args)),
      onOpened: (index) => {
        this.guarded(() => host.isForgetful || truth.stores(index));
        this.count(index === 0 ? 'storesNew' : index < truth.commitIndex ? 'storesBehind' : 'stores');
      },
      onRepeated: (...args) => this.guarded(() => truth.repeats(...args)),
    });
  }

  watcherOf(host: SimHost): StateWatcher {
    return {
      onRecovered: (...args) => this.guarded(() => this.observer.onRecovered(host, ...args)),
      onDurable: (...args) => this.observer.onDurable(...args),
    };
  }

  onSend(...args: Parameters<FrameChecks['onSend']>): void {
    this.guarded(() => this.observer.frames.onSend(...args));
  }

  onSnapshotOffer(...args: Parameters<FrameChecks['onSnapshotOffer']>): void {
    this.guarded(() => this.observer.frames.onSnapshotOffer(...args));
  }

  onSnapshotInstalled(host: SimHost): void {
    this.nemesis.onSnapshotInstalled(host);
  }

  /** A check that runs inside the library must not fail a shard there. */
  private guarded(check: () => unknown): void {
    try {
      check();
    } catch (error) {
      this.caught(error);
    }
  }

  private caught(error: unknown): void {
    this.fail(error instanceof Violation ? error : new Violation('crash', 'checks run', describe(error)));
  }

  fail(violation: Violation): void {
    this.violation ??= violation;
  }

  note(host: SimHost, what: string, ...details: (number | string)[]): void {
    this.trace.note(host.name, what, ...details);
  }

  count(name: string, by = 1): void {
    this.counters.set(name, (this.counters.get(name) ?? 0) + by);
  }

  after(delayMs: number, task: () => void): void {
    this.machines.world.schedule(delayMs, task);
  }

  private tracingLogger(): Logger {
    const log = (fields: object, message: string): void => {
      const { err } = fields as { err?: unknown };
      const text = err === undefined ? '' : describe(err);
      this.trace.line('log', message, text);
    };
    return { debug() {}, info: log, warn: log, error: log };
  }
}

function rethrowViolation(error: unknown): void {
  if (error instanceof Violation) throw error;
}
