/** Who hears what became of applied entries. */
import type { Result } from './state-machine.ts';

export const ApplyStatus = {
  Ok: 0,
  /** The session is unknown or was evicted: whether an earlier try was applied cannot be told. */
  SessionNotFound: 1,
  /** The series was already acknowledged by its client: a defect of the caller. */
  SessionResponded: 2,
  Rejected: 3,
} as const;
export type ApplyStatus = (typeof ApplyStatus)[keyof typeof ApplyStatus];

export interface ApplySink {
  /** The nonce of this replica's own proposals: only entries with it are reported. */
  readonly nonce: number;
  /** Called in log order for each own entry, commands, sessions and no-ops alike. */
  applied(sequence: number, index: number, status: ApplyStatus, result: Result): void;
}
