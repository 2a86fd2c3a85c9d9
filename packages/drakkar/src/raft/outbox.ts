/**
 * What the protocol decides, told to whoever runs it. The core calls these from inside `step`, `tick` and the like; the
 * receiver records or encodes, and must not call back into the core from inside a call.
 *
 * `after` is the shard's write number that must be durable before a message may leave (fault F12); 0 lets it leave at once.
 */
import type { BlockRef } from '../wire/block-ref.ts';
import type { Message } from '../wire/message.ts';
import type { WakeCause } from './quiesce.ts';

export type TransferOutcome = 'done' | 'timeout' | 'superseded' | 'target-invalid' | 'stepped-down';

export interface Outbox {
  /** `message` is reused by the core: encode or copy it before returning. */
  send(message: Message, after: number): void;
  /**
   * Sends entries of `ref`, leaving out the first `skip`, `count` of them, to the member in `slot`. False when the bytes are
   * not in memory: the receiver fetches them and calls `catchUp` again; the core remembers nothing of the attempt.
   */
  sendBlock(slot: number, ref: BlockRef, skip: number, count: number, prevTerm: number): boolean;
  /** Sends a block without entries that asks the member whether it has `prevIndex` with `prevTerm`. */
  sendProbe(slot: number, prevIndex: number, prevTerm: number): void;
  /** The member needs a snapshot; the outcome comes back through `reportSnapshot`. */
  sendSnapshot(slot: number): void;
  /** Term, vote or the like changed: a state record must be appended to the log now. It is the core's next write number. */
  saveState(): void;
  /** This replica became leader and needs an empty entry appended before anything else. */
  appendNoop(): void;
  /** The read of this replica with `context` may be served once `index` is applied. */
  readReady(context: number, index: number): void;
  /** The reads of this replica up to and including `context` will get no answer (leader change); retryable. */
  readsDropped(context: number): void;
  /** Entries from `index` on were replaced by a newer leader's: their proposals here have an unknown outcome. */
  truncated(fromIndex: number): void;
  leaderChanged(leaderId: number, term: number): void;
  /** This replica fell silent (undefined), or woke and needs ticks again. */
  quiesceChanged(wokenBy: WakeCause | undefined): void;
  transferEnded(targetId: number, outcome: TransferOutcome): void;
  /** A member that does not vote has caught up and is to be promoted; asked for again until it is. */
  promote(replicaId: number): void;
  /** A member acknowledged less than it had before: its disk lost what it promised (F6, F19). It is not counted any more. */
  memberRegressed(replicaId: number): void;
}

/** What a kind of message may say besides who speaks to whom. */
export interface MessageFields {
  flags: number;
  term: number;
  logIndex: number;
  logTerm: number;
  commit: number;
  hint: number;
  hintHigh: number;
}
