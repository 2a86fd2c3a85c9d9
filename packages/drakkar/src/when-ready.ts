/** Waits until a replica of this thread can be asked and answers from all that was committed. Sends nothing but reads. */
import type { CallOptions } from './config.ts';
import type { Replica } from './engine/replica.ts';
import { DrakkarError } from './errors.ts';
import type { ShardHandle } from './shard-handle.ts';
import { within, type Waiter } from './within.ts';

/** Without a leader an abort is looked for this often. */
const LEADER_LOOK_MS = 1000;

/** See `NodeHost.whenReady`. */
export async function whenReady(
  replica: Replica,
  handle: ShardHandle,
  options: CallOptions,
  waiter: Waiter,
): Promise<void> {
  const { shardId } = replica;
  const { env, tickMs, timeoutMs } = waiter;
  const deadline = env.clock.nowMs() + (options.timeoutMs ?? timeoutMs);
  for (;;) {
    if (replica.status !== 'running') throw replica.unavailable();
    const leftMs = deadline - env.clock.nowMs();
    if (leftMs <= 0)
      throw new DrakkarError('ERR_TIMEOUT', `shard ${shardId} was not ready in time`, { outcome: 'not-applied' });
    if (options.signal?.aborted === true) throw new DrakkarError('ERR_ABORTED', 'the call was aborted');
    if (replica.raft.leaderId === 0) {
      await replica.engine.leaderWaits.wait(replica, env.scheduler, Math.min(leftMs, LEADER_LOOK_MS));
      continue;
    }
    try {
      // A linearizable read of nothing: answered only when both hold.
      await within(waiter, handle.barrier(leftMs), options, 'nothing was changed', 'not-applied');
      return;
    } catch (error) {
      if (!DrakkarError.is(error) || !error.retryable || error.code === 'ERR_ABORTED') throw error;
      await new Promise<void>((resolve) => void env.scheduler.after(tickMs, resolve));
    }
  }
}
