/**
 * What clients asked and were told, in order. A line of its file is Jepsen's, one to one: process, type, f, key, value, t. Knows
 * nothing of what the operations mean.
 */

/** `fail`: certainly did not happen. `info`: nobody knows; the process is not used again. */
export type EventType = 'invoke' | 'ok' | 'fail' | 'info';

export interface HistoryEvent {
  readonly process: number;
  readonly type: EventType;
  readonly f: string;
  readonly key: string;
  /** Of an `invoke` what was asked, of an `ok` what was answered. */
  readonly value: unknown;
  /** Milliseconds on one monotonic clock; for people, the order of the events is what counts. */
  readonly t: number;
}

/** An operation that happened, or may have. */
export interface Operation {
  readonly process: number;
  readonly f: string;
  readonly key: string;
  readonly input: unknown;
  /** Undefined when the outcome is unknown. */
  readonly output: unknown;
  /** Positions of its events in the history; one that never returned returns at infinity. */
  readonly call: number;
  readonly return: number;
  readonly isUnknown: boolean;
}

export const EVENTS_MAX = 10_000_000;
export const LINE_MAX_CHARS = 1_000_000;

export class History {
  readonly events: HistoryEvent[] = [];

  /** Begins an operation; gives the number that its end is told with. */
  invoke(process: number, f: string, key: string, value: unknown, t: number): number {
    return this.add({ process, type: 'invoke', f, key, value, t });
  }

  ok(id: number, value: unknown, t: number): void {
    this.end(id, 'ok', value, t);
  }

  fail(id: number, t: number): void {
    this.end(id, 'fail', undefined, t);
  }

  info(id: number, t: number): void {
    this.end(id, 'info', undefined, t);
  }

  private end(id: number, type: EventType, value: unknown, t: number): void {
    const { process, f, key } = this.events[id];
    this.add({ process, type, f, key, value, t });
  }

  private add(event: HistoryEvent): number {
    if (this.events.length >= EVENTS_MAX) throw new Error(`a history holds at most ${EVENTS_MAX} events`);
    return this.events.push(event) - 1;
  }

  toJsonl(): string {
    return this.events.map((event) => `${JSON.stringify({ ...event, value: event.value ?? null })}\n`).join('');
  }

  /** Throws with the number of the line that is wrong. */
  static fromJsonl(text: string): History {
    const history = new History();
    for (const [at, line] of text.split('\n').entries()) {
      if (line.trim() !== '') history.add(parseLine(line, at + 1));
    }
    return history;
  }

  /** What happened or may have; operations that failed are left out. Throws when a process does two things at once. */
  operations(): Operation[] {
    const open = new Map<number, number>();
    const operations: Operation[] = [];
    const finish = (call: number, end: number, output: unknown, isUnknown: boolean): void => {
      const { process, f, key, value: input } = this.events[call];
      operations.push({ process, f, key, input, output, call, return: end, isUnknown });
    };
    for (const [at, { process, type, value }] of this.events.entries()) {
      const call = open.get(process);
      if (type === 'invoke') {
        if (call !== undefined) throw new Error(`event ${at}: process ${process} has an operation under way`);
        open.set(process, at);
        continue;
      }
      if (call === undefined) throw new Error(`event ${at}: process ${process} has nothing under way`);
      open.delete(process);
      if (type === 'ok') finish(call, at, value, false);
      else if (type === 'info') finish(call, Number.POSITIVE_INFINITY, undefined, true);
    }
    for (const call of open.values()) finish(call, Number.POSITIVE_INFINITY, undefined, true);
    return operations.sort((a, b) => a.call - b.call);
  }
}

function parseLine(line: string, number: number): HistoryEvent {
  const wrong = (why: string): Error => new Error(`line ${number} of the history: ${why}`);
  if (line.length > LINE_MAX_CHARS) throw wrong(`longer than ${LINE_MAX_CHARS} characters`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch (cause) {
    throw Object.assign(wrong('not JSON'), { cause });
  }
  if (typeof parsed !== 'object' || parsed === null) throw wrong('not an object');
  const { process, type, f, key, value, t } = parsed as Partial<HistoryEvent>;
  if (!Number.isSafeInteger(process)) throw wrong('process is not a whole number');
  if (type !== 'invoke' && type !== 'ok' && type !== 'fail' && type !== 'info')
    throw wrong('type is none of invoke, ok, fail, info');
  if (typeof f !== 'string' || typeof key !== 'string') throw wrong('f and key are not both strings');
  if (typeof t !== 'number') throw wrong('t is not a number');
  return { process: process!, type, f, key, value, t };
}
