/**
 * Who belongs to the shard, as the core goes by it: members, slots and the number of voters of a membership that was applied, and whether
 * one is on its way. Promises that a member who stays keeps what is known of it.
 *
 * Must not judge changes: what one makes of a membership is decided where it is applied (`rsm/membership.ts`).
 */
import { memberIds, type Membership } from '../wire/membership.ts';
import { becomeFollower } from './election.ts';
import { membershipChanged } from './leading.ts';
import { Member } from './member.ts';
import type { Raft } from './raft.ts';

/** The same list for all shards that have the same membership. */
const slotsOfKnown = new WeakMap<Membership, readonly number[]>();

function slotsOf(membership: Membership): readonly number[] {
  let slots = slotsOfKnown.get(membership);
  if (slots === undefined) {
    slots = memberIds(membership);
    slotsOfKnown.set(membership, slots);
  }
  return slots;
}

export function setMembership(raft: Raft, membership: Membership): void {
  raft.membership = membership;
  raft.slots = slotsOf(membership);
  const old = raft.members;
  raft.members = raft.slots.map((id) => {
    const isVoter = !membership.nonVotings.has(id);
    const known = old.find((member) => member.replicaId === id);
    if (known !== undefined) {
      known.isVoter = isVoter;
      return known;
    }
    const member = new Member(id, isVoter, membership.witnesses.has(id), raft.config);
    member.reset(raft.log.lastIndex + 1);
    return member;
  });
  raft.selfSlot = raft.slots.indexOf(raft.config.replicaId);
  raft.voterCount = raft.members.filter((member) => member.isVoter).length;
  if (raft.role === 'leader') membershipChanged(raft);
  // The votes that were asked for are others' now.
  else if (raft.role !== 'follower') becomeFollower(raft, raft.term, 0);
}

/** A committed config change is not applied yet: who is asked for votes may not be whose votes count (design §4). */
export function hasUnappliedChange(raft: Raft): boolean {
  for (let index = raft.appliedIndex + 1; index <= raft.commitIndex; ) {
    const ref = raft.log.blockAt(index);
    if (ref === undefined) return true; // a snapshot takes its place
    if (ref.isConfigChange) return true;
    index = ref.lastIndex + 1;
  }
  return false;
}
