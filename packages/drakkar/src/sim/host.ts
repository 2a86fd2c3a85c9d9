/**
 * One simulated machine with its disk, and the host that runs on it: started, killed, and started again. Knows which calls wait on its
 * process, since they never end by themselves when it dies.
 */
import type { LastLogWrites } from './damage.ts';
import type { ReplicaOptions } from '../config.ts';
import type { Env, Logger, Random } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import type { HostEventMap } from '../events.ts';
import { FORMAT_NEWEST, FORMAT_REHEARSAL, enginesOf, formatsOf } from '../inspect.ts';
import { NodeHost } from '../nodehost.ts';
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import type { Keep, MemoryDisk, MemoryMachine, SimulatedAuthority } from '../testing.ts';
import type { TlsOptions } from '../transport/security.ts';
import { createTcpTransport } from '../transport/tcp.ts';
import type { SnapshotHeader } from '../transport/transport.ts';
import type { Slab } from '../wire/slab.ts';
import { openWal } from '../wal/open.ts';
import { simpleCodec } from './codec.ts';
import { damagesFiles } from './faults.ts';
import { reportCounters } from './counters.ts';
import type { Dice } from './dice.ts';
import { replicaOptionsOf, snapshotBoundsOf, type Placement } from './host-options.ts';
import { watchLog, type StateWatcher } from './log.ts';
import type { Plan } from './plan.ts';
import { DAMAGE_CODES, isPassing } from './refusals.ts';
import { Disturbance, watchTransport } from './transport.ts';
import { Violation, describe } from './violation.ts';
import type { MachinePlace } from './workload.ts';

/** Before a host that failed, or could not start, is started again. */
const RESTART_MS = 400;
const BACKUPS_MAX = 5;
/** Between two certificates of a host, in the runs in which hosts have some. */
const ROTATION_MS = 2500;
export const DATA_DIR = 'data';
export const WAL_DIR = 'log';
/** Of on-disk state machines: on the same disk, a directory for each shard. */
export const STORES_DIR = 'stores';

/** What a host tells the run. */
export interface HostOwner {
  readonly plan: Plan;
  readonly logger: Logger;
  readonly authority: SimulatedAuthority;
  createStateMachine(host: SimHost, shardId: number, env: Env): AnyStateMachine;
  onSend(host: SimHost, address: string, slab: Slab, offset: number, lengthBytes: number): void;
  onSnapshotOffer(host: SimHost, header: SnapshotHeader): void;
  onSnapshotInstalled(host: SimHost): void;
  watcherOf(host: SimHost): StateWatcher;
  note(host: SimHost, what: string, ...details: (number | string)[]): void;
  count(name: string, by?: number): void;
  /** Something that no fault explains. */
  fail(violation: Violation): void;
  after(delayMs: number, task: () => void): void;
}

/** The state machines of a host, for its threads. */
const MACHINES = 'sim:machines';

export class SimHost {
  readonly id: number;
  readonly name: string;
  readonly machine: MemoryMachine;
  readonly disturbance: Disturbance = new Disturbance();
  host: NodeHost | undefined;
  /** Of the newest process. */
  private env: Env | undefined;
  /** Its shards live in threads: state machines are named by module. */
  private hasThreads = false;
  /** Raised with every process; what belongs to an older one is void. */
  generation = 0;
  isDamaged = false;
  isForgetful = false;
  /** It is started as an operator does who knows that the shard is an old one: without its first members. */
  isWithoutMembers = false;
  /** Reads of files may fail or lie at the moment: refusals of what was read are explained. */
  readFaults = 0;
  /** The release that its next process is of. */
  isNewRelease: boolean;
  /** The newer release's format is enabled here, as it has said itself: the older one must not start any more. */
  private isFinal = false;
  /** The older release has refused the directory. */
  private wasRefused = false;
  isStarting = false;
  isQuarantined = false;
  /** The newest write to the log that was finished, or failed. */
  readonly lastLogWrites: LastLogWrites = new Map();
  /** What it runs, by shard; lasts over its processes. */
  readonly placements: Map<number, Placement> = new Map();
  /** Removed replicas whose data is still here. */
  private readonly leftovers = new Map<number, number>();
  /** Copies of the disk, oldest first, as the ends of processes left it. */
  readonly backups: { readonly startCounter: number; readonly disk: MemoryDisk }[] = [];
  private readonly owner: HostOwner;
  private readonly dice: Dice;
  private readonly waiting = new Set<() => void>();

  constructor(id: number, machine: MemoryMachine, owner: HostOwner, dice: Dice) {
    this.id = id;
    this.name = machine.name;
    this.machine = machine;
    this.owner = owner;
    this.dice = dice;
    machine.modules.set(MACHINES, (env) => ({
      default: (shardId: number) => owner.createStateMachine(this, shardId, env),
    }));
    this.isNewRelease = owner.plan.newReleases.includes(id);
    for (const { shardId, memberIds } of owner.plan.shards) {
      if (!memberIds.includes(id)) continue;
      const members = Object.fromEntries(memberIds.map((member) => [member, `host${member}:7000`]));
      this.placements.set(shardId, { replicaId: id, members, witness: false });
    }
  }

  /** Whether clients may ask it of the shard. */
  serves(shardId: number): boolean {
    return this.placements.get(shardId)?.witness === false;
  }

  get address(): string {
    return `${this.name}:7000`;
  }

  get directories(): { readonly dir: string; readonly walDir?: string } {
    return this.plan.hasWalDir ? { dir: DATA_DIR, walDir: WAL_DIR } : { dir: DATA_DIR };
  }

  /** All that it wrote is gone, but for the stores of state machines. */
  loseData(): void {
    this.machine.disk.remove(DATA_DIR);
    this.machine.disk.remove(WAL_DIR);
  }

  get plan(): Plan {
    return this.owner.plan;
  }

  replicaOptions(shardId: number): ReplicaOptions {
    return replicaOptionsOf(this.owner.plan, shardId, this.placements.get(shardId)!, !this.isWithoutMembers);
  }

  placeOf(shardId: number, env: Env): MachinePlace {
    const { kind } = this.owner.plan.shards.find((shard) => shard.shardId === shardId)!;
    const replicaId = this.placements.get(shardId)?.replicaId ?? this.id;
    // A new replica begins with an empty store.
    return { kind, env, dir: `${STORES_DIR}/${shardId}${replicaId === this.id ? '' : `-${replicaId}`}` };
  }

  get hasReadFaults(): boolean {
    return this.readFaults > 0;
  }

  get isUp(): boolean {
    return this.host !== undefined && this.host.failed === undefined && !this.isStarting;
  }

  get isReceivingSnapshot(): boolean {
    if (this.host === undefined) return false;
    return [...enginesOf(this.host)].some(({ arrivals }) => arrivals.places.takenCount > 0);
  }

  /** Starts a process; tries again by itself when a passing fault prevents it. */
  start(): void {
    if (this.isStarting || this.host !== undefined || this.isQuarantined) return;
    this.isStarting = true;
    const generation = ++this.generation;
    this.owner.note(this, 'starts');
    const random: Random = this.dice.stream(`start ${generation}`);
    const env = this.machine.boot(this.owner.logger, random);
    this.open(env, generation).then(
      () => {
        if (generation === this.generation) this.isStarting = false;
      },
      (error: unknown) => {
        if (generation === this.generation) this.couldNotStart(error);
      },
    );
  }

  private async open(env: Env, generation: number): Promise<void> {
    const { plan } = this.owner;
    const engines = this.dice.stream(`engines ${generation}`).between(1, plan.enginesMax);
    if (plan.enginesMax > 1) this.owner.count(`startsWith${engines}Engines`);
    this.hasThreads = engines > 1;
    const host = await NodeHost.open({
      engines,
      ...this.directories,
      raftAddress: this.address,
      rttMs: plan.rttMs,
      env,
      newestFormat: this.isNewRelease ? FORMAT_REHEARSAL : FORMAT_NEWEST,
      ...(plan.connectionAgeMs === 0 ? {} : { tls: this.tls() }),
      ...snapshotBoundsOf(plan),
      snapshotCodecs: [simpleCodec((name) => this.owner.count(name))],
      logDb: async (context) =>
        watchLog(await openWal({ ...context, segmentBytes: plan.segmentBytes }), this.owner.watcherOf(this)),
      transport: (context) =>
        watchTransport(createTcpTransport(context), {
          env,
          dice: this.dice.stream('frames'),
          disturbance: this.disturbance,
          onSend: (address, slab, offset, lengthBytes) => this.owner.onSend(this, address, slab, offset, lengthBytes),
          onSnapshotOffer: (header) => this.owner.onSnapshotOffer(this, header),
          count: (name) => this.owner.count(name),
        }),
    });
    this.host = host;
    this.env = env;
    this.listen(host, generation);
    this.checkRelease(host);
    for (const shardId of [...this.placements.keys()]) {
      await this.clear(host, shardId);
      await this.startReplica(host, shardId, env);
    }
  }

  /** Its next process is of another release, newer or older. */
  changeRelease(isNew: boolean): void {
    if (isNew !== this.isNewRelease) this.owner.count(isNew ? 'upgrades' : 'rollbacks');
    this.isNewRelease = isNew;
  }

  private checkRelease(host: NodeHost): void {
    if (this.isDamaged) return;
    const isEnabled = formatsOf(host).enabled === FORMAT_REHEARSAL;
    if (this.wasRefused && !isEnabled) {
      const what = `${this.name}: the older release refused a directory in which no newer format was enabled`;
      this.owner.fail(new Violation('safety', 'a host can go back until a newer format is enabled', what));
    }
    if (this.isFinal && !isEnabled) {
      const what = `${this.name}: the older release took a directory in which a newer format was enabled`;
      this.owner.fail(new Violation('safety', 'an older release refuses what it may not be able to read', what));
    }
    this.wasRefused = false;
  }

  private async startReplica(host: NodeHost, shardId: number, env: Env): Promise<void> {
    const options = this.replicaOptions(shardId);
    const makes = this.hasThreads
      ? { module: MACHINES }
      : (): AnyStateMachine => this.owner.createStateMachine(this, shardId, env);
    try {
      await host.startReplica(options, options.witness === true ? undefined : makes);
    } catch (error) {
      if (!DrakkarError.is(error, 'ERR_REPLICA_REMOVED')) throw error;
      this.wasRemoved(shardId, options.replicaId);
    }
  }

  // Replicas that come and go.

  /** Tells a running host to take a replica; it does so at every later start, too. */
  place(shardId: number, placement: Placement): void {
    this.placements.set(shardId, placement);
    const { generation, env } = this;
    if (env === undefined) return;
    const run = async (host: NodeHost): Promise<void> => {
      await this.clear(host, shardId);
      await this.startReplica(host, shardId, env);
    };
    this.call(run).catch((error: unknown) => {
      if (generation === this.generation && this.host?.failed === undefined) this.couldNotStart(error);
    });
  }

  private wasRemoved(shardId: number, replicaId: number): void {
    if (this.placements.get(shardId)?.replicaId !== replicaId) return;
    this.owner.count('replicasRemoved');
    this.owner.note(this, 'is rid of', `replica ${replicaId} of shard ${shardId}`);
    this.placements.delete(shardId);
    this.leftovers.set(shardId, replicaId);
  }

  /** Gives back the room of a removed replica. */
  private async clear(host: NodeHost, shardId: number): Promise<void> {
    const replicaId = this.leftovers.get(shardId);
    if (replicaId === undefined) return;
    try {
      await host.removeData(shardId, replicaId);
    } catch (error) {
      // A process before this one had done it.
      if (!DrakkarError.is(error, 'ERR_SHARD_NOT_FOUND')) throw error;
    }
    this.leftovers.delete(shardId);
    this.owner.count('leftoversCleared');
  }

  private tls(): TlsOptions {
    const { authority, plan } = this.owner;
    const issued = authority.issue({ dnsNames: [this.name], uris: ['drakkar://raft/1'] });
    return { ca: authority.ca, ...issued, connectionMaxAgeMs: plan.connectionAgeMs };
  }

  /** As an operator whose certificates are short-lived. */
  private rotateLater(host: NodeHost, generation: number): void {
    this.owner.after(ROTATION_MS, () => {
      if (generation !== this.generation || host.failed !== undefined) return;
      const { cert, key } = this.tls();
      host.reloadTls({ cert, key }).then(
        () => this.owner.count('certificatesRotated'),
        (error: unknown) => {
          if (generation !== this.generation || host.failed !== undefined) return;
          // One of several engines has failed: it takes nothing any more.
          if (DrakkarError.is(error, 'ERR_DISK_FAILED') || DrakkarError.is(error, 'ERR_ENGINE_FAILED')) return;
          this.owner.fail(new Violation('crash', 'good certificates are taken', `${this.name}: ${describe(error)}`));
        },
      );
      this.rotateLater(host, generation);
    });
  }

  private listen(host: NodeHost, generation: number): void {
    const { owner } = this;
    if (owner.plan.connectionAgeMs > 0) this.rotateLater(host, generation);
    host.on('formatEnabled', () => {
      this.isFinal = true;
    });
    const counted: readonly [keyof HostEventMap, string][] = [
      ['leaderChanged', 'leaderChanges'],
      ['snapshotCreated', 'snapshotsCreated'],
      ['logCompacted', 'logCompactions'],
      ['diskFull', 'diskFullPeriods'],
    ];
    for (const [event, name] of counted) host.on(event, () => owner.count(name));
    host.on('snapshotRecovered', () => {
      owner.count('snapshotsInstalled');
      owner.onSnapshotInstalled(this);
    });
    host.on('memberRefused', ({ shardId, memberId, reason }) => {
      owner.count('membersRefused');
      owner.note(this, 'refuses', `member ${memberId} of shard ${shardId}:`, reason);
    });
    host.on('replicaRemoved', ({ shardId, replicaId }) => {
      if (generation === this.generation) this.wasRemoved(shardId, replicaId);
    });
    host.on('membershipChanged', () => owner.count('membershipsApplied'));
    host.on('snapshotSendAborted', ({ shardId, to, error }) => {
      // What is damaged on its way, its frames tell.
      if (!error.message.includes('ERR_SNAPSHOT_CORRUPT') || owner.plan.faults.some(damagesFiles)) return;
      const what = `replica ${to} of shard ${shardId}, from ${this.name}: ${describe(error)}`;
      owner.fail(new Violation('safety', 'snapshots arrive as they were sent', what));
    });
    host.on('hostFailed', () => {
      owner.count('hostFailures');
      if (generation === this.generation) this.restartLater('the log failed');
    });
    host.on('replicaFailed', ({ shardId, error }) => {
      if (host.failed !== undefined || generation !== this.generation) return;
      const isExplained = this.isDamaged || (this.hasReadFaults && error.code !== 'ERR_INVARIANT');
      if (!isExplained && !isPassing(error)) {
        owner.fail(
          new Violation('crash', 'no replica fails by itself', `${this.name}, shard ${shardId}: ${describe(error)}`),
        );
      } else if (this.isDamaged) owner.count('damagedReplicasHalted');
      else this.restartLater(error.code);
    });
  }

  private couldNotStart(error: unknown): void {
    const code = DrakkarError.is(error) ? error.code : '';
    this.owner.note(this, 'did not start', code);
    if (code === 'ERR_DIR_FORMAT' && !this.isNewRelease && !this.isDamaged && !this.hasReadFaults) {
      this.owner.count('rollbacksRefused');
      this.wasRefused = this.isNewRelease = true;
      this.restartLater(code);
      return;
    }
    if (error instanceof DrakkarError && code === 'ERR_STATE_MACHINE_INDEX') this.owner.count('storesRefused');
    if ((DrakkarError.is(error) && isPassing(error)) || (this.hasReadFaults && DAMAGE_CODES.has(code))) {
      this.restartLater(code);
    } else if (this.isDamaged && DAMAGE_CODES.has(code)) {
      // The safe halt: nothing of this disk is believed any more.
      this.owner.count('damagedHostsHalted');
      this.isQuarantined = true;
      this.kill();
    } else this.owner.fail(new Violation('crash', 'hosts start', `${this.name} did not start: ${describe(error)}`));
  }

  private restartLater(why: string): void {
    this.kill();
    this.owner.note(this, 'is started again later:', why);
    this.owner.after(RESTART_MS, () => this.start());
  }

  kill(): void {
    this.end();
    this.machine.kill();
  }

  losePower(keep: Keep): void {
    this.end();
    this.machine.losePower(keep);
  }

  private end(): void {
    const keepsBackups = this.owner.plan.faults.some((kind) => kind === 'rolled-back-disk' || kind === 'stale-sector');
    if (keepsBackups && this.host !== undefined) {
      const { startCounter } = this.host.info();
      this.backups.push({ startCounter, disk: this.machine.disk.clone() });
      if (this.backups.length > BACKUPS_MAX) this.backups.shift();
    }
    if (this.host !== undefined) this.reportCounters(this.host);
    this.host = undefined;
    this.isStarting = false;
    this.generation++;
    for (const lost of [...this.waiting]) lost();
    this.waiting.clear();
  }

  takeRun(): boolean {
    const running = this.machine.process;
    if (running?.hasRun !== true) return false;
    running.hasRun = false;
    return true;
  }

  reportCounters(host: NodeHost): void {
    reportCounters(host, (name, by) => this.owner.count(name, by));
  }

  /** Waits for a call on this process, or for its end: then `lost`. */
  call<T>(begin: (host: NodeHost) => Promise<T>): Promise<T | 'lost'> {
    const { host } = this;
    if (host === undefined) return Promise.resolve('lost');
    this.machine.process!.hasRun = true;
    return new Promise((resolve, reject) => {
      const lost = (): void => resolve('lost');
      this.waiting.add(lost);
      begin(host).then(
        (value) => {
          this.waiting.delete(lost);
          resolve(value);
        },
        (error: unknown) => {
          this.waiting.delete(lost);
          reject(error);
        },
      );
    });
  }
}
