/** When a replica needs no ticks, and what it gives back then. All of it comes again with the first that asks for it. */
import * as quiesce from '../raft/quiesce.ts';
import type { Engine } from './engine.ts';
import type { Replica } from './replica.ts';

/** Whether timers run, or callers wait whose deadlines pass. */
export function needsTicks({ raft, pending, reads }: Replica): boolean {
  return !raft.isQuiesced || pending.count > 0 || reads.count > 0;
}

export function restReplica(replica: Replica): void {
  replica.rest();
  quiesce.rest(replica.raft);
}

/** No replica is awake. */
export function restEngine({ pool, blockBuffers, outbound }: Engine): void {
  pool.shrink();
  blockBuffers.clear();
  outbound.rest();
}
