/** Who hears what became of applied entries. */
import { DrakkarError } from '../errors.ts';
import { errorOfRefusal, type Refusal } from './membership.ts';
import type { Result } from './state-machine.ts';

export const ApplyStatus = {
  Ok: 0,
  /** The session is unknown or was evicted: whether an earlier try was applied cannot be told. */
  SessionNotFound: 1,
  /** The series was already acknowledged by its client: a defect of the caller. */
  SessionResponded: 2,
  Rejected: 3,
  /** The state machine keeps no sessions. */
  NoSessions: 4,
  /** A config change; the result is the `Refusal`. */
  Refused: 5,
} as const;
export type ApplyStatus = (typeof ApplyStatus)[keyof typeof ApplyStatus];

export interface ApplySink {
  /** The nonce of this replica's own proposals: only entries with it are reported. */
  readonly nonce: number;
  /** Called in log order for each own entry, commands, sessions and no-ops alike. */
  applied(sequence: number, index: number, status: ApplyStatus, result: Result): void;
}

/** What the caller of an entry that was not applied is told. */
export function errorOfStatus(status: ApplyStatus, shardId: number, result: Result): DrakkarError {
  switch (status) {
    case ApplyStatus.SessionNotFound:
      return new DrakkarError(
        'ERR_SESSION_NOT_FOUND',
        `the session is unknown to shard ${shardId}: it was closed, or evicted after too long without use`,
      );
    case ApplyStatus.SessionResponded:
      return new DrakkarError(
        'ERR_SESSION_RESPONDED',
        `the session has already acknowledged an answer for this series in shard ${shardId}`,
      );
    case ApplyStatus.NoSessions:
      return new DrakkarError(
        'ERR_INVALID_SESSION',
        `the state machine of shard ${shardId} keeps no sessions: its open() gives no session table`,
      );
    case ApplyStatus.Refused:
      return errorOfRefusal(result as Refusal, shardId);
    default:
      return new DrakkarError('ERR_REJECTED', `shard ${shardId} rejected the entry`);
  }
}
