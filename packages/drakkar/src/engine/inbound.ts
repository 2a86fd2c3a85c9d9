/**
 * What arrives: frames of blocks, messages and forwarded proposals. Checks every byte before a core sees it, drops what is
 * for nobody here or from a host that must not speak for its replica, and keeps accepted blocks for the log.
 *
 * Received bytes go to the log as they are only if every block of the frame was accepted whole and appends exactly at its
 * shard's end; otherwise what was accepted is packed into a local frame (design §7.3).
 */
import { DrakkarError } from '../errors.ts';
import { BlockRef } from '../wire/block-ref.ts';
import {
  BLOCK_HEADER_WORDS,
  BLOCK_HOLLOW,
  BLOCK_TRUNCATES,
  BlockHeader,
  LASTING_FLAGS,
  blockLengthBytes,
  checkBlocks,
  copyWords,
  readBlockHeader,
  skipInBlock,
  writeBlockHeader,
} from '../wire/block.ts';
import { EntryType, entryType, entryWords } from '../wire/entry.ts';
import {
  FRAME_HEADER_BYTES,
  FRAME_HEADER_WORDS,
  FrameType,
  frameCount,
  frameFormat,
  frameType,
  sealFrame,
} from '../wire/frame.ts';
import { MESSAGE_WORDS, Message, MessageType, checkMessages, readMessage } from '../wire/message.ts';
import type { Slab } from '../wire/slab.ts';
import { BlockVerdict } from '../raft/raft.ts';
import type { InboundSession } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { HOLLOW_BLOCKS_MAX, UNSEALED_BYTES_MAX } from './limits.ts';
import { answerForRemoved, hasNews, onRemoved, wrongRole } from './membership.ts';
import type { Replica } from './replica.ts';

/** An accepted block that waits for the end of its frame. */
interface Accepted {
  readonly replica: Replica;
  readonly ref: BlockRef;
  readonly flags: number;
  readonly commitIndex: number;
  readonly senderId: number;
  readonly senderTerm: number;
}

/** What a follower may ask its leader to propose. */
function mayForward(type: number): boolean {
  return type !== EntryType.Noop;
}

export class Inbound {
  private readonly engine: Engine;
  private readonly header = new BlockHeader();
  private readonly message = new Message();
  private readonly accepted: Accepted[] = [];
  /** False once anything in the current frame was not accepted whole. */
  private verbatim = true;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** Throws `ERR_FRAME` for bytes that no sound peer sends: the connection ends. */
  onFrame(from: InboundSession, slab: Slab, offset: number, lengthBytes: number): void {
    const word = offset >>> 2;
    const start = word + FRAME_HEADER_WORDS;
    const end = (offset + lengthBytes) >>> 2;
    const count = frameCount(slab.u32, word);
    const format = frameFormat(slab.u32, word);
    // Kept, it would take the way back from whoever upgraded this host.
    if (format > this.engine.formats.range.enabled) {
      throw new DrakkarError('ERR_FRAME', `a peer sent a frame in format ${format}, which is not enabled here`);
    }
    switch (frameType(slab.u32, word)) {
      case FrameType.Blocks:
        checkBlocks(slab.u32, start, end, count);
        this.onBlocks(from, slab, offset, lengthBytes, count);
        break;
      case FrameType.Messages:
        checkMessages(slab.u32, start, end, count);
        this.onMessages(from, slab.u32, start, end);
        break;
      case FrameType.Forward:
        checkBlocks(slab.u32, start, end, count);
        this.onForward(from, slab, start, count);
        break;
      default:
        throw new DrakkarError('ERR_FRAME', `frame type ${frameType(slab.u32, word)} is not for a connection`);
    }
  }

  private onBlocks(from: InboundSession, slab: Slab, offset: number, lengthBytes: number, count: number): void {
    this.verbatim = true;
    let word = (offset >>> 2) + FRAME_HEADER_WORDS;
    for (let left = count; left > 0; left--) {
      readBlockHeader(slab.u32, word, this.header);
      if ((this.header.flags & ~LASTING_FLAGS) !== 0)
        throw new DrakkarError('ERR_FRAME', 'a peer sent a block with a flag of the log');
      this.onBlock(from, slab, word);
      word += blockLengthBytes(slab.u32, word) >>> 2;
    }
    if (this.accepted.length === 0) return;
    if (this.verbatim) {
      this.accepted.length = 0;
      this.engine.log.appendFrame(slab, offset, lengthBytes);
    } else this.packAccepted();
    this.engine.scheduleTurn();
  }

  private onBlock(from: InboundSession, slab: Slab, word: number): void {
    const { header } = this;
    const replica = this.engine.replicas.get(header.shardId);
    if (replica === undefined || replica.status !== 'running' || replica.isRestoring) {
      this.verbatim = false;
      return;
    }
    const hasNews = header.senderTerm >= replica.raft.term;
    if (!this.engine.incarnations.isFromMember(replica, header.senderId, from, hasNews)) {
      this.verbatim = false;
      return;
    }
    if ((header.flags & BLOCK_HOLLOW) !== 0 && !replica.settings.isWitness) {
      this.verbatim = false;
      this.onHollowBlock(replica);
      return;
    }
    replica.hollowBlocks = 0;
    try {
      this.acceptBlock(replica, slab, word);
    } catch (error) {
      this.verbatim = false;
      this.engine.failReplica(replica, error);
    }
  }

  /**
   * Nothing could be applied of it. Blocks name no addressee: it may have been meant for a witness that was here before, and be late. Only
   * one after the other of a leader who speaks to this very replica, and none that is whole, says that they hold it for a witness.
   */
  private onHollowBlock(replica: Replica): void {
    const { raft } = replica;
    if (raft.leaderId !== this.header.senderId || raft.term !== this.header.senderTerm) return;
    if (++replica.hollowBlocks >= HOLLOW_BLOCKS_MAX) this.engine.failReplica(replica, wrongRole(replica, 'witness'));
  }

  private acceptBlock(replica: Replica, slab: Slab, word: number): void {
    const { header } = this;
    const { raft } = replica;
    const verdict = raft.checkBlock(header);
    this.engine.markReady(replica);
    if (verdict !== BlockVerdict.Whole && verdict !== BlockVerdict.Suffix) {
      this.verbatim = false;
      return;
    }
    const end = word + (header.lengthBytes >>> 2);
    let start = word + BLOCK_HEADER_WORDS;
    let prevTerm = header.prevTerm;
    const first = raft.acceptFrom;
    if (verdict === BlockVerdict.Suffix || raft.acceptTruncates) this.verbatim = false;
    if (first !== header.firstIndex) {
      start = skipInBlock(header.flags, slab.u32, start, first - header.firstIndex);
      prevTerm = header.term;
    }
    const truncates = raft.acceptTruncates;
    const ref = new BlockRef(
      first,
      header.lastIndex - first + 1,
      header.term,
      prevTerm,
      slab,
      start,
      end,
      header.flags,
    );
    slab.retain();
    raft.acceptBlock(ref, header);
    this.accepted.push({
      replica,
      ref,
      flags: truncates ? header.flags | BLOCK_TRUNCATES : header.flags,
      commitIndex: header.commitIndex,
      senderId: header.senderId,
      senderTerm: header.senderTerm,
    });
  }

  /**
   * Writes what was accepted so far as a local frame. Also called before a state record of a shard is appended in the middle
   * of a frame, so that the log's order stays the order of the core's write numbers.
   */
  packAccepted(): void {
    const { accepted } = this;
    if (accepted.length === 0) return;
    this.verbatim = false;
    let bytes = FRAME_HEADER_BYTES;
    for (const { ref } of accepted) bytes += (BLOCK_HEADER_WORDS + ref.entriesEndWord - ref.entriesWord) << 2;
    const { outbound } = this.engine;
    const offset = outbound.reserve(bytes);
    const { u8, u32 } = outbound.currentSlab;
    let word = (offset >>> 2) + FRAME_HEADER_WORDS;
    const header = new BlockHeader();
    for (const item of accepted) {
      const { ref } = item;
      const words = ref.entriesEndWord - ref.entriesWord;
      header.lengthBytes = (BLOCK_HEADER_WORDS + words) << 2;
      header.count = ref.count;
      header.shardId = item.replica.shardId;
      header.term = ref.term;
      header.prevTerm = ref.prevTerm;
      header.firstIndex = ref.firstIndex;
      // Never more than what this block verified (design §7.2).
      header.commitIndex = Math.min(item.commitIndex, ref.lastIndex);
      header.senderId = item.senderId;
      header.senderTerm = item.senderTerm;
      header.flags = item.flags;
      writeBlockHeader(u32, word, header);
      copyWords(ref.slab!.u32, ref.entriesWord, u32, word + BLOCK_HEADER_WORDS, words);
      word += BLOCK_HEADER_WORDS + words;
    }
    sealFrame(u8, u32, offset, bytes, FrameType.Blocks, accepted.length, this.engine.formats.range.enabled);
    this.engine.log.appendFrame(outbound.currentSlab, offset, bytes);
    accepted.length = 0;
  }

  private onMessages(from: InboundSession, u32: Uint32Array, word: number, end: number): void {
    const { message } = this;
    for (; word < end; word += MESSAGE_WORDS) {
      readMessage(u32, word, message);
      const replica = this.engine.replicas.get(message.shardId);
      if (replica === undefined) {
        const parked = this.engine.parked.get(message.shardId);
        if (message.type === MessageType.Alive) this.engine.formats.heard(from, message.hint);
        else if (parked !== undefined) answerForRemoved(this.engine, parked, message, from);
        continue;
      }
      if (replica.status !== 'running' || message.to !== replica.replicaId) continue;
      if (!this.engine.incarnations.isFromMember(replica, message.from, from, hasNews(replica, message))) continue;
      if (message.type === MessageType.Outdated) {
        if (!this.engine.incarnations.remembers(message)) this.engine.rolledBack(message.hint);
        continue;
      }
      if (message.type === MessageType.Removed) {
        onRemoved(this.engine, replica, message);
        continue;
      }
      try {
        replica.raft.step(message);
      } catch (error) {
        this.engine.failReplica(replica, error);
      }
      this.engine.markReady(replica);
    }
  }

  /** Proposals that a follower passes on: taken if this replica leads, else dropped; they are never passed on again. */
  private onForward(from: InboundSession, slab: Slab, word: number, count: number): void {
    const { u32 } = slab;
    for (let left = count; left > 0; left--) {
      readBlockHeader(u32, word, this.header);
      const blockEnd = word + (this.header.lengthBytes >>> 2);
      const replica = this.engine.replicas.get(this.header.shardId);
      if (
        replica !== undefined &&
        replica.status === 'running' &&
        replica.raft.canPropose &&
        replica.heldOff === undefined &&
        replica.openBlock.pendingBytes + this.header.lengthBytes <= UNSEALED_BYTES_MAX &&
        replica.raft.memberOf(this.header.senderId) !== undefined &&
        this.engine.incarnations.isFromMember(replica, this.header.senderId, from)
      ) {
        for (let w = word + BLOCK_HEADER_WORDS; w < blockEnd; w += entryWords(u32, w)) {
          const type = entryType(u32, w);
          if (type === EntryType.ConfigChange) replica.takeForwardedChange(slab.u8, u32, w);
          else if (mayForward(type)) replica.openBlock.putCopy(u32, w);
          // Its sender led for a moment only: its first entry is of no use to anybody.
          else if (type !== EntryType.Noop) throw new DrakkarError('ERR_FRAME', 'a peer forwarded a reserved entry');
        }
        this.engine.markReady(replica);
      } else this.engine.counters.forwardsDropped += this.header.count;
      word = blockEnd;
    }
  }
}
