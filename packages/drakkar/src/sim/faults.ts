/**
 * The fault menu (docs/testing.md): every kind that a run may draw, with how often it strikes and for how long. A run takes a mix of
 * its own, so that some meet one fault alone and others many at once (swarm testing, Groce et al. 2012).
 */
import type { Dice } from './dice.ts';

interface Fault {
  /** Strikes per virtual second while it is in the mix. */
  readonly perSecond: number;
  /** Mean duration; 0 for what happens at once. */
  readonly meanMs: number;
  /** Damages a disk for good: strikes only as many hosts as every shard can lose. */
  readonly isPermanent?: boolean;
  /** Share of the runs that have it in their mix. Default 0.3. */
  readonly share?: number;
}

export const FAULTS = {
  // The network.
  'slow-network': { perSecond: 0.4, meanMs: 800 },
  fragments: { perSecond: 0.4, meanMs: 800 },
  clog: { perSecond: 1.2, meanMs: 300 },
  'swizzle-clog': { perSecond: 0.2, meanMs: 600, share: 0.15 },
  partition: { perSecond: 0.4, meanMs: 700 },
  'partition-one-way': { perSecond: 0.4, meanMs: 700 },
  'partition-bridge': { perSecond: 0.2, meanMs: 700, share: 0.2 },
  'isolate-leader': { perSecond: 0.3, meanMs: 700 },
  'connection-reset': { perSecond: 1.5, meanMs: 0 },
  /** The connections of a host that a snapshot is on its way to. */
  'snapshot-break': { perSecond: 8, meanMs: 0 },
  'corrupt-bytes': { perSecond: 0.8, meanMs: 200 },
  'frame-loss': { perSecond: 0.4, meanMs: 700 },
  'frame-duplicate': { perSecond: 0.4, meanMs: 700 },
  'frame-reorder': { perSecond: 0.4, meanMs: 700 },
  'frame-replay': { perSecond: 0.4, meanMs: 700 },
  // The disk.
  'slow-disk': { perSecond: 0.5, meanMs: 600 },
  'disk-stall': { perSecond: 0.4, meanMs: 400 },
  'disk-full': { perSecond: 0.2, meanMs: 900 },
  /** As on a thin or copying file system: also what was reserved cannot be written. Drawn by the plan. */
  'no-room': { perSecond: 0.4, meanMs: 700, share: 0 },
  'write-error': { perSecond: 0.15, meanMs: 500 },
  'read-error': { perSecond: 0.3, meanMs: 300, share: 0.15 },
  'read-bit-flip': { perSecond: 0.3, meanMs: 300, share: 0.15 },
  'bit-rot': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'zeroed-sector': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'misdirected-write': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'stale-sector': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'lost-disk': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'rolled-back-disk': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'lost-store': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  'stale-store': { perSecond: 0.3, meanMs: 0, isPermanent: true, share: 0.12 },
  // Processes, machines and clocks.
  crash: { perSecond: 0.5, meanMs: 300, share: 0.5 },
  'power-loss': { perSecond: 0.5, meanMs: 300, share: 0.5 },
  'cluster-power-loss': { perSecond: 0.15, meanMs: 300 },
  'restart-storm': { perSecond: 0.1, meanMs: 0, share: 0.15 },
  pause: { perSecond: 0.5, meanMs: 400 },
  'clock-drift': { perSecond: 0.3, meanMs: 1500 },
  'clock-jump': { perSecond: 0.3, meanMs: 0 },
  // What operators and clients do.
  'leader-transfer': { perSecond: 0.8, meanMs: 0 },
  'forced-snapshot': { perSecond: 0.8, meanMs: 0 },
  'proposal-flood': { perSecond: 0.2, meanMs: 0 },
  'session-flood': { perSecond: 0.2, meanMs: 0, share: 0.04 },
  // Of hosts with several engines; `plan.ts` draws it.
  'thread-crash': { perSecond: 0.4, meanMs: 0, share: 0 },
  /** Not without its own plan: hosts to spare, and no disk damaged for good. */
  membership: { perSecond: 2, meanMs: 0, share: 0 },
  /** A host goes down and comes back as another release; drawn by the plan, together. */
  upgrade: { perSecond: 1.2, meanMs: 150, share: 0 },
  'enable-format': { perSecond: 0.4, meanMs: 0, share: 0 },
  /** While it lasts, whoever has installed a snapshot dies right after it. Drawn by the plan. */
  'install-crash': { perSecond: 0.5, meanMs: 3000, share: 0 },
} as const satisfies Record<string, Fault>;

export type FaultKind = keyof typeof FAULTS;
export const FAULT_KINDS: readonly FaultKind[] = Object.keys(FAULTS) as FaultKind[];

export const faultOf = (kind: FaultKind): Fault => FAULTS[kind];

/** Not drawn one by one: they come with a plan of their own. */
const PLANNED: readonly FaultKind[] = ['membership', 'upgrade', 'enable-format', 'no-room', 'install-crash'];

/** What is read may be another thing than what was written. */
export const damagesFiles = (kind: FaultKind): boolean =>
  faultOf(kind).isPermanent === true || kind === 'read-bit-flip' || kind === 'read-error';

/** The mix of one run; a tenth of the runs has none. */
export function drawFaults(dice: Dice): FaultKind[] {
  const isCalm = dice.chance(0.1);
  return FAULT_KINDS.filter((kind) => !PLANNED.includes(kind)).filter(
    (kind) => dice.chance(faultOf(kind).share ?? 0.3) && !isCalm,
  );
}
