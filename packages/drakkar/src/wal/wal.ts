/**
 * The log database: one sequence of groups for all shards of an engine. One write is in flight; what is appended meanwhile is
 * the next group. Nothing is acknowledged before it is durable, and nothing is after a failed write (F5).
 */
import { DrakkarError } from '../errors.ts';
import type { Env, Timer } from '../env/env.ts';
import type { BlockPlace, BlockRef } from '../wire/block-ref.ts';
import { FRAME_HEADER_BYTES, FRAME_HEADER_WORDS, FrameType, sealFrame } from '../wire/frame.ts';
import type { FormatRange } from '../wire/formats.ts';
import { Slab } from '../wire/slab.ts';
import { Compaction } from './compaction.ts';
import { FrameReader } from './frame-reader.ts';
import {
  GROUP_HEADER_BYTES,
  GROUP_MAX_BYTES,
  PAGE_BYTES,
  pagesUp,
  sealGroup,
  writeSegmentHeader,
  type LogEnd,
} from './layout.ts';
import type { LogDb, LogSink, RecoveredShard, ShardState } from './logdb.ts';
import { RECORD_REMOVED, RECORD_RESETS_LOG, recordBytes, writeRecord } from './records.ts';
import { Segment, SegmentFiles, writeAll } from './segments.ts';
import { Staging, type PendingFrame } from './staging.ts';

/** Bytes that may wait; the engine stops far below. */
export const PENDING_BYTES_MAX = 256 * 1024 * 1024;
const FULL_RETRY_MS = 500;

export interface WalCounters extends Record<string, number> {
  groups: number;
  frames: number;
  bytes: number;
  /** Milliseconds that all group writes took. */
  writeMs: number;
  lastWriteMs: number;
  segmentsMade: number;
  segmentsFreed: number;
  blocksMoved: number;
  statesMoved: number;
}

export class Wal implements LogDb {
  readonly name = 'wal';
  readonly recovered: ReadonlyMap<number, RecoveredShard>;
  readonly damage: DrakkarError | undefined;
  readonly counters: WalCounters = {
    groups: 0,
    frames: 0,
    bytes: 0,
    writeMs: 0,
    lastWriteMs: 0,
    segmentsMade: 0,
    segmentsFreed: 0,
    blocksMoved: 0,
    statesMoved: 0,
  };
  pendingBytes = 0;
  isFull = false;
  readonly env: Env;
  /** What is enabled may grow while the log is open. */
  readonly formats: FormatRange;
  readonly files: SegmentFiles;
  /** Oldest first; the last is written to. */
  readonly segments: Segment[];
  /** Newest state record of each shard and the segment it stands in. */
  readonly states = new Map<number, { state: ShardState; epoch: number }>();
  private readonly reader = new FrameReader();
  private readonly compaction: Compaction;
  private end: LogEnd;
  /** Before the group that is being written. */
  private endBefore: LogEnd;
  /** The current segment refused a group for want of room. */
  private isPoisoned = false;
  private sink: LogSink | undefined;
  liveBlocks: (shardId: number) => Iterable<BlockRef> = () => [];
  private pending: PendingFrame[] = [];
  private writing: PendingFrame[] = [];
  /** A small part of a segment, however small the segment. */
  private readonly groupMaxBytes: number;
  private isWriting = false;
  private writeStarted = 0;
  private readonly staging: Staging;
  private failure: DrakkarError | undefined;
  private isClosing = false;
  private retryTimer: Timer | undefined;
  private idleWaiters: (() => void)[] = [];
  /** Woken after every group, and when there will be none. */
  private groupWaiters: (() => void)[] = [];

  constructor(
    env: Env,
    files: SegmentFiles,
    segments: Segment[],
    recovered: ReadonlyMap<number, RecoveredShard>,
    stateEpochs: ReadonlyMap<number, number>,
    end: LogEnd,
    damage: DrakkarError | undefined,
    formats: FormatRange,
  ) {
    this.env = env;
    this.formats = formats;
    this.files = files;
    this.groupMaxBytes = Math.min(GROUP_MAX_BYTES, files.segmentBytes >>> 2);
    this.staging = new Staging(env.fs, this.groupMaxBytes);
    this.segments = segments;
    this.recovered = recovered;
    for (const [shardId, epoch] of stateEpochs)
      this.states.set(shardId, { state: recovered.get(shardId)!.state, epoch });
    this.end = this.endBefore = end;
    this.damage = this.failure = damage;
    this.compaction = new Compaction(this);
  }

  /** Every opening writes to a segment of its own, never behind an old tail (F1). */
  async begin(): Promise<void> {
    try {
      await this.roll();
    } catch (cause) {
      throw diskError(cause, this.files.dir);
    }
  }

  start(sink: LogSink, liveBlocks: (shardId: number) => Iterable<BlockRef>): void {
    this.sink = sink;
    this.liveBlocks = liveBlocks;
    this.compaction.consider();
  }

  // Appending.

  appendFrame(slab: Slab, offset: number, lengthBytes: number): void {
    slab.retain();
    this.push({ slab, offset, lengthBytes, done: undefined, state: undefined });
  }

  appendState(state: ShardState, resetsLog: boolean): void {
    this.pushState(state, resetsLog ? RECORD_RESETS_LOG : 0, undefined);
  }

  /** A record of the log's own: a copy for compaction, or the mark of a removed shard. */
  pushState(state: ShardState, flags: number, done: PendingFrame['done']): void {
    const lengthBytes = FRAME_HEADER_BYTES + recordBytes(state);
    const slab = new Slab(lengthBytes);
    writeRecord(slab.u8, slab.u32, FRAME_HEADER_WORDS, state, flags);
    sealFrame(slab.u8, slab.u32, 0, lengthBytes, FrameType.Records, 1, this.formats.enabled);
    this.push({ slab, offset: 0, lengthBytes, done, state: (flags & RECORD_REMOVED) === 0 ? state : undefined });
  }

  pushOwn(slab: Slab, lengthBytes: number, done: PendingFrame['done']): void {
    this.push({ slab, offset: 0, lengthBytes, done, state: undefined });
  }

  private push(frame: PendingFrame): void {
    if (this.failure !== undefined || this.isClosing) {
      frame.slab.release();
      return; // nothing is acknowledged any more
    }
    if (frame.lengthBytes > this.files.segmentBytes >>> 1) {
      frame.slab.release();
      throw new DrakkarError('ERR_PAYLOAD_TOO_BIG', `a frame of ${frame.lengthBytes} bytes exceeds half a segment`);
    }
    if (this.pendingBytes + frame.lengthBytes > PENDING_BYTES_MAX) {
      frame.slab.release();
      throw new DrakkarError('ERR_SYSTEM_BUSY', `the log in ${this.files.dir} has too much to write`);
    }
    this.pendingBytes += frame.lengthBytes;
    this.pending.push(frame);
  }

  flush(): void {
    if (this.isWriting || this.pending.length === 0 || this.isFull || this.failure !== undefined) return;
    this.isWriting = true;
    const bytes = this.chooseGroup();
    this.staging.fill(this.writing, bytes);
    if (this.current.offset + pagesUp(this.staging.lengthBytes) > this.files.segmentBytes) this.rollAndWrite();
    else this.writeStaged();
  }

  get current(): Segment {
    return this.segments[this.segments.length - 1];
  }

  /** Moves what the next group holds from `pending` to `writing`; gives its size. */
  private chooseGroup(): number {
    const { pending } = this;
    let bytes = 0;
    let count = 0;
    while (count < pending.length) {
      const next = pending[count].lengthBytes;
      if (count > 0 && bytes + next > this.groupMaxBytes) break;
      bytes += next;
      count++;
    }
    if (count === pending.length) {
      this.writing = pending;
      this.pending = [];
    } else this.writing = pending.splice(0, count);
    return bytes;
  }

  /** The staged group goes to the next segment. */
  private rollAndWrite(): void {
    this.roll().then(
      () => {
        if (this.isClosing) return;
        if (this.isFull && !this.isPoisoned) this.hasRoom();
        this.writeStaged();
        this.compaction.consider();
      },
      (cause: unknown) => this.noRoom(cause, this.files.dir),
    );
  }

  /** An error that was met on the way to a durable group: a full disk is waited for, all others are the end (F5). */
  private noRoom(cause: unknown, path: string): void {
    const error = diskError(cause, path);
    if (error.code !== 'ERR_DISK_FULL') {
      this.fail(error);
      return;
    }
    // Not fatal: nothing was acknowledged. What waits goes on waiting.
    if (!this.isFull) {
      this.isFull = true;
      for (const wake of [...this.idleWaiters.splice(0), ...this.groupWaiters.splice(0)]) wake();
      this.sink?.diskFull(error);
    }
    this.retryTimer = this.env.scheduler.after(FULL_RETRY_MS, () => this.rollAndWrite());
  }

  private hasRoom(): void {
    this.isFull = this.isPoisoned = false;
    this.sink?.roomAgain();
  }

  /** Begins the next segment; its header says where the log ended before it. */
  private async roll(): Promise<void> {
    const epoch = (this.segments.length > 0 ? this.current.epoch : this.end.epoch) + 1;
    // On a full disk room must be certain before a segment is begun.
    const isFilled = this.isFull || !this.hasBigGroups();
    const segment = await this.files.activate(epoch, isFilled);
    const page = new Uint8Array(PAGE_BYTES);
    const header = { format: this.formats.enabled, epoch, sizeBytes: this.files.segmentBytes, before: this.end };
    writeSegmentHeader(page, header);
    try {
      await writeAll(segment.file, page, PAGE_BYTES, 0);
    } catch (error) {
      await segment.file.close(); // tried again with another file of that name
      throw error;
    }
    this.segments.push(segment);
    this.counters.segmentsMade++;
    // The next spare is made in the background; whether that worked is found out when it is needed.
    this.files.ensureSpare(isFilled).catch(() => {});
  }

  /**
   * Whether groups are so large that writing their bytes twice costs more than growing a file with each: from half of the greatest on
   * holes are faster by a third to three quarters, at 256 KiB it is even, at 64 KiB filled ones are faster by a third.
   */
  private hasBigGroups(): boolean {
    const segment = this.segments.at(-1);
    return segment !== undefined && segment.offset - PAGE_BYTES > (segment.groups * this.groupMaxBytes) / 2;
  }

  private writeStaged(): void {
    const segment = this.current;
    const { u8, u32, lengthBytes } = this.staging;
    const padded = pagesUp(lengthBytes);
    const groupNumber = this.end.groupNumber + 1;
    const checksum = sealGroup(u8, u32, 0, {
      epoch: segment.epoch,
      offset: segment.offset,
      groupNumber,
      previousChecksum: this.end.groupChecksum,
      lengthBytes,
      frameCount: this.writing.length,
    });
    this.endBefore = this.end;
    this.end = { epoch: segment.epoch, offset: segment.offset + padded, groupNumber, groupChecksum: checksum };
    this.writeStarted = this.env.clock.nowMs();
    segment.file.write(u8, 0, padded, segment.offset, this.written);
  }

  private readonly written = (cause: Error | null): void => {
    if (cause !== null) {
      // The segment may hold part of the group, or seem to: nothing is written to it any more. The next one's header will say that the log
      // ended before the group, which is written there anew (F10). Room is there for certain only when a group has been written.
      this.end = this.endBefore;
      this.isPoisoned = true;
      this.noRoom(cause, this.current.path);
      return;
    }
    if (this.isPoisoned) this.hasRoom();
    const segment = this.current;
    const start = segment.offset;
    segment.offset = this.end.offset;
    segment.groups++;
    this.countGroup();
    const { writing } = this;
    this.writing = [];
    let at = GROUP_HEADER_BYTES;
    for (let i = 0; i < writing.length; i++) {
      const frame = writing[i];
      this.pendingBytes -= frame.lengthBytes;
      if (frame.state !== undefined) this.states.set(frame.state.shardId, { state: frame.state, epoch: segment.epoch });
      if (frame.done === undefined) this.staging.tell(this.sink, segment, at, start + at);
      else frame.done(segment, start + at);
      at += frame.lengthBytes;
    }
    this.isWriting = false;
    this.sink?.groupDurable(this.counters.lastWriteMs);
    this.flush();
    for (const wake of this.groupWaiters.splice(0)) wake();
    if (!this.isWriting) for (const wake of this.idleWaiters.splice(0)) wake();
  };

  private countGroup(): void {
    const { counters } = this;
    counters.groups++;
    counters.frames += this.writing.length;
    counters.bytes += this.staging.lengthBytes;
    counters.lastWriteMs = this.env.clock.nowMs() - this.writeStarted;
    counters.writeMs += counters.lastWriteMs;
  }

  private fail(error: DrakkarError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    for (const frame of this.pending.splice(0)) frame.slab.release();
    this.pendingBytes = 0;
    for (const wake of [...this.idleWaiters.splice(0), ...this.groupWaiters.splice(0)]) wake();
    this.sink?.failed(error);
  }

  // The rest.

  readFrame(place: BlockPlace): Promise<Slab> {
    const segment = this.segments.find((candidate) => candidate.epoch === place.segmentEpoch);
    return this.reader.read(segment, place);
  }

  async removeShard(shardId: number): Promise<void> {
    const known = this.states.get(shardId);
    if (known === undefined) return;
    this.states.delete(shardId);
    await new Promise<void>((resolve) => {
      this.pushState(known.state, RECORD_REMOVED, () => resolve());
      this.flush();
      if (this.failure !== undefined) resolve();
    });
  }

  /** From the compaction, for a segment that was recycled. */
  spaceFreed(): void {
    this.sink?.spaceFreed?.(1);
  }

  /** The engine may have given up entries: looks whether whole segments can go. */
  consider(): void {
    this.compaction.consider();
  }

  reclaim(): void {
    this.compaction.reclaim();
  }

  /** Waits until all that was appended before is durable; false when it will not be, or not soon. */
  async allWritten(): Promise<boolean> {
    const last = this.writing.length + this.pending.length + this.counters.frames;
    while (this.counters.frames < last && !this.isStuck) {
      this.flush();
      await new Promise<void>((resolve) => this.groupWaiters.push(resolve));
    }
    return !this.isStuck;
  }

  /** Shards of which a newer state than the one in `states` is on its way. */
  pendingStates(): Set<number> {
    const shardIds = new Set<number>();
    for (const frames of [this.pending, this.writing]) {
      for (const { state } of frames) if (state !== undefined) shardIds.add(state.shardId);
    }
    return shardIds;
  }

  /** What is pending will not become durable any more, or not soon. */
  get isStuck(): boolean {
    return this.failure !== undefined || this.isFull;
  }

  async close(): Promise<void> {
    await this.compaction.stop();
    while (!this.isStuck && (this.isWriting || this.pending.length > 0)) {
      this.flush();
      await new Promise<void>((resolve) => this.idleWaiters.push(resolve));
    }
    this.isClosing = true;
    this.retryTimer?.cancel();
    await this.files.settle();
    this.reader.close();
    for (const segment of this.segments) await segment.file.close().catch(() => {});
  }
}

/** A full disk is no catastrophe, every other error is one: nobody knows what it left behind. */
function diskError(cause: unknown, path: string): DrakkarError {
  const code = (cause as { code?: unknown } | undefined)?.code;
  if (code === 'ENOSPC' || code === 'EFBIG') {
    return new DrakkarError('ERR_DISK_FULL', `no room for the log in ${path}; free some, it goes on by itself`, {
      cause,
    });
  }
  return new DrakkarError(
    'ERR_DISK_FAILED',
    `writing the log failed at ${path} (${String(code)}); replace the disk or restart`,
    {
      cause,
    },
  );
}
