/**
 * A look into a host for those who check it: the simulator, tools and tests. Read-only, and no promise to anyone else: nothing else may
 * import it.
 */
import type { NodeHost } from './nodehost.ts';
import type { Engine } from './engine/engine.ts';
import { countOf } from './engine/incarnation.ts';
import type { Replica, ReplicaStatus } from './engine/replica.ts';
import type { Role } from './raft/raft.ts';
import type { Membership } from './wire/membership.ts';
import { BlockHeader, readBlockHeader } from './wire/block.ts';
import type { FormatRange } from './wire/formats.ts';
import { FRAME_HEADER_WORDS, FrameType, frameCount, frameFormat, frameType } from './wire/frame.ts';
import { MESSAGE_WORDS, Message, MessageType, readMessage } from './wire/message.ts';

export { describeMembership, type MembershipInfo } from './engine/membership.ts';
export type { MemberRole } from './wire/config-change.ts';
export { addressIn, imageOf, memberIds, type Membership } from './wire/membership.ts';
export { FORMAT_NEWEST, FORMAT_REHEARSAL } from './wire/formats.ts';
export { BlockHeader, FrameType, Message, MessageType, frameFormat, frameType };

/** What a replica holds right now. Stays readable after its process is gone. */
export class ReplicaView {
  private readonly replica: Replica;

  constructor(replica: Replica) {
    this.replica = replica;
  }

  get shardId(): number {
    return this.replica.shardId;
  }

  get replicaId(): number {
    return this.replica.replicaId;
  }

  get status(): ReplicaStatus {
    return this.replica.status;
  }

  get role(): Role {
    return this.replica.raft.role;
  }

  get isQuiesced(): boolean {
    return this.replica.raft.isQuiesced;
  }

  get leaderId(): number {
    return this.replica.raft.leaderId;
  }

  get term(): number {
    return this.replica.raft.term;
  }

  get vote(): number {
    return this.replica.raft.vote;
  }

  get commitIndex(): number {
    return this.replica.raft.commitIndex;
  }

  get appliedIndex(): number {
    return this.replica.raft.appliedIndex;
  }

  get durableIndex(): number {
    return this.replica.raft.durableIndex;
  }

  get lastIndex(): number {
    return this.replica.raft.log.lastIndex;
  }

  get compactedIndex(): number {
    return this.replica.raft.log.compactedIndex;
  }

  /** Of the newest snapshot that is durable, or about to be recorded. */
  get snapshotIndex(): number {
    return this.replica.snapshotIndex;
  }

  /** As applied here. The same object until it changes. */
  get membership(): Membership {
    return this.replica.membership;
  }

  get isWitness(): boolean {
    return this.replica.settings.isWitness;
  }

  /** A snapshot is being installed: the state machine is not yet where `appliedIndex` is. */
  get isRestoring(): boolean {
    return this.replica.isRestoring;
  }

  /** Indexes of the config changes in the log that are not applied here. */
  unappliedChanges(): number[] {
    const { log, appliedIndex } = this.replica.raft;
    const indexes: number[] = [];
    for (let index = appliedIndex + 1; index <= log.lastIndex; ) {
      const ref = log.blockAt(index);
      if (ref === undefined) break;
      if (ref.isConfigChange) indexes.push(ref.firstIndex);
      index = ref.lastIndex + 1;
    }
    return indexes;
  }

  /** Members whose hosts are there and who lack entries of this leader's log. */
  behind(): number[] {
    const { members, log, config } = this.replica.raft;
    const lacks = members.filter(({ replicaId, isAway, matchIndex }) => {
      return replicaId !== config.replicaId && !isAway && matchIndex < log.lastIndex;
    });
    return lacks.map(({ replicaId }) => replicaId);
  }

  sessionHash(): number {
    return this.replica.rsm.sessionHash();
  }

  /** Undefined where the log holds nothing. */
  termAt(index: number): number | undefined {
    return this.replica.raft.log.termAt(index);
  }
}

const views = new WeakMap<Replica, ReplicaView>();

/** The engines of `host`, those in simulated threads included. */
export function* enginesOf(host: NodeHost): IterableIterator<Engine> {
  const { engines, simulated } = host['parts'];
  for (const { all } of [engines, ...simulated]) yield* all;
}

function* replicas(host: NodeHost): IterableIterator<Replica> {
  for (const engine of enginesOf(host)) yield* engine.replicas.values();
}

/** What `host` may read and write right now. */
export function formatsOf(host: NodeHost): FormatRange {
  let newest = 0;
  let enabled = 0;
  for (const { formats } of enginesOf(host)) {
    newest = formats.range.newest;
    enabled = Math.max(enabled, formats.range.enabled);
  }
  return { newest, enabled };
}

function viewOf(replica: Replica): ReplicaView {
  let view = views.get(replica);
  if (view === undefined) views.set(replica, (view = new ReplicaView(replica)));
  return view;
}

/** The replicas that run on `host`, by shard. */
export function* replicasOf(host: NodeHost): IterableIterator<ReplicaView> {
  for (const replica of replicas(host)) yield viewOf(replica);
}

/** The same, for who looks after every event. */
export function forEachReplica(host: NodeHost, look: (view: ReplicaView) => void): void {
  const { engines, simulated } = host['parts'];
  const lookAt = (replica: Replica): void => look(viewOf(replica));
  for (const engine of engines.all) engine.replicas.forEach(lookAt);
  for (const { all } of simulated) for (const engine of all) engine.replicas.forEach(lookAt);
}

/** The replica of the shard that runs on `host`. */
export function replicaOf(host: NodeHost, shardId: number): ReplicaView | undefined {
  const { engines, simulated } = host['parts'];
  const replica = replicaIn(engines, shardId);
  if (replica !== undefined) return viewOf(replica);
  for (const part of simulated) {
    const inThread = replicaIn(part, shardId);
    if (inThread !== undefined) return viewOf(inThread);
  }
  return undefined;
}

function replicaIn({ all }: { readonly all: readonly Engine[] }, shardId: number): Replica | undefined {
  for (const engine of all) {
    const replica = engine.replicas.get(shardId);
    if (replica !== undefined) return replica;
  }
  return undefined;
}

/** For every shard and every other member: the newest start of its host that is pinned here durably, 0 for none. */
export function* pinsOf(
  host: NodeHost,
): IterableIterator<{ shardId: number; replicaId: number; startCounter: number }> {
  for (const replica of replicas(host)) {
    const { raft } = replica;
    const isDurable = raft.stateWrite <= raft.durableWrite;
    for (const replicaId of raft.slots) {
      const pin = isDurable ? replica.pins.find((known) => known.replicaId === replicaId) : undefined;
      yield { shardId: replica.shardId, replicaId, startCounter: countOf(pin?.startCounter ?? 0) };
    }
  }
}

/** Calls back for every message or block of a frame; the objects are used again for the next one. */
export function readFrame(
  u32: Uint32Array,
  offset: number,
  lengthBytes: number,
  onMessage: (message: Message) => void,
  onBlock: (header: BlockHeader) => void,
): void {
  const word = offset >>> 2;
  const end = (offset + lengthBytes) >>> 2;
  const type = frameType(u32, word);
  let at = word + FRAME_HEADER_WORDS;
  if (type === FrameType.Messages) {
    const message = new Message();
    for (; at < end; at += MESSAGE_WORDS) {
      readMessage(u32, at, message);
      onMessage(message);
    }
  } else if (type === FrameType.Blocks) {
    const header = new BlockHeader();
    for (let left = frameCount(u32, word); left > 0; left--) {
      readBlockHeader(u32, at, header);
      onBlock(header);
      at += header.lengthBytes >>> 2;
    }
  }
}
