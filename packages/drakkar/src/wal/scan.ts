/**
 * Reads all segments from the oldest group to the last valid one and hands out every frame. Tells a torn tail, which was never
 * acknowledged and is left out (F1, F3), from damage in the middle, which must not be passed over (F2).
 *
 * Where a later segment exists, its header says where the log before it ended: exactly the groups up to there count, a group that
 * was torn at one opening cannot come back at a later one.
 */
import { DrakkarError } from '../errors.ts';
import { FORMAT_NEWEST } from '../wire/formats.ts';
import { frameFormat, frameIsIntact } from '../wire/frame.ts';
import {
  GROUP_HEADER_BYTES,
  NO_END,
  PAGE_BYTES,
  pagesUp,
  readGroupHeader,
  type GroupHeader,
  type LogEnd,
} from './layout.ts';
import type { Segment } from './segments.ts';

/** Most bytes read at once, but for a group that is larger. */
const WINDOW_BYTES = 4 * 1024 * 1024;

export interface FrameVisitor {
  /** The frame at byte `at` of the bytes given; it stands at `offset` of the segment. Its checksum holds. */
  (segment: Segment, u8: Uint8Array, u32: Uint32Array, at: number, offset: number): void;
}

export interface ScanResult {
  readonly end: LogEnd;
  /** Set when acknowledged groups may be missing; where, for people. */
  readonly damage: DrakkarError | undefined;
  /** The newest segment when a crash cut it off before its header was written: it never held anything. */
  readonly unborn: Segment | undefined;
  /** Where the newest group stands: the only one that may never have reached the disk. */
  readonly tail: GroupPlace | undefined;
}

export interface GroupPlace {
  readonly segment: Segment;
  readonly offset: number;
  /** Whole pages. */
  readonly sizeBytes: number;
}

type SegmentResult = Pick<ScanResult, 'end' | 'damage' | 'tail'>;

/** Throws `ERR_DIR_FORMAT` for what is in a format above `newestFormat`, `ERR_DISK_FAILED` for what cannot be read. */
export async function scanSegments(
  segments: readonly Segment[],
  visit: FrameVisitor,
  newestFormat: number = FORMAT_NEWEST,
): Promise<ScanResult> {
  let end = NO_END;
  let damage: DrakkarError | undefined;
  const window = new Window();
  let unborn: Segment | undefined;
  let tail: GroupPlace | undefined;
  const usable: Segment[] = [];
  for (const segment of segments) {
    if (segment.header === undefined) {
      const isNewest = segment === segments[segments.length - 1];
      if (isNewest && !(await holdsGroups(segment, window))) unborn = segment;
      else damage ??= damaged(segment, 0, 'its header is not readable');
    } else if (segment.header.format > newestFormat) throw tooNew(segment, segment.header.format, newestFormat);
    else usable.push(segment);
  }
  for (let i = 0; i < usable.length; i++) {
    const segment = usable[i];
    if (i === 0) end = segment.header!.before;
    else if (!isSameEnd(end, segment.header!.before)) {
      damage ??= damaged(segment, 0, 'the segment before it is not whole');
      end = segment.header!.before;
    }
    const next = usable[i + 1]?.header?.before;
    // Exact where it is known; nothing in a segment that its successor does not mention.
    const limit = next === undefined ? undefined : next.epoch === segment.epoch ? next.offset : PAGE_BYTES;
    const found = await scanSegment(segment, window, end, limit, visit, newestFormat);
    end = found.end;
    damage ??= found.damage;
    tail = found.tail ?? tail;
    segment.offset = end.epoch === segment.epoch ? end.offset : PAGE_BYTES;
  }
  return { end, damage, unborn, tail };
}

/** Whether a whole group of the segment's own epoch stands in it. */
async function holdsGroups(segment: Segment, window: Window): Promise<boolean> {
  const size = await segment.file.sizeBytes();
  for (let offset = PAGE_BYTES; offset < size; offset += PAGE_BYTES) {
    if ((await readGroup(segment, window, offset, size)) !== undefined) return true;
  }
  return false;
}

function isSameEnd(a: LogEnd, b: LogEnd): boolean {
  return a.groupNumber === b.groupNumber && a.groupChecksum === b.groupChecksum;
}

async function scanSegment(
  segment: Segment,
  window: Window,
  before: LogEnd,
  limit: number | undefined,
  visit: FrameVisitor,
  newestFormat: number,
): Promise<SegmentResult> {
  let end = before;
  let offset = PAGE_BYTES;
  let tail: GroupPlace | undefined;
  const size = await segment.file.sizeBytes();
  const stop = limit ?? size;
  while (offset < stop) {
    const group = await readGroup(segment, window, offset, size);
    const follows =
      group !== undefined &&
      group.header.groupNumber === end.groupNumber + 1 &&
      group.header.previousChecksum === end.groupChecksum;
    if (!follows || !visitFrames(segment, window, group.header, offset, visit, newestFormat)) break;
    const sizeBytes = pagesUp(group.header.lengthBytes);
    tail = { segment, offset, sizeBytes };
    offset += sizeBytes;
    end = {
      epoch: segment.epoch,
      offset,
      groupNumber: group.header.groupNumber,
      groupChecksum: group.header.checksum,
    };
  }
  if (limit !== undefined) {
    if (offset === limit) return { end, damage: undefined, tail };
    return { end, tail, damage: damaged(segment, offset, `groups up to ${limit} are known to have been there`) };
  }
  // The last segment: whatever valid group stands behind the end proves that something in between was lost.
  for (let probe = offset + PAGE_BYTES; probe < size; probe += PAGE_BYTES) {
    const group = await readGroup(segment, window, probe, size);
    if (group !== undefined && group.header.groupNumber > end.groupNumber) {
      return { end, tail, damage: damaged(segment, offset, `group ${group.header.groupNumber} behind it is whole`) };
    }
  }
  return { end, damage: undefined, tail };
}

/** The whole group at `offset`, in the window. */
async function readGroup(
  segment: Segment,
  window: Window,
  offset: number,
  size: number,
): Promise<{ header: GroupHeader } | undefined> {
  await window.load(segment, offset, PAGE_BYTES, size);
  const at = offset - window.start;
  const peek = readGroupHeader(window.u8, window.u32, at, window.end - offset, segment.epoch, offset);
  if (peek === undefined) return undefined;
  if (peek.whole) return peek;
  if (peek.header.lengthBytes > size - offset) return undefined;
  // Not whole within what was loaded: once more with all of it.
  await window.load(segment, offset, pagesUp(peek.header.lengthBytes), size);
  const again = readGroupHeader(
    window.u8,
    window.u32,
    offset - window.start,
    window.end - offset,
    segment.epoch,
    offset,
  );
  return again?.whole === true ? again : undefined;
}

/** False when a frame is damaged; then none of the group's frames was handed out. */
function visitFrames(
  segment: Segment,
  window: Window,
  header: GroupHeader,
  offset: number,
  visit: FrameVisitor,
  newestFormat: number,
): boolean {
  const { u8, u32 } = window;
  const start = offset - window.start;
  const stop = start + header.lengthBytes;
  for (let at = start + GROUP_HEADER_BYTES; at < stop; at += u32[at >>> 2]) {
    if (!frameIsIntact(u8, u32, at)) return false;
    const format = frameFormat(u32, at >>> 2);
    if (format > newestFormat) throw tooNew(segment, format, newestFormat);
  }
  for (let at = start + GROUP_HEADER_BYTES; at < stop; at += u32[at >>> 2]) {
    visit(segment, u8, u32, at, window.start + at);
  }
  return true;
}

function tooNew({ path }: Segment, format: number, newestFormat: number): DrakkarError {
  return new DrakkarError(
    'ERR_DIR_FORMAT',
    `${path} has format ${format}, made by a newer version; this one knows up to ${newestFormat}; upgrade`,
  );
}

function damaged(segment: Segment, offset: number, why: string): DrakkarError {
  return new DrakkarError(
    'ERR_LOG_CORRUPT',
    `${segment.path} is damaged at byte ${offset}: ${why}; do not delete it, replace the replica or restore a backup`,
  );
}

/** A piece of a segment in memory, moved along. */
class Window {
  u8 = new Uint8Array(0);
  u32 = new Uint32Array(this.u8.buffer);
  start = 0;
  end = 0;
  private segment: Segment | undefined;

  /** Makes at least `[offset, offset + bytes)` available, as far as the file goes. `offset` is at a page. */
  async load(segment: Segment, offset: number, bytes: number, size: number): Promise<void> {
    const wanted = Math.min(offset + bytes, size);
    if (segment === this.segment && offset >= this.start && wanted <= this.end) return;
    const room = Math.max(bytes, Math.min(size, WINDOW_BYTES));
    if (room > this.u8.length) {
      this.u8 = new Uint8Array(pagesUp(room));
      this.u32 = new Uint32Array(this.u8.buffer);
    }
    this.segment = segment;
    this.start = offset;
    try {
      const read = await segment.file.read(this.u8, 0, Math.min(this.u8.length, size - offset), offset);
      this.end = offset + (read & ~3);
    } catch (cause) {
      throw new DrakkarError('ERR_DISK_FAILED', `${segment.path} cannot be read at byte ${offset}`, { cause });
    }
  }
}
