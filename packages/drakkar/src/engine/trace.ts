/**
 * What the engine says to whoever traces it: once a block, a group, a turn or an event, never once an entry. A message is only made when
 * somebody listens (`hasSubscribers`), so that the price without a listener is that question.
 */
import type { Tracing, TraceChannel } from '../env/env.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import type { Engine } from './engine.ts';
import type { BlockBuffer } from './open-block.ts';
import type { Replica } from './replica.ts';

interface TraceOrigin {
  /** `raftAddress` of the host that speaks: a process may have several. */
  readonly host: string;
}

interface TraceShard extends TraceOrigin {
  readonly shardId: number;
  readonly replicaId: number;
}

/** Channels by name, and what they carry. */
export interface TraceMessages {
  /** Leader: a block of proposals goes to the log and to the peers. */
  'drakkar:propose': TraceShard & {
    readonly term: number;
    readonly firstIndex: number;
    readonly count: number;
    readonly sizeBytes: number;
  };
  /** Not the leader: a block of proposals is passed on. */
  'drakkar:forward': TraceShard & { readonly leaderId: number; readonly count: number; readonly sizeBytes: number };
  /** The log has written a group durably; `writeMs` undefined where the log does not tell. */
  'drakkar:flush': TraceOrigin & { readonly writeMs: number | undefined; readonly pendingBytes: number };
  /** Committed entries were applied, in one turn. */
  'drakkar:apply': TraceShard & { readonly firstIndex: number; readonly lastIndex: number };
  /** Linearizable reads were answered; `sinceMs` since the oldest of them was asked. */
  'drakkar:read': TraceShard & { readonly appliedIndex: number; readonly sinceMs: number };
  /** Who leads a shard changed, as this host sees it; 0 for nobody. */
  'drakkar:leader': TraceShard & { readonly leaderId: number; readonly term: number };
  /** Everything that `host.on` tells, at the moment it happens. */
  'drakkar:event': TraceOrigin & { readonly name: string; readonly event: object };
}

export const TRACE_CHANNELS: readonly (keyof TraceMessages)[] = [
  'drakkar:propose',
  'drakkar:forward',
  'drakkar:flush',
  'drakkar:apply',
  'drakkar:read',
  'drakkar:leader',
  'drakkar:event',
];

export interface TypedChannel<Name extends keyof TraceMessages> {
  readonly hasSubscribers: boolean;
  publish(message: TraceMessages[Name]): void;
}

export class Trace {
  readonly host: string;
  readonly propose: TypedChannel<'drakkar:propose'>;
  readonly forward: TypedChannel<'drakkar:forward'>;
  readonly flush: TypedChannel<'drakkar:flush'>;
  readonly apply: TypedChannel<'drakkar:apply'>;
  readonly read: TypedChannel<'drakkar:read'>;
  readonly leader: TypedChannel<'drakkar:leader'>;
  readonly event: TypedChannel<'drakkar:event'>;

  constructor(tracing: Tracing, host: string) {
    const open = (name: keyof TraceMessages): TraceChannel => tracing.channel(name);
    this.host = host;
    this.propose = open('drakkar:propose');
    this.forward = open('drakkar:forward');
    this.flush = open('drakkar:flush');
    this.apply = open('drakkar:apply');
    this.read = open('drakkar:read');
    this.leader = open('drakkar:leader');
    this.event = open('drakkar:event');
  }
}

// One function for each place on an entry's way; all return at once when nobody listens.

export function traceProposal({ engine: { trace }, shardId, replicaId }: Replica, ref: BlockRef): void {
  if (!trace.propose.hasSubscribers) return;
  const { firstIndex, count, term, sizeBytes } = ref;
  trace.propose.publish({ host: trace.host, shardId, replicaId, term, firstIndex, count, sizeBytes });
}

export function traceForward({ engine: { trace }, shardId, replicaId, raft }: Replica, block: BlockBuffer): void {
  if (!trace.forward.hasSubscribers) return;
  const { leaderId } = raft;
  const { count, lengthBytes: sizeBytes } = block;
  trace.forward.publish({ host: trace.host, shardId, replicaId, leaderId, count, sizeBytes });
}

export function traceApply({ engine: { trace }, shardId, replicaId, raft }: Replica, before: number): void {
  if (!trace.apply.hasSubscribers || raft.appliedIndex === before) return;
  trace.apply.publish({ host: trace.host, shardId, replicaId, firstIndex: before + 1, lastIndex: raft.appliedIndex });
}

export function traceRead({ engine: { trace }, shardId, replicaId, raft }: Replica, sinceMs: number): void {
  if (!trace.read.hasSubscribers) return;
  trace.read.publish({ host: trace.host, shardId, replicaId, appliedIndex: raft.appliedIndex, sinceMs });
}

export function traceFlush({ trace, log }: Engine, writeMs: number | undefined): void {
  if (trace.flush.hasSubscribers) trace.flush.publish({ host: trace.host, writeMs, pendingBytes: log.pendingBytes });
}
