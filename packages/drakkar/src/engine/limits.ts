/** Named bounds of the engine's queues and buffers. */

/** Proposals of one shard that wait for their answer; more are refused with `ERR_SYSTEM_BUSY`. A power of two. */
export const PENDING_PROPOSALS_MAX = 65_536;
/** Bytes of one shard's proposals that no block was sealed for yet. */
export const UNSEALED_BYTES_MAX = 32 * 1024 * 1024;
/** Least that `maxInMemoryLogBytes` may be. */
export const IN_MEMORY_LOG_BYTES_MIN = 4096;
/** Buffers of open blocks that are kept for the next shard that needs one. */
export const FREE_BLOCK_BYTES_MAX = 16 * 1024 * 1024;
/** Reads of one shard that wait for their answer. */
export const PENDING_READS_MAX = 65_536;
/** Above this the turn seals nothing: proposals wait in their open blocks until a group is durable (hot-path §7.8). */
export const LOG_PENDING_BYTES_MAX = 16 * 1024 * 1024;
/** Bytes of slabs that are out before blocks that are durable give their bytes back early. */
export const PINNED_BYTES_MAX = 256 * 1024 * 1024;
/** Time that one turn spends on applying a backlog before the loop gets air (hot-path §7.6). */
export const APPLY_BUDGET_MS = 4;
/**
 * Entries that one turn applies of shards whose callers wait here. The next proposals of those it answers leave before the rest is applied,
 * so that disks and followers are busy meanwhile; smaller slices would cost more frames and flushes than they gain.
 */
export const APPLY_SLICE_ENTRIES = 2048;
/** Bytes read from the log ahead of the apply or of a follower's catch-up, per shard. */
export const READ_AHEAD_BYTES = 2 * 1024 * 1024;
/** Wait before a follower that could not take a snapshot is offered one again. */
export const SNAPSHOT_RETRY_MS = 1000;
/** Snapshots at once, each way: as set, and at most. */
export const SNAPSHOTS_AT_ONCE = 16;
export const SNAPSHOTS_AT_ONCE_MAX = 64;
/** Snapshots that wait for their turn to be sent; those beyond are tried again later. A host may lead thousands of shards. */
export const SNAPSHOT_SENDS_WAITING_MAX = 4096;
/** Offered snapshots that wait for their turn; each costs a connection. */
export const SNAPSHOT_RECEIVES_WAITING_MAX = 64;
/** What a broken stream left is kept so long for its rest. */
export const SNAPSHOT_PART_KEEP_MS = 3_600_000;
/** Least bandwidth that snapshots may be given: below it nothing would ever arrive. */
export const SNAPSHOT_BYTES_PER_SECOND_MIN = 4 * 1024;
/** Bandwidth that was not used may be used up to so much later. */
export const BANDWIDTH_BURST_MS = 100;
/** So many streams can share a bound without one of them standing still for more than some seconds. */
export const BANDWIDTH_PIECES_PER_SECOND = 64;
/** Replicas that one replica listens to and does not know as members yet. */
export const STRANGERS_MAX = 30;
/** Ticks that the way to a host stays open which is no member's and was heard of. */
export const GUEST_TICKS = 1000;
/** Ticks between two looks for hosts that nobody talks to any more. */
export const GUEST_CHECK_TICKS = 100;
/** Ticks after which a host says again which format it has enabled: what was said may be lost. */
export const FORMAT_TELL_TICKS = 100;
/** Config changes of one shard that wait for a leader; one at a time is made. */
export const OPEN_CHANGES_MAX = 16;
/** Messages of one replica that wait for a write to become durable. */
export const HELD_MESSAGES_MAX = 4096;
/** Queries of one shard's log that run at the same time; more are refused with `ERR_SYSTEM_BUSY`. */
export const LOG_QUERIES_MAX = 16;
/** Change streams and leader watches of one shard, each. */
export const WATCHES_MAX = 64;
/** Entries that one query gives, and its bytes, unless the caller wants fewer. */
export const LOG_QUERY_ENTRIES_MAX = 100_000;
export const LOG_QUERY_BYTES_MAX = 64 * 1024 * 1024;
export const LOG_QUERY_BYTES = 4 * 1024 * 1024;
/** What a change stream keeps for its consumer; what does not fit is read from the log later. */
export const WATCH_BUFFER_BYTES = 1024 * 1024;
export const WATCH_BUFFER_BYTES_MAX = 64 * 1024 * 1024;
/** Between two tries to listen at a host's address in place of its engine 0 that failed. */
export const DOOR_RETRY_MS = 100;
/** Blocks without commands in a row, of a leader who knows it, that tell a replica that it was added as a witness and not started as one. */
export const HOLLOW_BLOCKS_MAX = 8;
