/**
 * Committed entries as callers get them: read where they are (in memory or in the log), copied out, with bounds. Pins nothing longer
 * than one read of one frame takes. Not on the hot path: there is an object and a copy for each entry.
 */
import { DrakkarError, invariant, type AvailableRange } from '../errors.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import {
  EntryType,
  SESSION_CLIENT_WORD,
  SESSION_SERIES_WORD,
  entryType,
  entryWords,
  headerWords,
  isSessionEntry,
  payloadLengthBytes,
  skipEntries,
} from '../wire/entry.ts';
import { getU53 } from '../wire/number.ts';
import type { Slab } from '../wire/slab.ts';
import { locate } from './log-reader.ts';
import type { Replica } from './replica.ts';

/** What an entry is. Only commands reach the state machine. */
export type LogEntryKind = 'command' | 'noop' | 'config-change' | 'session-open' | 'session-close';

/** A committed entry. Its bytes are a copy. */
export interface LogEntry {
  readonly index: number;
  readonly term: number;
  readonly kind: LogEntryKind;
  /** The command as it was proposed; empty for `noop`, `session-open` and `session-close`. */
  readonly bytes: Uint8Array;
  /**
   * Set for entries of sessions: 64 random bits as hex, and the number of the command in its session. The same series again is a retry
   * that was not applied a second time.
   */
  readonly session: { readonly clientId: string; readonly series: number } | undefined;
}

export interface ReadBounds {
  readonly maxEntries: number;
  /** Of entries, each counted with `ENTRY_COST_BYTES` for itself. One entry is given however large it is. */
  readonly maxBytes: number;
}

/** What an entry costs in memory besides its bytes, roughly. */
export const ENTRY_COST_BYTES = 64;

export const costOf = (entry: LogEntry): number => entry.bytes.length + ENTRY_COST_BYTES;

const KINDS: Readonly<Record<number, LogEntryKind>> = {
  [EntryType.Command]: 'command',
  [EntryType.SessionCommand]: 'command',
  [EntryType.Noop]: 'noop',
  [EntryType.ConfigChange]: 'config-change',
  [EntryType.SessionRegister]: 'session-open',
  [EntryType.SessionUnregister]: 'session-close',
};

export function availableRange(replica: Replica): AvailableRange {
  return { firstIndex: replica.raft.log.firstIndex, lastIndex: replica.raft.commitIndex };
}

export function compactedError(replica: Replica, index: number): DrakkarError {
  const available = availableRange(replica);
  return new DrakkarError(
    'ERR_LOG_COMPACTED',
    `entry ${index} of shard ${replica.shardId} was given up behind a snapshot; entries from ${available.firstIndex} on are here`,
    { available },
  );
}

export function beyondError(replica: Replica, index: number): DrakkarError {
  const available = availableRange(replica);
  return new DrakkarError(
    'ERR_LOG_OUT_OF_RANGE',
    `entry ${index} of shard ${replica.shardId} is not known to be committed here; entries from ${available.firstIndex} to ${available.lastIndex} are`,
    { available },
  );
}

/** A list of entries that grows up to its bounds. */
export class EntryList {
  readonly entries: LogEntry[] = [];
  bytes = 0;
  private readonly bounds: ReadBounds;

  constructor(bounds: ReadBounds) {
    this.bounds = bounds;
  }

  /** Whether one more of `lengthBytes` fits; the first always does. */
  fits(lengthBytes: number): boolean {
    const { entries, bytes, bounds } = this;
    if (entries.length === 0) return true;
    return entries.length < bounds.maxEntries && bytes + lengthBytes + ENTRY_COST_BYTES <= bounds.maxBytes;
  }

  add(entry: LogEntry): void {
    this.entries.push(entry);
    this.bytes += costOf(entry);
  }
}

/**
 * Copies entries `[from, to]`, which one block holds and whose first stands at `word`, into `list`; gives the index behind the last
 * that fitted.
 */
export function copyEntries(slab: Slab, word: number, from: number, to: number, term: number, list: EntryList): number {
  const { u8, u32 } = slab;
  let index = from;
  for (; index <= to && list.fits(payloadLengthBytes(u32, word)); index++, word += entryWords(u32, word)) {
    const start = (word + headerWords(u32, word)) << 2;
    const bytes = u8.slice(start, start + payloadLengthBytes(u32, word));
    const session = isSessionEntry(u32, word) ? sessionOf(u32, word) : undefined;
    list.add({ index, term, kind: KINDS[entryType(u32, word)], bytes, session });
  }
  return index;
}

function sessionOf(u32: Uint32Array, word: number): LogEntry['session'] {
  const hex = (at: number): string => u32[at].toString(16).padStart(8, '0');
  const clientId = hex(word + SESSION_CLIENT_WORD + 1) + hex(word + SESSION_CLIENT_WORD);
  return { clientId, series: getU53(u32, word + SESSION_SERIES_WORD) };
}

/** The word at which `index` stands in a block whose bytes are in memory. */
export function wordOf(ref: BlockRef, slab: Slab, index: number): number {
  return skipEntries(slab.u32, ref.entriesWord, index - ref.firstIndex);
}

/**
 * Copies committed entries from `from` to `to` into `list` until it is full, reading from the log what is not in memory; gives the
 * index behind the last. Ends early when the rest was given up meanwhile.
 */
export async function readCommitted(
  replica: Replica,
  from: number,
  to: number,
  list: EntryList,
  signal?: AbortSignal,
): Promise<number> {
  let index = from;
  while (index <= to && signal?.aborted !== true) {
    const ref = replica.raft.log.blockAt(index);
    if (ref === undefined) break;
    const last = Math.min(to, ref.lastIndex);
    let next: number;
    if (ref.slab !== undefined) next = copyEntries(ref.slab, wordOf(ref, ref.slab, index), index, last, ref.term, list);
    else {
      const { place, term, flags } = ref;
      invariant(place !== undefined, `committed entries from ${index} are neither in memory nor in the log`);
      const slab = await replica.engine.log.readFrame(place);
      try {
        const word = locate(replica.shardId, slab, place.blockOffset, index, last, flags);
        next = copyEntries(slab, word, index, last, term, list);
      } finally {
        slab.release();
      }
    }
    if (next <= last) return next;
    index = next;
  }
  return index;
}
