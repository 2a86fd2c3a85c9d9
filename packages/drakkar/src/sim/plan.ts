/** How one run is laid out: hosts, shards, options, clients, faults. All of it follows from the seed, and what a caller fixes. */
import type { Dice } from './dice.ts';
import type { StateMachineKind } from '../rsm/state-machine.ts';
import { drawFaults, faultOf, type FaultKind } from './faults.ts';

/** Share of the runs in which members come and go. What a shard can lose changes with them, so that no disk is damaged for good. */
const MEMBERSHIP_SHARE = 0.35;

/** Share of the runs in which disks refuse writes to room that was reserved. */
const NO_ROOM_SHARE = 0.15;

/** Share of the runs in which hosts die when they have installed a snapshot. */
const INSTALL_CRASH_SHARE = 0.2;

/** Share of the runs in which hosts of two releases live together. */
const UPGRADE_SHARE = 0.25;

export interface ShardPlan {
  readonly shardId: number;
  /** Hosts its replicas live on; replica ids are host ids. */
  readonly memberIds: readonly number[];
  /** Of its state machines, where the workload has a choice. */
  readonly kind: StateMachineKind;
}

export interface Plan {
  readonly hostCount: number;
  /** Hosts more that have no replica at first. */
  readonly spareCount: number;
  readonly shards: readonly ShardPlan[];
  readonly clientCount: number;
  readonly operations: number;
  readonly faults: readonly FaultKind[];
  /** Hosts that permanent damage may strike: each shard keeps a healthy majority. */
  readonly victims: readonly number[];
  readonly rttMs: number;
  readonly electionRtt: number;
  readonly heartbeatRtt: number;
  readonly snapshotEntries: number;
  readonly compactionOverhead: number;
  readonly segmentBytes: number;
  /** Mean virtual milliseconds between two calls of a client. */
  readonly thinkMs: number;
  readonly networkMs: number;
  readonly diskMs: number;
  /** Probability that a sector, or a name, that was not flushed survives a power cut. */
  readonly keepShare: number;
  readonly preVote: boolean;
  /** 0 for the default. */
  readonly maxInMemoryLogBytes: number;
  /** Idle shards may fall silent. */
  readonly quiesce: boolean;
  /** After every so many calls all clients hold still for a while; 0 for never. */
  readonly lullEvery: number;
  readonly lullMs: number;
  /** Hosts know one another by certificates, and replace connections at that age; 0 for plain connections. */
  readonly connectionAgeMs: number;
  /** Hosts that begin as the newer one of two releases; the others as the older one. */
  readonly newReleases: readonly number[];
  /** Bounds of snapshots on their way; bytes per second, 0 for none. */
  readonly snapshotSendBytesPerSecond: number;
  readonly snapshotReceiveBytesPerSecond: number;
  readonly maxSnapshotSends: number;
  readonly maxSnapshotReceives: number;
  /** Snapshots are compressed, and in blocks of that size. */
  readonly compressesSnapshots: boolean;
  readonly snapshotBlockBytes: number;
  /** More disks are lost than can be borne: nothing may be acknowledged after that. */
  readonly losesMajority: boolean;
  /** Most engines that a start of a host may have; each start draws anew. */
  readonly enginesMax: number;
  /** The logs of all hosts are in a directory of their own. */
  readonly hasWalDir: boolean;
}

export interface PlanOptions {
  /** Replicas of a shard, 1 to 7. Default: 3 to 7 by the seed. */
  readonly hosts?: number;
  readonly shards?: number;
  /** Calls of all clients together. Default 500 or a little more. */
  readonly operations?: number;
  /** Of all shards, for workloads with a choice. Default: each shard's own by the seed. */
  readonly kind?: StateMachineKind;
  /** Default: a mix by the seed. */
  readonly faults?: readonly FaultKind[];
  /** Most hosts lose their disks on the way: the run must halt safely. Default: one run in fifty. */
  readonly losesMajority?: boolean;
  /** Default: 1 in eleven runs of twelve, else 3. */
  readonly enginesMax?: number;
}

const KINDS: readonly StateMachineKind[] = ['regular', 'regular', 'concurrent', 'on-disk', 'on-disk'];

export function drawPlan(dice: Dice, options: PlanOptions): Plan {
  // Whatever a caller fixes is drawn all the same: the rest of the plan must not change with it.
  const drawnHosts = dice.pick([3, 3, 3, 3, 4, 5, 6, 7]);
  const hostCount = options.hosts ?? drawnHosts;
  const hostIds = Array.from({ length: hostCount }, (_, i) => i + 1);
  const shards: ShardPlan[] = [];
  const drawnShards = dice.pick([1, 1, 2, 3]);
  const drawnOperations = dice.between(500, 520);
  const shardCount = options.shards ?? drawnShards;
  for (let shardId = 1; shardId <= shardCount; shardId++) {
    const size = shardId === 1 ? hostCount : dice.between(Math.min(3, hostCount), hostCount);
    const memberIds = dice.shuffle(hostIds).slice(0, size);
    const kind = options.kind ?? dice.stream(`kind ${shardId}`).pick(KINDS);
    shards.push({ shardId, memberIds: memberIds.sort((a, b) => a - b), kind });
  }
  const heartbeatRtt = dice.pick([1, 2, 2]);
  const idle = dice.stream('idle');
  const drawn = drawFaults(dice);
  const enginesMax = options.enginesMax ?? dice.stream('engines').pick([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3]);
  if (enginesMax > 1 && drawn.length > 0 && dice.stream('thread-crash').chance(0.5)) drawn.push('thread-crash');
  const losesMajority = options.losesMajority ?? dice.stream('majority').chance(0.02);
  const changes = dice.stream('membership');
  const wantsChanges = changes.chance(MEMBERSHIP_SHARE) && drawn.length > 0 && !losesMajority;
  const spares = changes.between(1, 3);
  const mix: FaultKind[] = wantsChanges
    ? [...drawn.filter((kind) => faultOf(kind).isPermanent !== true), 'membership' as const]
    : drawn;
  const releases = dice.stream('releases');
  if (releases.chance(UPGRADE_SHARE) && drawn.length > 0) mix.push('upgrade', 'enable-format');
  if (dice.stream('no room').chance(NO_ROOM_SHARE) && drawn.length > 0) mix.push('no-room');
  if (dice.stream('install crash').chance(INSTALL_CRASH_SHARE) && drawn.length > 0) mix.push('install-crash');
  const newShare = releases.pick([0, 0, 0.5, 1]);
  // When most disks are lost, it must be known whose disks are the most.
  const faults = (options.faults ?? mix).filter((kind) => kind !== 'membership' || !losesMajority);
  const changesMembers = faults.includes('membership');
  const quiesce = idle.chance(0.8);
  const lullEvery = quiesce ? idle.pick([0, 30, 60, 120]) : 0;
  const lullMs = idle.pick([200, 400, 800]);
  const allIds = Array.from({ length: hostCount + (changesMembers ? spares : 0) }, (_, i) => i + 1);
  return {
    hostCount,
    spareCount: allIds.length - hostCount,
    shards,
    clientCount: dice.pick([3, 4, 6, 8]),
    operations: options.operations ?? drawnOperations,
    faults,
    victims: changesMembers ? [] : drawVictims(dice, hostIds, shards),
    rttMs: dice.pick([20, 30, 40]),
    electionRtt: 2 * heartbeatRtt + dice.between(2, 10),
    heartbeatRtt,
    snapshotEntries: dice.pick([0, 7, 20, 50, 120]),
    compactionOverhead: dice.pick([0, 1, 10, 40]),
    // A frame that catches somebody up after a flood must fit into half of it.
    segmentBytes: dice.pick([48, 64, 96]) * 4096 * (faults.includes('session-flood') ? 8 : 1),
    thinkMs: dice.pick([1, 5, 10, 20]),
    networkMs: dice.pick([0.3, 1, 4]),
    diskMs: dice.pick([0.1, 0.5, 3]),
    keepShare: dice.pick([0, 0.2, 0.5, 0.9, 1]),
    preVote: dice.chance(0.85),
    maxInMemoryLogBytes: dice.stream('memory').pick([0, 0, 4096, 6000]),
    quiesce,
    lullEvery,
    lullMs,
    connectionAgeMs: drawConnectionAge(dice.stream('certificates')),
    newReleases: allIds.filter(() => releases.chance(newShare)),
    ...drawSnapshots(dice.stream('snapshots'), faults.includes('session-flood')),
    losesMajority,
    enginesMax,
    hasWalDir: dice.stream('wal dir').chance(0.25),
  };
}

function drawSnapshots(
  dice: Dice,
  hasFlood: boolean,
): Pick<
  Plan,
  | 'snapshotSendBytesPerSecond'
  | 'snapshotReceiveBytesPerSecond'
  | 'maxSnapshotSends'
  | 'maxSnapshotReceives'
  | 'compressesSnapshots'
  | 'snapshotBlockBytes'
> {
  // Thousands of sessions must get through, too, within the time that progress may take.
  const scale = hasFlood ? 64 : 1;
  return {
    snapshotSendBytesPerSecond: scale * dice.pick([0, 4096, 4096, 16_384]),
    snapshotReceiveBytesPerSecond: scale * dice.pick([0, 4096, 4096, 16_384]),
    maxSnapshotSends: dice.pick([1, 2, 16]),
    maxSnapshotReceives: dice.pick([1, 2, 16]),
    compressesSnapshots: dice.chance(0.4),
    snapshotBlockBytes: dice.pick([256, 1024, 262_144]),
  };
}

function drawConnectionAge(dice: Dice): number {
  return dice.chance(0.3) ? dice.between(1000, 4000) : 0;
}

function drawVictims(dice: Dice, hostIds: readonly number[], shards: readonly ShardPlan[]): number[] {
  const victims: number[] = [];
  for (const id of dice.shuffle(hostIds)) {
    const isBearable = shards.every(({ memberIds }) => {
      const struck = [...victims, id].filter((victim) => memberIds.includes(victim)).length;
      return struck <= Math.floor((memberIds.length - 1) / 2);
    });
    if (isBearable) victims.push(id);
  }
  return victims;
}
