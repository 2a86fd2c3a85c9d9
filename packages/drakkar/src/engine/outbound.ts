/**
 * Everything that leaves the host in one turn, as few frames as possible: one frame of blocks for each distinct set of
 * addressees (usually one in all), whose bytes go to those peers' connections and to the log; one frame of messages a
 * peer; frames of old blocks for single peers that catch up.
 *
 * Knows peers, not shards: what to send to whom was decided by the protocol.
 */
import { BLOCK_HEADER_WORDS, copyWords, writeBlockHeader, type BlockHeader } from '../wire/block.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import { skipEntries } from '../wire/entry.ts';
import { FORMAT_OLDEST } from '../wire/formats.ts';
import { FRAME_HEADER_BYTES, FrameType, sealFrame } from '../wire/frame.ts';
import { FRAME_TARGET_BYTES } from '../wire/limits.ts';
import { MESSAGE_BYTES, MESSAGE_WORDS, writeMessage, type Message } from '../wire/message.ts';
import type { Slab, SlabPool } from '../wire/slab.ts';
import type { LogDb } from '../wal/logdb.ts';
import type { Peer } from '../transport/transport.ts';
import type { BlockBuffer } from './open-block.ts';

/** Peers that get the same frame. Interned: equal sets are the same object. */
export class AddresseeSet {
  readonly peers: readonly Peer[];
  /** Sealed blocks of this turn, with the reference each becomes. */
  readonly blocks: BlockBuffer[] = [];
  readonly refs: BlockRef[] = [];
  /** Gives a block's buffer back to the open block it came from. */
  readonly recyclers: BlockRecycler[] = [];

  constructor(peers: readonly Peer[]) {
    this.peers = peers;
  }
}

export interface BlockRecycler {
  recycleBlock(block: BlockBuffer): void;
}

/** Whose proposals are passed on to a leader elsewhere. */
export interface Forwarder extends BlockRecycler {
  /** The block did not leave; it is recycled next. */
  notForwarded(block: BlockBuffer): void;
}

const FIRST_MESSAGE_WORDS = 64 * MESSAGE_WORDS;
/** A frame of messages holds no more; a hundred thousand heartbeats are several. */
const FRAME_MESSAGE_WORDS = Math.floor(FRAME_TARGET_BYTES / MESSAGE_BYTES) * MESSAGE_WORDS;

class PeerQueue {
  readonly peer: Peer;
  messages = new Uint32Array(FIRST_MESSAGE_WORDS);
  messageWords = 0;
  /** Catch-up: pieces of frames, each `BLOCK_HEADER` and entries, already copied. */
  catchUp: Uint32Array | undefined;
  catchUpWords = 0;
  catchUpBlocks = 0;
  /** Proposals passed on to the leaders at this host, each block with whose it is. */
  readonly forwards: BlockBuffer[] = [];
  readonly forwarders: Forwarder[] = [];

  constructor(peer: Peer) {
    this.peer = peer;
  }

  get isEmpty(): boolean {
    return this.messageWords === 0 && this.catchUpWords === 0 && this.forwards.length === 0;
  }
}

export class Outbound {
  /** That all addressees take (`formats.ts`). */
  format = FORMAT_OLDEST;
  private readonly pool: SlabPool;
  private readonly log: LogDb;
  private readonly sets = new Map<string, AddresseeSet>();
  private readonly touchedSets: AddresseeSet[] = [];
  private readonly queues: (PeerQueue | undefined)[] = [];
  private readonly touchedQueues: PeerQueue[] = [];
  /** Called when a peer did not take a frame: what it held is lost. */
  private readonly onLost: (peer: Peer) => void;
  private slab: Slab;

  constructor(pool: SlabPool, log: LogDb, onLost: (peer: Peer) => void) {
    this.pool = pool;
    this.log = log;
    this.onLost = onLost;
    this.slab = pool.acquire();
  }

  addresseeSet(peers: readonly Peer[]): AddresseeSet {
    const sorted = [...peers].sort((a, b) => a.index - b.index);
    const key = sorted.map((peer) => peer.index).join(',');
    let set = this.sets.get(key);
    if (set === undefined) {
      set = new AddresseeSet(sorted);
      this.sets.set(key, set);
    }
    return set;
  }

  /** Nothing is sent to `peer` any more. */
  forget(peer: Peer): void {
    this.queues[peer.index] = undefined;
    for (const [key, set] of this.sets) if (set.peers.includes(peer)) this.sets.delete(key);
  }

  /** Takes a sealed block of the leader; `ref` learns where its bytes are when the turn ends. */
  addBlock(set: AddresseeSet, block: BlockBuffer, ref: BlockRef, recycler: BlockRecycler): void {
    if (set.blocks.length === 0) this.touchedSets.push(set);
    set.blocks.push(block);
    set.refs.push(ref);
    set.recyclers.push(recycler);
  }

  addMessage(peer: Peer, message: Message): void {
    const queue = this.queueOf(peer);
    if (queue.messageWords + MESSAGE_WORDS > queue.messages.length) {
      const grown = new Uint32Array(queue.messages.length * 2);
      grown.set(queue.messages);
      queue.messages = grown;
    }
    this.touch(queue);
    writeMessage(queue.messages, queue.messageWords, message);
    queue.messageWords += MESSAGE_WORDS;
  }

  /** Copies `header.count` entries of `ref`, behind the first `skip`, for one peer that catches up. */
  addCatchUp(peer: Peer, header: BlockHeader, ref: BlockRef, skip: number): void {
    const { u32 } = ref.slab!;
    const start = skipEntries(u32, ref.entriesWord, skip);
    const end = skip + header.count === ref.count ? ref.entriesEndWord : skipEntries(u32, start, header.count);
    this.addBytes(peer, header, u32, start, end);
  }

  /** Takes a block with its header; `forwarder` hears if it does not leave with the turn. */
  addForward(peer: Peer, block: BlockBuffer, forwarder: Forwarder): void {
    const queue = this.queueOf(peer);
    this.touch(queue);
    queue.forwards.push(block);
    queue.forwarders.push(forwarder);
  }

  /** A block without entries. */
  addEmpty(peer: Peer, header: BlockHeader): void {
    this.addBytes(peer, header, EMPTY_WORDS, 0, 0);
  }

  private addBytes(peer: Peer, header: BlockHeader, u32: Uint32Array, start: number, end: number): void {
    const queue = this.queueOf(peer);
    const words = BLOCK_HEADER_WORDS + end - start;
    header.lengthBytes = words << 2;
    if (queue.catchUpWords > 0 && (queue.catchUpWords + words) << 2 > FRAME_TARGET_BYTES) this.sendCatchUp(queue);
    this.touch(queue);
    if (queue.catchUp === undefined || queue.catchUpWords + words > queue.catchUp.length) {
      const grown = new Uint32Array(Math.max(queue.catchUpWords + words, (queue.catchUp?.length ?? 2048) * 2));
      if (queue.catchUp !== undefined) copyWords(queue.catchUp, 0, grown, 0, queue.catchUpWords);
      queue.catchUp = grown;
    }
    writeBlockHeader(queue.catchUp, queue.catchUpWords, header);
    copyWords(u32, start, queue.catchUp, queue.catchUpWords + BLOCK_HEADER_WORDS, end - start);
    queue.catchUpWords += words;
    queue.catchUpBlocks++;
  }

  private queueOf(peer: Peer): PeerQueue {
    const queue = this.queues[peer.index];
    if (queue !== undefined) return queue;
    const made = new PeerQueue(peer);
    this.queues[peer.index] = made;
    return made;
  }

  private touch(queue: PeerQueue): void {
    if (queue.isEmpty) this.touchedQueues.push(queue);
  }

  /** Seals and sends all that was added. The log gets its frames first, so that a send that fails changes nothing there. */
  flush(): void {
    this.flushBlocks();
    for (const queue of this.touchedQueues) {
      if (queue.catchUpWords > 0) this.sendCatchUp(queue);
      if (queue.messageWords > 0) this.sendMessages(queue);
      if (queue.forwards.length > 0) this.sendForwards(queue);
      // A burst of catch-up need not be remembered in memory.
      if (queue.catchUp !== undefined && queue.catchUp.length << 2 > FRAME_TARGET_BYTES) queue.catchUp = undefined;
    }
    this.touchedQueues.length = 0;
  }

  /** Only the leader's blocks: what must stand in the log before a state record of the same shard. */
  flushBlocks(): void {
    for (const set of this.touchedSets) this.flushSet(set);
    this.touchedSets.length = 0;
  }

  private flushSet(set: AddresseeSet): void {
    const { blocks, refs } = set;
    let from = 0;
    while (from < blocks.length) {
      const bytes = bytesOfNext(blocks, from);
      const offset = this.reserve(bytes);
      const slab = this.slab;
      const end = (offset + bytes) >>> 2;
      let word = (offset + FRAME_HEADER_BYTES) >>> 2;
      let to = from;
      for (; word < end; to++) {
        const block = blocks[to];
        const ref = refs[to];
        copyWords(block.u32, 0, slab.u32, word, block.endWord);
        slab.retain();
        ref.slab = slab;
        ref.entriesWord = word + BLOCK_HEADER_WORDS;
        word += block.endWord;
        ref.entriesEndWord = word;
        set.recyclers[to].recycleBlock(block);
      }
      sealFrame(slab.u8, slab.u32, offset, bytes, FrameType.Blocks, to - from, this.format);
      this.log.appendFrame(slab, offset, bytes);
      for (const peer of set.peers) this.sendTo(peer, slab, offset, bytes);
      from = to;
    }
    blocks.length = 0;
    refs.length = 0;
    set.recyclers.length = 0;
  }

  private sendMessages(queue: PeerQueue): void {
    const { messageWords } = queue;
    queue.messageWords = 0;
    for (let from = 0; from < messageWords; from += FRAME_MESSAGE_WORDS) {
      this.sendMessageFrame(queue, from, Math.min(FRAME_MESSAGE_WORDS, messageWords - from));
    }
  }

  private sendMessageFrame(queue: PeerQueue, from: number, words: number): void {
    const bytes = FRAME_HEADER_BYTES + (words << 2);
    const offset = this.reserve(bytes);
    copyWords(queue.messages, from, this.slab.u32, (offset + FRAME_HEADER_BYTES) >>> 2, words);
    const count = words / MESSAGE_WORDS;
    sealFrame(this.slab.u8, this.slab.u32, offset, bytes, FrameType.Messages, count, this.format);
    this.sendTo(queue.peer, this.slab, offset, bytes);
  }

  private sendCatchUp(queue: PeerQueue): void {
    const bytes = FRAME_HEADER_BYTES + (queue.catchUpWords << 2);
    const offset = this.reserve(bytes);
    copyWords(queue.catchUp!, 0, this.slab.u32, (offset + FRAME_HEADER_BYTES) >>> 2, queue.catchUpWords);
    sealFrame(this.slab.u8, this.slab.u32, offset, bytes, FrameType.Blocks, queue.catchUpBlocks);
    this.sendTo(queue.peer, this.slab, offset, bytes);
    queue.catchUpWords = 0;
    queue.catchUpBlocks = 0;
  }

  private sendForwards(queue: PeerQueue): void {
    const { peer, forwards, forwarders } = queue;
    for (let from = 0, to = 0; from < forwards.length; from = to) {
      const bytes = bytesOfNext(forwards, from);
      const offset = this.reserve(bytes);
      const end = (offset + bytes) >>> 2;
      for (let word = (offset + FRAME_HEADER_BYTES) >>> 2; word < end; word += forwards[to++].endWord) {
        copyWords(forwards[to].u32, 0, this.slab.u32, word, forwards[to].endWord);
      }
      sealFrame(this.slab.u8, this.slab.u32, offset, bytes, FrameType.Forward, to - from, this.format);
      const isSent = this.sendTo(peer, this.slab, offset, bytes);
      for (let i = from; i < to; i++) {
        if (!isSent) forwarders[i].notForwarded(forwards[i]);
        forwarders[i].recycleBlock(forwards[i]);
      }
    }
    forwards.length = forwarders.length = 0;
  }

  private sendTo(peer: Peer, slab: Slab, offset: number, bytes: number): boolean {
    if (peer.send(slab, offset, bytes)) return true;
    this.onLost(peer);
    return false;
  }

  /** Room for `bytes` in the current slab, which is changed for a fresh one when it is full. */
  reserve(bytes: number): number {
    if (this.slab.usedBytes + bytes > this.slab.sizeBytes) {
      this.slab.release();
      this.slab = this.pool.acquire(Math.max(bytes, this.pool.slabBytes));
    }
    const offset = this.slab.usedBytes;
    this.slab.usedBytes += bytes;
    return offset;
  }

  /** The slab that `reserve` gave room in. */
  get currentSlab(): Slab {
    return this.slab;
  }

  /** Queues that a burst made large become small again. */
  rest(): void {
    for (const queue of this.queues) {
      if (queue === undefined || queue.messageWords > 0 || queue.messages.length === FIRST_MESSAGE_WORDS) continue;
      queue.messages = new Uint32Array(FIRST_MESSAGE_WORDS);
    }
  }

  close(): void {
    this.slab.release();
  }
}

/** Size of a frame of the blocks from `from` on: at least one, then as many as the target lets in. */
function bytesOfNext(blocks: readonly BlockBuffer[], from: number): number {
  let bytes = FRAME_HEADER_BYTES;
  let to = from;
  do bytes += blocks[to++].lengthBytes;
  while (to < blocks.length && bytes + blocks[to].lengthBytes <= FRAME_TARGET_BYTES);
  return bytes;
}

const EMPTY_WORDS = new Uint32Array(0);
