/**
 * What a config change makes of a membership, or why it is refused. Pure and the same on every replica: it runs when the entry is applied
 * (design §4), and once before at the leader, so that most refusals cost no entry.
 */
import { DrakkarError } from '../errors.ts';
import type { ConfigChange } from '../wire/config-change.ts';
import { MEMBERS_MAX, REMOVED_MAX } from '../wire/limits.ts';
import { addressIn, memberIds, type Membership } from '../wire/membership.ts';

/** Why a change is refused. The numbers stand in the log. */
export const Refusal = {
  Stale: 1,
  RemovedId: 2,
  AlreadyMember: 3,
  AddressInUse: 4,
  NotMember: 5,
  LastVoter: 6,
  NotNonVoting: 7,
  TooMany: 8,
  /** By the leader: an earlier change is not applied yet, or nothing of its own term is committed (design §4). */
  Pending: 9,
  /** By the leader. */
  NotCaughtUp: 10,
} as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];

/** `index` is where the change stands in the log. */
export function changeMembership(base: Membership, change: ConfigChange, index: number): Membership | Refusal {
  const { kind, replicaId, address, role } = change;
  if (change.configChangeIndex !== 0 && change.configChangeIndex !== base.configChangeIndex) return Refusal.Stale;
  if (base.removed.has(replicaId)) return Refusal.RemovedId;
  const known = addressIn(base, replicaId);
  const voters = new Map(base.voters);
  const nonVotings = new Map(base.nonVotings);
  const witnesses = new Map(base.witnesses);
  const autoPromoted = new Set(base.autoPromoted);
  const removed = new Set(base.removed);
  if (kind === 'add') {
    if (known !== undefined) return Refusal.AlreadyMember;
    const ids = memberIds(base);
    if (ids.some((id) => addressIn(base, id) === address)) return Refusal.AddressInUse;
    if (ids.length >= MEMBERS_MAX) return Refusal.TooMany;
    (role === 'voter' ? voters : role === 'witness' ? witnesses : nonVotings).set(replicaId, address);
    if (role === 'non-voting' && change.autoPromote) autoPromoted.add(replicaId);
  } else {
    if (known === undefined) return Refusal.NotMember;
    if (kind === 'promote') {
      if (!nonVotings.has(replicaId)) return Refusal.NotNonVoting;
      voters.set(replicaId, known);
    } else {
      // A witness alone has no state to go on with.
      if (voters.size === 1 && voters.has(replicaId)) return Refusal.LastVoter;
      if (removed.size >= REMOVED_MAX) return Refusal.TooMany;
      voters.delete(replicaId);
      witnesses.delete(replicaId);
      removed.add(replicaId);
    }
    nonVotings.delete(replicaId);
    autoPromoted.delete(replicaId);
  }
  return {
    configChangeIndex: index,
    voters: sorted(voters),
    nonVotings: sorted(nonVotings),
    witnesses: sorted(witnesses),
    autoPromoted,
    removed,
  };
}

function sorted(members: Map<number, string>): Map<number, string> {
  return new Map([...members].sort((a, b) => a[0] - b[0]));
}

const WHY: Record<Exclude<Refusal, typeof Refusal.Stale | typeof Refusal.RemovedId>, string> = {
  [Refusal.AlreadyMember]: 'the replica is a member already',
  [Refusal.AddressInUse]: 'another member lives at the address; remove that one first',
  [Refusal.NotMember]: 'the replica is no member',
  [Refusal.LastVoter]: 'the only voter cannot be removed; add another one first',
  [Refusal.NotNonVoting]: 'only a non-voting member can be promoted',
  [Refusal.TooMany]: `a shard has at most ${MEMBERS_MAX} members, and remembers ${REMOVED_MAX} removed ones`,
  [Refusal.Pending]:
    'an earlier change is not applied yet, or the leader has committed nothing in its term yet; try again soon',
  [Refusal.NotCaughtUp]:
    'the replica that is to vote, or to lead in place of a removed leader, has not caught up; try again when it has',
};

/** What the caller of a refused change is told. */
export function errorOfRefusal(refusal: Refusal, shardId: number): DrakkarError {
  switch (refusal) {
    case Refusal.Stale:
      return new DrakkarError(
        'ERR_CONFIG_CHANGE_STALE',
        `the membership of shard ${shardId} is another one than configChangeIndex says; read it again and decide anew`,
      );
    case Refusal.RemovedId:
      return new DrakkarError(
        'ERR_REPLICA_REMOVED',
        `the replica was removed from shard ${shardId} and can never come back; choose a new replica id`,
      );
    default: {
      const passes = refusal === Refusal.Pending || refusal === Refusal.NotCaughtUp;
      const code = passes ? 'ERR_CONFIG_CHANGE_PENDING' : 'ERR_CONFIG_CHANGE_REFUSED';
      return new DrakkarError(code, `the membership of shard ${shardId} was not changed: ${WHY[refusal] ?? 'refused'}`);
    }
  }
}
