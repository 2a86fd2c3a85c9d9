/**
 * Looks at every replica after every step, and holds what it sees against the truth of the shard; `frames.ts` does so with what leaves.
 * Sees replicas through `inspect.ts` and changes nothing.
 */
import { forEachReplica, imageOf, memberIds, type Membership, type ReplicaView } from '../inspect.ts';
import { FrameChecks, type DurableState, type DurableStates } from './frames.ts';
import { viewOf, type ObservedHost } from './observed.ts';
import type { Trace } from './trace.ts';
import { ShardTruth } from './truth.ts';
import { holds } from './violation.ts';

/** What is durable, and the log it stands beside. */
export interface Promised extends DurableState {
  readonly view: ReplicaView;
}

/** The last look at one replica. */
class Seen {
  readonly view: ReplicaView;
  readonly owner: ObservedHost;
  role = '';
  term = 0;
  commitIndex = 0;
  appliedIndex = 0;
  lastIndex = 0;
  lastTerm = 0;
  status = 'running';
  isQuiesced = false;
  membership: Membership | undefined;

  constructor(view: ReplicaView, owner: ObservedHost) {
    this.view = view;
    this.owner = owner;
  }
}

export class Observer {
  readonly truths: Map<number, ShardTruth> = new Map();
  private readonly seen = new Map<string, Seen>();
  /** Term, vote and snapshot that are on the disk for certain. */
  private readonly durable: DurableStates = new Map();
  readonly frames: FrameChecks;
  private readonly hosts: readonly ObservedHost[];
  private readonly trace: Trace;
  private readonly count: (name: string) => void;

  constructor(
    hosts: readonly ObservedHost[],
    shardIds: readonly number[],
    trace: Trace,
    count: (name: string) => void,
  ) {
    this.hosts = hosts;
    this.trace = trace;
    this.count = count;
    for (const shardId of shardIds) this.truths.set(shardId, new ShardTruth(shardId));
    this.frames = new FrameChecks(hosts, this.truths, this.durable, trace, count);
  }

  /** After every event, at whom it concerned. */
  look(): void {
    for (const owner of this.hosts) {
      if (owner.takeRun() && owner.host !== undefined) forEachReplica(owner.host, (view) => this.lookAt(owner, view));
    }
  }

  private lookAt(owner: ObservedHost, view: ReplicaView): void {
    const key = `${view.shardId}/${view.replicaId}`;
    let seen = this.seen.get(key);
    if (seen?.view !== view) {
      const before = seen;
      seen = new Seen(view, owner);
      this.seen.set(key, seen);
      if (before !== undefined && !owner.isForgetful) this.checkRestart(owner, before, view);
    }
    const { term, role, commitIndex, appliedIndex, lastIndex } = view;
    if (view.isQuiesced !== seen.isQuiesced) this.checkSilence(seen, view);
    const isSame =
      view.membership === seen.membership &&
      term === seen.term &&
      role === seen.role &&
      commitIndex === seen.commitIndex &&
      lastIndex === seen.lastIndex;
    if (isSame && appliedIndex === seen.appliedIndex && view.status === seen.status) return;
    this.checkChange(owner, seen, view);
  }

  private checkSilence(seen: Seen, view: ReplicaView): void {
    seen.isQuiesced = view.isQuiesced;
    if (!view.isQuiesced || view.role !== 'leader') return;
    holds(view.behind().length === 0, 'a silent leader leaves nobody behind', () => {
      return `replica ${view.replicaId} of shard ${view.shardId} is silent, ${view.behind().join(', ')} lack entries`;
    });
  }

  private checkChange(owner: ObservedHost, seen: Seen, view: ReplicaView): void {
    const { shardId, replicaId, term, role, commitIndex, appliedIndex, lastIndex } = view;
    const truth = this.truths.get(shardId)!;
    const who = `replica ${replicaId} of shard ${shardId}`;
    if (view.status !== seen.status) {
      seen.status = view.status;
      this.trace.note(owner.name, `shard ${shardId}`, view.status);
    }
    holds(term >= seen.term, 'terms grow', () => `${who} went from term ${seen.term} to ${term}`);
    holds(commitIndex >= seen.commitIndex, 'the commit index grows', () => `${who}: ${commitIndex}`);
    holds(appliedIndex >= seen.appliedIndex, 'the applied index grows', () => `${who}: ${appliedIndex}`);
    holds(appliedIndex <= commitIndex && commitIndex <= lastIndex, 'applied ≤ committed ≤ last', () => {
      return `${who}: ${appliedIndex}, ${commitIndex}, ${lastIndex}`;
    });
    // A snapshot that is installed is durable itself, also while entries of the log that matches it are not yet.
    const durable = Math.max(view.durableIndex, view.compactedIndex, view.snapshotIndex);
    holds(appliedIndex <= durable, 'applied means durable here', () => {
      return `${who}: applied ${appliedIndex}, durable ${view.durableIndex}`;
    });
    if (view.membership !== seen.membership) this.checkMembership(owner, truth, view);
    holds(view.compactedIndex <= appliedIndex, 'compacted ≤ applied', () => `${who}: ${view.compactedIndex}`);
    if (!owner.isForgetful) this.checkEntries(truth, seen, view);
    if (role === 'leader' && lastIndex > seen.lastIndex) this.checkChanges(seen, view);
    if (role.endsWith('candidate') && role !== seen.role && !owner.isForgetful) {
      holds(!truth.hasChangeBetween(appliedIndex, commitIndex), 'no campaign over a change that is not applied', () => {
        return `${who} campaigns with ${appliedIndex} of ${commitIndex} applied`;
      });
    }
    if (role === 'leader' && seen.role === 'leader' && seen.term === term && commitIndex > seen.commitIndex) {
      // Raft §5.4.2: only what is of its own term is counted.
      holds(view.termAt(commitIndex) === term, 'a leader commits entries of its term', () => `${who}: ${commitIndex}`);
    }
    if (commitIndex > seen.commitIndex && !owner.isForgetful) this.checkCommits(truth, seen, view);
    if (role === 'leader' && (seen.role !== 'leader' || seen.term !== term)) this.checkLeader(truth, view);
    if (role !== seen.role || term !== seen.term) this.trace.note(owner.name, `shard ${shardId}`, role, 'term', term);
    if (commitIndex !== seen.commitIndex) this.trace.note(owner.name, `shard ${shardId}`, 'commits', commitIndex);
    if (role !== seen.role && role === 'leader') this.count('elections');
    seen.role = role;
    seen.term = term;
    seen.commitIndex = commitIndex;
    seen.appliedIndex = appliedIndex;
    seen.membership = view.membership;
    seen.lastIndex = lastIndex;
    seen.lastTerm = view.termAt(lastIndex) ?? 0;
  }

  /** What is new in the log. */
  private checkEntries(truth: ShardTruth, seen: Seen, view: ReplicaView): void {
    const { lastIndex, compactedIndex, replicaId, shardId } = view;
    let from = seen.lastIndex + 1;
    const wasReplaced = lastIndex < seen.lastIndex || (view.termAt(seen.lastIndex) ?? seen.lastTerm) !== seen.lastTerm;
    if (wasReplaced) {
      this.count('truncations');
      this.trace.note(`host${replicaId}`, `shard ${shardId}`, 'log now ends at', lastIndex);
      from = seen.commitIndex + 1;
    }
    for (let index = Math.max(from, compactedIndex + 1); index <= lastIndex; index++) {
      truth.holdsEntry(index, view.termAt(index)!, view.termAt(index - 1)!);
    }
  }

  /** The guards of design §4: a leader makes one change at a time, behind an entry of its own term. */
  private checkChanges(seen: Seen, view: ReplicaView): void {
    const changes = view.unappliedChanges();
    const who = (): string => `replica ${view.replicaId} leads shard ${view.shardId} with changes at ${changes.join()}`;
    holds(changes.length <= 1, 'one config change at a time', who);
    const isNew = changes.length > 0 && changes[0] > seen.lastIndex && view.termAt(changes[0]) === view.term;
    const ofTerm = view.termAt(view.commitIndex);
    holds(!isNew || ofTerm === undefined || ofTerm === view.term, 'a commit of the own term before a change', who);
  }

  private checkMembership(owner: ObservedHost, truth: ShardTruth, view: ReplicaView): void {
    if (view.membership.voters.size === 0 || owner.isForgetful) return; // it joins
    if (!truth.hasMembership(view.membership)) return;
    this.count('memberships');
    this.trace.note('truth', `shard ${view.shardId}`, 'has membership', JSON.stringify(imageOf(view.membership)));
  }

  private checkCommits(truth: ShardTruth, seen: Seen, view: ReplicaView): void {
    const before = seen.commitIndex;
    for (let index = Math.max(before, view.compactedIndex) + 1; index <= view.commitIndex; index++) {
      const term = view.termAt(index)!;
      if (truth.commits(index, term, view.term)) this.checkQuorum(truth, seen, view, index, term);
    }
  }

  /** What is committed is durable on a majority at that moment, counting what dead hosts have on their disks. */
  private checkQuorum(truth: ShardTruth, seen: Seen, view: ReplicaView, index: number, term: number): void {
    // The step that committed it may have applied a change, too.
    const hasQuorum = [view.membership, seen.membership].some((membership) => {
      return membership !== undefined && this.isHeldByMajority(truth, membership, index, term);
    });
    holds(hasQuorum, 'committed means durable on a majority', () => {
      const members = JSON.stringify(imageOf(view.membership));
      return `entry ${index} of shard ${truth.shardId} was committed by replica ${view.replicaId} and is not durable on a majority of ${members}`;
    });
  }

  private isHeldByMajority(truth: ShardTruth, membership: Membership, index: number, term: number): boolean {
    const voters = votersOf(membership);
    let holders = 0;
    for (const id of voters) {
      const known = this.seen.get(`${truth.shardId}/${id}`);
      if (known === undefined) continue;
      const { view, owner } = known;
      const isThere = view.compactedIndex >= index || (view.durableIndex >= index && view.termAt(index) === term);
      if (isThere || owner.isForgetful) holders++;
    }
    return holders > voters.length / 2;
  }

  /** Leader completeness (Raft §5.4). */
  private checkLeader(truth: ShardTruth, view: ReplicaView): void {
    const { term, replicaId } = view;
    truth.leads(term, replicaId);
    holds(view.membership.voters.has(replicaId), 'only voters with a state machine lead', () => {
      return `replica ${replicaId} leads shard ${truth.shardId} in term ${term}`;
    });
    const voters = votersOf(view.membership);
    const votes = truth.votesFor(term, replicaId, voters);
    const mayHide = this.hosts.some(({ isForgetful }) => isForgetful);
    holds(mayHide || votes > voters.length / 2, 'a leader has the votes of a majority', () => {
      return `replica ${replicaId} leads shard ${truth.shardId} in term ${term} with the votes of ${votes} of ${voters.join()}`;
    });
    for (let index = view.compactedIndex + 1; index <= truth.commitIndex; index++) {
      const entry = truth.committed.get(index);
      if (entry === undefined || entry.committedIn >= term) continue;
      holds(view.termAt(index) === entry.term, 'leader completeness', () => {
        return `replica ${replicaId} leads shard ${truth.shardId} in term ${term} without entry ${index} of term ${entry.term}`;
      });
    }
  }

  /** What was on the disk when the process ended is there again. */
  private checkRestart(owner: ObservedHost, before: Seen, view: ReplicaView): void {
    checkLogKept(`${owner.name}, shard ${view.shardId}`, before.view, view);
    this.count('recoveries');
  }

  /** The log of `owner` was read: what it had made durable is there again. */
  onRecovered(
    owner: ObservedHost,
    shardId: number,
    replicaId: number,
    term: number,
    vote: number,
    snapshotIndex: number,
  ): void {
    const key = `${shardId}/${replicaId}`;
    const before = this.durable.get(key);
    this.durable.set(key, { term, vote, snapshotIndex });
    if (before === undefined || owner.isForgetful) return;
    const who = `${owner.name}, shard ${shardId}`;
    holds(
      term >= before.term,
      'a restart keeps the term',
      () => `${who}: term ${before.term} was durable, now ${term}`,
    );
    const keepsVote = term > before.term || before.vote === 0 || vote === before.vote;
    holds(keepsVote, 'a restart keeps the vote', () => `${who}: vote ${before.vote} of term ${term}, now ${vote}`);
  }

  onDurable(shardId: number, replicaId: number, term: number, vote: number, snapshotIndex: number): void {
    this.durable.set(`${shardId}/${replicaId}`, { term, vote, snapshotIndex });
  }

  /** What `owner` has promised of a shard up to now: whatever happens to it, this must be there again. */
  promiseOf(owner: ObservedHost, shardId: number): Promised | undefined {
    const view = viewOf(owner, shardId) ?? this.lastViewOf(owner, shardId);
    const state = view === undefined ? undefined : this.durable.get(`${shardId}/${view.replicaId}`);
    return state === undefined || view === undefined ? undefined : { ...state, view };
  }

  private lastViewOf(owner: ObservedHost, shardId: number): ReplicaView | undefined {
    let last: ReplicaView | undefined;
    for (const seen of this.seen.values()) if (seen.owner === owner && seen.view.shardId === shardId) last = seen.view;
    return last;
  }

  /** Replicas that have applied the same have the same sessions, in the same order. */
  checkSessions(shardId: number): void {
    const hashes = new Map<number, number>();
    for (const owner of this.hosts) {
      const view = viewOf(owner, shardId);
      if (view === undefined || view.status !== 'running' || owner.isForgetful || view.isWitness) continue;
      const known = hashes.get(view.appliedIndex);
      const hash = view.sessionHash();
      holds(known === undefined || known === hash, 'replicas agree on sessions', () => {
        return `${owner.name} has other sessions of shard ${shardId} at ${view.appliedIndex} than another host`;
      });
      hashes.set(view.appliedIndex, hash);
    }
  }

  /** Looks at the healthy members of the shard that run. */
  running(shardId: number): { readonly owner: ObservedHost; readonly view: ReplicaView }[] {
    return this.hosts.flatMap((owner) => {
      const view = owner.isDamaged ? undefined : viewOf(owner, shardId);
      const isMember = view !== undefined && this.truths.get(shardId)!.isMember(view.replicaId);
      return isMember && view.status === 'running' ? [{ owner, view }] : [];
    });
  }

  private isMemberHost({ placements }: ObservedHost, shardId: number): boolean {
    const placed = placements.get(shardId);
    return placed !== undefined && this.truths.get(shardId)!.isMember(placed.replicaId);
  }

  /** Whether whoever was removed and can learn of it has stopped. Nobody tells a replica that knows only others of the removed. */
  isRidOfRemoved(shardId: number): boolean {
    const truth = this.truths.get(shardId)!;
    return this.hosts.every((owner) => {
      const view = viewOf(owner, shardId);
      if (view === undefined || view.status !== 'running' || !truth.wasRemoved(view.replicaId)) return true;
      return !memberIds(view.membership).some((id) => id !== view.replicaId && truth.isMember(id));
    });
  }

  /** Whether every healthy replica of the shard has applied all that was ever committed. */
  isConverged(shardId: number): boolean {
    const truth = this.truths.get(shardId)!;
    return this.hosts.every((owner) => {
      const view = viewOf(owner, shardId);
      if (owner.isDamaged || (view === undefined && !this.isMemberHost(owner, shardId))) return true;
      if (view !== undefined && !truth.isMember(view.replicaId)) return true;
      return view?.status === 'running' && view.appliedIndex === truth.commitIndex && !view.isRestoring;
    });
  }
}

/** Who counts, witnesses included. */
function votersOf({ voters, witnesses }: Membership): number[] {
  return [...voters.keys(), ...witnesses.keys()];
}

/** Every entry that was durable in `old` is in `view`. */
export function checkLogKept(who: string, old: ReplicaView, view: ReplicaView): void {
  holds(view.lastIndex >= old.durableIndex, 'a restart keeps the log', () => {
    return `${who}: entries up to ${old.durableIndex} were durable, now the log ends at ${view.lastIndex}`;
  });
  for (let index = Math.max(old.compactedIndex, view.compactedIndex) + 1; index <= old.durableIndex; index++) {
    holds(view.termAt(index) === old.termAt(index), 'a restart keeps the log', () => {
      return `${who}: entry ${index} had term ${old.termAt(index)}, now ${view.termAt(index)}`;
    });
  }
}
