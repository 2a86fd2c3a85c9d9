/**
 * How proposals leave a replica: a leader seals its open blocks, appends them to its log and gives them to all that are in step; whoever does
 * not lead passes them on to the leader, once. Promises that a block is either on its way or its callers are told at once.
 *
 * In the turn only, and hot: once a block, nothing for an entry. Must not decide whether something may be proposed (`gather` has asked).
 */
import { BlockRef } from '../wire/block-ref.ts';
import { BLOCK_HEADER_WORDS, BlockHeader, writeBlockHeader } from '../wire/block.ts';
import * as quiesce from '../raft/quiesce.ts';
import type { Peer } from '../transport/transport.ts';
import type { BlockBuffer } from './open-block.ts';
import type { AddresseeSet } from './outbound.ts';
import type { Replica } from './replica.ts';
import { traceForward, traceProposal } from './trace.ts';

const sealing = new BlockHeader();

export function sealBlocks(replica: Replica): void {
  for (let block = replica.openBlock.take(); block !== undefined; block = replica.openBlock.take())
    seal(replica, block, 0);
}

/** Appends the block to the own log and sends it. `flags`: of `LASTING_FLAGS`. */
export function seal(replica: Replica, block: BlockBuffer, flags: number): void {
  const { raft } = replica;
  const { log } = raft;
  sealing.lengthBytes = block.lengthBytes;
  sealing.count = block.count;
  sealing.shardId = replica.shardId;
  sealing.term = raft.term;
  sealing.senderTerm = raft.term;
  sealing.prevTerm = log.lastTerm;
  sealing.firstIndex = log.lastIndex + 1;
  sealing.commitIndex = raft.commitIndex;
  sealing.senderId = replica.replicaId;
  sealing.flags = flags;
  writeBlockHeader(block.u32, 0, sealing);
  // Its place in a slab follows when the turn's frames are built; until then only its size is right.
  const words = block.endWord - BLOCK_HEADER_WORDS;
  const ref = new BlockRef(sealing.firstIndex, block.count, raft.term, sealing.prevTerm, undefined, 0, words, flags);
  const mask = raft.appendOwn(ref);
  replica.engine.outbound.addBlock(addresseeSet(replica, mask), block, ref, replica);
  replica.sentBlock = true;
  replica.sample?.sealed(sealing.firstIndex, raft.term, replica.engine.turnMs);
  traceProposal(replica, ref);
}

function addresseeSet(replica: Replica, mask: number): AddresseeSet {
  replica.sets ??= new Map();
  let set = replica.sets.get(mask);
  if (set === undefined) {
    const peers: Peer[] = [];
    for (let slot = 0; slot < replica.peers.length; slot++) {
      const peer = replica.peers[slot];
      if ((mask & (1 << slot)) !== 0 && peer !== undefined) peers.push(peer);
    }
    set = replica.engine.outbound.addresseeSet(peers);
    replica.sets.set(mask, set);
  }
  return set;
}

/** A follower's proposals go to the leader, once (design §7.6). Without one they certainly were not applied. */
export function passOn(replica: Replica): void {
  quiesce.touch(replica.raft, 'proposal');
  const leader = replica.raft.leaderId === 0 ? undefined : replica.peerOf(replica.raft.leaderId);
  for (let block = replica.openBlock.take(); block !== undefined; block = replica.openBlock.take())
    forward(replica, leader, block);
}

/** Passes proposals on to the leader at `peer`, with all that this host passes on to it in this turn. */
export function forward(replica: Replica, peer: Peer | undefined, block: BlockBuffer): void {
  if (peer === undefined) {
    replica.notForwarded(block);
    replica.recycleBlock(block);
    return;
  }
  sealing.lengthBytes = block.lengthBytes;
  sealing.count = block.count;
  sealing.shardId = replica.shardId;
  sealing.term = sealing.senderTerm = replica.raft.term;
  sealing.prevTerm = 0;
  sealing.firstIndex = 1; // means nothing here
  sealing.commitIndex = 0;
  sealing.senderId = replica.replicaId;
  sealing.flags = 0;
  writeBlockHeader(block.u32, 0, sealing);
  traceForward(replica, block);
  replica.engine.outbound.addForward(peer, block, replica);
}
