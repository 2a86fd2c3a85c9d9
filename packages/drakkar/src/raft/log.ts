/**
 * The log of one shard as the protocol sees it: a list of block references without gaps, behind a compacted prefix. Knows
 * indexes and terms, never an entry. Where the bytes are (memory, disk) is noted in the references and used by others.
 */
import { invariant } from '../errors.ts';
import { skipInBlock } from '../wire/block.ts';
import type { BlockRef } from '../wire/block-ref.ts';

/** Dropped references are cut off the array only when there are this many, so that dropping stays cheap. */
const CUT_AFTER = 1024;

export class RaftLog {
  /** Entries at and below are given up; `compactedTerm` is the term at that index (0 at index 0). */
  compactedIndex: number;
  compactedTerm: number;
  /** Equal to the compacted ones when there is nothing behind. */
  lastIndex: number;
  lastTerm: number;
  /** Bytes of entries behind the applied index, for back-pressure. */
  unappliedBytes = 0;
  private refs: BlockRef[] = [];
  /** Position of the first live reference in `refs`; those before it are void. */
  private head = 0;
  /** Position of the first reference that is not wholly applied, and of the first that may still hold bytes to give back. */
  private appliedAt = 0;
  private trimAt = 0;
  private searchHint = 0;

  constructor(compactedIndex: number, compactedTerm: number, blocks: readonly BlockRef[]) {
    this.compactedIndex = compactedIndex;
    this.compactedTerm = compactedTerm;
    this.lastIndex = compactedIndex;
    this.lastTerm = compactedTerm;
    for (const ref of blocks) {
      if (ref.lastIndex <= compactedIndex) continue;
      invariant(ref.firstIndex <= this.lastIndex + 1, `the recovered log has a gap before ${ref.firstIndex}`);
      this.append(ref);
    }
  }

  get firstIndex(): number {
    return this.compactedIndex + 1;
  }

  /** Live references, oldest first. The first may begin at or before `compactedIndex`. */
  *blocks(): IterableIterator<BlockRef> {
    for (let i = this.head; i < this.refs.length; i++) yield this.refs[i];
  }

  append(ref: BlockRef): void {
    this.refs.push(ref);
    this.lastIndex = ref.lastIndex;
    this.lastTerm = ref.term;
    this.unappliedBytes += ref.sizeBytes;
  }

  /** Undefined when the index is compacted below, or beyond the end. */
  termAt(index: number): number | undefined {
    if (index === this.lastIndex) return this.lastTerm;
    if (index === this.compactedIndex) return this.compactedTerm;
    return this.blockAt(index)?.term;
  }

  /** Whether a log that ends at `index` with `term` has something that this one does not (Raft §5.4.1). */
  isBehind(index: number, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index > this.lastIndex);
  }

  /** The block that holds the entry at `index`. */
  blockAt(index: number): BlockRef | undefined {
    if (index <= this.compactedIndex || index > this.lastIndex) return undefined;
    const position = this.positionOf(index);
    return this.refs[position];
  }

  private positionOf(index: number): number {
    const { refs } = this;
    // Most look-ups walk forward from the last one.
    for (let i = this.searchHint, tries = 0; tries < 2 && i >= this.head && i < refs.length; i++, tries++) {
      const ref = refs[i];
      if (index >= ref.firstIndex && index <= ref.lastIndex) return (this.searchHint = i);
    }
    let low = this.head;
    let high = refs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (refs[middle].firstIndex <= index) low = middle;
      else high = middle - 1;
    }
    return (this.searchHint = low);
  }

  /** The largest index at or below `index` whose term is at most `term` (fast back-off, thesis §5.3 end). */
  findAtMostTerm(index: number, term: number): number {
    let at = Math.min(index, this.lastIndex);
    while (at > this.compactedIndex) {
      const ref = this.blockAt(at)!;
      if (ref.term <= term) return at;
      at = ref.firstIndex - 1;
    }
    return Math.max(at, this.compactedIndex);
  }

  /** Removes the entries from `index` on. Not to be called at or below what is committed. */
  truncateFrom(index: number): void {
    invariant(index > this.compactedIndex, `a truncation at ${index} reaches into the compacted log`);
    while (this.refs.length > this.head) {
      const ref = this.refs[this.refs.length - 1];
      if (ref.lastIndex < index) break;
      if (ref.firstIndex >= index) {
        this.refs.pop();
        this.unappliedBytes -= ref.sizeBytes;
        ref.dropBytes();
        continue;
      }
      ref.count = index - ref.firstIndex;
      if (ref.slab !== undefined) ref.entriesEndWord = skipInBlock(ref.flags, ref.slab.u32, ref.entriesWord, ref.count);
      break;
    }
    this.lastIndex = index - 1;
    const last = this.refs.length > this.head ? this.refs[this.refs.length - 1] : undefined;
    this.lastTerm = last !== undefined && last.lastIndex >= this.lastIndex ? last.term : this.compactedTerm;
    this.clampCursors();
  }

  /** Gives up the entries up to and including `index`. */
  compact(index: number): void {
    if (index <= this.compactedIndex) return;
    const term = this.termAt(index);
    invariant(term !== undefined, `compaction to ${index}, which the log does not hold`);
    this.compactedIndex = index;
    this.compactedTerm = term;
    while (this.head < this.refs.length && this.refs[this.head].lastIndex <= index) {
      this.refs[this.head].dropBytes();
      this.head++;
    }
    this.cutHead();
  }

  /** Everything is replaced by a snapshot at `index`. */
  reset(index: number, term: number): void {
    for (let i = this.head; i < this.refs.length; i++) this.refs[i].dropBytes();
    this.refs = [];
    this.head = this.appliedAt = this.trimAt = this.searchHint = 0;
    this.unappliedBytes = 0;
    this.compactedIndex = this.lastIndex = index;
    this.compactedTerm = this.lastTerm = term;
  }

  /** Keeps the account of bytes that are not applied. */
  applied(index: number): void {
    if (this.appliedAt < this.head) this.appliedAt = this.head;
    while (this.appliedAt < this.refs.length && this.refs[this.appliedAt].lastIndex <= index) {
      this.unappliedBytes -= this.refs[this.appliedAt].sizeBytes;
      this.appliedAt++;
    }
  }

  /** Gives back the bytes of durable blocks up to and including `index`; each block is looked at once. */
  trim(index: number): void {
    if (this.trimAt < this.head) this.trimAt = this.head;
    while (this.trimAt < this.refs.length) {
      const ref = this.refs[this.trimAt];
      if (ref.lastIndex > index || ref.place === undefined) return;
      ref.dropBytes();
      this.trimAt++;
    }
  }

  /** Takes no more room than the references need. */
  rest(): void {
    if (this.head > 0 || this.refs.length < CUT_AFTER) this.cut();
  }

  private clampCursors(): void {
    const end = this.refs.length;
    if (this.appliedAt > end) this.appliedAt = end;
    if (this.trimAt > end) this.trimAt = end;
    if (this.searchHint > end) this.searchHint = this.head;
  }

  private cutHead(): void {
    // What was compacted was applied.
    if (this.appliedAt < this.head) this.appliedAt = this.head;
    if (this.trimAt < this.head) this.trimAt = this.head;
    if (this.head >= CUT_AFTER && this.head * 2 >= this.refs.length) this.cut();
  }

  private cut(): void {
    this.refs = this.refs.slice(this.head);
    this.appliedAt -= this.head;
    this.trimAt -= this.head;
    this.searchHint = 0;
    this.head = 0;
  }
}
