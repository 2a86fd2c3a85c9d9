/** The arithmetic of the comparisons. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { median, ratio, spread } from '../statistics.ts';

const figures = fc.array(fc.double({ min: 0.001, max: 1e7, noNaN: true }), { minLength: 1, maxLength: 20 });

test('a median is the middle, or the mean of the two in the middle', () => {
  assert.equal(median([3]), 3);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([10, 1, 5, 2]), 3.5);
  assert.equal(median([100, 20, 3]), 20, 'by size, not by text');
  assert.throws(() => median([]), RangeError);
});

test('half of the values lie on each side of a median, whatever their order', () => {
  fc.assert(
    fc.property(figures, (values) => {
      const middle = median(values);
      const half = values.length / 2;
      assert.ok(values.filter((value) => value < middle).length <= half);
      assert.ok(values.filter((value) => value > middle).length <= half);
      assert.equal(median(values.toReversed()), middle);
    }),
  );
});

test('a spread is the distance of the extremes as a share of the median', () => {
  assert.equal(spread([100]), 0);
  assert.equal(spread([90, 100, 120]), 0.3);
  assert.equal(spread([0, 0]), 0);
});

test('a ratio is one of medians, and none by zero', () => {
  assert.equal(ratio([1, 10, 1000], [5, 5, 2]), 2);
  assert.equal(ratio([1], [0]), undefined);
  fc.assert(
    fc.property(figures, (values) => {
      assert.equal(ratio(values, values), 1);
    }),
  );
});
