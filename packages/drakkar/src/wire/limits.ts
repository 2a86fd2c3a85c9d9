/** Named bounds of everything that crosses the wire or the disk. A length read from outside is checked against one of these. */

/** A frame that carries several blocks is closed at this size, so that a turn's latency stays bounded (hot-path §7.4). */
export const FRAME_TARGET_BYTES = 512 * 1024;
/** The largest frame. Entry < frame < half a segment (64 MiB). */
export const FRAME_MAX_BYTES = 24 * 1024 * 1024;
/** The largest frame from a peer that has not said who it is. */
export const FRAME_MAX_BYTES_BEFORE_HELLO = 4096;
/** The largest payload of one entry; its length has 24 bits on the wire. */
export const ENTRY_MAX_BYTES = 8 * 1024 * 1024;
/** An open block is sealed at this size, so that one shard cannot fill a frame alone. */
export const BLOCK_TARGET_BYTES = 256 * 1024;
/** Entries in one block. */
export const BLOCK_MAX_ENTRIES = 65_536;
/** Members of one shard, of all kinds: addressee sets are bit masks in one small integer. */
export const MEMBERS_MAX = 30;
/** Ids of removed members that a shard remembers, for ever; more cannot be removed. */
export const REMOVED_MAX = 10_000;
/** Earlier starts of its directory that a host remembers and names. */
export const EARLIER_STARTS_MAX = 64;
/** Engines of one host, those included that only hold shards of an earlier start. */
export const ENGINES_MAX = 64;
/** An address, `host:port`, in bytes. */
export const ADDRESS_MAX_BYTES = 256;
