/** Arithmetic of majorities and of progress, held against slow models (fast-check). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Member, MemberState } from '../../src/raft/member.ts';
import { majorityReached, quorumOf } from '../../src/raft/quorum.ts';

test('what a majority has reached is the largest value that enough voters have', () => {
  const values = fc.array(fc.nat({ max: 50 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(values, (given) => {
      const slow = Math.max(
        0,
        ...given.filter((value) => given.filter((other) => other >= value).length * 2 > given.length),
      );
      assert.equal(majorityReached(Float64Array.from(given), given.length), slow);
    }),
  );
  assert.equal(majorityReached(new Float64Array(4), 0), 0);
});

test('two quorums of memberships that differ by one voter meet', () => {
  for (let voters = 1; voters <= 30; voters++) {
    assert.ok(2 * quorumOf(voters) > voters);
    // One of each size among all voters of the larger membership: more in sum than there are voters.
    assert.ok(quorumOf(voters) + quorumOf(voters + 1) > voters + 1, `${voters} and one more`);
    assert.ok(quorumOf(voters) <= voters);
  }
});

test('two changes apart they need not meet: why one is made at a time', () => {
  const disjoint = Array.from({ length: 29 }, (_, i) => i + 1).filter(
    (voters) => quorumOf(voters) + quorumOf(voters + 2) <= voters + 2,
  );
  assert.deepEqual(
    disjoint,
    Array.from({ length: 15 }, (_, i) => 2 * i + 1),
  );
});

/** What is under way, as plainly as possible. */
interface Model {
  state: MemberState;
  match: number;
  next: number;
  underway: { last: number; bytes: number }[];
}

const BLOCKS_MAX = 5;
const BYTES_MAX = 1000;

type Step = { readonly kind: 'send' | 'ack' | 'probe' | 'replicate' | 'snapshot' | 'free'; readonly amount: number };

function play(member: Member, model: Model, { kind, amount }: Step): void {
  switch (kind) {
    case 'send': {
      if (member.isWindowFull) return;
      const last = model.next + (amount % 7);
      member.sent(last, amount, 1);
      model.next = last + 1;
      model.underway.push({ last, bytes: amount });
      return;
    }
    case 'ack': {
      const index = Math.min(model.match + (amount % 9), model.next - 1);
      if (index <= model.match) return;
      member.matchIndex = model.match = index;
      member.arrived(index);
      model.underway = model.underway.filter(({ last }) => last > index);
      return;
    }
    case 'probe':
      member.becomeProbe(model.match + 1);
      Object.assign(model, { state: MemberState.Probe, next: model.match + 1, underway: [] });
      return;
    case 'replicate':
      member.becomeReplicate();
      Object.assign(model, { state: MemberState.Replicate, next: model.match + 1, underway: [] });
      return;
    case 'snapshot':
      member.becomeSnapshot();
      Object.assign(model, { state: MemberState.Snapshot, underway: [] });
      return;
    case 'free':
      member.freeOldest();
      model.underway.shift();
  }
}

test('a member’s progress is what a list of all that is under way says', () => {
  const step = fc.record({
    kind: fc.constantFrom('send', 'send', 'send', 'ack', 'ack', 'probe', 'replicate', 'snapshot', 'free'),
    amount: fc.nat({ max: 400 }),
  });
  fc.assert(
    fc.property(fc.array(step as fc.Arbitrary<Step>, { maxLength: 200 }), (steps) => {
      const member = new Member(2, true, false, { maxInflightBlocks: BLOCKS_MAX, maxInflightBytes: BYTES_MAX });
      const model: Model = { state: MemberState.Probe, match: 0, next: 1, underway: [] };
      for (const each of steps) {
        play(member, model, each);
        const bytes = model.underway.reduce((sum, block) => sum + block.bytes, 0);
        assert.equal(member.inflightBlocks, model.underway.length);
        assert.equal(member.isWindowFull, model.underway.length >= BLOCKS_MAX || bytes >= BYTES_MAX);
        assert.equal(member.state, model.state);
        assert.equal(member.nextIndex, model.next);
        assert.ok(member.nextIndex > member.matchIndex);
      }
    }),
  );
});
