/**
 * What the engine needs of a log database, and what it is told by one. One log serves all shards of an engine; what is
 * appended becomes durable in the order of the calls.
 */
import type { BlockRef, BlockPlace } from '../wire/block-ref.ts';
import type { Slab } from '../wire/slab.ts';
import type { DrakkarError } from '../errors.ts';

/** The incarnation of a replica's directory as first seen by this replica (design §7.5). */
export interface ReplicaPin {
  readonly replicaId: number;
  readonly directoryHigh: number;
  readonly directoryLow: number;
  readonly startCounter: number;
}

/** All that is durable about a shard besides its entries. A record holds it whole; the newest record counts. */
export interface ShardState {
  readonly shardId: number;
  readonly replicaId: number;
  readonly term: number;
  /** Replica voted for in `term`, 0 for none. */
  readonly vote: number;
  readonly commitIndex: number;
  /** Newest snapshot whose image is durable; 0, 0 for none. */
  readonly snapshotIndex: number;
  readonly snapshotTerm: number;
  /** Entries at and below are given up; never above `snapshotIndex`. `compactedTerm` is the term at that index. */
  readonly compactedIndex: number;
  readonly compactedTerm: number;
  /** Written once at the first start; opaque to the log (at most 64 KiB). */
  readonly bootstrap: Uint8Array;
  readonly pins: readonly ReplicaPin[];
}

/** What a shard's part of the log held when it was opened. */
export interface RecoveredShard {
  readonly state: ShardState;
  /** Live blocks in order, without a gap, from `compactedIndex + 1` or before it; bytes are not in memory. */
  readonly blocks: BlockRef[];
  /** The greatest commit index found in any accepted block, moved block or state record (design §7.4). */
  readonly commitIndex: number;
  /** Set when this shard's part is damaged: it must neither vote nor serve until repaired (F2). */
  readonly failure: DrakkarError | undefined;
}

/** Told by the log in the order of the appends, one call for each block and each state record that became durable. */
export interface LogSink {
  blockDurable(shardId: number, place: BlockPlace, firstIndex: number, count: number): void;
  stateDurable(shardId: number): void;
  /** After all calls of one group, whose write took `writeMs`; left out where that is not known. */
  groupDurable(writeMs?: number): void;
  /** The disk has no room: nothing becomes durable until `roomAgain`. Not fatal. */
  diskFull(error: DrakkarError): void;
  roomAgain(): void;
  /** So many segments, or what the database has of the kind, hold nothing that is needed and were given free. */
  spaceFreed?(segments: number): void;
  /** A write or sync failed: the log is dead, nothing pending will ever become durable (F5: never retried). */
  failed(error: DrakkarError): void;
}

export interface LogDb {
  readonly name: string;
  /** Bytes appended and not yet durable. */
  readonly pendingBytes: number;
  readonly isFull: boolean;
  /** Plain numbers by name, for metrics. */
  readonly counters: Readonly<Record<string, number>>;
  /** Set when the log at large is damaged: a shard that it does not mention may have been in it (F2). */
  readonly damage: DrakkarError | undefined;
  /** What was found at the opening, by shard id. */
  readonly recovered: ReadonlyMap<number, RecoveredShard>;
  /** Sets who is told, and who knows which blocks of a shard are live (for moving them out of old segments). */
  start(sink: LogSink, liveBlocks: (shardId: number) => Iterable<BlockRef>): void;
  /** Queues the sealed frame of blocks at `[offset, offset + lengthBytes)`. The bytes must not change; the slab is held until they were copied. */
  appendFrame(slab: Slab, offset: number, lengthBytes: number): void;
  /**
   * Queues a state record. With `resetsLog` all blocks of the shard that were appended before it are void: the log begins
   * behind `compactedIndex` (snapshot install).
   */
  appendState(state: ShardState, resetsLog: boolean): void;
  /** Starts a write of all that is pending, unless one is in flight: then that write's end starts the next. */
  flush(): void;
  /**
   * Reads and verifies the frame at `place`; rejects with `ERR_LOG_CORRUPT` or `ERR_DISK_FAILED`. The slab holds
   * the frame from its start, `usedBytes` long, and is held once for the caller.
   */
  readFrame(place: BlockPlace): Promise<Slab>;
  /** Forgets a shard with all its records, durably. */
  removeShard(shardId: number): Promise<void>;
  /** Much was given up: looks now for room to give back, not only when the log goes on. */
  reclaim?(): void;
  /** Waits for pending writes, then gives all files back. */
  close(): Promise<void>;
}
