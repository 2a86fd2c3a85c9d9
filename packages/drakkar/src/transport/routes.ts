/**
 * Which engine a shard lives in, on hosts that have several (design §5). Each engine listens for itself; engine 0, at the host's own address,
 * tells whoever dials it where the others are and what lives in them. A host with one engine says nothing.
 *
 * News comes in frames that stand for themselves: engine k listens at an address and has these shards.
 *
 *     word 0   engine    word 1   bytes of the address    address, padded    then shard ids, two words each
 */
import { DrakkarError } from '../errors.ts';
import {
  FRAME_HEADER_BYTES,
  FRAME_HEADER_WORDS,
  FrameType,
  frameCount,
  frameLengthBytes,
  sealFrame,
} from '../wire/frame.ts';
import { ADDRESS_MAX_BYTES, ENGINES_MAX, FRAME_MAX_BYTES_BEFORE_HELLO } from '../wire/limits.ts';
import { checkedU53, putU53 } from '../wire/number.ts';
import { Slab } from '../wire/slab.ts';
import { ROUTES_MAX } from './limits.ts';

const FIXED_WORDS = 2;
/** So many fit beside the longest address into what a dialler takes. */
const SHARDS_IN_FRAME =
  (FRAME_MAX_BYTES_BEFORE_HELLO - FRAME_HEADER_BYTES - (FIXED_WORDS << 2) - ADDRESS_MAX_BYTES) >>> 3;

export interface EngineNews {
  readonly engine: number;
  readonly address: string;
  readonly shardIds: readonly number[];
}

/** As many frames as the shards need; one at least, for the address. */
export function encodeNews(news: EngineNews): Slab[] {
  const frames: Slab[] = [];
  const address = new TextEncoder().encode(news.address);
  for (let at = 0; at === 0 || at < news.shardIds.length; at += SHARDS_IN_FRAME) {
    const shardIds = news.shardIds.slice(at, at + SHARDS_IN_FRAME);
    const addressWords = (address.length + 3) >>> 2;
    const lengthBytes = (FRAME_HEADER_WORDS + FIXED_WORDS + addressWords + shardIds.length * 2) << 2;
    const slab = new Slab(lengthBytes);
    const { u8, u32 } = slab;
    u32[FRAME_HEADER_WORDS] = news.engine;
    u32[FRAME_HEADER_WORDS + 1] = address.length;
    u8.set(address, (FRAME_HEADER_WORDS + FIXED_WORDS) << 2);
    let word = FRAME_HEADER_WORDS + FIXED_WORDS + addressWords;
    for (const shardId of shardIds) {
      putU53(u32, word, shardId);
      word += 2;
    }
    slab.usedBytes = lengthBytes;
    sealFrame(u8, u32, 0, lengthBytes, FrameType.Engines, shardIds.length);
    frames.push(slab);
  }
  return frames;
}

/** Reads a frame whose checksum held; throws `ERR_FRAME`. */
export function decodeNews(u8: Uint8Array, u32: Uint32Array, offset: number): EngineNews {
  const bad = (why: string): DrakkarError => new DrakkarError('ERR_FRAME', `not a word about engines: ${why}`);
  let word = (offset >>> 2) + FRAME_HEADER_WORDS;
  const count = frameCount(u32, offset >>> 2);
  const end = (offset + frameLengthBytes(u32, offset >>> 2)) >>> 2;
  if (end - word < FIXED_WORDS) throw bad('it is too short');
  const engine = u32[word];
  const addressBytes = u32[word + 1];
  if (engine >= ENGINES_MAX || addressBytes === 0 || addressBytes > ADDRESS_MAX_BYTES)
    throw bad('a field is out of range');
  word += FIXED_WORDS;
  const addressWords = (addressBytes + 3) >>> 2;
  if (count > ROUTES_MAX || end - word !== addressWords + count * 2) throw bad('it has another length');
  let address: string;
  try {
    address = new TextDecoder('utf-8', { fatal: true }).decode(u8.subarray(word << 2, (word << 2) + addressBytes));
  } catch {
    throw bad('the address is not UTF-8');
  }
  const shardIds: number[] = [];
  for (word += addressWords; word < end; word += 2) shardIds.push(checkedU53(u32, word, 'a shard id'));
  return { engine, address, shardIds };
}

/** What other hosts said of their engines, by what memberships name them. Their directories are the record; this is a copy of it. */
export class Routes {
  private readonly hosts = new Map<string, HostRoutes>();

  engineOf(target: string, shardId: number): number {
    return this.hosts.get(target)?.engines.get(shardId) ?? 0;
  }

  /** Where engine `engine` of the host listens, as it said. */
  listenerOf(target: string, engine: number): string | undefined {
    return this.hosts.get(target)?.listeners.get(engine);
  }

  /** Nothing leads to the host any more: whoever dials it anew is told anew. */
  forget(target: string): void {
    this.hosts.delete(target);
  }

  /** Gives the shards that moved. */
  learn(target: string, news: EngineNews): number[] {
    let host = this.hosts.get(target);
    if (host === undefined) this.hosts.set(target, (host = new HostRoutes()));
    host.listeners.set(news.engine, news.address);
    const moved: number[] = [];
    for (const shardId of news.shardIds) {
      if ((host.engines.get(shardId) ?? 0) !== news.engine) moved.push(shardId);
      host.engines.set(shardId, news.engine);
    }
    if (host.engines.size > ROUTES_MAX) {
      this.hosts.delete(target);
      throw new DrakkarError('ERR_FRAME', `${target} names more than ${ROUTES_MAX} shards`);
    }
    return moved;
  }
}

class HostRoutes {
  readonly engines = new Map<number, number>();
  readonly listeners = new Map<number, string>();
}

/** What this host says of its own engines. */
export class OwnRoutes {
  private readonly engines = new Map<number, { address: string; readonly shardIds: Set<number> }>();

  get isEmpty(): boolean {
    return this.engines.size === 0;
  }

  /** Gives the frames that say so. */
  announce(news: EngineNews): Slab[] {
    let known = this.engines.get(news.engine);
    if (known === undefined) this.engines.set(news.engine, (known = { address: news.address, shardIds: new Set() }));
    known.address = news.address;
    for (const shardId of news.shardIds) {
      for (const other of this.engines.values()) other.shardIds.delete(shardId);
      known.shardIds.add(shardId);
    }
    return encodeNews(news);
  }

  /** All of it, for a host that has just dialled. */
  *frames(): IterableIterator<Slab> {
    for (const [engine, { address, shardIds }] of this.engines) {
      yield* encodeNews({ engine, address, shardIds: [...shardIds] });
    }
  }
}
