/** A turn answers so many callers, and what they do next is under way before the others are answered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { APPLY_SLICE_ENTRIES } from '../../src/engine/limits.ts';
import { TestCluster, text } from '../support.ts';

test('callers go on before everything that is committed is applied; all are answered, in order', async () => {
  const cluster = new TestCluster({ segmentBytes: 4 * 1024 * 1024 });
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const host = cluster.hosts.get(leader)!;
  const count = 3 * APPLY_SLICE_ENTRIES;
  const applied = (): number => cluster.lines(leader, 1).length;
  const answers: number[] = [];
  /** How much was applied when a caller went on. */
  const seen: number[] = [];
  const followUps: Promise<unknown>[] = [];
  const proposals = Array.from({ length: count }, async (_, i) => {
    answers.push((await host.propose(1, text(`line ${i}`))) as number);
    if (i % APPLY_SLICE_ENTRIES === 0) {
      seen.push(applied());
      followUps.push(host.propose(1, text(`after line ${i}`)));
    }
  });
  await cluster.settle(Promise.all(proposals));
  await cluster.settle(Promise.all(followUps));
  assert.deepEqual(
    answers,
    Array.from({ length: count }, (_, i) => i + 1),
  );
  assert.ok(seen[0] < count, `the first caller went on when ${seen[0]} of ${count} were applied`);
  for (let i = 1; i < seen.length; i++) assert.ok(seen[i] > seen[i - 1]);
  assert.equal(applied(), count + followUps.length);
  await cluster.assertEqual(1);
  await cluster.close();
});
