/** Leader transfers that callers of this host wait for, and how they ended. */
import { DrakkarError } from '../errors.ts';
import type { TransferOutcome } from '../raft/outbox.ts';
import type { Replica } from './replica.ts';

interface Waiter {
  readonly targetId: number;
  readonly resolve: () => void;
  readonly reject: (error: DrakkarError) => void;
}

const WHY: Record<Exclude<TransferOutcome, 'done'>, string> = {
  timeout: 'the target did not take over within an election timeout',
  superseded: 'another transfer replaced it',
  'target-invalid': 'the target is not another voter of the shard',
  'stepped-down': 'another replica became leader',
};

export class Transfers {
  private readonly waiters = new Map<Replica, Waiter[]>();

  /** Settles when the transfer of `replica`'s shard to `targetId` ends; this replica leads. */
  wait(replica: Replica, targetId: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const list = this.waiters.get(replica) ?? [];
      list.push({ targetId, resolve, reject });
      this.waiters.set(replica, list);
    });
  }

  ended(replica: Replica, targetId: number, outcome: TransferOutcome): void {
    const list = this.waiters.get(replica);
    if (list === undefined) return;
    const rest: Waiter[] = [];
    for (const waiter of list) {
      if (waiter.targetId !== targetId) rest.push(waiter);
      else if (outcome === 'done') waiter.resolve();
      else {
        waiter.reject(
          new DrakkarError(
            'ERR_TRANSFER_ABORTED',
            `leadership of shard ${replica.shardId} did not move to replica ${targetId}: ${WHY[outcome]}`,
          ),
        );
      }
    }
    if (rest.length === 0) this.waiters.delete(replica);
    else this.waiters.set(replica, rest);
  }

  end(replica: Replica, error: DrakkarError): void {
    const list = this.waiters.get(replica) ?? [];
    this.waiters.delete(replica);
    for (const waiter of list) waiter.reject(error);
  }
}
