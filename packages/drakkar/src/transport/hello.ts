/**
 * HELLO, the first frame of every connection, both ways: who is there, in which incarnation, what for. At most 4 KiB; nothing
 * else is read before it.
 *
 *     word 0   "DRKR"            word 1   formats that it reads (oldest, newest << 8)
 *     word 2   purpose | own engine << 8 | engine meant << 20
 *     word 3   status: 0, or why the connection is refused
 *     word 4, 5   deployment     word 6, 7   directory id high, low      word 8, 9   start counter
 *     word 10..13   host id      word 14   lengths of three texts, 10 bits each      word 15   number of earlier starts
 *     earlier starts, two words each, oldest first
 *     texts: own address, address meant (dialler), explanation (refusal)
 */
import { DrakkarError } from '../errors.ts';
import { FRAME_HEADER_BYTES, FRAME_HEADER_WORDS, FrameType, frameType, sealFrame } from '../wire/frame.ts';
import { FORMAT_NEWEST, FORMAT_OLDEST } from '../wire/formats.ts';
import { EARLIER_STARTS_MAX, FRAME_MAX_BYTES_BEFORE_HELLO } from '../wire/limits.ts';
import { checkedU53, putU53 } from '../wire/number.ts';
import { Slab } from '../wire/slab.ts';
import type { HostIdentity } from './transport.ts';

const MAGIC = 0x524b_5244; // "DRKR"
const FIXED_WORDS = 16;
const TEXT_MAX = 1023;
const ENGINE_MASK = 0xfff;

/** `Continued`: messages, in place of an older connection that ends by itself, whose frames come first. */
export const Purpose = { Messages: 1, Snapshot: 2, Continued: 3 } as const;
export type Purpose = (typeof Purpose)[keyof typeof Purpose];

export const HelloStatus = {
  Ok: 0,
  WrongDeployment: 1,
  WrongVersion: 2,
  WrongAddress: 3,
  Busy: 4,
  NotAllowed: 5,
} as const;
export type HelloStatus = (typeof HelloStatus)[keyof typeof HelloStatus];

export interface Hello {
  readonly purpose: Purpose;
  readonly status: HelloStatus;
  /** The oldest format that the sender reads; the newest is part of its identity. */
  readonly oldestFormat: number;
  readonly identity: HostIdentity;
  /** Which engine of its host speaks. Default 0. */
  readonly engine?: number;
  /** The address that the dialler meant to reach, and the engine there (default 0). */
  readonly target: string;
  readonly targetEngine?: number;
  readonly explanation: string;
}

export function encodeHello(hello: Omit<Hello, 'oldestFormat'>): Slab {
  const encoder = new TextEncoder();
  const texts = [hello.identity.raftAddress, hello.target, hello.explanation].map((text) =>
    encoder.encode(text).subarray(0, TEXT_MAX),
  );
  const textBytes = texts.reduce((sum, text) => sum + text.length, 0);
  const starts = hello.identity.earlierStarts.slice(-EARLIER_STARTS_MAX);
  const textsWord = FIXED_WORDS + 2 * starts.length;
  const lengthBytes = FRAME_HEADER_BYTES + (textsWord << 2) + ((textBytes + 3) & ~3);
  const slab = new Slab(lengthBytes);
  const { u8, u32 } = slab;
  const w = FRAME_HEADER_WORDS;
  u32[w] = MAGIC;
  u32[w + 1] = FORMAT_OLDEST | (hello.identity.newestFormat << 8);
  u32[w + 2] = hello.purpose | ((hello.engine ?? 0) << 8) | ((hello.targetEngine ?? 0) << 20);
  u32[w + 3] = hello.status;
  putU53(u32, w + 4, hello.identity.deploymentId);
  u32[w + 6] = hello.identity.directoryHigh;
  u32[w + 7] = hello.identity.directoryLow;
  putU53(u32, w + 8, hello.identity.startCounter);
  for (let i = 0; i < 4; i++) u32[w + 10 + i] = Number.parseInt(hello.identity.hostId.slice(i * 8, i * 8 + 8), 16);
  u32[w + 14] = texts[0].length | (texts[1].length << 10) | (texts[2].length << 20);
  u32[w + 15] = starts.length;
  for (let i = 0; i < starts.length; i++) putU53(u32, w + FIXED_WORDS + 2 * i, starts[i]);
  let at = (w + textsWord) << 2;
  for (const text of texts) {
    u8.set(text, at);
    at += text.length;
  }
  slab.usedBytes = lengthBytes;
  // In the first format for ever: what follows depends on what it says.
  sealFrame(u8, u32, 0, lengthBytes, FrameType.Hello, 0, 1);
  return slab;
}

/** Reads a frame whose checksum held, on a host that reads formats up to `newestFormat`; throws `ERR_FRAME`. */
export function decodeHello(
  u8: Uint8Array,
  u32: Uint32Array,
  offset: number,
  lengthBytes: number,
  newestFormat: number = FORMAT_NEWEST,
): Hello {
  const w = (offset >>> 2) + FRAME_HEADER_WORDS;
  const bad = (why: string): DrakkarError => new DrakkarError('ERR_FRAME', `not a HELLO of this protocol: ${why}`);
  if (frameType(u32, offset >>> 2) !== FrameType.Hello || lengthBytes > FRAME_MAX_BYTES_BEFORE_HELLO)
    throw bad('another frame');
  if (lengthBytes < FRAME_HEADER_BYTES + (FIXED_WORDS << 2) || u32[w] !== MAGIC) throw bad('no magic');
  const purpose = u32[w + 2] & 0xff;
  const status = u32[w + 3];
  if (purpose < 1 || purpose > 3 || status > 5) throw bad('unknown purpose or status');
  const starts = u32[w + 15];
  if (starts > EARLIER_STARTS_MAX) throw bad('too many earlier starts');
  const textsWord = FIXED_WORDS + 2 * starts;
  if (lengthBytes < FRAME_HEADER_BYTES + (textsWord << 2)) throw bad('earlier starts are cut off');
  const earlierStarts: number[] = [];
  for (let i = 0; i < starts; i++) earlierStarts.push(checkedU53(u32, w + FIXED_WORDS + 2 * i, 'an earlier start'));
  const lengths = [u32[w + 14] & TEXT_MAX, (u32[w + 14] >>> 10) & TEXT_MAX, (u32[w + 14] >>> 20) & TEXT_MAX];
  let at = (w + textsWord) << 2;
  const end = offset + lengthBytes;
  const texts: string[] = [];
  const decoder = new TextDecoder('utf-8', { fatal: true });
  for (const length of lengths) {
    if (at + length > end) throw bad('a text is cut off');
    try {
      texts.push(decoder.decode(u8.subarray(at, at + length)));
    } catch {
      throw bad('a text is not UTF-8');
    }
    at += length;
  }
  let hostId = '';
  for (let i = 0; i < 4; i++) hostId += u32[w + 10 + i].toString(16).padStart(8, '0');
  const oldest = u32[w + 1] & 0xff;
  const newest = (u32[w + 1] >>> 8) & 0xff;
  const hasCommon = oldest <= newestFormat && newest >= FORMAT_OLDEST;
  return {
    purpose: purpose as Purpose,
    status: hasCommon ? (status as HelloStatus) : HelloStatus.WrongVersion,
    oldestFormat: oldest,
    identity: {
      deploymentId: checkedU53(u32, w + 4, 'a deployment id'),
      hostId,
      raftAddress: texts[0],
      directoryHigh: u32[w + 6],
      directoryLow: u32[w + 7],
      startCounter: checkedU53(u32, w + 8, 'a start counter'),
      earlierStarts,
      newestFormat: newest,
    },
    engine: (u32[w + 2] >>> 8) & ENGINE_MASK,
    target: texts[1],
    targetEngine: u32[w + 2] >>> 20,
    explanation: texts[2],
  };
}
