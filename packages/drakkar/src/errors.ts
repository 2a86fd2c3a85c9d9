/**
 * The one table of errors. Every error that leaves the library is a `DrakkarError` with a code from this table; the
 * table says whether trying again can help and what is known about the outcome. A leaf: imports nothing, so that
 * every floor may throw from it.
 */

/** What is known about an operation that failed: it certainly did not happen, or it may have. */
export type Outcome = 'not-applied' | 'unknown';

interface ErrorTraits {
  /** True when the same call may succeed later or on another host. */
  readonly retryable: boolean;
  readonly outcome: Outcome;
}

const no: ErrorTraits = { retryable: false, outcome: 'not-applied' };
const again: ErrorTraits = { retryable: true, outcome: 'not-applied' };
const unknown: ErrorTraits = { retryable: true, outcome: 'unknown' };

/** Codes, in the order of `docs/errors.md`, which explains each. */
export const ERROR_TABLE = {
  // What the caller gave.
  ERR_INVALID_OPTION: no,
  ERR_INVALID_SESSION: no,
  ERR_PAYLOAD_TOO_BIG: no,
  // The host and its directory.
  ERR_CLOSED: no,
  ERR_ADDRESS_IN_USE: again,
  ERR_TLS_CONFIG: no,
  ERR_DIR_LOCKED: again,
  ERR_DIR_FOREIGN: no,
  ERR_DIR_FORMAT: no,
  ERR_FORMAT_NOT_AGREED: again,
  ERR_DIR_PERMISSIONS: no,
  ERR_DIR_CORRUPT: no,
  ERR_ENGINE_FAILED: unknown,
  // Shards and replicas.
  ERR_SHARD_NOT_FOUND: no,
  ERR_SHARD_EXISTS: no,
  ERR_SHARD_MISMATCH: no,
  ERR_SHARD_NOT_BOOTSTRAPPED: no,
  ERR_SHARD_NOT_READY: again,
  ERR_SHARD_STOPPED: unknown,
  ERR_SHARD_FAILED: unknown,
  ERR_STATE_MACHINE: unknown,
  ERR_STATE_MACHINE_INDEX: no,
  // Membership.
  ERR_NOT_MEMBER: again,
  ERR_REPLICA_REMOVED: no,
  ERR_CONFIG_CHANGE_PENDING: again,
  ERR_CONFIG_CHANGE_STALE: no,
  ERR_CONFIG_CHANGE_REFUSED: no,
  ERR_NOT_REMOVED: no,
  ERR_WITNESS: no,
  // Requests.
  ERR_SYSTEM_BUSY: again,
  ERR_NO_LEADER: again,
  ERR_NOT_LEADER: again,
  ERR_TIMEOUT: unknown,
  ERR_ABORTED: unknown,
  ERR_DROPPED: unknown,
  ERR_REJECTED: no,
  ERR_SESSION_NOT_FOUND: unknown,
  ERR_SESSION_RESPONDED: no,
  ERR_TRANSFER_ABORTED: again,
  // Disk and log.
  ERR_DISK_FULL: again,
  ERR_DISK_STALLED: again,
  ERR_DISK_FAILED: unknown,
  ERR_LOG_CORRUPT: no,
  ERR_LOG_COMPACTED: no,
  ERR_LOG_OUT_OF_RANGE: again,
  ERR_SNAPSHOT_CORRUPT: no,
  ERR_SNAPSHOT_CODEC: no,
  ERR_LIMIT: again,
  // The wire.
  ERR_FRAME: no,
  ERR_PEER_REFUSED: again,
  ERR_UNREACHABLE: again,
  // A broken invariant: a defect of the library, contained in its shard.
  ERR_INVARIANT: unknown,
} as const satisfies Record<string, ErrorTraits>;

export type ErrorCode = keyof typeof ERROR_TABLE;

/** So that errors of two copies of the package recognise each other. */
const BRAND: unique symbol = Symbol.for('drakkar.error');

export interface DrakkarErrorOptions {
  readonly cause?: unknown;
  /** Overrides the table when the place that fails knows more, e.g. a stop before the entry was sealed. */
  readonly outcome?: Outcome;
  readonly available?: AvailableRange;
}

/** Indexes of committed entries that a host still has, both inclusive. */
export interface AvailableRange {
  readonly firstIndex: number;
  readonly lastIndex: number;
}

/** An error with a stable `code`; `retryable` and `outcome` tell the caller what it may do. */
export class DrakkarError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly outcome: Outcome;
  /** With `ERR_LOG_COMPACTED` and `ERR_LOG_OUT_OF_RANGE`: what could have been asked for. */
  readonly available: AvailableRange | undefined;
  readonly [BRAND] = true;

  constructor(code: ErrorCode, message: string, options: DrakkarErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'DrakkarError';
    this.code = code;
    this.retryable = ERROR_TABLE[code].retryable;
    this.outcome = options.outcome ?? ERROR_TABLE[code].outcome;
    this.available = options.available;
  }

  static is(value: unknown, code?: ErrorCode): value is DrakkarError {
    if (typeof value !== 'object' || value === null || !(BRAND in value)) return false;
    return code === undefined || (value as DrakkarError).code === code;
  }
}

/** Throws `ERR_INVARIANT` unless `condition` holds. Stays on in production; its cost is one branch. */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new DrakkarError('ERR_INVARIANT', message);
}

/**
 * What a failed file operation means to callers: `ERR_DISK_FULL` or `ERR_DISK_FAILED`. Errors that are no system errors
 * are given back as they are.
 */
export function diskErrorOf(cause: unknown, what: string): unknown {
  if (DrakkarError.is(cause)) return cause;
  const code = (cause as { code?: unknown } | undefined)?.code;
  if (code === 'ENOSPC' || code === 'EFBIG') {
    return new DrakkarError('ERR_DISK_FULL', `no room for ${what}; free some and try again`, { cause });
  }
  return typeof code === 'string' && /^E[A-Z]+$/.test(code)
    ? new DrakkarError('ERR_DISK_FAILED', `reading or writing ${what} failed (${code})`, { cause })
    : cause;
}
