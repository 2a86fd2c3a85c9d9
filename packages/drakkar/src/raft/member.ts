/** What a leader knows of one member, and how fast it may send to it (thesis §10.2.1; flow control as in etcd's progress). */

export const MemberState = {
  /** `nextIndex` is a guess: one block at a time, then wait for the answer. */
  Probe: 0,
  /** The logs match up to `nextIndex - 1` or will, once what is under way arrives: pipelined. */
  Replicate: 1,
  /** The entries it needs are compacted: a snapshot is under way. */
  Snapshot: 2,
} as const;
export type MemberState = (typeof MemberState)[keyof typeof MemberState];

const FIRST_WINDOW = 16;

/** Blocks under way: their last indexes and sizes, a ring. */
class Window {
  private lastIndexes = new Float64Array(FIRST_WINDOW);
  private sizes = new Float64Array(FIRST_WINDOW);
  private head = 0;
  count = 0;
  bytes = 0;

  get oldest(): number {
    return this.lastIndexes[this.head];
  }

  add(lastIndex: number, sizeBytes: number): void {
    if (this.count === this.lastIndexes.length) this.grow();
    const slot = (this.head + this.count) & (this.lastIndexes.length - 1);
    this.lastIndexes[slot] = lastIndex;
    this.sizes[slot] = sizeBytes;
    this.count++;
    this.bytes += sizeBytes;
  }

  freeOldest(): void {
    this.bytes -= this.sizes[this.head];
    this.head = (this.head + 1) & (this.lastIndexes.length - 1);
    this.count--;
  }

  clear(): void {
    this.head = this.count = this.bytes = 0;
  }

  private grow(): void {
    const old = this.lastIndexes.length;
    const lastIndexes = new Float64Array(old * 2);
    const sizes = new Float64Array(old * 2);
    for (let i = 0; i < this.count; i++) {
      lastIndexes[i] = this.lastIndexes[(this.head + i) & (old - 1)]!;
      sizes[i] = this.sizes[(this.head + i) & (old - 1)]!;
    }
    this.lastIndexes = lastIndexes;
    this.sizes = sizes;
    this.head = 0;
  }
}

export interface WindowLimits {
  readonly maxInflightBlocks: number;
  readonly maxInflightBytes: number;
}

export class Member {
  readonly replicaId: number;
  /** Witnesses vote, too. */
  isVoter: boolean;
  /** Gets terms and indexes only, and never leads. */
  readonly isWitness: boolean;
  state: MemberState = MemberState.Probe;
  /** Highest index known to be durable and matching there. Only grows within a term. */
  matchIndex = 0;
  /** First index to be sent next; always above `matchIndex`. */
  nextIndex = 1;
  /** Probe only: one is under way. */
  isWaiting = false;
  /** Heard of since the last check of the quorum. */
  isActive = false;
  /** Commit index that it was last told. */
  sentCommit = 0;
  /** Newest read round that it confirmed. */
  readRound = 0;
  /** Number of the newest heartbeat when `matchIndex` last grew, and when entries were last sent. */
  matchedAtHeartbeat = 0;
  sentAtHeartbeat = 0;
  /** It lost what it had acknowledged: counts for nothing while this leader's term lasts (F6, F19). */
  hasRegressed = false;
  /** Ticks for which it counts as too busy for more; 0 for not (`pressure.ts`). */
  busyTicks = 0;
  /** Its host is not heard or cannot be reached; kept by `hostLost` and `hostBack` whatever this replica's role. */
  isAway = false;
  /** Number of the newest heartbeat on whose offer it fell silent. */
  silentSince = 0;
  /** Ticks since it was last heard of. */
  silentTicks = 0;
  /** Of members that do not vote: the end of the log when the round began, and the ticks since (thesis §4.2.1). */
  roundTarget = 0;
  roundTicks = 0;
  /** The last round took less than an election timeout. */
  isCaughtUp = false;

  private readonly limits: WindowLimits;
  /** Made when something is under way; idle members of idle shards are many. */
  private window: Window | undefined;

  constructor(replicaId: number, isVoter: boolean, isWitness: boolean, limits: WindowLimits) {
    this.replicaId = replicaId;
    this.isVoter = isVoter;
    this.isWitness = isWitness;
    this.limits = limits;
  }

  /** A new leader knows nothing of the others. */
  reset(nextIndex: number): void {
    this.state = MemberState.Probe;
    this.matchIndex = 0;
    this.nextIndex = nextIndex;
    this.isWaiting = false;
    this.isActive = false;
    this.sentCommit = 0;
    this.readRound = 0;
    this.matchedAtHeartbeat = 0;
    this.sentAtHeartbeat = 0;
    this.hasRegressed = false;
    this.busyTicks = 0;
    this.silentTicks = 0;
    this.roundTarget = 0;
    this.roundTicks = 0;
    this.isCaughtUp = false;
    this.window?.clear();
  }

  get mayLead(): boolean {
    return this.isVoter && !this.isWitness;
  }

  /** It spoke. */
  heard(): void {
    this.isActive = true;
    this.silentTicks = 0;
  }

  get isWindowFull(): boolean {
    const { window, limits } = this;
    if (window === undefined) return false;
    return window.count >= limits.maxInflightBlocks || window.bytes >= limits.maxInflightBytes;
  }

  get inflightBlocks(): number {
    return this.window === undefined ? 0 : this.window.count;
  }

  becomeProbe(nextIndex: number): void {
    this.state = MemberState.Probe;
    this.nextIndex = nextIndex;
    this.isWaiting = false;
    this.window?.clear();
  }

  becomeReplicate(): void {
    this.state = MemberState.Replicate;
    this.nextIndex = this.matchIndex + 1;
    this.isWaiting = false;
    this.window?.clear();
  }

  becomeSnapshot(): void {
    this.state = MemberState.Snapshot;
    this.isWaiting = false;
    this.window?.clear();
  }

  /** Entries up to `lastIndex` are on their way. */
  sent(lastIndex: number, sizeBytes: number, heartbeat: number): void {
    this.nextIndex = lastIndex + 1;
    this.sentAtHeartbeat = heartbeat;
    (this.window ??= new Window()).add(lastIndex, sizeBytes);
  }

  /** Everything up to `index` has arrived. */
  arrived(index: number): void {
    const { window } = this;
    if (window === undefined) return;
    while (window.count > 0 && window.oldest <= index) window.freeOldest();
  }

  /** Lets one more block out, to a member that answers heartbeats though its window is full. */
  freeOldest(): void {
    if (this.window !== undefined && this.window.count > 0) this.window.freeOldest();
  }

  /** Gives the memory of the window back while nothing is under way. */
  release(): void {
    if (this.inflightBlocks === 0) this.window = undefined;
  }
}
