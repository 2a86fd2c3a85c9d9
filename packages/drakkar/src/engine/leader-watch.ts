/** A watch of who leads a shard, as this replica knows it: the current value first, then every change that its consumer is there for. */
import type { Replica } from './replica.ts';
import { Wait } from './wait.ts';

/** `leaderId` 0: none is known in `term`. */
export interface Leadership {
  readonly leaderId: number;
  readonly term: number;
}

export class LeaderWatch extends Wait {
  private readonly replica: Replica;

  constructor(replica: Replica) {
    super();
    this.replica = replica;
  }

  /** A slow consumer misses what came and went, never what is. */
  async *values(): AsyncGenerator<Leadership, void, void> {
    let told: Leadership | undefined;
    while (!this.isEnded) {
      const { leaderId, term } = this.replica.raft;
      if (told?.leaderId !== leaderId || told.term !== term) {
        told = { leaderId, term };
        yield told;
      } else await this.next();
    }
    if (this.error !== undefined) throw this.error;
  }
}
