/** What counts as applied: what somebody saw applied, and what a store has whose process ended before the end of the update could be seen. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShardTruth } from '../../src/sim/truth.ts';

const INDEX = 204;
const TOKEN = 286;
const COMMAND = Uint8Array.of(1, 2, 3);
const OTHER = Uint8Array.of(1, 2, 4);

/** Command `TOKEN` is committed at `INDEX`, was given to a store, and was read from the log. */
function read(command: Uint8Array = COMMAND): ShardTruth {
  const truth = new ShardTruth(1);
  truth.commits(INDEX, 12, 12);
  truth.gives(INDEX, TOKEN, command);
  truth.readsEntry({ index: INDEX, term: 12, kind: 'command', token: TOKEN, isRetryable: false }, COMMAND);
  return truth;
}

test('an update whose process ended counts once a store is opened that has it', () => {
  const truth = read();
  truth.stores(INDEX + 1);
  truth.checkRead();
  assert.equal(truth.indexOf.get(TOKEN), INDEX);
  assert.equal(truth.lastCommandAt(INDEX + 5), INDEX);
});

test('what no store has and nobody saw applied was not applied', () => {
  const truth = read();
  truth.stores(INDEX - 1);
  assert.equal(truth.indexOf.get(TOKEN), undefined);
  assert.throws(() => truth.checkRead(), { rule: 'what is read is applied' });
});

test('what a store has is held against all else that is known', () => {
  assert.throws(() => read(OTHER).stores(INDEX), { rule: 'what is read is applied' });

  const elsewhere = new ShardTruth(1);
  elsewhere.gives(INDEX, TOKEN, COMMAND);
  elsewhere.applies(INDEX - 1, TOKEN, COMMAND, 0);
  assert.throws(() => elsewhere.stores(INDEX), { rule: 'applied at most once' });

  const stored = read();
  stored.stores(INDEX);
  assert.throws(() => stored.gives(INDEX, TOKEN, OTHER), { rule: 'what is read is applied' });

  const unread = new ShardTruth(1);
  unread.gives(INDEX, TOKEN, COMMAND);
  unread.stores(INDEX);
  assert.throws(() => unread.applies(INDEX, TOKEN + 1, COMMAND, 0), { rule: 'state machine safety' });
  // Its answer is that of the first whose end is seen.
  stored.applies(INDEX, TOKEN, COMMAND, 1);
  assert.throws(() => stored.applies(INDEX, TOKEN, COMMAND, 2), { rule: 'state machines agree on answers' });
});
