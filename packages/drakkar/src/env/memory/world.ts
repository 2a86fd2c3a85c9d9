/**
 * Virtual time for everything that runs in memory: one queue of events, ordered by time and then by age. Nothing happens but inside
 * `step`, so that the same seed and the same calls give the same run.
 *
 * Promises settle between events: the microtasks of an event run out before the next one is taken.
 */
import type { Clock, Random, Timer } from '../env.ts';

/** Lets signals and timers of the real process in now and then. */
const EVENTS_PER_TURN = 10_000;
/**
 * Runs all microtasks, as Node does between two callbacks: six times as fast as a turn of the loop for each event. Not documented, so that
 * without it each event takes such a turn; the order of things is the same.
 */
const settlePromises = (process as { _tickCallback?: () => void })._tickCallback?.bind(process);

/** Events that may wait; more means that something feeds itself. */
const EVENTS_MAX = 1_000_000;

interface Event {
  readonly timeMs: number;
  readonly order: number;
  task: (() => void) | undefined;
}

export class World implements Clock {
  private timeMs = 0;
  private orderCount = 0;
  /** A binary heap, earliest first. */
  private readonly events: Event[] = [];
  readonly random: Random;
  /** Called after every event and the microtasks that followed from it: the place to look whether all is well. */
  afterEvent: (() => void) | undefined;

  constructor(seed = 1) {
    this.random = seededRandom(seed);
  }

  nowMs(): number {
    return this.timeMs;
  }

  get pendingEvents(): number {
    return this.events.length;
  }

  /** Runs `task` at `delayMs` from now. */
  schedule(delayMs: number, task: () => void): Timer {
    if (this.events.length >= EVENTS_MAX) throw new Error(`more than ${EVENTS_MAX} events wait`);
    const event: Event = { timeMs: this.timeMs + Math.max(0, delayMs), order: this.orderCount++, task };
    this.push(event);
    return {
      cancel() {
        event.task = undefined;
      },
    };
  }

  /** Runs the next event and what follows from it at once; false when there is none. */
  async step(): Promise<boolean> {
    let isDone = false;
    await this.pump(() => {
      const was = isDone;
      isDone = true;
      return was;
    });
    return this.events.length > 0;
  }

  /** Lets `durationMs` of virtual time pass. */
  async run(durationMs: number): Promise<void> {
    const end = this.timeMs + durationMs;
    await this.pump(() => this.events.length === 0 || this.events[0].timeMs > end);
    this.timeMs = end;
  }

  /** Lets time pass until `condition` holds; throws when it does not within `limitMs` of virtual time. */
  async until(condition: () => boolean, limitMs = 60_000): Promise<void> {
    const end = this.timeMs + limitMs;
    await this.pump(() => {
      if (condition()) return true;
      const next = this.events[0];
      if (next === undefined || next.timeMs > end)
        throw new Error(`not reached within ${limitMs} virtual ms: ${condition.toString()}`);
      return false;
    });
  }

  /** Lets time pass until `promise` settles; gives its value or throws its error. */
  async settle<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let isSettled = false;
    const mark = (): void => {
      isSettled = true;
    };
    promise.then(mark, mark);
    await this.until(() => isSettled, limitMs);
    return promise;
  }

  /** The same within one call, for a world inside another one's event; promises of the outer world settle, too. */
  settleNow<T>(promise: Promise<T>, limitMs = 60_000): T {
    if (settlePromises === undefined) throw new Error('this Node has no way to run microtasks within a call');
    let outcome: { readonly value: T } | { readonly error: unknown } | undefined;
    promise.then(
      (value) => (outcome = { value }),
      (error: unknown) => (outcome = { error }),
    );
    const end = this.timeMs + limitMs;
    for (;;) {
      settlePromises();
      if (outcome !== undefined) break;
      if (this.events.length === 0 || this.events[0].timeMs > end)
        throw new Error(`not settled in ${limitMs} virtual ms`);
      this.handleNext();
    }
    if ('error' in outcome) throw outcome.error;
    return outcome.value;
  }

  /** Handles events, each with all microtasks that follow from it, until `isDone`; starts in a turn of the loop of its own. */
  private pump(isDone: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = (): void => {
        try {
          settlePromises?.();
          this.afterEvent?.();
          for (let left = EVENTS_PER_TURN; left > 0; left--) {
            if (isDone()) {
              resolve();
              return;
            }
            this.handleNext();
            if (settlePromises === undefined) break;
            settlePromises();
            this.afterEvent?.();
          }
          setImmediate(turn);
        } catch (error) {
          reject(error);
        }
      };
      setImmediate(turn);
    });
  }

  private handleNext(): void {
    const event = this.pop();
    if (event === undefined) return;
    this.timeMs = event.timeMs;
    const { task } = event;
    if (task === undefined) return;
    event.task = undefined;
    task();
  }

  private push(event: Event): void {
    const { events } = this;
    let at = events.length;
    events.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, events[parent])) break;
      events[at] = events[parent]!;
      at = parent;
    }
    events[at] = event;
  }

  private pop(): Event | undefined {
    const { events } = this;
    const first = events[0];
    const last = events.pop();
    if (first === undefined || last === undefined || events.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= events.length) break;
      if (child + 1 < events.length && isBefore(events[child + 1], events[child])) child++;
      if (!isBefore(events[child], last)) break;
      events[at] = events[child]!;
      at = child;
    }
    events[at] = last;
    return first;
  }
}

const isBefore = (a: Event, b: Event): boolean => a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.order < b.order);

/** sfc32: small, fast, good enough for choices. */
export function seededRandom(seed: number): Random {
  let a = seed >>> 0;
  let b = 0x9e3779b9;
  let c = 0x243f6a88;
  let counter = 1;
  const u32 = (): number => {
    const result = (a + b + counter++) >>> 0;
    a = (b ^ (b >>> 9)) >>> 0;
    b = (c + (c << 3)) >>> 0;
    c = (((c << 21) | (c >>> 11)) + result) >>> 0;
    return result;
  };
  for (let i = 0; i < 12; i++) u32();
  return { u32 };
}
