/** Walks through the logs of a directory and shows what stands in them, in the order it was written. */
import { withLogs, type LogFiles, type LogsOptions } from './log-files.ts';
import { envOf, type ToolOptions } from './tool-env.ts';
import { problemOf } from './problem.ts';
import type { File } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import {
  BLOCK_HEADER_WORDS,
  BLOCK_TRUNCATES,
  BlockHeader,
  blockIsSound,
  blockLengthBytes,
  readBlockHeader,
} from '../wire/block.ts';
import {
  EntryType,
  SESSION_CLIENT_WORD,
  SESSION_RESPONDED_WORD,
  SESSION_SERIES_WORD,
  entryType,
  entryWords,
  headerWords,
  isSessionEntry,
  payloadLengthBytes,
} from '../wire/entry.ts';
import { FRAME_HEADER_WORDS, FrameType, frameCount, frameType } from '../wire/frame.ts';
import { decodeMembership } from '../wire/membership.ts';
import { getU53 } from '../wire/number.ts';
import { RECORD_REMOVED, RECORD_RESETS_LOG, readRecord, recordFlags, recordLengthBytes } from '../wal/records.ts';
import { MOVED_PREFIX_WORDS } from '../wal/replay.ts';
import { scanSegments } from '../wal/scan.ts';
import { Segment } from '../wal/segments.ts';

export interface DumpOptions extends ToolOptions, LogsOptions {
  /** Only what belongs to this shard. */
  readonly shardId?: number;
  /** Each entry of a block as an item of its own. Default false. */
  readonly entries?: boolean;
  /** The entries' commands, as base64. Default false. */
  readonly data?: boolean;
}

/** Where an item stands: epoch of its segment, byte of its frame in it. */
interface Place {
  readonly engine: number;
  readonly epoch: number;
  readonly offset: number;
}

export type LogItem =
  | ({ readonly kind: 'block' } & Place & BlockItem)
  | ({ readonly kind: 'entry' } & EntryItem)
  | ({ readonly kind: 'state' } & Place & StateItem)
  | { readonly kind: 'segment'; readonly engine: number; readonly epoch: number; readonly path: string }
  | {
      readonly kind: 'end';
      readonly engine: number;
      readonly epoch: number;
      readonly offset: number;
      readonly group: number;
    }
  | { readonly kind: 'damage'; readonly engine: number; readonly code: string; readonly message: string };

interface BlockItem {
  readonly shardId: number;
  readonly term: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly prevTerm: number;
  readonly commitIndex: number;
  readonly senderId: number;
  readonly sizeBytes: number;
  readonly truncates: boolean;
  /** A copy of a block that first stood elsewhere. */
  readonly isMoved: boolean;
}

interface EntryItem {
  readonly shardId: number;
  readonly index: number;
  readonly term: number;
  readonly type: string;
  readonly lengthBytes: number;
  readonly session?: { readonly client: string; readonly series: number; readonly respondedTo: number };
  readonly dataBase64?: string;
}

interface StateItem {
  readonly shardId: number;
  readonly replicaId: number;
  readonly term: number;
  readonly vote: number;
  readonly commitIndex: number;
  readonly snapshotIndex: number;
  readonly compactedIndex: number;
  readonly members: Readonly<Record<string, string>> | undefined;
  readonly pins: number;
  readonly resetsLog: boolean;
  readonly removed: boolean;
}

const ENTRY_TYPES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(EntryType).map(([name, type]) => [type, name]),
);

/** Throws as `verifyLog` does; damage is the last item. Holds a few MiB of a log of any size. */
export async function* dumpLog(options: DumpOptions): AsyncGenerator<LogItem> {
  const env = envOf(options);
  const pipe = new Pipe();
  const work = withLogs(env, options, async (logs) => {
    for (const log of logs) await dumpOne(options, log, pipe);
  }).finally(() => pipe.end());
  work.catch(() => {}); // heard of below, when the reader has come that far
  try {
    yield* pipe.items();
    await work;
  } finally {
    pipe.abandon();
    await work.catch(() => {});
  }
}

/** Items on their way from the scan, which cannot wait inside a frame, to a reader who takes time: the scan waits before it reads on. */
class Pipe {
  private waiting: LogItem[] = [];
  private isEnded = false;
  private isAbandoned = false;
  private wakeReader: (() => void) | undefined;
  private wakeScan: (() => void) | undefined;

  push(item: LogItem): void {
    this.waiting.push(item);
  }

  /** For the scan, before it reads: until everything was taken. */
  async drained(): Promise<void> {
    if (this.isAbandoned) throw new DrakkarError('ERR_ABORTED', 'nobody reads on');
    if (this.waiting.length === 0) return;
    await new Promise<void>((resolve) => {
      this.wakeScan = resolve;
      this.wakeReader?.();
    });
    if (this.isAbandoned) throw new DrakkarError('ERR_ABORTED', 'nobody reads on');
  }

  end(): void {
    this.isEnded = true;
    this.wakeReader?.();
  }

  abandon(): void {
    this.isAbandoned = true;
    this.wakeScan?.();
  }

  async *items(): AsyncGenerator<LogItem> {
    for (;;) {
      const { waiting } = this;
      this.waiting = [];
      yield* waiting;
      if (this.waiting.length > 0) continue;
      if (this.isEnded) return;
      const arrived = new Promise<void>((resolve) => (this.wakeReader = resolve));
      this.wakeScan?.();
      this.wakeScan = undefined;
      await arrived;
    }
  }
}

async function dumpOne(options: DumpOptions, log: LogFiles, pipe: Pipe): Promise<void> {
  const { engine } = log;
  const gated = log.segments.map(
    ({ epoch, path, file, header, offset }) => new Segment(epoch, path, gate(file, pipe), header, offset),
  );
  let epoch = 0;
  try {
    const { end, damage } = await scanSegments(gated, (segment, u8, u32, at, offset) => {
      if (segment.epoch !== epoch) pipe.push({ kind: 'segment', engine, epoch: segment.epoch, path: segment.path });
      epoch = segment.epoch;
      const place = { engine, epoch, offset };
      if (frameType(u32, at >>> 2) === FrameType.Records) dumpRecords(options, pipe, place, u8, u32, at);
      else dumpBlocks(options, pipe, place, u8, u32, at);
    });
    if (damage !== undefined) pipe.push({ kind: 'damage', engine, ...problemOf(damage) });
    else pipe.push({ kind: 'end', engine, epoch: end.epoch, offset: end.offset, group: end.groupNumber });
  } catch (error) {
    if (!DrakkarError.is(error, 'ERR_LOG_CORRUPT')) throw error;
    pipe.push({ kind: 'damage', engine, ...problemOf(error) });
  }
}

function gate(file: File, pipe: Pipe): File {
  return {
    write: (...args) => file.write(...args),
    read: async (...args) => {
      await pipe.drained();
      return file.read(...args);
    },
    sync: () => file.sync(),
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    sizeBytes: () => file.sizeBytes(),
    close: () => file.close(),
  };
}

function dumpRecords(
  options: DumpOptions,
  pipe: Pipe,
  place: Place,
  u8: Uint8Array,
  u32: Uint32Array,
  at: number,
): void {
  const word = at >>> 2;
  const end = (at + u32[word]) >>> 2;
  for (let w = word + FRAME_HEADER_WORDS; w < end; w += recordLengthBytes(u32, w) >>> 2) {
    const state = readRecord(u8, u32, w, end);
    if (options.shardId !== undefined && options.shardId !== state.shardId) continue;
    const flags = recordFlags(u32, w);
    const { shardId, replicaId, term, vote, commitIndex, snapshotIndex, compactedIndex, pins, bootstrap } = state;
    pipe.push({
      kind: 'state',
      ...place,
      shardId,
      replicaId,
      term,
      vote,
      commitIndex,
      snapshotIndex,
      compactedIndex,
      members: membersOf(bootstrap),
      pins: pins.length,
      resetsLog: (flags & RECORD_RESETS_LOG) !== 0,
      removed: (flags & RECORD_REMOVED) !== 0,
    });
  }
}

function membersOf(bootstrap: Uint8Array): Record<string, string> | undefined {
  try {
    return Object.fromEntries(decodeMembership(bootstrap).voters);
  } catch {
    return undefined;
  }
}

function dumpBlocks(
  options: DumpOptions,
  pipe: Pipe,
  place: Place,
  u8: Uint8Array,
  u32: Uint32Array,
  at: number,
): void {
  const word = at >>> 2;
  const end = (at + u32[word]) >>> 2;
  const isMoved = frameType(u32, word) === FrameType.Moved;
  const header = new BlockHeader();
  let block = word + FRAME_HEADER_WORDS;
  for (let left = frameCount(u32, word); left > 0; left--) {
    if (isMoved) block += MOVED_PREFIX_WORDS;
    if (!blockIsSound(u32, block, end)) {
      throw new DrakkarError(
        'ERR_LOG_CORRUPT',
        `segment ${place.epoch} holds a malformed block near byte ${place.offset}`,
      );
    }
    readBlockHeader(u32, block, header);
    const { shardId, term, firstIndex, lastIndex, prevTerm, commitIndex, senderId, lengthBytes: sizeBytes } = header;
    if (options.shardId === undefined || options.shardId === shardId) {
      const truncates = (header.flags & BLOCK_TRUNCATES) !== 0;
      const facts = { shardId, term, firstIndex, lastIndex, prevTerm, commitIndex, senderId, sizeBytes };
      pipe.push({ kind: 'block', ...place, ...facts, truncates, isMoved });
      if (options.entries === true) dumpEntries(options, pipe, header, u8, u32, block + BLOCK_HEADER_WORDS);
    }
    block += blockLengthBytes(u32, block) >>> 2;
  }
}

function dumpEntries(
  options: DumpOptions,
  pipe: Pipe,
  header: BlockHeader,
  u8: Uint8Array,
  u32: Uint32Array,
  start: number,
): void {
  let word = start;
  for (let index = header.firstIndex; index <= header.lastIndex; index++) {
    const lengthBytes = payloadLengthBytes(u32, word);
    const from = (word + headerWords(u32, word)) << 2;
    pipe.push({
      kind: 'entry',
      shardId: header.shardId,
      index,
      term: header.term,
      type: ENTRY_TYPES[entryType(u32, word)] ?? String(entryType(u32, word)),
      lengthBytes,
      ...(isSessionEntry(u32, word) ? { session: sessionOf(u32, word) } : {}),
      ...(options.data === true ? { dataBase64: base64(u8.slice(from, from + lengthBytes)) } : {}),
    });
    word += entryWords(u32, word);
  }
}

function sessionOf(u32: Uint32Array, word: number): NonNullable<EntryItem['session']> {
  const hex = (value: number): string => value.toString(16).padStart(8, '0');
  return {
    client: hex(u32[word + SESSION_CLIENT_WORD + 1]) + hex(u32[word + SESSION_CLIENT_WORD]),
    series: getU53(u32, word + SESSION_SERIES_WORD),
    respondedTo: getU53(u32, word + SESSION_RESPONDED_WORD),
  };
}

function base64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
