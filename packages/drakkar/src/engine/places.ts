/** So many at once; whoever comes too late waits for a place, in order, as long as not too many wait already. */
import { DrakkarError } from '../errors.ts';

interface Waiting {
  readonly admit: () => void;
}

export class Places {
  private readonly what: string;
  private readonly max: number;
  private readonly waitingMax: number;
  private readonly queue = new Set<Waiting>();
  private taken = 0;
  /** How often somebody had to wait. */
  waited = 0;

  /** `what` they are, in the plural, for the error. */
  constructor(what: string, max: number, waitingMax: number) {
    this.what = what;
    this.max = max;
    this.waitingMax = waitingMax;
  }

  get takenCount(): number {
    return this.taken;
  }

  get waitingCount(): number {
    return this.queue.size;
  }

  /** Resolves with what gives the place back. Throws `ERR_SYSTEM_BUSY` when too many wait, and the reason of `signal`. */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.taken < this.max) this.taken++;
    else await this.turn(signal);
    let isHeld = true;
    return () => {
      if (isHeld) this.leave();
      isHeld = false;
    };
  }

  private turn(signal: AbortSignal): Promise<void> {
    if (this.queue.size >= this.waitingMax) {
      throw new DrakkarError('ERR_SYSTEM_BUSY', `${this.waitingMax} ${this.what} wait already; try again later`);
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.queue.delete(waiting);
        reject(signal.reason);
      };
      const waiting: Waiting = {
        admit: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      this.queue.add(waiting);
      this.waited++;
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** The place goes to the next in the queue. */
  private leave(): void {
    for (const next of this.queue) {
      this.queue.delete(next);
      next.admit();
      return;
    }
    this.taken--;
  }
}
