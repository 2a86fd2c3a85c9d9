/** Named bounds of the engine's queues and buffers. */

/** Proposals of one shard that wait for their answer; more are refused with `ERR_SYSTEM_BUSY`. A power of two. */
export const PENDING_PROPOSALS_MAX = 65_536;
/** Bytes of one shard's proposals that no block was sealed for yet. */
export const UNSEALED_BYTES_MAX = 32 * 1024 * 1024;
/** Buffers of open blocks that are kept for the next shard that needs one. */
export const FREE_BLOCK_BYTES_MAX = 16 * 1024 * 1024;
/** Bytes of one shard that are in the log and not applied yet; a leader refuses proposals above it. */
export const UNAPPLIED_BYTES_MAX = 64 * 1024 * 1024;
/** Reads of one shard that wait for their answer. */
export const PENDING_READS_MAX = 65_536;
/** Above this the turn seals nothing: proposals wait in their open blocks until a group is durable (hot-path §7.8). */
export const LOG_PENDING_BYTES_MAX = 16 * 1024 * 1024;
/** Above this the connections that blocks arrive on are paused, until the log has caught up. */
export const INBOUND_PENDING_BYTES_MAX = 16 * 1024 * 1024;
/** Bytes of slabs that are out before blocks that are durable give their bytes back early. */
export const PINNED_BYTES_MAX = 256 * 1024 * 1024;
/** Time that one turn spends on applying a backlog before the loop gets air (hot-path §7.6). */
export const APPLY_BUDGET_MS = 4;
/** Bytes read from the log ahead of the apply or of a follower's catch-up, per shard. */
export const READ_AHEAD_BYTES = 2 * 1024 * 1024;
/** Wait before a follower that could not take a snapshot is offered one again. */
export const SNAPSHOT_RETRY_MS = 1000;
/** Messages of one replica that wait for a write to become durable. */
export const HELD_MESSAGES_MAX = 4096;
