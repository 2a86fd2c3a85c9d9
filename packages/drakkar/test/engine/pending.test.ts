/** Callers that wait: each is answered once, with what is its own, and no later than its deadline. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import { PendingReads } from '../../src/engine/pending-reads.ts';
import { PendingRing } from '../../src/engine/pending-ring.ts';

const timeout = (): DrakkarError => new DrakkarError('ERR_TIMEOUT', 'late');

test('a slot that is used again is not answered by what was meant for its earlier user', () => {
  const ring = new PendingRing();
  const heard: string[] = [];
  const add = (name: string, deadline: number): number => {
    const sequence = ring.nextSequence;
    ring.addCallback((error, result) => heard.push(`${name} ${error?.code ?? Number(result)}`), 0, deadline);
    return sequence;
  };
  const first = add('first', 1);
  ring.expire(1, timeout);
  // As many more as the ring has slots: the last stands where the first did.
  let last = 0;
  for (let i = 0; i < 64; i++) last = add(`later ${i}`, 100);
  assert.equal(last - first, 64);
  ring.complete(first, 7);
  assert.deepEqual(heard, ['first ERR_TIMEOUT']);
  ring.complete(last, 8);
  ring.complete(last, 9);
  assert.deepEqual(heard, ['first ERR_TIMEOUT', 'later 63 8']);
  assert.equal(ring.count, 63);
});

test('answers find their callers in any order, over growth and wrapping, each once', () => {
  const ring = new PendingRing();
  const answered = new Map<number, number>();
  const open: number[] = [];
  for (let i = 0; i < 5000; i++) {
    const sequence = ring.nextSequence;
    assert.ok(ring.hasRoom(1));
    ring.addCallback((_, result) => answered.set(sequence, Number(result)), 0, 1_000_000);
    open.push(sequence);
    if (i % 3 === 0) {
      const [one] = open.splice((i * 7) % open.length, 1);
      ring.complete(one, one + 1);
    }
  }
  for (const sequence of open) ring.complete(sequence, sequence + 1);
  assert.equal(answered.size, 5000);
  for (const [sequence, result] of answered) assert.equal(result, sequence + 1);
  assert.equal(ring.count, 0);
});

test('deadlines of proposals end those that are due, and no others', () => {
  const ring = new PendingRing();
  const heard: number[] = [];
  assert.ok(ring.hasRoom(4));
  for (const deadline of [30, 10, 20, 10]) {
    ring.addCallback((error) => error !== null && heard.push(deadline), 0, deadline);
  }
  ring.expire(9, timeout);
  assert.deepEqual(heard, []);
  ring.expire(10, timeout);
  assert.deepEqual(heard, [10, 10]);
  ring.expire(29, timeout);
  assert.deepEqual(heard, [10, 10, 20]);
});

test('deadlines of reads end those that are due and leave the others of their batch to be answered', () => {
  const reads = new PendingReads();
  const heard: string[] = [];
  const add = (name: string, deadline: number): void =>
    reads.add(
      name,
      (value) => heard.push(`${name} ${String(value)}`),
      () => heard.push(`${name} late`),
      deadline,
    );
  add('short', 5);
  add('long', 50);
  const context = reads.close(0);
  add('next', 50);
  const next = reads.close(0);
  reads.expire(5);
  assert.deepEqual(heard, ['short late']);
  reads.confirm(context, 3);
  reads.serve(3, { lookup: (query) => `of ${String(query)}` });
  assert.deepEqual(heard, ['short late', 'long of long']);
  reads.confirm(next, 9);
  reads.serve(8, { lookup: String });
  assert.equal(reads.count, 1, 'served before its index was applied');
  reads.serve(9, { lookup: () => 'now' });
  assert.deepEqual(heard.slice(2), ['next now']);
});
