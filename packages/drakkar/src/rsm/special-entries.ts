/**
 * What the entries do that are no plain commands: session commands, sessions that begin and end, config changes, empty ones. Each is
 * either done and answered here, or, a session command that is new, put into the batch with the commands around it.
 *
 * Promises: an entry that must wait for the batch before it changes nothing (`takeSpecial` gives false); the rest is the same on every replica.
 * Must not call the state machine: that is `rsm.ts`'s, which also empties the batch. Hot: nothing is allocated but for session commands.
 */
import { invariant } from '../errors.ts';
import { checksum } from '../wire/checksum.ts';
import { decodeConfigChangeEntry } from '../wire/config-change.ts';
import {
  ENTRY_HEADER_WORDS,
  EntryType,
  SESSION_CLIENT_WORD,
  SESSION_RESPONDED_WORD,
  SESSION_SERIES_WORD,
  headerWords,
  keyNonce,
  keySequence,
  payloadLengthBytes,
} from '../wire/entry.ts';
import { encodeMembership, isKnown, type Membership } from '../wire/membership.ts';
import { getU53 } from '../wire/number.ts';
import { ApplyStatus, type ApplySink } from './apply-sink.ts';
import { BATCH_MAX } from './entries.ts';
import { changeMembership } from './membership.ts';
import type { Rsm } from './rsm.ts';
import type { Session } from './session.ts';
import type { Result } from './state-machine.ts';

/** A session command in the current batch: its answer is kept once it is known. */
export interface BatchedSession {
  readonly at: number;
  readonly session: Session;
  readonly series: number;
}

/** False: what is in the batch must be applied first; then nothing has changed. */
export function takeSpecial(
  rsm: Rsm,
  u8: Uint8Array,
  u32: Uint32Array,
  word: number,
  type: number,
  index: number,
  sink: ApplySink,
): boolean {
  const clientLow = u32[word + SESSION_CLIENT_WORD];
  const clientHigh = u32[word + SESSION_CLIENT_WORD + 1];
  switch (type) {
    case EntryType.SessionCommand:
      return takeSessionCommand(rsm, u8, u32, word, index, clientHigh, clientLow, sink);
    case EntryType.SessionRegister:
      if (rsm.keepsSessions) rsm.sessions.register(clientHigh, clientLow, index);
      report(u32, word, index, rsm.keepsSessions ? ApplyStatus.Ok : ApplyStatus.NoSessions, 0, sink);
      return true;
    case EntryType.SessionUnregister:
      rsm.sessions.unregister(clientHigh, clientLow);
      report(u32, word, index, ApplyStatus.Ok, 0, sink);
      return true;
    case EntryType.ConfigChange:
      applyConfigChange(rsm, u8, u32, word, index, sink);
      return true;
    default: {
      // The leader put it in the place of a config change that it refused, and says why.
      const refusal = payloadLengthBytes(u32, word) === 0 ? 0 : u8[(word + ENTRY_HEADER_WORDS) << 2];
      report(u32, word, index, refusal === 0 ? ApplyStatus.Ok : ApplyStatus.Refused, refusal, sink);
      return true;
    }
  }
}

/** Takes effect now (design §4). The answer is the index, which identifies the new membership. */
function applyConfigChange(
  rsm: Rsm,
  u8: Uint8Array,
  u32: Uint32Array,
  word: number,
  index: number,
  sink: ApplySink,
): void {
  const at = (word + ENTRY_HEADER_WORDS) << 2;
  const { change, base } = decodeConfigChangeEntry(u8.subarray(at, at + payloadLengthBytes(u32, word)));
  if (isKnown(rsm.membership)) {
    const known = rsm.membership.configChangeIndex;
    invariant(
      known === base.configChangeIndex && encodesSame(rsm.membership, base),
      `the config change at ${index} is of the membership of ${base.configChangeIndex}, this replica's is of ${known} or has other members`,
    );
  } else rsm.membership = base;
  rsm.membershipIndex = index;
  const changed = changeMembership(rsm.membership, change, index);
  if (typeof changed === 'number') {
    report(u32, word, index, ApplyStatus.Refused, changed, sink);
    return;
  }
  rsm.membership = changed;
  report(u32, word, index, ApplyStatus.Ok, index, sink);
}

/** The apply table of sessions (thesis §6.3; design §7.6). */
function takeSessionCommand(
  rsm: Rsm,
  u8: Uint8Array,
  u32: Uint32Array,
  word: number,
  index: number,
  clientHigh: number,
  clientLow: number,
  sink: ApplySink,
): boolean {
  const { batch } = rsm;
  const series = getU53(u32, word + SESSION_SERIES_WORD);
  const session = rsm.sessions.use(clientHigh, clientLow, index);
  if (session === undefined) {
    report(u32, word, index, rsm.keepsSessions ? ApplyStatus.SessionNotFound : ApplyStatus.NoSessions, 0, sink);
    return true;
  }
  // Its earlier try may be in this very batch.
  if (session.isBatched || batch.count === BATCH_MAX) return false;
  session.respond(getU53(u32, word + SESSION_RESPONDED_WORD));
  if (series <= session.respondedTo) {
    report(u32, word, index, ApplyStatus.SessionResponded, 0, sink);
    return true;
  }
  const known = session.answers.get(series);
  if (known !== undefined) {
    report(u32, word, index, ApplyStatus.Ok, known, sink);
    return true;
  }
  session.isBatched = true;
  rsm.batchedSessions.push({ at: batch.count, session, series });
  const offset = (word + headerWords(u32, word)) << 2;
  batch.add(index, u8, offset, payloadLengthBytes(u32, word), keySequence(u32, word), keyNonce(u32, word));
  return true;
}

function encodesSame(a: Membership, b: Membership): boolean {
  return checksum(encodeMembership(a)) === checksum(encodeMembership(b));
}

function report(
  u32: Uint32Array,
  word: number,
  index: number,
  status: ApplyStatus,
  result: Result,
  sink: ApplySink,
): void {
  if (keyNonce(u32, word) === sink.nonce) sink.applied(keySequence(u32, word), index, status, result);
}
