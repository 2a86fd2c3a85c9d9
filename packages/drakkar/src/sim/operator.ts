/**
 * Who ends upgrades in a run, and changes the membership of shards, as an operator does: starts a replica on a free host and adds it, promotes, removes,
 * leaders and all, tries what must be refused, and clears away what was removed. Keeps a shard from shrinking to nothing.
 */
import { DrakkarError } from '../errors.ts';
import type { MemberRole, MembershipInfo } from '../inspect.ts';
import type { NodeHost } from '../nodehost.ts';
import type { Dice } from './dice.ts';
import type { SimHost } from './host.ts';
import type { ShardTruth } from './truth.ts';
import { Violation } from './violation.ts';

export interface OperatorOwner {
  readonly hosts: readonly SimHost[];
  readonly truths: ReadonlyMap<number, ShardTruth>;
  count(name: string): void;
  note(what: string, ...details: (number | string)[]): void;
  fail(error: unknown): void;
}

const CALL_TIMEOUT_MS = 2000;
/** Of all kinds; no shard grows beyond. */
const MEMBERS_MAX = 8;
/** Replica ids of a host's later replicas lie this far apart, so that an id tells its host. */
const REPLICA_ID_STEP = 100;

export class Operator {
  private readonly owner: OperatorOwner;
  private readonly dice: Dice;
  private lastRound = 0;

  constructor(owner: OperatorOwner, dice: Dice) {
    this.owner = owner;
    this.dice = dice;
  }

  /** One change; in the background, so that the next may come before it ends. */
  change(shardId: number): void {
    const { dice, owner } = this;
    const membership = owner.truths.get(shardId)!.newestMembership;
    const callers = owner.hosts.filter((host) => host.isUp && host.serves(shardId));
    if (membership === undefined || callers.length === 0) return;
    const caller = dice.pick(callers);
    const run = (): Promise<void> => {
      const voters = idsOf(membership.voters);
      const nonVotings = idsOf(membership.nonVotings);
      const others = [...nonVotings, ...idsOf(membership.witnesses)];
      const size = voters.length + others.length;
      if (dice.chance(0.06)) return this.bringBack(caller, shardId, membership);
      if (nonVotings.length > 0 && dice.chance(0.3)) return this.promote(caller, shardId, dice.pick(nonVotings));
      const grows = size < 3 || (size < MEMBERS_MAX && dice.chance(0.5));
      if (grows) return this.add(caller, shardId, membership);
      const leaves = others.length > 0 && dice.chance(0.4) ? others : voters;
      return this.remove(caller, shardId, dice.pick(leaves), membership);
    };
    run().catch((error: unknown) => owner.fail(error));
  }

  /** Ends an upgrade, or tries to; in the background. */
  enableFormat(): void {
    const { dice, owner } = this;
    const callers = owner.hosts.filter((host) => host.isUp && host.isNewRelease);
    if (callers.length === 0) return;
    const caller = dice.pick(callers);
    const run = async (): Promise<void> => {
      try {
        if ((await caller.call((node) => node.enableFormat())) === 'lost') return;
        owner.count('formatsEnabled');
      } catch (error) {
        if (!DrakkarError.is(error)) throw error;
        owner.count(`enable ${error.code}`);
      }
    };
    run().catch((error: unknown) => owner.fail(error));
  }

  private async add(caller: SimHost, shardId: number, membership: MembershipInfo): Promise<void> {
    const { dice, owner } = this;
    const members = { ...membership.voters, ...membership.nonVotings, ...membership.witnesses };
    const isWaiting = ({ placements }: SimHost): boolean => {
      const placed = placements.get(shardId);
      return placed !== undefined && placed.members === 'join' && !(placed.replicaId in members);
    };
    const waiting = owner.hosts.filter((host) => isWaiting(host));
    const free = owner.hosts.filter((host) => host.isUp && !host.placements.has(shardId));
    const candidates = waiting.length > 0 ? waiting : free;
    if (candidates.length === 0) return;
    const host = dice.pick(candidates);
    let placed = host.placements.get(shardId);
    if (placed === undefined) {
      const role: MemberRole = dice.pick(['voter', 'voter', 'non-voting', 'non-voting', 'witness']);
      const replicaId = host.id + REPLICA_ID_STEP * ++this.lastRound;
      placed = { replicaId, members: 'join', witness: role === 'witness', role };
      host.place(shardId, placed);
    }
    const { replicaId, role = 'voter' } = placed;
    const autoPromote = role === 'non-voting' && dice.chance(0.7);
    const options = { role, autoPromote, timeoutMs: CALL_TIMEOUT_MS, ...this.expected(membership) };
    owner.note('adds', `${role} ${replicaId} to shard ${shardId}`);
    await this.call(caller, `added ${role}`, (node) => node.addReplica(shardId, replicaId, host.address, options));
  }

  private async remove(caller: SimHost, shardId: number, replicaId: number, membership: MembershipInfo): Promise<void> {
    const options = { timeoutMs: CALL_TIMEOUT_MS, ...this.expected(membership) };
    this.owner.note('removes', `${replicaId} of shard ${shardId}`);
    await this.call(caller, 'removed', (node) => {
      const { role, replicaId: own } = node.shardInfo(shardId);
      if (role === 'leader' && own === replicaId) this.owner.count('leadersThatRemoveThemselves');
      return node.removeReplica(shardId, replicaId, options);
    });
  }

  private async promote(caller: SimHost, shardId: number, replicaId: number): Promise<void> {
    this.owner.note('promotes', `${replicaId} of shard ${shardId}`);
    const options = { timeoutMs: CALL_TIMEOUT_MS };
    await this.call(caller, 'promoted', (node) => node.promote(shardId, replicaId, options));
  }

  /** Must be refused: the id was removed once. */
  private async bringBack(caller: SimHost, shardId: number, membership: MembershipInfo): Promise<void> {
    if (membership.removed.length === 0) return;
    const replicaId = this.dice.pick(membership.removed);
    const host = this.owner.hosts.find(({ id }) => id === replicaId % REPLICA_ID_STEP)!;
    const options = { timeoutMs: CALL_TIMEOUT_MS };
    await this.call(caller, 'brought back', (node) => node.addReplica(shardId, replicaId, host.address, options));
  }

  /** Ordered or not. */
  private expected({ configChangeIndex }: MembershipInfo): { configChangeIndex?: number } {
    return this.dice.chance(0.5) ? { configChangeIndex } : {};
  }

  private async call(caller: SimHost, what: string, begin: (node: NodeHost) => Promise<unknown>): Promise<void> {
    try {
      if ((await caller.call(async (node) => begin(node))) !== 'lost') this.owner.count(`members ${what}`);
    } catch (error) {
      if (!DrakkarError.is(error)) throw error;
      this.owner.count(`change ${error.code}`);
      if (error.code === 'ERR_INVARIANT') throw new Violation('crash', 'invariants hold', error.message);
    }
  }
}

const idsOf = (members: Readonly<Record<number, string>>): number[] => Object.keys(members).map(Number);
