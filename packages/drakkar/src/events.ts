/** Typed events of a host. Listeners run after the engine's turn, one after the other; what they throw is logged. */
import type { Env } from './env/env.ts';
import type { EventSink, HostEventMap } from './engine/events.ts';

export type { HostEventMap } from './engine/events.ts';

export type HostEventName = keyof HostEventMap;
export type HostListener<K extends HostEventName> = (event: HostEventMap[K]) => void;

/** Listeners of one event; more are a leak. */
const LISTENERS_MAX = 1000;

export class HostEvents implements EventSink {
  private readonly env: Env;
  private readonly listeners = new Map<HostEventName, Set<HostListener<any>>>();

  constructor(env: Env) {
    this.env = env;
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

  /** Never runs a listener inside the engine: it may call back into the host. */
  emit<K extends HostEventName>(name: K, payload: HostEventMap[K]): void {
    const set = this.listeners.get(name);
    if (set === undefined || set.size === 0) return;
    this.env.scheduler.defer(() => {
      for (const listener of [...set]) {
        try {
          listener(payload);
        } catch (error) {
          this.env.logger.error({ event: name, err: error }, 'an event listener threw');
        }
      }
    });
  }
}
