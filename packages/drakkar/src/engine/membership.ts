/**
 * What a change of a shard's membership means to a running replica: whom it talks to, whose incarnations it remembers, and that it stops
 * when it is no member any more. Also how the removed learn of it, and who still answers for them.
 */
import { DrakkarError } from '../errors.ts';
import { addressIn, isKnown, type Membership } from '../wire/membership.ts';
import { Message, MESSAGE_REJECT, MessageType } from '../wire/message.ts';
import type { HostIdentity, InboundSession } from '../transport/transport.ts';
import type { RecoveredShard } from '../wal/logdb.ts';
import { decodeBootstrap, encodeBootstrap } from './bootstrap-record.ts';
import { learnCommit } from '../raft/election.ts';
import type { Engine } from './engine.ts';
import { checkMayGiveUp, giveUp, isGivenUp, removeImages } from './leftovers.ts';
import { GUEST_TICKS } from './limits.ts';
import type { Replica } from './replica.ts';

/** A membership as callers and listeners see it. */
export interface MembershipInfo {
  /** Identifies it: give it to a change that is to be made of this membership and no other. */
  readonly configChangeIndex: number;
  /** Replica id to what its host is reached by. */
  readonly voters: Readonly<Record<number, string>>;
  readonly nonVotings: Readonly<Record<number, string>>;
  readonly witnesses: Readonly<Record<number, string>>;
  /** Ids that can never come back, ascending. */
  readonly removed: readonly number[];
}

export function describeMembership(membership: Membership): MembershipInfo {
  return {
    configChangeIndex: membership.configChangeIndex,
    voters: Object.fromEntries(membership.voters),
    nonVotings: Object.fromEntries(membership.nonVotings),
    witnesses: Object.fromEntries(membership.witnesses),
    removed: [...membership.removed].sort((a, b) => a - b),
  };
}

/** The ways to the members, by slot; what was derived from the old ones is void. */
export function connectMembers(engine: Engine, replica: Replica): void {
  const { raft, shardId, replicaId } = replica;
  const peers = raft.slots.map((id) => {
    return id === replicaId ? undefined : engine.ways.peerAt(addressIn(raft.membership, id)!, shardId);
  });
  replica.peers = engine.interned.peers(raft.membership, peers);
  replica.verifiedSessions = raft.slots.map(() => 0);
  replica.sets = undefined;
}

/** A config change, or a snapshot, was applied: the protocol goes by the new membership from now on (design §4). */
export function followMembership(engine: Engine, replica: Replica): void {
  const { raft, shardId, replicaId } = replica;
  const { membership } = replica.rsm;
  if (raft.membership !== membership) raft.setMembership(membership);
  // What a smaller majority has is committed with it, and is told before it is applied.
  if (replica.knownOnlookers?.wantsCommits === true) replica.knownOnlookers.committed();
  connectMembers(engine, replica);
  // Its incarnation is pinned anew when a replica is replaced (design §7.5): a new one has a new id.
  replica.pins = engine.interned.pins(
    replica.pins.filter(({ replicaId: id }) => addressIn(membership, id) !== undefined),
  );
  for (const [slot, peer] of replica.peers.entries()) {
    const id = raft.slots[slot];
    const stranger = replica.strangers.get(id);
    if (stranger !== undefined) engine.incarnations.pinStranger(replica, id, stranger);
    replica.strangers.delete(id);
    if (peer !== undefined) engine.incarnations.meet(replica, id, peer);
  }
  // The commit index of the change becomes durable: whoever was removed by it may be gone when this host starts again.
  raft.saveState();
  engine.ways.releaseUnused();
  engine.liveness.join(replica);
  engine.events.emit('membershipChanged', { shardId, replicaId, membership: describeMembership(membership) });
  if (raft.selfSlot >= 0 && membership.witnesses.has(replicaId) !== replica.settings.isWitness) {
    engine.failReplica(replica, wrongRole(replica, membership.witnesses.has(replicaId) ? 'witness' : 'voter'));
  }
}

/** A witness keeps no state, so that the host and the shard must agree on who is one. */
export function wrongRole({ shardId, replicaId, settings }: Replica, role: 'witness' | 'voter'): DrakkarError {
  const started = settings.isWitness ? 'started as a witness' : 'not started as a witness';
  return new DrakkarError(
    'ERR_SHARD_MISMATCH',
    `replica ${replicaId} of shard ${shardId} was added as ${role} and ${started}; remove it and add another one, with the same role on both sides`,
  );
}

export function removedError(shardId: number, replicaId: number): DrakkarError {
  return new DrakkarError(
    'ERR_REPLICA_REMOVED',
    `replica ${replicaId} was removed from shard ${shardId} and can never come back; removeData gives its room back, ` +
      'and a new replica, with a new id, may join in its place',
  );
}

export function givenUpError(shardId: number, replicaId: number): DrakkarError {
  return new DrakkarError(
    'ERR_REPLICA_REMOVED',
    `replica ${replicaId} of shard ${shardId} was given up on this host (removeData with evenIfMember): no replica of the shard runs here ` +
      'any more; choose another host',
  );
}

/**
 * This replica is no member any more, and somebody who is knows it, too: it stops by itself, and remembers why. Before that it goes on
 * without a vote in its own eyes and with one in the others': with two voters of which one goes, the other may need it to learn
 * that it is alone.
 */
export function retire(engine: Engine, replica: Replica): void {
  if (replica.status !== 'running') return;
  const { shardId, replicaId, raft } = replica;
  const error = removedError(shardId, replicaId);
  replica.removal = error;
  replica.bootstrap = encodeBootstrap({ ...decodeBootstrap(replica.bootstrap), isRemoved: true });
  raft.saveState();
  // What it said last must still arrive: who is to lead after it, say.
  for (const peer of replica.peers) {
    if (peer !== undefined) engine.ways.guests.set(peer.address, engine.tickCount + GUEST_TICKS);
  }
  engine.env.logger.info({ shardId, replicaId }, 'replica removed from its shard: it stops');
  const told = new DrakkarError(error.code, error.message, { outcome: 'unknown' });
  const done = engine.removeReplica(replica, told).then(
    () => engine.events.emit('replicaRemoved', { shardId, replicaId }),
    (cause: unknown) => engine.env.logger.error({ shardId, replicaId, err: cause }, 'closing a removed replica failed'),
  );
  engine.removals.set(
    shardId,
    done.finally(() => engine.removals.delete(shardId)),
  );
}

/** Who speaks for a replica that this one does not know as a member (see `Incarnations.isFromMember`). */
export interface Stranger {
  readonly target: string;
  readonly identity: HostIdentity;
}

/** Whether a removed replica may be listened to for once: it leads in a term that is not over here, or its log has more. */
export function hasNews({ raft }: Replica, message: Message): boolean {
  switch (message.type) {
    case MessageType.Heartbeat:
    case MessageType.TimeoutNow:
      return message.term >= raft.term;
    case MessageType.RequestPreVote:
    case MessageType.RequestVote:
      return raft.log.isBehind(message.logIndex, message.logTerm);
    default:
      return false;
  }
}

/** A removed replica still asks for votes, or sends: it has not heard of its removal (scenario 40). */
export function tellRemoved(engine: Engine, replica: Replica, replicaId: number, session: InboundSession): void {
  if (!replica.raft.mayLead) return; // whoever goes must know what it has in good hands
  const target = session.identity.raftAddress;
  engine.ways.guests.set(target, engine.tickCount + GUEST_TICKS);
  replica.setStranger(replicaId, { target, identity: session.identity });
  const { log, commitIndex: commit } = replica.raft;
  const { lastIndex: logIndex, lastTerm: logTerm } = log;
  replica.raft.send(MessageType.Removed, replicaId, { logIndex, logTerm, commit, hint: log.termAt(commit) ?? 0 });
}

/** It was removed; it goes when the one who says so lacks nothing that it has. */
export function onRemoved(engine: Engine, replica: Replica, message: Message): void {
  const { raft } = replica;
  const { logIndex, logTerm, commit, hint } = message;
  const { lastIndex, lastTerm } = raft.log;
  if (logTerm < lastTerm || (logTerm === lastTerm && logIndex < lastIndex)) return;
  // What its host tells of it later, see `answerForRemoved`.
  learnCommit(raft, commit, hint);
  retire(engine, replica);
}

/**
 * A replica that does not campaign and hears of no leader shows itself to whom it knows: it may have been removed while it was cut off, and
 * nobody would tell it otherwise. One that knows waits for others to know. A message of term 0 means nothing else.
 */
export function showItself(engine: Engine, replica: Replica): void {
  const { raft } = replica;
  if (raft.mayLead || (raft.leaderId !== 0 && !raft.membership.removed.has(replica.replicaId))) return;
  for (const [id, { target }] of replica.strangers) {
    engine.ways.guests.set(target, engine.tickCount + GUEST_TICKS);
    raft.send(MessageType.Noop, id, { term: 0 });
  }
  for (const id of raft.slots) if (id !== replica.replicaId) raft.send(MessageType.Noop, id, { term: 0 });
}

const answer = new Message();

/**
 * A candidate asks a replica that was removed and has stopped. It is told what is committed, which may be the removal itself: with one
 * voter left, nobody else could tell it (see `learnCommit`). Nothing is promised.
 */
export function answerForRemoved(
  engine: Engine,
  known: RecoveredShard,
  message: Message,
  session: InboundSession,
): void {
  const isPreVote = message.type === MessageType.RequestPreVote;
  if (!isPreVote && message.type !== MessageType.RequestVote) return;
  if (known.failure !== undefined || message.to !== known.state.replicaId || !isRemoved(known)) return;
  if (isGivenUp(known)) return; // it knows of nothing that is committed
  const { commitIndex, state } = known;
  const ref = known.blocks.find((block) => block.firstIndex <= commitIndex && commitIndex <= block.lastIndex);
  const logTerm = ref?.term ?? (commitIndex === state.compactedIndex ? state.compactedTerm : 0);
  answer.type = isPreVote ? MessageType.RequestPreVoteResponse : MessageType.RequestVoteResponse;
  answer.flags = MESSAGE_REJECT;
  answer.shardId = message.shardId;
  answer.from = message.to;
  answer.to = message.from;
  answer.term = state.term;
  answer.logIndex = 0;
  answer.logTerm = logTerm;
  answer.commit = commitIndex;
  answer.hint = answer.hintHigh = 0;
  const target = session.identity.raftAddress;
  engine.ways.guests.set(target, engine.tickCount + GUEST_TICKS);
  engine.outbound.addMessage(engine.ways.peerAt(target, message.shardId), answer);
  engine.scheduleTurn();
}

export function isRemoved(known: RecoveredShard): boolean {
  return (
    known.failure === undefined && known.state.bootstrap.length > 0 && decodeBootstrap(known.state.bootstrap).isRemoved
  );
}

/** Deletes what is here of a removed replica; another may have promised something, and goes only `evenIfMember`. */
export async function removeData(
  engine: Engine,
  shardId: number,
  replicaId: number,
  evenIfMember: boolean,
): Promise<void> {
  await engine.removals.get(shardId); // on its way out
  const known = engine.parked.get(shardId);
  const here = known?.state.replicaId ?? engine.replicas.get(shardId)?.replicaId;
  if (here === undefined) {
    throw new DrakkarError('ERR_SHARD_NOT_FOUND', `this host holds nothing of shard ${shardId}`);
  }
  if (here !== replicaId) {
    throw new DrakkarError(
      'ERR_SHARD_MISMATCH',
      `this host holds replica ${here} of shard ${shardId}, not ${replicaId}`,
    );
  }
  if (known !== undefined && isGivenUp(known)) return; // what is left of it stays for ever
  if (evenIfMember && (known === undefined || !isRemoved(known))) {
    checkMayGiveUp(engine, known, shardId);
    await giveUp(engine, engine.snapshotsDir, known!);
    engine.log.reclaim?.();
    return;
  }
  if (known === undefined || !isRemoved(known)) {
    throw new DrakkarError(
      'ERR_NOT_REMOVED',
      `replica ${replicaId} of shard ${shardId} was not removed from the shard, as far as this host knows; call removeReplica first, or, if its shard is gone for good, set evenIfMember`,
    );
  }
  // The images first: what is left of them without a record would never be found.
  await removeImages(engine, engine.snapshotsDir, shardId);
  engine.parked.delete(shardId);
  await engine.log.removeShard(shardId);
  engine.log.reclaim?.();
}

/** Why a replica that is no member takes no calls; undefined when it is one. */
export function notMember(replica: Replica): DrakkarError | undefined {
  if (replica.raft.selfSlot >= 0) return undefined;
  const { shardId, replicaId } = replica;
  if (replica.raft.membership.removed.has(replicaId)) return removedError(shardId, replicaId);
  const why = isKnown(replica.raft.membership)
    ? 'it has not seen the config change that adds it yet'
    : 'it waits for a leader; add it with addReplica on a host of the shard';
  return new DrakkarError('ERR_NOT_MEMBER', `replica ${replicaId} is no member of shard ${shardId} yet: ${why}`);
}
