/** Named bounds of connections and of what waits on them. */

/** Time for a connection to say HELLO, and for an answer to it. */
export const HELLO_TIMEOUT_MS = 5000;
export const DIAL_TIMEOUT_MS = 5000;
/** Pause before the next dial: doubles from the first to the second, with jitter. */
export const BACKOFF_FIRST_MS = 50;
export const BACKOFF_LAST_MS = 2000;
/** Accepted connections in all, and those of one address that have not said HELLO. */
export const CONNECTIONS_MAX = 1024;
export const CONNECTIONS_MAX_BEFORE_HELLO = 64;
/** Bytes queued for one peer; frames beyond are dropped, and the protocol asks again. */
export const PEER_QUEUE_MAX_BYTES = 64 * 1024 * 1024;
/** Shards of one host whose engine a peer remembers; a host that names more is not listened to. */
export const ROUTES_MAX = 1_000_000;
/** Bytes of news about engines that wait for one dialler; who does not read them is dropped. */
export const ROUTES_QUEUE_MAX_BYTES = 16 * 1024 * 1024;
/** Snapshot streams at a time, each way. */
export const SNAPSHOTS_MAX = 16;
export const SNAPSHOT_CHUNK_BYTES = 256 * 1024;
/** A stream without a byte for so long is given up. */
export const SNAPSHOT_IDLE_MS = 30_000;
/** The receiver may take its time to verify and install. */
export const SNAPSHOT_STATUS_TIMEOUT_MS = 600_000;
/** Chunks received and not consumed before the connection is paused. */
export const SNAPSHOT_QUEUE_CHUNKS = 8;
