/**
 * Holds every frame that leaves a host, and every snapshot that is offered, against what is durable there: nothing may promise more.
 * Changes nothing.
 */
import {
  FORMAT_NEWEST,
  MessageType,
  formatsOf,
  frameFormat,
  readFrame,
  type BlockHeader,
  type Message,
  type ReplicaView,
} from '../inspect.ts';
import type { SnapshotHeader } from '../transport/transport.ts';
import type { Slab } from '../wire/slab.ts';
import { viewOf, type ObservedHost } from './observed.ts';
import type { Trace } from './trace.ts';
import type { ShardTruth } from './truth.ts';
import { holds } from './violation.ts';

export interface DurableState {
  readonly term: number;
  readonly vote: number;
  /** Of the newest record of a snapshot. */
  readonly snapshotIndex: number;
}

/** By shard and replica: `1/2`. */
export type DurableStates = Map<string, DurableState>;

export class FrameChecks {
  private readonly byAddress: ReadonlyMap<string, ObservedHost>;
  private readonly truths: ReadonlyMap<number, ShardTruth>;
  private readonly durable: DurableStates;
  private readonly trace: Trace;
  private readonly count: (name: string) => void;

  constructor(
    hosts: readonly ObservedHost[],
    truths: ReadonlyMap<number, ShardTruth>,
    durable: DurableStates,
    trace: Trace,
    count: (name: string) => void,
  ) {
    this.byAddress = new Map(hosts.map((host) => [host.address, host]));
    this.truths = truths;
    this.durable = durable;
    this.trace = trace;
    this.count = count;
  }

  /** A frame leaves `owner`: nothing in it may promise what is not durable (fault F12). */
  onSend(owner: ObservedHost, address: string, slab: Slab, offset: number, lengthBytes: number): void {
    this.trace.note(owner.name, 'sends to', address, lengthBytes, slab.u32[(offset >>> 2) + 1]);
    this.checkFormat(owner, address, frameFormat(slab.u32, offset >>> 2));
    readFrame(
      slab.u32,
      offset,
      lengthBytes,
      (message) => this.checkMessage(owner, message),
      (block) => this.checkBlock(owner, block),
    );
  }

  /** Nobody is sent what an older release could not find in its directory (design §7.8). */
  private checkFormat(owner: ObservedHost, address: string, format: number): void {
    if (format > FORMAT_NEWEST) this.count('framesInNewerFormat');
    const to = this.byAddress.get(address);
    if (to?.host === undefined || to.isDamaged) return;
    const { enabled } = formatsOf(to.host);
    holds(format <= enabled, 'a host is sent only formats that are enabled there', () => {
      return `${owner.name} sends ${to.name} a frame in format ${format}, ${enabled} is enabled there`;
    });
  }

  /** A snapshot is offered: whoever takes it follows the sender in that term. */
  onSnapshotOffer(owner: ObservedHost, { shardId, from, to, term, index }: SnapshotHeader): void {
    this.trace.note(owner.name, `shard ${shardId}`, 'offers a snapshot →', to, 'term', term, index);
    if (owner.isForgetful) return;
    const leader = this.truths.get(shardId)!.leaderOf(term);
    holds(leader === from, 'only a leader offers snapshots', () => {
      return `replica ${from} of shard ${shardId} offers a snapshot in term ${term}, which ${leader ?? 'nobody'} leads`;
    });
  }

  private checkMessage(owner: ObservedHost, message: Message): void {
    const { type, shardId, term, from, to, logIndex, rejected } = message;
    // The hash has it: the checksum of its frame is noted.
    if (this.trace.isKept) {
      const name = NAMES[type] ?? type;
      this.trace.line(owner.name, `shard ${shardId}`, name, '→', to, 'term', term, logIndex, message.flags);
    }
    const view = viewOf(owner, shardId);
    if (view === undefined) return;
    const isPreVote = type === MessageType.RequestPreVote || type === MessageType.RequestPreVoteResponse;
    if (!isPreVote) this.checkTerm(owner, view, term, NAMES[type] ?? String(type));
    // For its peers to refuse.
    if (owner.isForgetful) return;
    const truth = this.truths.get(shardId)!;
    if (type === MessageType.RequestVote) truth.grantsVote(term, from, from);
    else if (type === MessageType.RequestVoteResponse && !rejected) {
      truth.grantsVote(term, from, to);
      const durable = this.durable.get(`${shardId}/${from}`);
      holds(durable?.term !== term || durable.vote === to, 'a vote is durable before it is told', () => {
        return `replica ${from} of shard ${shardId} votes for ${to} in term ${term}; durable is ${durable?.vote}`;
      });
    }
    const isAck = type === MessageType.HeartbeatResponse || (type === MessageType.ReplicateResponse && !rejected);
    if (isAck && term === view.term) {
      // What a snapshot is replacing right now is still on the disk, in the old log.
      holds(logIndex <= Math.max(view.durableIndex, view.compactedIndex), 'acknowledged means durable', () => {
        return `replica ${from} of shard ${shardId} acknowledges ${logIndex} and has ${view.durableIndex}`;
      });
    }
  }

  private checkBlock(owner: ObservedHost, block: BlockHeader): void {
    const view = viewOf(owner, block.shardId);
    if (view !== undefined) this.checkTerm(owner, view, block.senderTerm, 'a block');
  }

  private checkTerm(owner: ObservedHost, view: ReplicaView, term: number, what: string): void {
    const durable = this.durable.get(`${view.shardId}/${view.replicaId}`)?.term ?? 0;
    holds(term <= durable, 'nothing is said before it is durable', () => {
      return `${owner.name} sends ${what} of term ${term} for shard ${view.shardId}; term ${durable} is durable`;
    });
  }
}

const NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(MessageType).map(([name, type]) => [type, name]),
);
