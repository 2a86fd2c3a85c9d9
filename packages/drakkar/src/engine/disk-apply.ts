/**
 * Applies what is committed to an on-disk state machine: as many entries at once as there are, one batch after the other. While a batch is
 * being stored the turn goes on; `appliedIndex` moves when it is.
 */
import { invariant } from '../errors.ts';
import { skipEntries } from '../wire/entry.ts';
import type { Slab } from '../wire/slab.ts';
import { afterApply } from './applying.ts';
import { followMembership } from './membership.ts';
import type { Replica } from './replica.ts';

/** True when there is more to do at once. */
export function applyToDisk(replica: Replica, deadlineMs: number): boolean {
  const { raft, rsm, engine } = replica;
  const before = raft.appliedIndex;
  while (replica.isRunning && !rsm.gate.isBusy && rsm.gate.isOpen && raft.appliedIndex < raft.applyLimit) {
    const held: Slab[] = [];
    const release = (): void => {
      for (const slab of held.splice(0)) slab.release();
    };
    const last = gatherBatch(replica, held);
    if (last === raft.appliedIndex) break;
    let storing: Promise<void> | undefined;
    try {
      storing = rsm.store(replica);
    } finally {
      if (storing === undefined) release();
    }
    if (storing !== undefined) {
      storing
        .then(
          () => {
            if (replica.status !== 'running') return;
            const then = raft.appliedIndex;
            raft.applied(last);
            afterApply(replica, then);
          },
          (error: unknown) => engine.failReplica(replica, error),
        )
        .finally(() => {
          release();
          if (replica.status === 'running') engine.markReady(replica);
        });
      break;
    }
    if (rsm.membership !== raft.membership) followMembership(engine, replica);
    raft.applied(last);
    if (raft.appliedIndex < raft.applyLimit && engine.env.clock.nowMs() > deadlineMs) {
      afterApply(replica, before);
      return true;
    }
  }
  afterApply(replica, before);
  return false;
}

/** Gives the last index taken; the bytes behind what was taken are held. */
function gatherBatch(replica: Replica, held: Slab[]): number {
  const { raft, rsm } = replica;
  let index = raft.appliedIndex + 1;
  while (index <= raft.applyLimit) {
    const ref = raft.log.blockAt(index);
    invariant(ref !== undefined, `shard ${replica.shardId}: entry ${index} is committed and not in the log`);
    const { slab } = ref;
    if (slab === undefined) {
      replica.engine.fetch(replica, index);
      break;
    }
    const to = Math.min(ref.lastIndex, raft.applyLimit);
    const word = skipEntries(slab.u32, ref.entriesWord, index - ref.firstIndex);
    const taken = rsm.gather(slab.u8, slab.u32, word, index, to - index + 1, ref.term, replica);
    if (taken > 0) {
      slab.retain();
      held.push(slab);
    }
    index += taken;
    // Nothing behind a config change is applied before it has taken effect.
    if (index <= to || ref.isConfigChange) break;
  }
  return index - 1;
}
