/**
 * Callers who want to hear that their proposal is committed, before it is applied. Costs nothing while there are none: then no entry is
 * looked at.
 */
import type { Raft } from '../raft/raft.ts';
import { entryWords, keyNonce, keySequence } from '../wire/entry.ts';
import { wordOf } from './log-entries.ts';

type OnCommit = (index: number) => void;

export class CommitNotices {
  private readonly raft: Raft;
  private readonly nonce: number;
  /** By the sequence of the entry's key; bounded by the proposals that may wait. */
  private readonly wanted = new Map<number, OnCommit>();
  /** All entries up to here were looked at, or committed before anybody wanted to know. */
  private lookedAt = 0;

  constructor(raft: Raft, nonce: number) {
    this.raft = raft;
    this.nonce = nonce;
  }

  get isEmpty(): boolean {
    return this.wanted.size === 0;
  }

  add(sequence: number, onCommit: OnCommit): void {
    if (this.isEmpty) this.lookedAt = this.raft.commitIndex;
    this.wanted.set(sequence, onCommit);
  }

  remove(sequence: number): void {
    this.wanted.delete(sequence);
  }

  /** In the turn, before what is committed is applied, so that a notice comes before the answer. */
  committed(): void {
    const { log, commitIndex } = this.raft;
    while (this.lookedAt < commitIndex) {
      let index = this.lookedAt + 1;
      if (index <= log.compactedIndex) {
        this.lookedAt = log.compactedIndex; // a snapshot took the place of these entries
        continue;
      }
      const ref = log.blockAt(index);
      // Only after a snapshot was installed; the apply reads it, and this looks again.
      if (ref?.slab === undefined) return;
      const { u32 } = ref.slab;
      const last = Math.min(commitIndex, ref.lastIndex);
      for (let word = wordOf(ref, ref.slab, index); index <= last; index++, word += entryWords(u32, word)) {
        if (keyNonce(u32, word) === this.nonce) this.notice(keySequence(u32, word), index);
      }
      this.lookedAt = last;
    }
  }

  private notice(sequence: number, index: number): void {
    const onCommit = this.wanted.get(sequence);
    if (onCommit === undefined) return;
    this.wanted.delete(sequence);
    onCommit(index);
  }
}
