/** Carries out what a replica's protocol core decides: encodes messages for peers, queues records for the log, tells callers. */
import { DrakkarError } from '../errors.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import { BLOCK_HOLLOW, BlockHeader } from '../wire/block.ts';
import { EntryType } from '../wire/entry.ts';
import { Message } from '../wire/message.ts';
import type { WakeCause } from '../raft/quiesce.ts';
import type { Outbox, TransferOutcome } from '../raft/outbox.ts';
import type { Engine } from './engine.ts';
import { reasonNotToRead } from './pressure.ts';
import type { Replica } from './replica.ts';

const EMPTY = new Uint8Array(0);
const header = new BlockHeader();

export class ReplicaOutbox implements Outbox {
  private readonly engine: Engine;
  private readonly replica: Replica;

  constructor(engine: Engine, replica: Replica) {
    this.engine = engine;
    this.replica = replica;
  }

  send(message: Message, after: number): void {
    const { replica } = this;
    if (after > replica.raft.durableWrite) {
      replica.hold({ after, message: Object.assign(new Message(), message) });
      return;
    }
    this.dispatch(message);
  }

  /** Sends what waited for writes that are durable now. */
  releaseHeld(): void {
    const { held, raft } = this.replica;
    let kept = 0;
    for (let i = 0; i < held.length; i++) {
      const item = held[i];
      if (item.after <= raft.durableWrite) this.dispatch(item.message);
      else held[kept++] = item;
    }
    held.length = kept;
  }

  private dispatch(message: Message): void {
    const peer = this.replica.peerOf(message.to);
    if (peer === undefined) return;
    this.engine.outbound.addMessage(peer, message);
    this.engine.scheduleTurn();
  }

  sendBlock(slot: number, ref: BlockRef, skip: number, count: number, prevTerm: number): boolean {
    const { raft } = this.replica;
    const peer = this.replica.peers[slot];
    if (peer === undefined) return true;
    const isHollow = raft.members[slot].isWitness && !ref.isConfigChange;
    if (ref.slab === undefined && !isHollow) {
      this.engine.fetch(this.replica, ref.firstIndex + skip);
      return false;
    }
    header.count = count;
    header.shardId = this.replica.shardId;
    header.term = ref.term;
    header.prevTerm = prevTerm;
    header.firstIndex = ref.firstIndex + skip;
    header.commitIndex = raft.commitIndex;
    header.senderId = this.replica.replicaId;
    header.senderTerm = raft.term;
    header.flags = ref.flags;
    if (isHollow) {
      header.flags |= BLOCK_HOLLOW;
      this.engine.outbound.addEmpty(peer, header);
    } else this.engine.outbound.addCatchUp(peer, header, ref, skip);
    this.engine.scheduleTurn();
    return true;
  }

  sendProbe(slot: number, prevIndex: number, prevTerm: number): void {
    const { raft } = this.replica;
    const peer = this.replica.peers[slot];
    if (peer === undefined) return;
    header.count = 0;
    header.shardId = this.replica.shardId;
    header.term = raft.term;
    header.prevTerm = prevTerm;
    header.firstIndex = prevIndex + 1;
    header.commitIndex = raft.commitIndex;
    header.senderId = this.replica.replicaId;
    header.senderTerm = raft.term;
    header.flags = 0;
    this.engine.outbound.addEmpty(peer, header);
    this.engine.scheduleTurn();
  }

  sendSnapshot(slot: number): void {
    this.engine.snapshots.send(this.replica, slot);
  }

  saveState(): void {
    this.engine.appendState(this.replica, false);
  }

  appendNoop(): void {
    const { replica } = this;
    // The caller is nobody: sequence and nonce 0 find no one.
    replica.openBlock.put(EntryType.Noop, 0, 0, EMPTY);
    this.engine.markReady(replica);
  }

  readReady(context: number, index: number): void {
    const { replica } = this;
    replica.reads.confirm(context, index);
    const reason = index > replica.raft.durableIndex ? reasonNotToRead(replica) : undefined;
    if (reason !== undefined) replica.reads.dropAbove(replica.raft.durableIndex, reason);
    this.engine.markReady(replica);
  }

  readsDropped(context: number): void {
    this.replica.reads.drop(
      context,
      new DrakkarError('ERR_NO_LEADER', `shard ${this.replica.shardId} changed its leader; read again`),
    );
  }

  truncated(fromIndex: number): void {
    const { log } = this.replica.raft;
    for (let index = fromIndex; index <= log.lastIndex; ) {
      const ref = log.blockAt(index);
      if (ref === undefined) return;
      this.replica.failTruncated(ref, fromIndex);
      index = ref.lastIndex + 1;
    }
  }

  leaderChanged(leaderId: number, term: number): void {
    const { replica } = this;
    this.engine.leaderWaits.changed(replica);
    this.engine.markReady(replica);
    replica.knownOnlookers?.leaderChanged();
    const { shardId, replicaId } = replica;
    const { trace, events, counters } = this.engine;
    if (leaderId === 0) counters.leadersLost++;
    else counters.leadersFound++;
    if (trace.leader.hasSubscribers) trace.leader.publish({ host: trace.host, shardId, replicaId, leaderId, term });
    events.emit('leaderChanged', { shardId, replicaId, leaderId, term });
  }

  quiesceChanged(wokenBy: WakeCause | undefined): void {
    const { counters } = this.engine;
    if (wokenBy === undefined) counters.quiesced++;
    else {
      counters.woken[wokenBy]++;
      this.engine.ticker.activate(this.replica);
    }
  }

  transferEnded(targetId: number, outcome: TransferOutcome): void {
    this.engine.transfers.ended(this.replica, targetId, outcome);
    this.engine.markReady(this.replica);
  }

  promote(replicaId: number): void {
    this.replica.changes.promote(replicaId);
  }

  memberRegressed(replicaId: number): void {
    this.engine.refuseMember(this.replica, replicaId, 'it acknowledged less than it had before');
  }
}
