/**
 * Applies what is committed, to state machines in memory; those on disk go `disk-apply.ts`'s way and come back for what follows. Promises that
 * an entry is applied once, in order, only when it is durable here, and that a turn does not go on for ever with it.
 *
 * Must not touch a state machine that a snapshot holds or is about to replace. Hot: once a block, nothing for an entry.
 */
import { invariant } from '../errors.ts';
import { skipEntries } from '../wire/entry.ts';
import { applyToDisk } from './disk-apply.ts';
import { followMembership } from './membership.ts';
import { serveReads } from './reading.ts';
import type { Replica } from './replica.ts';
import { traceApply } from './trace.ts';

/**
 * Applies what is committed and durable here. Stops at blocks whose bytes must be read first, while a snapshot holds the state
 * machine, when the turn has answered enough callers, and when `deadlineMs` has passed; gives true when there is more to do at once.
 */
export function applyCommitted(replica: Replica, deadlineMs: number): boolean {
  const { raft, rsm, engine } = replica;
  if (replica.knownOnlookers?.wantsCommits === true) replica.knownOnlookers.committed();
  if (replica.isRestoring || rsm.busy) return false;
  replica.sample?.look(raft, replica.pending, engine.turnMs, engine.stages);
  const before = raft.appliedIndex;
  if (rsm.isOnDisk) return applyToDisk(replica, deadlineMs);
  while (raft.appliedIndex < raft.applyLimit && replica.status === 'running') {
    const room = replica.pending.count > 0 ? engine.applyRoom : Number.POSITIVE_INFINITY;
    if (room <= 0) {
      afterApply(replica, before);
      return true;
    }
    const from = raft.appliedIndex + 1;
    const ref = raft.log.blockAt(from);
    invariant(ref !== undefined, `shard ${replica.shardId}: entry ${from} is committed and not in the log`);
    const to = Math.min(ref.lastIndex, raft.applyLimit, from + room - 1);
    const { slab } = ref;
    if (ref.isHollow) rsm.skip(to, ref.term);
    else if (slab === undefined) {
      engine.fetch(replica, from);
      break;
    } else {
      const word = skipEntries(slab.u32, ref.entriesWord, from - ref.firstIndex);
      rsm.apply(slab.u8, slab.u32, word, from, to - from + 1, ref.term, replica);
      engine.applyRoom -= to - from + 1;
    }
    // Before what it waited for to be applied: a leader that hands over may wait for it.
    if (rsm.membership !== raft.membership) followMembership(replica.engine, replica);
    raft.applied(to);
    if (raft.appliedIndex < raft.applyLimit && engine.env.clock.nowMs() > deadlineMs) {
      afterApply(replica, before);
      return true;
    }
  }
  afterApply(replica, before);
  return false;
}

export function afterApply(replica: Replica, before: number): void {
  if (replica.status !== 'running') return;
  const { raft, engine } = replica;
  replica.sample?.applied(raft, replica.pending, engine.env.clock, engine.stages);
  traceApply(replica, before);
  raft.trim();
  serveReads(replica);
  engine.snapshots.considerSnapshot(replica);
}
