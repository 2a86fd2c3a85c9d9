/** What a tool found wrong, as a plain value for reports. */
import { DrakkarError } from '../errors.ts';

export interface Problem {
  readonly code: string;
  readonly message: string;
}

export function problemOf(error: unknown): Problem {
  if (DrakkarError.is(error)) return { code: error.code, message: error.message };
  const code = (error as { code?: unknown } | undefined)?.code;
  return { code: typeof code === 'string' ? code : 'ERR_UNKNOWN', message: String(error) };
}
