import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WALK_STEPS, walk, type WalkCounters } from './walk.ts';

const SEEDS = 300;

test(`${SEEDS} walks of ${WALK_STEPS} steps keep every promise, and a healed cluster goes on`, (context) => {
  const seen = new Map<string, number>();
  for (let seed = 1; seed <= SEEDS; seed++) {
    let counters: WalkCounters;
    try {
      counters = walk(seed);
    } catch (cause) {
      throw new Error(`walk ${seed}`, { cause });
    }
    for (const [what, count] of Object.entries(counters)) seen.set(what, (seen.get(what) ?? 0) + count);
  }
  context.diagnostic(JSON.stringify(Object.fromEntries(seen)));
  for (const [what, count] of seen) assert.ok(count > SEEDS, `${what}: only ${count}`);
});
