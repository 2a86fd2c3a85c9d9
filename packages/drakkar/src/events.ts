/**
 * Typed events of a host. Listeners run outside of the engine's turn, in the order of the events and of their registration; what they
 * throw or reject with is logged. Slow ones delay other listeners, not the shards: after a few milliseconds the rest waits for
 * the next turn of the loop, and beyond a bound newer events are dropped and counted.
 */
import type { Env } from './env/env.ts';
import type { EventSink, HostEventMap } from './engine/events.ts';
import type { Trace } from './engine/trace.ts';

export { HOST_EVENTS, type HostEventMap } from './engine/events.ts';

export type HostEventName = keyof HostEventMap;
/** What it returns is not used; a promise is not awaited, its rejection is logged. */
export type HostListener<K extends HostEventName> = (event: HostEventMap[K]) => unknown;

/** Listeners of one event; more are a leak. */
const LISTENERS_MAX = 1000;
/** Events that wait for their listeners. */
export const EVENTS_WAITING_MAX = 10_000;
/** Time that listeners get before the engine's turn comes again. */
const DELIVERY_BUDGET_MS = 5;

interface WaitingEvent {
  readonly name: HostEventName;
  readonly payload: HostEventMap[HostEventName];
}

export class HostEvents implements EventSink {
  private readonly env: Env;
  private readonly trace: Trace;
  private readonly listeners = new Map<HostEventName, Set<HostListener<any>>>();
  private readonly tap: ((name: string, payload: unknown) => void) | undefined;
  private waiting: WaitingEvent[] = [];
  private isScheduled = false;
  /** Events that no listener got because too many waited. */
  dropped = 0;

  /** `tap` hears of everything at once, for one that passes it on. */
  constructor(env: Env, trace: Trace, tap?: (name: string, payload: unknown) => void) {
    this.env = env;
    this.trace = trace;
    this.tap = tap;
  }

  on<K extends HostEventName>(name: K, listener: HostListener<K>): void {
    let set = this.listeners.get(name);
    if (set === undefined) {
      set = new Set();
      this.listeners.set(name, set);
    }
    set.add(listener);
    if (set.size > LISTENERS_MAX)
      this.env.logger.warn({ event: name, count: set.size }, 'many listeners: is one never removed?');
  }

  off<K extends HostEventName>(name: K, listener: HostListener<K>): void {
    this.listeners.get(name)?.delete(listener);
  }

  get waitingCount(): number {
    return this.waiting.length;
  }

  /** Never runs a listener inside the engine: it may call back into the host. */
  emit<K extends HostEventName>(name: K, payload: HostEventMap[K]): void {
    this.tap?.(name, payload);
    if (this.trace.event.hasSubscribers) this.trace.event.publish({ host: this.trace.host, name, event: payload });
    const set = this.listeners.get(name);
    if (set === undefined || set.size === 0) return;
    if (this.waiting.length >= EVENTS_WAITING_MAX) {
      if (this.dropped++ === 0)
        this.env.logger.error({ event: name, count: EVENTS_WAITING_MAX }, 'listeners are too slow: events are dropped');
      return;
    }
    this.waiting.push({ name, payload });
    this.schedule();
  }

  private schedule(): void {
    if (this.isScheduled) return;
    this.isScheduled = true;
    this.env.scheduler.defer(this.deliver);
  }

  private readonly deliver = (): void => {
    this.isScheduled = false;
    const { waiting } = this;
    const untilMs = this.env.clock.nowMs() + DELIVERY_BUDGET_MS;
    let count = 0;
    while (count < waiting.length) {
      this.tell(waiting[count++]);
      if (this.env.clock.nowMs() > untilMs) break;
    }
    waiting.splice(0, count);
    if (waiting.length > 0) this.schedule();
  };

  private tell({ name, payload }: WaitingEvent): void {
    for (const listener of [...(this.listeners.get(name) ?? [])]) {
      try {
        const result: unknown = listener(payload);
        if (result instanceof Promise) result.catch((error: unknown) => this.complain(name, error));
      } catch (error) {
        this.complain(name, error);
      }
    }
  }

  private complain(name: HostEventName, error: unknown): void {
    this.env.logger.error({ event: name, err: error }, 'an event listener threw');
  }
}
