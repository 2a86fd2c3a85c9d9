/** The checker: right about histories whose truth is known, and rejecting every mutation that breaks one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Dice,
  History,
  casModel,
  checkLinearizability,
  counterModel,
  keyValueModel,
  listModel,
  registerModel,
  type Model,
  type Operation,
} from 'drakkar/sim';

/** `[process, f, input, output, call, return]`; an output of '?' is unknown. */
type Row = readonly [number, string, unknown, unknown, number, number];

function operationsOf(rows: readonly Row[]): Operation[] {
  return rows.map(([process, f, input, output, call, end]) => {
    const isUnknown = output === '?';
    return {
      process,
      f,
      key: 'k',
      input,
      output: isUnknown ? undefined : output,
      call,
      return: isUnknown ? Infinity : end,
      isUnknown,
    };
  });
}

const verdictOf = (rows: readonly Row[], model: Model<any>): string =>
  checkLinearizability(operationsOf(rows), model).verdict;

test('known histories of every model', () => {
  const cases: readonly (readonly [Model<any>, readonly Row[], string])[] = [
    [
      registerModel,
      [
        [1, 'write', 1, true, 0, 1],
        [2, 'read', null, 1, 2, 3],
      ],
      'linearizable',
    ],
    [
      registerModel,
      [
        [1, 'write', 1, true, 0, 1],
        [2, 'read', null, null, 2, 3],
      ],
      'violation',
    ],
    // Overlapping: either order will do.
    [
      registerModel,
      [
        [1, 'write', 1, true, 0, 3],
        [2, 'read', null, null, 1, 2],
      ],
      'linearizable',
    ],
    // New, then old again.
    [
      registerModel,
      [
        [1, 'write', 1, true, 0, 9],
        [2, 'read', null, 1, 1, 2],
        [2, 'read', null, null, 3, 4],
      ],
      'violation',
    ],
    // A write of unknown outcome may happen much later, or never.
    [
      registerModel,
      [
        [1, 'write', 1, '?', 0, 0],
        [2, 'read', null, null, 1, 2],
        [2, 'read', null, 1, 3, 4],
      ],
      'linearizable',
    ],
    [
      registerModel,
      [
        [1, 'write', 1, '?', 0, 0],
        [2, 'read', null, 2, 1, 2],
      ],
      'violation',
    ],
    [
      casModel,
      [
        [1, 'cas', { from: null, to: 1 }, true, 0, 1],
        [2, 'cas', { from: null, to: 2 }, true, 2, 3],
      ],
      'violation',
    ],
    [
      casModel,
      [
        [1, 'cas', { from: null, to: 1 }, true, 0, 1],
        [2, 'cas', { from: 1, to: 2 }, true, 2, 3],
      ],
      'linearizable',
    ],
    [
      casModel,
      [
        [1, 'write', 1, '?', 0, 0],
        [2, 'cas', { from: null, to: 2 }, false, 1, 2],
      ],
      'linearizable',
    ],
    [
      counterModel,
      [
        [1, 'add', 2, 2, 0, 3],
        [2, 'add', 3, 5, 1, 2],
      ],
      'linearizable',
    ],
    [
      counterModel,
      [
        [1, 'add', 2, 2, 0, 1],
        [2, 'add', 3, 3, 2, 3],
      ],
      'violation',
    ],
    [
      listModel,
      [
        [1, 'append', 'a', 1, 0, 3],
        [2, 'append', 'b', 2, 1, 2],
        [1, 'read', null, ['a', 'b'], 4, 5],
      ],
      'linearizable',
    ],
    [
      listModel,
      [
        [1, 'append', 'a', 1, 0, 1],
        [2, 'append', 'b', 2, 2, 3],
        [1, 'read', null, ['b', 'a'], 4, 5],
      ],
      'violation',
    ],
    [
      keyValueModel,
      [
        [1, 'put', 1, true, 0, 1],
        [2, 'delete', null, true, 2, 3],
        [1, 'get', null, null, 4, 5],
      ],
      'linearizable',
    ],
    [
      keyValueModel,
      [
        [1, 'put', 1, true, 0, 1],
        [2, 'delete', null, false, 2, 3],
      ],
      'violation',
    ],
    [
      keyValueModel,
      [
        [1, 'put', 1, '?', 0, 0],
        [2, 'delete', null, true, 2, 3],
      ],
      'linearizable',
    ],
  ];
  for (const [model, rows, expected] of cases) assert.equal(verdictOf(rows, model), expected, JSON.stringify(rows));
});

/** Clients of one register that really is one: each operation takes effect somewhere between its call and its return. */
function goodHistory(dice: Dice, size: number, clients: number, model: Model<any>): Row[] {
  interface Underway {
    readonly row: [number, string, unknown, unknown, number, number];
    effect: boolean;
  }
  const rows: Row[] = [];
  const underway = new Map<number, Underway>();
  let state: unknown = model.initial;
  let clock = 0;
  let value = 0;
  let begun = 0;
  const takeEffect = (operation: Underway): void => {
    operation.effect = true;
    const [process, f, input] = operation.row;
    if (f === 'read') operation.row[3] = state;
    else if (f === 'write') operation.row[3] = true;
    else if (f === 'cas')
      operation.row[3] = JSON.stringify(state) === JSON.stringify((input as { from: unknown }).from);
    else if (f === 'add') operation.row[3] = (state as number) + (input as number);
    else operation.row[3] = (state as unknown[]).length + 1;
    const [call, end] = [0, 1];
    const isUnknown = false;
    const probe = { process, f, key: 'k', input, output: operation.row[3], call, return: end, isUnknown };
    state = model.step(state, probe)!.state;
  };
  while (begun < size || underway.size > 0) {
    const process = 1 + dice.below(clients);
    const own = underway.get(process);
    if (own === undefined) {
      if (begun++ >= size) continue;
      const f = dice.chance(0.5)
        ? 'read'
        : ({ counter: 'add', list: 'append', 'compare-and-swap': dice.chance(0.5) ? 'cas' : 'write' }[model.name] ??
          'write');
      const input =
        f === 'read' ? null : f === 'cas' ? { from: dice.chance(0.6) ? state : null, to: ++value } : ++value;
      underway.set(process, { row: [process, f, input, undefined, clock++, 0], effect: false });
    } else if (!own.effect) takeEffect(own);
    else {
      own.row[5] = clock++;
      // Now and then nobody hears of it, though it happened.
      if (own.row[1] !== 'read' && dice.chance(0.03)) own.row[3] = '?';
      underway.delete(process);
      rows.push(own.row);
    }
  }
  return rows.sort((a, b) => a[4] - b[4]);
}

const models: readonly Model<any>[] = [registerModel, casModel, counterModel, listModel];

test('what a real object answered is linearizable, for every model', () => {
  for (const model of models) {
    for (let seed = 1; seed <= 60; seed++) {
      const rows = goodHistory(new Dice(seed, model.name), 150, 5, model);
      assert.equal(verdictOf(rows, model), 'linearizable', `${model.name}, seed ${seed}`);
    }
  }
});

/** All orders, for histories so small that they can be tried. */
function bruteForce(operations: readonly Operation[], model: Model<any>): boolean {
  const search = (left: readonly Operation[], state: unknown): boolean => {
    if (left.every(({ isUnknown }) => isUnknown)) return true;
    const earliest = Math.min(...left.map((operation) => operation.return));
    return left.some((operation) => {
      if (operation.call > earliest) return false;
      const after = model.step(state, operation);
      return (
        after !== undefined &&
        search(
          left.filter((other) => other !== operation),
          after.state,
        )
      );
    });
  };
  return search(operations, model.initial);
}

test('on small mutated histories it agrees with trying all orders', () => {
  let accepted = 0;
  let rejected = 0;
  for (const model of models) {
    for (let seed = 1; seed <= 500; seed++) {
      const dice = new Dice(seed, `small ${model.name}`);
      const rows = goodHistory(dice, 7, 3, model).map(
        (row) => [...row] as [number, string, unknown, unknown, number, number],
      );
      const at = dice.below(rows.length);
      const other = rows[dice.below(rows.length)];
      const row = rows[at];
      if (dice.chance(0.4) && row[1] === other[1]) row[3] = other[3];
      else if (dice.chance(0.5)) rows.splice(at, 1);
      else if (row[3] !== '?') {
        // Later than it was.
        row[4] += 6;
        row[5] += 6;
      }
      const operations = operationsOf(rows).sort((a, b) => a.call - b.call);
      const expected = bruteForce(operations, model);
      const { verdict } = checkLinearizability(operations, model);
      assert.equal(verdict, expected ? 'linearizable' : 'violation', `${model.name}, seed ${seed}`);
      if (expected) accepted++;
      else rejected++;
    }
  }
  assert.ok(accepted > 300 && rejected > 300, `${accepted} accepted, ${rejected} rejected: one side is not tested`);
});

test('every mutation that must break a long history is rejected', () => {
  let broken = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const dice = new Dice(seed, 'long');
    const rows = goodHistory(dice, 120, 4, registerModel).map(
      (row) => [...row] as [number, string, unknown, unknown, number, number],
    );
    const reads = rows.filter(([, f]) => f === 'read');
    const read = dice.pick(reads);
    if (seed % 3 === 0)
      read[3] = 10_000; // nobody wrote it
    else if (seed % 3 === 1) {
      // A value that was written only after the read had ended.
      const later = rows.find(([, f, , output, call]) => f === 'write' && output !== '?' && call > read[5]);
      if (later === undefined) continue;
      read[3] = later[2];
    } else {
      // The write that was read never happened.
      const written = rows.findIndex(([, f, input]) => f === 'write' && input === read[3]);
      if (written < 0) continue;
      rows.splice(written, 1);
    }
    broken++;
    const result = checkLinearizability(operationsOf(rows), registerModel);
    assert.equal(result.verdict, 'violation', `seed ${seed}`);
    assert.match(result.explanation ?? '', /fit in an order/);
  }
  assert.ok(broken > 100);
});

test('it gives up at its bound, and says so', () => {
  const rows = goodHistory(new Dice(1, 'bound'), 100, 5, registerModel);
  assert.equal(checkLinearizability(operationsOf(rows), registerModel, { maxSteps: 3 }).verdict, 'unknown');
});

test('a history of its file is the one that was written; a malformed line is named', () => {
  const history = new History();
  const put = history.invoke(1, 'put', 'a', 5, 0);
  const get = history.invoke(2, 'get', 'a', null, 1);
  history.ok(put, true, 2);
  history.info(get, 3);
  const lost = history.invoke(3, 'put', 'a', 6, 4);
  history.fail(lost, 5);
  const again = History.fromJsonl(history.toJsonl());
  assert.deepEqual(again.toJsonl(), history.toJsonl());
  assert.deepEqual(
    again.operations().map(({ f, isUnknown }) => [f, isUnknown]),
    [
      ['put', false],
      ['get', true],
    ],
  );
  assert.throws(
    () => History.fromJsonl('{"process":1,"type":"invoke","f":"put","key":"a","t":1}\nnonsense\n'),
    /line 2/,
  );
  assert.throws(() => History.fromJsonl('{"process":1,"type":"other","f":"put","key":"a","t":1}'), /type is none/);
  assert.throws(
    () => History.fromJsonl('{"process":1,"type":"ok","f":"put","key":"a","t":1}').operations(),
    /nothing under way/,
  );
});
