/** Named bounds of connections and of what waits on them. */

/** Time for an accepted connection to end its handshake and say HELLO, and for an answer to a HELLO. */
export const HELLO_TIMEOUT_MS = 5000;
export const DIAL_TIMEOUT_MS = 5000;
/** Pause before the next dial: doubles from the first to the second, with jitter. */
export const BACKOFF_FIRST_MS = 50;
export const BACKOFF_LAST_MS = 2000;
/** Accepted connections that have said HELLO; those of one address that have not, and all that have not. */
export const CONNECTIONS_MAX = 1024;
export const CONNECTIONS_MAX_BEFORE_HELLO = 64;
export const CONNECTIONS_MAX_BEFORE_HELLO_IN_ALL = 256;
/** A connection that stands still in the middle of a frame is ended after one to two of these. */
export const STALL_MS = 10_000;
/** The same refusal is logged that often at most; all are counted. */
export const REFUSAL_LOG_MS = 10_000;
/** Default age at which a secured connection is replaced, and how far beyond it the other end lets one grow. */
export const CONNECTION_MAX_AGE_MS = 3_600_000;
export const CONNECTION_AGE_GRACE = 1.25;
/** A stream is not cut off for its age before that; idle ones end much earlier. */
export const SNAPSHOT_CONNECTION_MAX_AGE_MS = 86_400_000;
/** After new certificates came, a host's connections are replaced one by one within this time. */
export const RENEWAL_SPREAD_MS = 1000;
/** Time for what is under way on the old connection, before the new one goes ahead without it. */
export const HANDOVER_MAX_MS = 5000;
/** How often files of certificates are looked at, by default. */
export const TLS_RELOAD_INTERVAL_MS = 60_000;
export const SECURITY_FILE_MAX_BYTES = 1024 * 1024;
/** Bytes queued for one peer unless the host says otherwise; frames beyond are dropped, and the protocol asks again. */
export const PEER_QUEUE_MAX_BYTES = 64 * 1024 * 1024;
/** Shards of one host whose engine a peer remembers; a host that names more is not listened to. */
export const ROUTES_MAX = 1_000_000;
/** Bytes of news about engines that wait for one dialler; who does not read them is dropped. */
export const ROUTES_QUEUE_MAX_BYTES = 16 * 1024 * 1024;
/** Snapshot streams at a time, each way, those included that wait for the engine to take them: it has its own bounds. */
export const SNAPSHOTS_MAX = 128;
export const SNAPSHOT_CHUNK_BYTES = 256 * 1024;
/** A stream without a byte for so long is given up. */
export const SNAPSHOT_IDLE_MS = 30_000;
/** The receiver may take its time to verify and install. */
export const SNAPSHOT_STATUS_TIMEOUT_MS = 600_000;
/** A receiver says so often that it is still there, while the sender waits for it … */
export const SNAPSHOT_ALIVE_MS = 10_000;
/** … unless it has taken nothing for so long. */
export const SNAPSHOT_TAKE_MS = 3_600_000;
/** Chunks received and not consumed before the connection is paused. */
export const SNAPSHOT_QUEUE_CHUNKS = 8;
