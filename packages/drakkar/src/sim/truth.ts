/**
 * What is true of one shard, over all its replicas and their restarts: which entries were committed, what was applied where, who led,
 * who voted for whom. Every observation is held against it; the first that does not fit is a violation.
 */
import type { Result } from '../rsm/state-machine.ts';
import { addressIn, describeMembership, imageOf, memberIds, type Membership, type MembershipInfo } from '../inspect.ts';
import { holds } from './violation.ts';

interface CommittedEntry {
  readonly term: number;
  /** Lowest term in which somebody knew it to be committed. */
  committedIn: number;
}

/** An entry as a reader of the log got it. */
export interface ReadEntry {
  readonly index: number;
  readonly term: number;
  readonly kind: string;
  /** Of a command: number of its call. */
  readonly token: number;
  /** A command of a session: it may stand in the log more than once. */
  readonly isRetryable: boolean;
}

interface AppliedCommand {
  readonly token: number;
  readonly command: number;
  /** Undefined while nobody has seen its answer: a store has it whose process ended in the update. */
  result: number | undefined;
}

export class ShardTruth {
  readonly shardId: number;
  readonly committed = new Map<number, CommittedEntry>();
  commitIndex = 0;
  /** By index. */
  readonly applied = new Map<number, AppliedCommand>();
  /** What stores were given in updates that nobody has seen the end of, by index. */
  private readonly given = new Map<number, AppliedCommand>();
  /** What readers of the log got, by index. */
  private readonly read = new Map<number, ReadEntry & { readonly command: number }>();
  private readonly digests = new Map<number, number>();
  /** Where each call's command was applied. */
  readonly indexOf = new Map<number, number>();
  private readonly leaders = new Map<number, number>();
  private readonly votes = new Map<string, number>();
  private readonly previousTerms = new Map<string, number>();
  /** By the index of the change that made it. */
  private readonly memberships = new Map<number, string>();
  private readonly removed = new Set<number>();
  private newest: Membership | undefined;
  /** Highest index whose write was acknowledged. */
  acknowledgedIndex = 0;

  constructor(shardId: number) {
    this.shardId = shardId;
  }

  /** Election safety (Raft §5.2). */
  leads(term: number, replicaId: number): void {
    const known = this.leaders.get(term);
    holds(known === undefined || known === replicaId, 'one leader per term', () => {
      return `replicas ${known} and ${replicaId} both lead shard ${this.shardId} in term ${term}`;
    });
    this.leaders.set(term, replicaId);
  }

  leaderOf(term: number): number | undefined {
    return this.leaders.get(term);
  }

  /** How many of `voters` are known to vote for `candidate`. Its own vote needs no message. */
  votesFor(term: number, candidate: number, voters: Iterable<number>): number {
    let count = 0;
    for (const voter of voters) if (voter === candidate || this.votes.get(`${term}/${voter}`) === candidate) count++;
    return count;
  }

  /** A replica has applied it. Those with the same index are the same, and the removed never come back. */
  hasMembership(membership: Membership): boolean {
    const { configChangeIndex } = membership;
    const image = JSON.stringify(imageOf(membership));
    const known = this.memberships.get(configChangeIndex);
    if (known !== undefined) {
      holds(known === image, 'replicas agree on the membership', () => {
        return `the membership of shard ${this.shardId} at ${configChangeIndex} is ${known} on one replica and ${image} on another`;
      });
      return false;
    }
    this.memberships.set(configChangeIndex, image);
    for (const id of memberIds(membership)) {
      holds(!this.removed.has(id), 'the removed never come back', () => {
        return `replica ${id} was removed from shard ${this.shardId} and is a member again at ${configChangeIndex}`;
      });
    }
    for (const id of membership.removed) this.removed.add(id);
    const isNewest = configChangeIndex >= (this.newest?.configChangeIndex ?? 0);
    if (isNewest) this.newest = membership;
    return true;
  }

  /** Undefined before anybody has applied anything. */
  get newestMembership(): MembershipInfo | undefined {
    return this.newest === undefined ? undefined : describeMembership(this.newest);
  }

  wasRemoved(replicaId: number): boolean {
    return this.removed.has(replicaId);
  }

  isMember(replicaId: number): boolean {
    return this.newest !== undefined && addressIn(this.newest, replicaId) !== undefined;
  }

  /** Whether an accepted change stands in `(from, to]`. */
  hasChangeBetween(from: number, to: number): boolean {
    for (const index of this.memberships.keys()) if (index > from && index <= to) return true;
    return false;
  }

  /** One vote per term, whatever happens to the voter in between. */
  grantsVote(term: number, voter: number, candidate: number): void {
    const key = `${term}/${voter}`;
    const known = this.votes.get(key);
    holds(known === undefined || known === candidate, 'one vote per term', () => {
      return `replica ${voter} of shard ${this.shardId} voted for ${known} and for ${candidate} in term ${term}`;
    });
    this.votes.set(key, candidate);
  }

  /** Log matching (Raft §5.3): entries with the same index and term have the same one before them. */
  holdsEntry(index: number, term: number, previousTerm: number): void {
    const key = `${index}/${term}`;
    const known = this.previousTerms.get(key);
    holds(known === undefined || known === previousTerm, 'log matching', () => {
      return `entry ${index} of term ${term} in shard ${this.shardId} follows terms ${known} and ${previousTerm}`;
    });
    this.previousTerms.set(key, previousTerm);
  }

  /** State machine safety (Raft §5.4.3); true when nobody knew it before. */
  commits(index: number, term: number, knownIn: number): boolean {
    const known = this.committed.get(index);
    const read = this.read.get(index);
    holds(read === undefined || read.term === term, 'what is read from the log is committed', () => {
      return `entry ${index} of shard ${this.shardId} was read with term ${read!.term} and is committed with ${term}`;
    });
    if (known === undefined) {
      this.committed.set(index, { term, committedIn: knownIn });
      if (index > this.commitIndex) this.commitIndex = index;
      return true;
    }
    holds(known.term === term, 'committed entries are immutable', () => {
      return `entry ${index} of shard ${this.shardId} was committed with term ${known.term} and with term ${term}`;
    });
    if (knownIn < known.committedIn) known.committedIn = knownIn;
    return false;
  }

  applies(index: number, token: number, command: Uint8Array, result: Result): void {
    this.given.delete(index);
    this.knowsApplied(index, { token, command: digest(command), result: digest(result) });
  }

  /** A store is given a command. Its process may end in the update, and what it wrote be there all the same. */
  gives(index: number, token: number, command: Uint8Array): void {
    const given = { token, command: digest(command), result: undefined };
    if (this.applied.has(index)) this.knowsApplied(index, given);
    else this.given.set(index, given);
  }

  /** A store was opened, and has what was given to it or its like up to `storedIndex`: that was applied, seen or not. */
  stores(storedIndex: number): void {
    for (const [index, given] of this.given) {
      if (index > storedIndex) continue;
      this.given.delete(index);
      this.knowsApplied(index, given);
    }
  }

  private knowsApplied(index: number, seen: AppliedCommand): void {
    const { token } = seen;
    const known = this.applied.get(index);
    const read = this.read.get(index);
    holds(
      read === undefined || (read.token === token && read.command === seen.command),
      'what is read is applied',
      () => {
        return `entry ${index} of shard ${this.shardId} was read as call ${read!.token} and applied as call ${token}`;
      },
    );
    if (known === undefined) {
      const other = this.indexOf.get(token);
      holds(other === undefined, 'applied at most once', () => {
        return `call ${token} was applied at ${other} and at ${index} of shard ${this.shardId}`;
      });
      this.applied.set(index, seen);
      this.indexOf.set(token, index);
      return;
    }
    holds(known.token === token && known.command === seen.command, 'state machine safety', () => {
      return `entry ${index} of shard ${this.shardId} is call ${known.token} on one replica and ${token} on another`;
    });
    const isSameAnswer = known.result === undefined || seen.result === undefined || known.result === seen.result;
    holds(isSameAnswer, 'state machines agree on answers', () => {
      return `call ${token} at ${index} of shard ${this.shardId} is answered differently on two replicas`;
    });
    known.result ??= seen.result;
  }

  /** A stream or a query of the log gave this entry, somewhere. */
  readsEntry(entry: ReadEntry, bytes: Uint8Array): void {
    const { index, term, token, kind } = entry;
    const command = digest(bytes);
    const what = (): string => `entry ${index} of shard ${this.shardId}, read as ${kind} ${token} of term ${term}`;
    const known = this.read.get(index);
    const isSame =
      known === undefined ||
      (known.term === term && known.kind === kind && known.token === token && known.command === command);
    holds(isSame, 'readers of the log agree', what);
    const applied = this.applied.get(index);
    holds(
      applied === undefined || (applied.token === token && applied.command === command),
      'what is read is applied',
      what,
    );
    const committed = this.committed.get(index);
    holds(committed === undefined || committed.term === term, 'what is read from the log is committed', what);
    if (known === undefined) this.read.set(index, { ...entry, command });
  }

  /** With everything applied: what was read was committed, and every command without a session was applied. */
  checkRead(): void {
    for (const { index, kind, isRetryable, token } of this.read.values()) {
      const isRight = this.committed.has(index) && (kind !== 'command' || isRetryable || this.applied.has(index));
      holds(isRight, 'what is read is applied', () => `${kind} ${token} at ${index} of shard ${this.shardId}`);
    }
  }

  /** Fault F15. */
  repeats(index: number, storedIndex: number): void {
    holds(false, 'a store is given nothing twice', () => {
      return `entry ${index} of shard ${this.shardId} was given to a state machine that has stored ${storedIndex}`;
    });
  }

  hasDigest(index: number, hash: number): void {
    const known = this.digests.get(index);
    holds(known === undefined || known === hash, 'state machines agree on state', () => {
      return `two replicas of shard ${this.shardId} differ with everything up to ${index} applied`;
    });
    this.digests.set(index, hash);
  }

  /** A write was answered; `floor` is what was acknowledged when it was asked for. */
  acknowledges(token: number, floor: number): number {
    const index = this.indexOf.get(token);
    holds(index !== undefined, 'acknowledged means applied', () => {
      return `call ${token} of shard ${this.shardId} was answered and nobody applied it`;
    });
    holds(index > floor, 'linearizable writes', () => {
      return `call ${token} of shard ${this.shardId} was applied at ${index}, before the write at ${floor} that ended before it began`;
    });
    if (index > this.acknowledgedIndex) this.acknowledgedIndex = index;
    return index;
  }

  /** The index of the last command at or before `index`: an on-disk state machine that was opened tells of entries that are none, too. */
  lastCommandAt(index: number): number {
    let at = index;
    while (at > 0 && !this.applied.has(at)) at--;
    return at;
  }

  /** A linearizable read was answered from a state that had come to `appliedIndex`. */
  reads(appliedIndex: number, floor: number): void {
    holds(appliedIndex >= floor, 'linearizable reads', () => {
      return `a read of shard ${this.shardId} saw the state at ${appliedIndex}, though ${floor} was acknowledged before it began`;
    });
  }
}

/** FNV-1a. */
function digest(value: Result): number {
  if (typeof value === 'number') return value;
  let hash = 0x811c9dc5;
  for (let i = 0; i < value.length; i++) hash = Math.imul(hash ^ value[i], 0x01000193);
  return hash >>> 0;
}
