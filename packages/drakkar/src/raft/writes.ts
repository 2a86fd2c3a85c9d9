/**
 * What a shard has given to the log and does not know to be durable yet, in order. Every append, truncation, reset and state
 * record has a number; acknowledgements come in that order and are never dropped for a change of term (design §7.1).
 */
import { invariant } from '../errors.ts';
import type { BlockPlace, BlockRef } from '../wire/block-ref.ts';

const FIRST_CAPACITY = 16;
/** Shared by all that wait for nothing; never written to. */
const NO_REFS: (BlockRef | undefined)[] = [];
const NO_INDEXES = new Float64Array(0);

export class OutstandingWrites {
  /** Number of the newest write. */
  last = 0;
  /** All writes up to this number are durable. */
  durable = 0;
  /** Every entry up to here is durable in this shard's log. Lowered by truncations. */
  durableIndex: number;
  /** Nothing is held for a shard that does not write. */
  private mask = -1;
  private refs: (BlockRef | undefined)[] = NO_REFS;
  /** The index that becomes durable with the write; 0 for those that carry no entries. */
  private indexes = NO_INDEXES;

  constructor(durableIndex: number) {
    this.durableIndex = durableIndex;
  }

  get count(): number {
    return this.last - this.durable;
  }

  push(ref: BlockRef | undefined, index: number): void {
    if (this.count > this.mask) this.grow();
    const slot = ++this.last & this.mask;
    this.refs[slot] = ref;
    this.indexes[slot] = index;
  }

  /** The oldest outstanding write is durable. */
  pop(place: BlockPlace | undefined): void {
    invariant(this.count > 0, 'the log acknowledged a write that nobody made');
    const slot = ++this.durable & this.mask;
    const ref = this.refs[slot];
    invariant(
      (ref === undefined) === (place === undefined),
      'the log acknowledged another kind of write than was made',
    );
    if (ref !== undefined) {
      ref.place = place;
      this.refs[slot] = undefined;
    }
    if (this.indexes[slot] > this.durableIndex) this.durableIndex = this.indexes[slot]!;
  }

  /** A truncation or reset: nothing above `index` is promised any more by the writes before it. */
  lowerTo(index: number): void {
    if (this.durableIndex > index) this.durableIndex = index;
    for (let number = this.durable + 1; number <= this.last; number++) {
      const slot = number & this.mask;
      if (this.indexes[slot] > index) this.indexes[slot] = index;
    }
  }

  /** Gives the memory back while nothing is outstanding. */
  release(): void {
    if (this.count > 0) return;
    this.mask = -1;
    this.refs = NO_REFS;
    this.indexes = NO_INDEXES;
  }

  private grow(): void {
    const capacity = Math.max(FIRST_CAPACITY, (this.mask + 1) * 2);
    const refs: (BlockRef | undefined)[] = new Array(capacity).fill(undefined);
    const indexes = new Float64Array(capacity);
    for (let number = this.durable + 1; number <= this.last; number++) {
      refs[number & (capacity - 1)] = this.refs[number & this.mask];
      indexes[number & (capacity - 1)] = this.indexes[number & this.mask]!;
    }
    this.refs = refs;
    this.indexes = indexes;
    this.mask = capacity - 1;
  }
}
