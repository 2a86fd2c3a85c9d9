/**
 * The callers of one shard that wait for their proposals to be applied: a ring of slots, found by sequence number.
 *
 * The sequence is part of the entry's key, so an applied entry finds its slot without a search, whether it was proposed
 * here or by the leader it was forwarded to. Parallel arrays instead of an object per request: nothing is allocated
 * here per proposal (hot-path §7.5). Knows nothing of entries, logs or shards.
 */
import { DrakkarError } from '../errors.ts';
import type { Result } from '../rsm/state-machine.ts';
import { PENDING_PROPOSALS_MAX } from './limits.ts';

export type ProposeCallback = (error: DrakkarError | null, result: Result, cookie: number) => void;

/** One promise for many proposals: settles with all results in order, or with the first error. */
export class BatchState {
  readonly results: Result[];
  private left: number;
  private readonly resolve: (results: Result[]) => void;
  private readonly reject: (error: DrakkarError) => void;
  private failed = false;

  constructor(size: number, resolve: (results: Result[]) => void, reject: (error: DrakkarError) => void) {
    this.results = new Array(size).fill(0);
    this.left = size;
    this.resolve = resolve;
    this.reject = reject;
  }

  settle(position: number, error: DrakkarError | null, result: Result): void {
    if (error !== null && !this.failed) {
      this.failed = true;
      this.reject(error);
    }
    this.results[position] = result;
    if (--this.left === 0 && !this.failed) this.resolve(this.results);
  }
}

const FREE = 0;
const PROMISE = 1;
const CALLBACK = 2;
const BATCH = 3;

const FIRST_CAPACITY = 64;

type Resolve = (result: Result) => void;
type Reject = (error: DrakkarError) => void;

/** One free slot for all rings that hold nothing; never written to. */
const NO_KINDS = new Uint8Array(1);
const NO_SEQUENCES = new Uint32Array(1);
const NO_NUMBERS = new Float64Array(1);
const NO_TAKERS: unknown[] = [undefined];
const NO_REJECTS: (Reject | undefined)[] = [undefined];

export class PendingRing {
  /** 0 while nothing was asked for: then the arrays are shared ones of one free slot. */
  private capacity = 0;
  private mask = 0;
  /** Every slot below it is free. Counts up for ever; a slot is `sequence & mask`. */
  private head = 0;
  private tail: number;
  private kinds = NO_KINDS;
  private sequences = NO_SEQUENCES;
  private deadlines = NO_NUMBERS;
  /** Resolve function, callback or batch, by kind. */
  private takers: unknown[] = NO_TAKERS;
  private rejects: (Reject | undefined)[] = NO_REJECTS;
  private cookies = NO_NUMBERS;
  /** No slot expires before it; may be too early, never too late. */
  private earliestDeadline = Number.POSITIVE_INFINITY;
  /** Slots in use. */
  count = 0;

  constructor() {
    this.tail = this.head;
  }

  /** The sequence the next `add…` will use, as it goes into the entry's key. */
  get nextSequence(): number {
    return this.tail >>> 0;
  }

  /** Whether `more` proposals can wait; grows the ring when that makes room. */
  hasRoom(more: number): boolean {
    while (this.tail + more - this.head > this.capacity) {
      if (this.capacity >= PENDING_PROPOSALS_MAX) return false;
      this.grow();
    }
    return true;
  }

  addPromise(resolve: Resolve, reject: Reject, deadlineTick: number): void {
    this.rejects[this.tail & this.mask] = reject;
    this.add(PROMISE, resolve, 0, deadlineTick);
  }

  addCallback(callback: ProposeCallback, cookie: number, deadlineTick: number): void {
    this.add(CALLBACK, callback, cookie, deadlineTick);
  }

  addBatchMember(batch: BatchState, position: number, deadlineTick: number): void {
    this.add(BATCH, batch, position, deadlineTick);
  }

  /** After `hasRoom` said so: the shared slot of empty rings is never written to. */
  private add(kind: number, taker: unknown, cookie: number, deadlineTick: number): void {
    const slot = this.tail & this.mask;
    this.kinds[slot] = kind;
    this.sequences[slot] = this.tail;
    this.takers[slot] = taker;
    this.cookies[slot] = cookie;
    this.deadlines[slot] = deadlineTick;
    if (deadlineTick < this.earliestDeadline) this.earliestDeadline = deadlineTick;
    this.tail++;
    this.count++;
  }

  /** Answers the caller that waits under `sequence`, if one still does. */
  complete(sequence: number, result: Result): void {
    const slot = sequence & this.mask;
    const kind = this.kinds[slot];
    if (kind === FREE || this.sequences[slot] !== sequence) return;
    const taker = this.takers[slot];
    this.free(slot);
    if (kind === PROMISE) (taker as Resolve)(result);
    else if (kind === CALLBACK) (taker as ProposeCallback)(null, result, this.cookies[slot]);
    else (taker as BatchState).settle(this.cookies[slot], null, result);
  }

  /** Whether a caller still waits under `sequence`. */
  waits(sequence: number): boolean {
    const slot = sequence & this.mask;
    return this.kinds[slot] !== FREE && this.sequences[slot] === sequence;
  }

  fail(sequence: number, error: DrakkarError): void {
    const slot = sequence & this.mask;
    if (this.kinds[slot] !== FREE && this.sequences[slot] === sequence) this.failSlot(slot, error);
  }

  failAll(error: DrakkarError): void {
    for (let position = this.head; position < this.tail; position++) {
      const slot = position & this.mask;
      if (this.kinds[slot] !== FREE) this.failSlot(slot, error);
    }
  }

  /** Whether something may be due at `tick`. */
  mayExpire(tick: number): boolean {
    return this.count > 0 && tick >= this.earliestDeadline;
  }

  /** Fails what is due at `tick`. */
  expire(tick: number, makeError: () => DrakkarError): void {
    let earliest = Number.POSITIVE_INFINITY;
    let error: DrakkarError | undefined;
    for (let position = this.head; position < this.tail; position++) {
      const slot = position & this.mask;
      if (this.kinds[slot] === FREE) continue;
      const deadline = this.deadlines[slot];
      if (deadline <= tick) {
        error ??= makeError();
        this.failSlot(slot, error);
      } else if (deadline < earliest) earliest = deadline;
    }
    this.earliestDeadline = earliest;
  }

  private failSlot(slot: number, error: DrakkarError): void {
    const kind = this.kinds[slot];
    const taker = this.takers[slot];
    const reject = this.rejects[slot];
    this.free(slot);
    if (kind === PROMISE) reject!(error);
    else if (kind === CALLBACK) (taker as ProposeCallback)(error, 0, this.cookies[slot]);
    else (taker as BatchState).settle(this.cookies[slot], error, 0);
  }

  private free(slot: number): void {
    this.kinds[slot] = FREE;
    this.takers[slot] = undefined;
    this.rejects[slot] = undefined;
    this.count--;
    while (this.head < this.tail && this.kinds[this.head & this.mask] === FREE) this.head++;
  }

  /** Gives the memory back when nobody waits. Sequences go on. */
  release(): void {
    if (this.count > 0 || this.capacity === 0) return;
    this.head = this.tail;
    this.capacity = this.mask = 0;
    this.kinds = NO_KINDS;
    this.sequences = NO_SEQUENCES;
    this.deadlines = this.cookies = NO_NUMBERS;
    this.takers = NO_TAKERS;
    this.rejects = NO_REJECTS;
  }

  private grow(): void {
    const capacity = this.capacity === 0 ? FIRST_CAPACITY : this.capacity * 2;
    const kinds = new Uint8Array(capacity);
    const sequences = new Uint32Array(capacity);
    const deadlines = new Float64Array(capacity);
    const cookies = new Float64Array(capacity);
    const takers: unknown[] = new Array(capacity).fill(undefined);
    const rejects: (Reject | undefined)[] = new Array(capacity).fill(undefined);
    for (let position = this.head; position < this.tail; position++) {
      const from = position & this.mask;
      const to = position & (capacity - 1);
      kinds[to] = this.kinds[from]!;
      sequences[to] = this.sequences[from]!;
      deadlines[to] = this.deadlines[from]!;
      cookies[to] = this.cookies[from]!;
      takers[to] = this.takers[from];
      rejects[to] = this.rejects[from];
    }
    this.capacity = capacity;
    this.mask = capacity - 1;
    this.kinds = kinds;
    this.sequences = sequences;
    this.deadlines = deadlines;
    this.cookies = cookies;
    this.takers = takers;
    this.rejects = rejects;
  }
}
