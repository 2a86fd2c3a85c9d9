/**
 * Reads that a leader has to confirm (thesis §6.4): it must still be the leader when it answers. All reads that wait when a
 * round starts share its heartbeat; each is answered with its own context. Rounds are numbered and never used twice, so a
 * late answer cannot confirm a newer read (etcd issue 20418).
 */

export interface ReadRequest {
  /** Replica that asked. */
  readonly from: number;
  /** What it wants to be answered with. */
  readonly context: number;
}

interface Round {
  readonly number: number;
  readonly index: number;
  readonly requests: ReadRequest[];
}

/** Reads of one shard that a leader keeps; more are dropped, their callers time out or try again. */
export const LEADER_READS_MAX = 16_384;

/** Of the many shards that nobody reads from; never written to. */
const NO_REQUESTS: ReadRequest[] = [];
const NO_ROUNDS: Round[] = [];

export class LeaderReads {
  /** Not in a round yet; waits also for the first commit of the leader's term. */
  private waiting = NO_REQUESTS;
  private rounds = NO_ROUNDS;
  /** Newest round. */
  round = 0;

  get hasWaiting(): boolean {
    return this.waiting.length > 0;
  }

  get hasRounds(): boolean {
    return this.rounds.length > 0;
  }

  add(from: number, context: number): boolean {
    if (this.waiting.length >= LEADER_READS_MAX) return false;
    if (this.waiting === NO_REQUESTS) this.waiting = [];
    this.waiting.push({ from, context });
    return true;
  }

  /** All that wait form a round that is served at `index` once confirmed. */
  startRound(index: number): number {
    if (this.rounds === NO_ROUNDS) this.rounds = [];
    this.rounds.push({ number: ++this.round, index, requests: this.waiting });
    this.waiting = NO_REQUESTS;
    return this.round;
  }

  /** Rounds up to `number` are confirmed by a majority. */
  release(number: number, answer: (request: ReadRequest, index: number) => void): void {
    let done = 0;
    while (done < this.rounds.length && this.rounds[done].number <= number) {
      const { requests, index } = this.rounds[done++];
      for (let i = 0; i < requests.length; i++) answer(requests[i], index);
    }
    if (done > 0) this.rounds.splice(0, done);
  }

  /** Leadership is lost. */
  clear(): void {
    this.waiting = NO_REQUESTS;
    this.rounds = NO_ROUNDS;
  }
}
