/**
 * Where things stand in a segment. A segment is zero-filled once and recycled; its first page says which it is, groups
 * follow, each at a page boundary, so that no acknowledged sector is ever written again (fault F4).
 *
 *     page 0      segment header: magic, format, epoch, size, then where the log ended before this epoch:
 *                 {epoch, end offset, group number, group CRC} of the last group, CRC
 *     page k      group header (48 bytes), frames, zeros up to the next page
 *
 * A group's CRC covers its header fields (segment epoch, offset, number, CRC of the group before) and the CRCs of its
 * frames: stale groups of a recycled segment (F9), misplaced ones (F8) and torn ones (F1) do not verify.
 */
import { checksumRange } from '../wire/checksum.ts';
import { getU53, isU53, putU53 } from '../wire/number.ts';

export const PAGE_BYTES = 4096;
export const SEGMENT_BYTES = 64 * 1024 * 1024;
/** Most bytes of frames in one group, unless a single frame is larger; bounds the latency of a flush. */
export const GROUP_MAX_BYTES = 1024 * 1024;

const SEGMENT_MAGIC = 0x4c57_4b44; // "DKWL"
const GROUP_MAGIC = 0x5247_4b44; // "DKGR"
export const GROUP_HEADER_BYTES = 48;
const SEGMENT_HEADER_WORDS = 16;

export function pagesUp(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** The end of a log: its last group. Number 0 before the first. */
export interface LogEnd {
  readonly epoch: number;
  /** Offset behind the group's pages. */
  readonly offset: number;
  readonly groupNumber: number;
  readonly groupChecksum: number;
}

export const NO_END: LogEnd = { epoch: 0, offset: 0, groupNumber: 0, groupChecksum: 0 };

export interface SegmentHeader {
  readonly format: number;
  readonly epoch: number;
  readonly sizeBytes: number;
  readonly before: LogEnd;
}

/** Fills page 0. */
export function writeSegmentHeader(page: Uint8Array, header: SegmentHeader): void {
  const u32 = new Uint32Array(page.buffer, page.byteOffset, SEGMENT_HEADER_WORDS);
  u32[0] = SEGMENT_MAGIC;
  u32[1] = header.format;
  putU53(u32, 2, header.epoch);
  putU53(u32, 4, header.sizeBytes);
  putU53(u32, 6, header.before.epoch);
  putU53(u32, 8, header.before.offset);
  putU53(u32, 10, header.before.groupNumber);
  u32[12] = header.before.groupChecksum;
  u32[13] = 0;
  u32[14] = 0;
  u32[15] = checksumRange(page, 0, 60);
}

/** Undefined when the page is not a whole segment header. */
export function readSegmentHeader(page: Uint8Array): SegmentHeader | undefined {
  const u32 = new Uint32Array(page.buffer, page.byteOffset, SEGMENT_HEADER_WORDS);
  if (u32[0] !== SEGMENT_MAGIC || u32[15] !== checksumRange(page, 0, 60)) return undefined;
  for (let w = 2; w <= 10; w += 2) if (!isU53(u32, w)) return undefined;
  return {
    format: u32[1],
    epoch: getU53(u32, 2),
    sizeBytes: getU53(u32, 4),
    before: {
      epoch: getU53(u32, 6),
      offset: getU53(u32, 8),
      groupNumber: getU53(u32, 10),
      groupChecksum: u32[12],
    },
  };
}

export interface GroupHeader {
  epoch: number;
  offset: number;
  groupNumber: number;
  previousChecksum: number;
  /** Bytes of header and frames, without the padding. */
  lengthBytes: number;
  frameCount: number;
  checksum: number;
}

/** Fills the group header at `offset` of the staging bytes, over the frames that already stand behind it. */
export function sealGroup(u8: Uint8Array, u32: Uint32Array, at: number, group: Omit<GroupHeader, 'checksum'>): number {
  const word = at >>> 2;
  u32[word] = GROUP_MAGIC;
  u32[word + 1] = group.lengthBytes;
  putU53(u32, word + 2, group.epoch);
  putU53(u32, word + 4, group.offset);
  putU53(u32, word + 6, group.groupNumber);
  u32[word + 8] = group.previousChecksum;
  u32[word + 9] = group.frameCount;
  u32[word + 10] = 0;
  const checksum = groupChecksum(u8, u32, at, group.lengthBytes);
  u32[word + 11] = checksum;
  return checksum;
}

/** Over the header and the checksums that the frames carry. */
function groupChecksum(u8: Uint8Array, u32: Uint32Array, at: number, lengthBytes: number): number {
  let checksum = checksumRange(u8, at, at + GROUP_HEADER_BYTES - 4);
  const end = at + lengthBytes;
  for (let frame = at + GROUP_HEADER_BYTES; frame < end; frame += u32[frame >>> 2]) {
    checksum = checksumRange(u8, frame, frame + 8, checksum);
  }
  return checksum;
}

/**
 * The header of the group at `at`, if one can stand there: magic, plausible length, place and epoch. `whole` tells whether the
 * CRC holds; the frames' own CRCs are not looked at. `availableBytes` are readable from `at`.
 */
export function readGroupHeader(
  u8: Uint8Array,
  u32: Uint32Array,
  at: number,
  availableBytes: number,
  epoch: number,
  offset: number,
): { header: GroupHeader; whole: boolean } | undefined {
  const word = at >>> 2;
  if (availableBytes < GROUP_HEADER_BYTES || u32[word] !== GROUP_MAGIC) return undefined;
  for (let w = word + 2; w <= word + 6; w += 2) if (!isU53(u32, w)) return undefined;
  const header: GroupHeader = {
    lengthBytes: u32[word + 1],
    epoch: getU53(u32, word + 2),
    offset: getU53(u32, word + 4),
    groupNumber: getU53(u32, word + 6),
    previousChecksum: u32[word + 8],
    frameCount: u32[word + 9],
    checksum: u32[word + 11],
  };
  if (header.epoch !== epoch || header.offset !== offset) return undefined;
  return {
    header,
    whole:
      framesFit(u32, at, header, availableBytes) && groupChecksum(u8, u32, at, header.lengthBytes) === header.checksum,
  };
}

/** Whether the lengths of exactly `frameCount` frames fill the group. */
function framesFit(u32: Uint32Array, at: number, header: GroupHeader, availableBytes: number): boolean {
  const { lengthBytes } = header;
  if (lengthBytes < GROUP_HEADER_BYTES || (lengthBytes & 3) !== 0 || lengthBytes > availableBytes) return false;
  const end = at + lengthBytes;
  let frame = at + GROUP_HEADER_BYTES;
  for (let left = header.frameCount; left > 0; left--) {
    if (frame + 16 > end) return false;
    const length = u32[frame >>> 2];
    if (length < 16 || (length & 3) !== 0 || frame + length > end) return false;
    frame += length;
  }
  return frame === end;
}
