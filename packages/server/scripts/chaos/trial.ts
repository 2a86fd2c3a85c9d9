/**
 * One trial: three hosts, clients, a harm that a suite does, then the judgement. Whatever happens, the processes end and what was
 * mounted or made goes away; the data and the history stay when something is wrong.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Dice } from 'drakkar/sim';
import { Cluster, type ClusterHost, type ClusterLayout } from '../cluster.ts';
import { getJson } from '../http-client.ts';
import { until, type Context, type SuiteReport } from './suite.ts';
import { judge, type Judgement } from './verify.ts';
import { findLeader, untilHealthy, untilWritable, type Status } from './view.ts';
import { Workload, type WorkloadOptions } from './workload.ts';

/** Short elections, so that a trial is about many of them; snapshots often, so that they are hit, too. */
const SERVER_FLAGS = ['--log-level', 'info', '--election-rtt', '15', '--snapshot-entries', '2000'];
/** Ticks of 20 ms; a replica draws from one to two of these. */
export const ELECTION_TIMEOUT_MS = 300;
const RAFT_PORTS_AT = 0;
const HTTP_PORTS_AT = 10;
const PROGRESS_MS = 5000;
/** Enough load that harm falls into requests under way. */
const WARM_UP_OPERATIONS = 200;
const WARM_UP_MS = 30_000;
const LOG_LINE_MAX_CHARS = 1500;

export interface TrialSetup extends WorkloadOptions {
  readonly layout?: ClusterLayout;
  readonly launcherOf?: (id: number) => readonly string[];
  readonly nodeFlags?: readonly string[];
}

export class Trial {
  readonly context: Context;
  readonly cluster: Cluster;
  readonly workload: Workload;
  readonly dice: Dice;
  readonly dir: string;
  /** What the suite measured. */
  readonly figures: Record<string, number> = {};
  readonly shortfalls: string[] = [];
  /** Hosts that the harm may end; any other that ends by itself is a shortfall. */
  readonly mayEnd = new Set<ClusterHost>();
  shardCount = 0;

  constructor(context: Context, name: string, setup: TrialSetup) {
    this.context = context;
    this.dir = join(context.root, name);
    this.dice = new Dice(context.seed, name);
    this.cluster = new Cluster(this.dir, SERVER_FLAGS, {
      raftPort: context.port + RAFT_PORTS_AT,
      httpPort: context.port + HTTP_PORTS_AT,
      ...setup.layout,
    });
    for (const host of this.cluster.hosts) {
      host.launcher = setup.launcherOf?.(host.id) ?? [];
      host.nodeFlags = setup.nodeFlags ?? [];
    }
    this.workload = new Workload(this.cluster, this.dice.stream('workload'), setup);
    this.cluster.onUnexpectedExit = (host) => {
      if (!this.mayEnd.has(host)) this.shortfalls.push(`host ${host.id} ended by itself; see ${host.logFile}`);
    };
  }

  /** Waits until every shard takes writes through one of the hosts; gives the milliseconds. */
  untilWritable(hosts: readonly ClusterHost[] = this.cluster.hosts): Promise<number> {
    return untilWritable(hosts, this.shardCount);
  }

  /** Waits for some more requests to end well: the harm that comes next meets load. */
  async untilMoreSucceed(count: number, timeoutMs = WARM_UP_MS): Promise<void> {
    const goal = this.workload.succeeded + count;
    await until(`${count} more requests answered`, () => this.workload.succeeded >= goal, timeoutMs);
  }

  /** The host that leads most shards, or any while nobody leads. */
  async findLeader(): Promise<ClusterHost> {
    return (await findLeader(this.cluster)) ?? this.dice.pick(this.cluster.hosts);
  }

  othersOf(host: ClusterHost): ClusterHost[] {
    return this.cluster.hosts.filter((other) => other !== host);
  }

  log(line: string): void {
    this.context.log(line);
  }
}

export async function runTrial(
  context: Context,
  name: string,
  setup: TrialSetup,
  harm: (trial: Trial) => Promise<void>,
): Promise<SuiteReport> {
  const start = performance.now();
  const trial = new Trial(context, name, setup);
  const { cluster, workload, shortfalls } = trial;
  mkdirSync(trial.dir, { recursive: true, mode: 0o700 });
  const destroy = context.cleanup.add(`the hosts of ${name}`, () => cluster.destroy());
  let judgement: Judgement = { acknowledgedLost: 0, verdict: 'not checked', digestsEqual: false, shortfalls: [] };
  try {
    await cluster.start();
    await untilHealthy(cluster);
    ({ shardCount: trial.shardCount } = await getJson<Status>(`${cluster.hosts[0].url}/status`));
    await harmUnderLoad(trial, harm);
    trial.log(`${workload.operations} requests recorded; reading everything back through each host, checking ...`);
    await untilHealthy(cluster);
    judgement = await judge(cluster, workload);
    shortfalls.push(...judgement.shortfalls);
  } catch (error) {
    shortfalls.push((error as Error).stack ?? String(error));
  }
  const { operations, succeeded, refused, unknown } = workload;
  await destroy();
  shortfalls.push(...cluster.hosts.flatMap(brokenInvariants));
  if (shortfalls.length === 0) rmSync(trial.dir, { recursive: true });
  else writeFileSync(join(trial.dir, 'history.jsonl'), workload.history.toJsonl());
  return {
    suite: name,
    seconds: Math.round((performance.now() - start) / 1000),
    operations,
    succeeded,
    refused,
    unknown,
    acknowledged: workload.ledger.size,
    keysChecked: workload.registers.length,
    figures: trial.figures,
    ...judgement,
    shortfalls,
  };
}

/** A host that found a defect in itself says so in its log, and only there when the others covered for it. */
function brokenInvariants(host: ClusterHost): string[] {
  const found = readFileSync(host.logFile, 'utf8')
    .split('\n')
    .find((line) => line.includes('"ERR_INVARIANT"'));
  return found === undefined ? [] : [`host ${host.id} broke an invariant: ${found.slice(0, LOG_LINE_MAX_CHARS)}`];
}

async function harmUnderLoad(trial: Trial, harm: (trial: Trial) => Promise<void>): Promise<void> {
  const { cluster, workload } = trial;
  workload.start();
  const progress = setInterval(() => {
    const { succeeded, refused, unknown } = workload;
    trial.log(`${succeeded} requests succeeded, ${refused} refused, ${unknown} unknown`);
  }, PROGRESS_MS);
  try {
    await trial.untilMoreSucceed(WARM_UP_OPERATIONS);
    await harm(trial);
    await Promise.all(cluster.hosts.filter((host) => !host.isUp).map((host) => cluster.startHost(host)));
    await trial.untilWritable();
  } finally {
    clearInterval(progress);
    await workload.stop();
  }
}
