/**
 * Images of a replicated state machine: captured in one synchronous step with sessions, membership and index, whatever its kind, and given
 * back to it. Turns what state machines throw into errors with codes.
 */
import { DrakkarError, invariant } from '../errors.ts';
import { decodeMembership, encodeMembership, type Membership } from '../wire/membership.ts';
import { checkFiles, encodeFiles, extractFiles } from './files.ts';
import {
  IMAGE_IMPORTED,
  IMAGE_WITHOUT_STATE,
  IMAGE_WITH_FILES,
  ImageReader,
  SectionReader,
  encodeImage,
  encodeSection,
  type ImageHeader,
  type ImageInfo,
} from './image.ts';
import type { Rsm } from './rsm.ts';
import { Sessions } from './sessions.ts';
import type { RecoveryContext, SnapshotFile } from './state-machine.ts';

type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

export interface Capture {
  readonly index: number;
  readonly term: number;
  /** Once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** To be called at the end, whatever it was. */
  release(): Promise<void>;
}

/** The state as it is now, to be streamed. A regular state machine is not applied to before `release`. */
export function capture(rsm: Rsm, signal: AbortSignal): Capture {
  const { stateMachine } = rsm;
  invariant(!rsm.isOnDisk || !rsm.gate.isBusy, 'a state was captured in the middle of an update');
  const membership = encodeSection(encodeMembership(rsm.membership));
  const sessions = encodeSection(rsm.sessions.encode());
  let state: () => Chunks;
  let files: readonly SnapshotFile[];
  let released: () => void | Promise<void> = () => {};
  try {
    if (stateMachine.kind === 'concurrent' || stateMachine.kind === 'on-disk') {
      const prepared: unknown = stateMachine.prepareSnapshot();
      released = () => stateMachine.releaseSnapshot?.(prepared);
      files = stateMachine.snapshotFiles?.(prepared) ?? [];
      state = () => stateMachine.saveSnapshot(prepared, { signal });
    } else {
      files = stateMachine.snapshotFiles?.() ?? [];
      state = () => stateMachine.saveSnapshot({ signal });
      rsm.busy = true;
    }
    checkFiles(files);
    if (files.length > 0 && rsm.files === undefined) throw new Error('there is nothing to read files with here');
  } catch (cause) {
    rsm.busy = false;
    Promise.resolve(released()).catch(() => {}); // the first error counts
    throw saveError(rsm, cause, signal);
  }
  const leave = rsm.calls.enter();
  const { appliedIndex: index, appliedTerm: term, shardId } = rsm;
  async function* payload(): AsyncGenerator<Uint8Array> {
    yield membership;
    yield sessions;
    if (files.length > 0) yield* encodeFiles(rsm.files!.fs, files);
    try {
      for await (const chunk of state()) {
        signal.throwIfAborted();
        yield chunk;
      }
    } catch (cause) {
      throw saveError(rsm, cause, signal);
    }
  }
  let releasing: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    try {
      await released();
    } catch (cause) {
      throw saveError(rsm, cause, signal);
    } finally {
      if (rsm.kind === 'regular') rsm.busy = false;
      leave();
    }
  };
  const flags = files.length > 0 ? IMAGE_WITH_FILES : 0;
  return {
    index,
    term,
    chunks: encodeImage({ shardId, index, term, flags }, payload(), rsm.packing),
    release: () => (releasing ??= release()),
  };
}

/** What an on-disk state machine has durable itself, as a snapshot: index, term and membership, no state, no sessions. */
export function imageWithoutState(info: Omit<ImageInfo, 'flags'>, membership: Membership): AsyncIterable<Uint8Array> {
  const payload = [encodeSection(encodeMembership(membership)), encodeSection(new Sessions().encode())];
  return encodeImage({ ...info, flags: IMAGE_WITHOUT_STATE }, payload);
}

export interface ReadImage {
  readonly info: ImageHeader;
  readonly membership: Membership;
  readonly hasState: boolean;
  /** A store gives way to it, also a newer one. */
  readonly isImported: boolean;
  /** Replaces everything. After an error the state is half one, half the other: the replica must fail. */
  recover(signal: AbortSignal): Promise<void>;
  /** When it is not recovered from. */
  close(): Promise<void>;
}

/** Reads what an image says of itself. Throws `ERR_SNAPSHOT_CORRUPT`. */
export async function readImage(rsm: Rsm, chunks: AsyncIterable<Uint8Array>): Promise<ReadImage> {
  const reader = new ImageReader(chunks, rsm.codecs);
  const info = await reader.header();
  if (info.shardId !== rsm.shardId) {
    throw new DrakkarError('ERR_SNAPSHOT_CORRUPT', `the snapshot is of shard ${info.shardId}, not ${rsm.shardId}`);
  }
  const payload = reader.payload();
  const sections = new SectionReader(payload);
  const membership = decodeMembership(await sections.section());
  const sessions = Sessions.decode(await sections.section(), rsm.maxSessions);
  const hasState = (info.flags & IMAGE_WITHOUT_STATE) === 0;
  return {
    info,
    membership,
    hasState,
    isImported: (info.flags & IMAGE_IMPORTED) !== 0,
    close: async () => void (await payload.return(undefined)),
    async recover(signal) {
      if (!hasState) throw new DrakkarError('ERR_SNAPSHOT_CORRUPT', 'the snapshot holds no state to recover from');
      await recover(rsm, info, sections, sessions, signal);
      rsm.sessions = sessions;
      if (rsm.isOnDisk) {
        rsm.opened(info.index, rsm.keepsSessions ? sessions : undefined);
        await sync(rsm);
      }
      rsm.membership = membership;
      rsm.membershipIndex = rsm.appliedIndex = info.index;
      rsm.appliedTerm = info.term;
    },
  };
}

async function recover(
  rsm: Rsm,
  info: ImageHeader,
  sections: SectionReader,
  sessions: Sessions,
  signal: AbortSignal,
): Promise<void> {
  const { stateMachine } = rsm;
  const hasFiles = (info.flags & IMAGE_WITH_FILES) !== 0;
  if (hasFiles && rsm.files === undefined) {
    throw new DrakkarError('ERR_SNAPSHOT_CORRUPT', 'the snapshot holds files; there is no place for them here');
  }
  const dir = `${rsm.files?.dir ?? ''}/${info.index.toString(16).padStart(16, '0')}.files`;
  const files = hasFiles ? await extractFiles(rsm.files!.fs, dir, sections) : [];
  const rest = sections.rest();
  const context: RecoveryContext = { signal, files };
  const leave = rsm.calls.enter();
  try {
    if (stateMachine.kind === 'on-disk') {
      const rows = rsm.keepsSessions ? sessions.rows() : [];
      await stateMachine.recoverFromSnapshot(rest, { ...context, index: info.index, sessions: rows });
    } else await stateMachine.recoverFromSnapshot(rest, context);
  } catch (cause) {
    if (DrakkarError.is(cause)) throw cause;
    if (signal.aborted) throw new DrakkarError('ERR_ABORTED', 'the recovery was aborted', { cause });
    throw new DrakkarError(
      'ERR_STATE_MACHINE',
      `recoverFromSnapshot failed in the state machine of shard ${rsm.shardId}`,
      { cause },
    );
  } finally {
    leave();
  }
  // A state machine may stop reading early; what follows must verify all the same.
  for await (const piece of rest) void piece;
  if (hasFiles) await rsm.files!.fs.remove(dir);
}

/** Opens an on-disk state machine: it tells how far it has come. */
export async function open(rsm: Rsm, signal: AbortSignal): Promise<void> {
  const { stateMachine, shardId } = rsm;
  if (stateMachine.kind !== 'on-disk') return;
  const leave = rsm.calls.enter();
  try {
    const opened = await stateMachine.open({ signal });
    const { appliedIndex, sessions } = opened;
    if (!Number.isSafeInteger(appliedIndex) || appliedIndex < 0) {
      throw new TypeError(`open gave the index ${String(appliedIndex)}; expected a whole number from 0`);
    }
    rsm.opened(appliedIndex, sessions === undefined ? undefined : Sessions.fromRows(sessions, rsm.maxSessions));
  } catch (cause) {
    if (signal.aborted) throw new DrakkarError('ERR_ABORTED', `opening shard ${shardId} was aborted`, { cause });
    throw new DrakkarError('ERR_STATE_MACHINE', `open failed in the state machine of shard ${shardId}`, {
      cause,
      outcome: 'not-applied',
    });
  } finally {
    leave();
  }
}

/** What an on-disk state machine has stored up to now is durable when it resolves. */
export async function sync(rsm: Rsm): Promise<void> {
  const { stateMachine, shardId } = rsm;
  if (stateMachine.kind !== 'on-disk') return;
  const leave = rsm.calls.enter();
  try {
    await stateMachine.sync?.();
  } catch (cause) {
    throw new DrakkarError('ERR_STATE_MACHINE', `sync failed in the state machine of shard ${shardId}`, { cause });
  } finally {
    leave();
  }
}

/** A snapshot that is given up is no failure, whoever gives it up; anything else that is thrown is. */
function saveError(rsm: Rsm, cause: unknown, signal: AbortSignal): DrakkarError {
  if (DrakkarError.is(cause)) return cause;
  const isGivenUp = (cause as { name?: unknown } | null)?.name === 'AbortError';
  if (signal.aborted || isGivenUp) {
    const who = signal.aborted ? 'it is not wanted any more' : 'its state machine gave it up';
    return new DrakkarError('ERR_ABORTED', `the snapshot of shard ${rsm.shardId} was aborted: ${who}`, {
      cause,
      outcome: 'not-applied',
    });
  }
  return new DrakkarError(
    'ERR_STATE_MACHINE',
    `saving a snapshot failed in the state machine of shard ${rsm.shardId}`,
    {
      cause,
    },
  );
}
