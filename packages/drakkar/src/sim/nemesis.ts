/**
 * Strikes: carries out the faults of a run's mix, each kind at moments of its own, ends what lasts, and takes everything back before
 * the run is asked for progress. What each kind does to a disk for good stands in `damage.ts`.
 */
import { systemError, type DiskOperation, type MemoryMachines, type World } from '../testing.ts';
import { damageDisk, damageStores, directoryOf, loseDisk, rollBackDisk, type Damageable } from './damage.ts';
import type { Dice } from './dice.ts';
import { faultOf, type FaultKind } from './faults.ts';
import type { SimHost } from './host.ts';
import type { Plan } from './plan.ts';

const damageable = ({ machine, lastLogWrites, backups }: SimHost): Damageable => ({
  disk: machine.disk,
  lastLogWrites,
  older: backups[0]?.disk,
});

/** The longest that a read on a slow disk may take. */
const READS_UNDER_WAY_MS = 1000;
/** From the end of an installation to the end of the process, and to the next one. */
const INSTALL_CRASH_MEAN_MS = 2;
const INSTALL_CRASH_DOWN_MS = 200;

/** What the nemesis asks of the run. */
export interface NemesisOwner {
  readonly plan: Plan;
  readonly machines: MemoryMachines;
  readonly hosts: readonly SimHost[];
  leaderOf(shardId: number): SimHost | undefined;
  transferLeader(): void;
  forceSnapshot(): void;
  floodProposals(): void;
  floodSessions(): void;
  changeMembership(shardId: number): void;
  enableFormat(): void;
  note(what: string, ...details: (number | string)[]): void;
  count(name: string, by?: number): void;
}

/** What a disk suffers at the moment. */
class DiskTrouble {
  slowFactor = 1;
  stalledUntilMs = 0;
  writeErrors = 0;
  /** Probability that a write finds no room. */
  noRoom = 0;
  readErrors = 0;
  readFlips = 0;
}

export class Nemesis {
  private readonly owner: NemesisOwner;
  private readonly world: World;
  private readonly dice: Dice;
  private readonly troubles = new Map<SimHost, DiskTrouble>();
  /** Ends what lasts, by a number of its own. */
  private readonly active = new Map<number, () => void>();
  private strikes = 0;
  private isOver = false;
  /** Factors and probabilities that the network looks up for every delivery. */
  private slowNetwork = 1;
  private fragments = 0;
  private corruption = 0;
  private strikesInstallers = false;

  constructor(owner: NemesisOwner, dice: Dice) {
    this.owner = owner;
    this.world = owner.machines.world;
    this.dice = dice;
    for (const host of owner.hosts) this.prepareDisk(host);
    this.prepareNetwork();
  }

  /** Begins with every kind of the mix. */
  start(): void {
    for (const kind of this.owner.plan.faults) this.scheduleNext(kind, this.dice.stream(kind));
  }

  /** Takes back whatever lasts; nothing strikes any more. */
  end(): void {
    this.isOver = true;
    for (const heal of [...this.active.values()]) heal();
    this.owner.machines.network.heal();
    for (const host of this.owner.hosts) {
      host.start();
    }
  }

  /** `host` has installed a snapshot. */
  onSnapshotInstalled(host: SimHost): void {
    if (!this.strikesInstallers || this.isOver) return;
    const { generation } = host;
    this.world.schedule(this.dice.exponential(INSTALL_CRASH_MEAN_MS), () => {
      if (this.isOver || generation !== host.generation) return;
      this.owner.note('dies after its snapshot:', host.name);
      host.kill();
      this.world.schedule(INSTALL_CRASH_DOWN_MS, () => host.start());
    });
  }

  private scheduleNext(kind: FaultKind, dice: Dice): void {
    this.world.schedule(dice.exponential(1000 / faultOf(kind).perSecond), () => {
      if (this.isOver) return;
      this.strike(kind, dice);
      this.scheduleNext(kind, dice);
    });
  }

  private strike(kind: FaultKind, dice: Dice): void {
    const durationMs = dice.exponential(faultOf(kind).meanMs || 1);
    const heal = this.carryOut(kind, dice);
    if (heal === undefined) return;
    this.owner.count(`fault ${kind}`);
    if (heal === 'done') return;
    const number = ++this.strikes;
    const once = (): void => {
      if (!this.active.delete(number)) return;
      this.owner.note('fault ends:', kind);
      heal();
    };
    this.active.set(number, once);
    this.world.schedule(durationMs, once);
  }

  /** Gives how it is taken back, 'done' when there is nothing to take back, undefined when it did not happen. */
  private carryOut(kind: FaultKind, dice: Dice): (() => void) | 'done' | undefined {
    const { hosts, machines, owner } = { hosts: this.owner.hosts, machines: this.owner.machines, owner: this.owner };
    const { network } = machines;
    const host = dice.pick(hosts);
    const trouble = this.troubles.get(host)!;
    const other = dice.pick(hosts.filter((candidate) => candidate !== host)) ?? host;
    owner.note('fault:', kind, host.name, other.name);
    switch (kind) {
      case 'slow-network':
        this.slowNetwork = dice.between(3, 40);
        return () => (this.slowNetwork = 1);
      case 'fragments':
        this.fragments = dice.unit();
        return () => (this.fragments = 0);
      case 'clog':
        return this.cutOff([[host, other]]);
      case 'swizzle-clog':
        return this.cutOff(hosts.filter(() => dice.chance(0.5)).map((from) => [from, dice.pick(hosts)] as const));
      case 'partition':
        return this.split(dice, true);
      case 'partition-one-way':
        return this.split(dice, false);
      case 'partition-bridge':
        return this.bridge(dice);
      case 'isolate-leader': {
        const leader = owner.leaderOf(dice.pick(owner.plan.shards).shardId);
        if (leader === undefined) return undefined;
        const others = hosts.filter((candidate) => candidate !== leader);
        const both = dice.chance(0.6);
        // Its clients do not know: a long tail that others will replace.
        if (owner.plan.faults.includes('proposal-flood') && dice.chance(0.5)) owner.floodProposals();
        return this.cutOff(
          others.flatMap((to) => (both ? [[leader, to] as const, [to, leader] as const] : [[to, leader] as const])),
        );
      }
      case 'connection-reset':
        network.reset(host.name, other.name);
        return 'done';
      case 'snapshot-break': {
        const receivers = hosts.filter((candidate) => candidate.isReceivingSnapshot);
        if (receivers.length === 0) return undefined;
        const receiver = dice.pick(receivers);
        for (const from of hosts) if (from !== receiver) network.reset(from.name, receiver.name);
        return 'done';
      }
      case 'corrupt-bytes':
        this.corruption = 0.02 * dice.unit();
        return () => (this.corruption = 0);
      case 'frame-loss':
        host.disturbance.loss = 0.3 * dice.unit();
        return () => (host.disturbance.loss = 0);
      case 'frame-duplicate':
        host.disturbance.duplicate = 0.3 * dice.unit();
        return () => (host.disturbance.duplicate = 0);
      case 'frame-reorder':
        host.disturbance.reorder = 0.4 * dice.unit();
        return () => (host.disturbance.reorder = 0);
      case 'frame-replay':
        host.disturbance.replay = 0.2 * dice.unit();
        return () => (host.disturbance.replay = 0);
      case 'slow-disk':
        trouble.slowFactor = dice.between(5, 60);
        return () => (trouble.slowFactor = 1);
      case 'disk-stall':
        trouble.stalledUntilMs = this.world.nowMs() + dice.exponential(faultOf(kind).meanMs);
        return 'done';
      case 'disk-full':
        host.machine.disk.capacityBytes = host.machine.disk.usedBytes + dice.below(3) * owner.plan.segmentBytes;
        return () => (host.machine.disk.capacityBytes = Number.POSITIVE_INFINITY);
      case 'no-room':
        trouble.noRoom = dice.pick([0.3, 1]);
        return () => (trouble.noRoom = 0);
      case 'write-error':
        trouble.writeErrors = 1;
        return () => (trouble.writeErrors = 0);
      case 'read-error':
        trouble.readErrors = 0.3;
        return this.readFaults(host, () => (trouble.readErrors = 0));
      case 'read-bit-flip':
        trouble.readFlips = 0.3;
        return this.readFaults(host, () => (trouble.readFlips = 0));
      case 'bit-rot':
      case 'zeroed-sector':
      case 'misdirected-write':
      case 'stale-sector':
        return this.damage(dice, (victim) => damageDisk(kind, damageable(victim), dice));
      case 'lost-disk':
        return this.damage(dice, (victim) => loseDisk(victim, hosts, dice));
      case 'lost-store':
      case 'stale-store':
        return this.damage(dice, ({ machine }) => damageStores(machine.disk, kind === 'lost-store', dice));
      case 'rolled-back-disk':
        return this.damage(dice, (victim) => rollBackDisk(victim, hosts));
      case 'crash':
        host.kill();
        return () => host.start();
      case 'install-crash':
        this.strikesInstallers = true;
        return () => (this.strikesInstallers = false);
      case 'power-loss':
        this.losePower(host, dice);
        return () => host.start();
      case 'cluster-power-loss':
        for (const each of hosts) this.losePower(each, dice);
        return () => hosts.forEach((each) => each.start());
      case 'restart-storm':
        this.storm(dice);
        return 'done';
      case 'pause':
        host.machine.process?.stop();
        return () => host.machine.process?.continue();
      case 'clock-drift':
        host.machine.process?.adjustClock(dice.pick([0.5, 0.8, 1.3, 2]));
        return () => host.machine.process?.adjustClock(1);
      case 'clock-jump':
        host.machine.process?.adjustClock(1, dice.exponential(2000));
        return 'done';
      case 'thread-crash':
        if (host.machine.threads.length > 0) {
          owner.count('threadsCrashed');
          dice.pick(host.machine.threads).crash(new Error('a thread that dies'));
        }
        return 'done';
      case 'leader-transfer':
        owner.transferLeader();
        return 'done';
      case 'forced-snapshot':
        owner.forceSnapshot();
        return 'done';
      case 'proposal-flood':
        owner.floodProposals();
        return 'done';
      case 'session-flood':
        owner.floodSessions();
        return 'done';
      case 'upgrade':
        host.kill();
        host.changeRelease(dice.chance(0.65));
        return () => host.start();
      case 'enable-format':
        owner.enableFormat();
        return 'done';
      case 'membership':
        owner.changeMembership(dice.pick(owner.plan.shards).shardId);
        return 'done';
    }
  }

  // The network.

  private prepareNetwork(): void {
    const { network } = this.owner.machines;
    const { networkMs } = this.owner.plan;
    const dice = this.dice.stream('network');
    network.delayOf = (_from, _to, length) => {
      const base = networkMs * (0.5 + dice.exponential(0.5)) * this.slowNetwork;
      return base + (this.slowNetwork > 1 ? length / 2000 : length / 100_000);
    };
    network.portionOf = (length) =>
      this.fragments > 0 && dice.chance(this.fragments) ? 1 + dice.below(length) : length;
    network.spoil = (_from, _to, bytes) => {
      if (this.corruption === 0 || bytes.length === 0 || !dice.chance(this.corruption)) return;
      bytes[dice.below(bytes.length)] ^= 1 << dice.below(8);
      this.owner.count('bytesCorrupted');
    };
  }

  private cutOff(links: readonly (readonly [from: SimHost, to: SimHost])[]): () => void {
    const { network } = this.owner.machines;
    for (const [from, to] of links) network.cutOneWay(from.name, to.name);
    return () => {
      for (const [from, to] of links) network.healOneWay(from.name, to.name);
    };
  }

  private split(dice: Dice, isSymmetric: boolean): () => void {
    const mixed = dice.shuffle(this.owner.hosts);
    const at = dice.between(1, Math.max(1, mixed.length - 1));
    const links = mixed.slice(0, at).flatMap((a) => mixed.slice(at).map((b) => [a, b] as const));
    return this.cutOff(isSymmetric ? links.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]) : links);
  }

  /** Two halves that only one host can reach. */
  private bridge(dice: Dice): () => void {
    const [, ...rest] = dice.shuffle(this.owner.hosts);
    const half = rest.length >>> 1;
    const links = rest.slice(0, half).flatMap((a) => rest.slice(half).map((b) => [a, b] as const));
    return this.cutOff(links.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]));
  }

  // Disks and machines.

  private prepareDisk(host: SimHost): void {
    const trouble = new DiskTrouble();
    this.troubles.set(host, trouble);
    const { disk } = host.machine;
    const dice = this.dice.stream(`disk of ${host.name}`);
    const { diskMs, keepShare } = this.owner.plan;
    disk.latencyOf = (_operation, length) => {
      const stallMs = Math.max(0, trouble.stalledUntilMs - this.world.nowMs());
      return stallMs + (diskMs * (0.5 + dice.exponential(0.5)) + length / 1_000_000) * trouble.slowFactor;
    };
    disk.keepOnError = () => dice.chance(keepShare);
    disk.fault = (operation, path, position) => this.diskFault(host, trouble, dice, operation, path, position);
    disk.readFault = (_path, bytes) => {
      // What is flipped in the last group at recovery would pass for a torn tail, and cannot be told from one (F3).
      if (host.isStarting || bytes.length === 0 || trouble.readFlips === 0 || !dice.chance(trouble.readFlips)) return;
      bytes[dice.below(bytes.length)] ^= 1 << dice.below(8);
      this.owner.count('readsFlipped');
    };
  }

  private diskFault(
    host: SimHost,
    trouble: DiskTrouble,
    dice: Dice,
    operation: DiskOperation,
    path: string,
    position: number,
  ): Error | undefined {
    if (operation === 'write' && path.endsWith('.wal')) {
      host.lastLogWrites.set(directoryOf(path), { path, position });
    }
    if ((operation === 'write' || operation === 'sync') && trouble.writeErrors > 0) {
      trouble.writeErrors--;
      this.owner.count('writesFailed');
      return systemError('EIO', path);
    }
    if (operation === 'write' && trouble.noRoom > 0 && dice.chance(trouble.noRoom)) {
      this.owner.count(path.endsWith('.wal') ? 'logWritesWithoutRoom' : 'writesWithoutRoom');
      return systemError('ENOSPC', path);
    }
    if (operation === 'read' && trouble.readErrors > 0 && dice.chance(trouble.readErrors)) {
      this.owner.count('readsFailed');
      return systemError('EIO', path);
    }
    return undefined;
  }

  private readFaults(host: SimHost, end: () => void): () => void {
    host.readFaults++;
    return () => {
      end();
      // What was read until now may still be on its way to whoever finds it wrong.
      this.world.schedule(READS_UNDER_WAY_MS, () => host.readFaults--);
    };
  }

  private losePower(host: SimHost, dice: Dice): void {
    const { keepShare } = this.owner.plan;
    host.losePower(() => {
      const isKept = dice.chance(keepShare);
      if (!isKept) this.owner.count('sectorsTorn');
      return isKept;
    });
  }

  /** Permanent damage: one of the hosts that the run can do without, while it is down. */
  private damage(dice: Dice, inflict: (host: SimHost) => boolean): (() => void) | undefined {
    const ids = this.owner.plan.victims;
    const victims = this.owner.hosts.filter((host) => ids.includes(host.id) && !host.isDamaged);
    if (victims.length === 0) return undefined;
    const victim = dice.pick(victims);
    this.losePower(victim, dice);
    const isInflicted = inflict(victim);
    this.owner.note('damaged:', victim.name, isInflicted ? 'yes' : 'no');
    if (isInflicted) victim.isDamaged = true;
    return () => victim.start();
  }

  /** One host after the other is down for a moment (scenario 69). */
  private storm(dice: Dice): void {
    let atMs = 0;
    for (const host of dice.shuffle(this.owner.hosts)) {
      this.world.schedule(atMs, () => {
        if (!this.isOver) host.kill();
      });
      atMs += this.owner.plan.electionRtt * this.owner.plan.rttMs;
      this.world.schedule(atMs, () => host.start());
    }
  }
}
