/** Which errors of a host its faults explain: those of a damaged disk, and those that pass with the fault. */
import type { DrakkarError } from '../errors.ts';

/** Refusals that a damaged disk explains. */
export const DAMAGE_CODES: ReadonlySet<string> = new Set([
  'ERR_LOG_CORRUPT',
  'ERR_DIR_CORRUPT',
  'ERR_DIR_FORMAT',
  'ERR_SNAPSHOT_CORRUPT',
  'ERR_SHARD_NOT_BOOTSTRAPPED',
  'ERR_STATE_MACHINE_INDEX',
]);
/** Refusals that pass: the disk is full or fails now, and will not for ever. */
const PASSING_CODES: ReadonlySet<string> = new Set(['ERR_DISK_FULL', 'ERR_DISK_FAILED', 'ERR_ENGINE_FAILED']);

/** Also where the disk refuses a state machine that keeps its state there. */
export function isPassing(error: DrakkarError): boolean {
  if (error.code !== 'ERR_STATE_MACHINE') return PASSING_CODES.has(error.code);
  const { code } = (error.cause ?? {}) as { code?: unknown };
  return typeof code === 'string' && /^E[A-Z]+$/.test(code);
}
