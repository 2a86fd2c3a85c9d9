/** Named bounds of what waits between threads. */

/** Bytes of commands that were sent to a thread and that it has not taken over yet; more are refused with `ERR_SYSTEM_BUSY`. */
export const THREAD_BYTES_MAX = 64 * 1024 * 1024;
/** Reads that wait for one thread. */
export const THREAD_READS_MAX = 65_536;
/** Calls that wait for one thread. */
export const THREAD_CALLS_MAX = 65_536;
/** Entries of one change stream that are on their way between threads, or there and not asked for yet: two batches of so many, and of so many bytes. */
export const STREAM_BATCH_ENTRIES = 1024;
export const STREAM_BATCH_BYTES = 256 * 1024;
/** How long a question may hold up the host while its thread is in a turn. */
export const ASK_TIMEOUT_MS = 5000;
/** How long a thread may take to close in order. */
export const CLOSE_TIMEOUT_MS = 60_000;
/** Ticks between two looks at what is overdue, and ticks that a thread is left to say so itself. */
export const SWEEP_TICKS = 10;
export const GRACE_TICKS = 25;
