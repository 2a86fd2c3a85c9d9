/** A shard in another thread, as its callers see it, against a thread that a test plays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import { MemoryMachines } from 'drakkar/testing';
import type { ThreadSide } from '../../src/env/env.ts';
import { AnswerBatch } from '../../src/threads/answer-batch.ts';
import { ThreadClient } from '../../src/threads/client.ts';
import { visitCommands } from '../../src/threads/command-batch.ts';
import { packError } from '../../src/threads/error-codec.ts';
import type { ToThread } from '../../src/threads/protocol.ts';
import { text } from '../support.ts';

const BUSY = new DrakkarError('ERR_SYSTEM_BUSY', 'busy');
const LOST = new DrakkarError('ERR_DROPPED', 'lost');

/** A thread that answers the commands of a turn as `answers` say: a number, or an error. */
function play(answers: (sequence: number) => number | DrakkarError | undefined) {
  const machines = new MemoryMachines();
  const env = machines.add('host').boot();
  const turns: number[] = [];
  const onPropose = (side: ThreadSide, buffer: ArrayBuffer): void => {
    const batch = new AnswerBatch();
    const taken = buffer.byteLength;
    let port = 0;
    let count = 0;
    visitCommands(buffer, {
      onShard: (_shardId, to) => (port = to),
      onCommand(_u32, _word, sequence) {
        count++;
        const answer = answers(sequence);
        if (answer instanceof DrakkarError) batch.add(port, sequence, answer, 0);
        else if (answer !== undefined) batch.add(port, sequence, null, answer);
      },
    });
    turns.push(count);
    const { buffer: answered, errors } = batch.take();
    side.post({ kind: 'answers', buffer: answered, errors: errors.map((error) => packError(error)), taken });
  };
  const thread = env.threads!.start({
    name: 'played',
    module: new URL('test:played'),
    run(side) {
      side.onMessage = (message) => {
        const order = message as ToThread;
        if (order.kind === 'propose') onPropose(side, order.buffer);
      };
    },
  });
  const client = new ThreadClient({
    env,
    thread,
    name: 'engine 0',
    tickMs: 20,
    onEvent() {},
    condemn: () => Promise.resolve(),
    enableFormat: () => Promise.resolve(),
    tellShard() {},
    resolve: () => undefined,
    onDied() {},
  });
  client.addShard(1, 1);
  return { world: machines.world, client, shard: client.shards.get(1)!, turns };
}

test('a batch resolves with all answers in order, and all commands of a turn share a message', async () => {
  const { world, client, shard, turns } = play((sequence) => sequence * 10);
  const batch = shard.proposeBatch([text('a'), text('b'), text('c')], 100);
  const single = shard.propose(text('d'), 100);
  assert.deepEqual(await world.settle(batch), [0, 10, 20]);
  assert.equal(await world.settle(single), 30);
  assert.deepEqual(turns, [4]);
  assert.equal(client.sentBytes, 0);
});

test('a batch is not applied only if no command of it was taken', async () => {
  const all = play(() => BUSY);
  await assert.rejects(all.world.settle(all.shard.proposeBatch([text('a'), text('b')], 100)), {
    code: 'ERR_SYSTEM_BUSY',
    outcome: 'not-applied',
  });
  for (const outcomes of [
    [BUSY, 1],
    [1, BUSY],
    [LOST, BUSY],
    [BUSY, LOST],
  ]) {
    const some = play((sequence) => outcomes[sequence]);
    await assert.rejects(some.world.settle(some.shard.proposeBatch([text('a'), text('b')], 100)), {
      outcome: 'unknown',
    });
  }
});

test('what a thread never answers ends at its deadline and a little more', async () => {
  const { world, shard, client } = play(() => undefined);
  const waiting = [
    shard.propose(text('a'), 50),
    shard.read('query', 50),
    shard.staleRead('query'),
    client.call('whenReady', [], 1000),
  ];
  for (const call of waiting) call.catch(() => {});
  await world.run(1000);
  assert.equal(shard.pending.count, 1);
  for (const call of waiting) await assert.rejects(world.settle(call, 10_000), { code: 'ERR_TIMEOUT' });
});

test('a caller that aborts is told by the thread, and the thread by a message', async () => {
  const { world, client } = play(() => undefined);
  const controller = new AbortController();
  const posted: unknown[] = [];
  client['thread'].post = (message) => void posted.push(message);
  client.call('whenReady', [1, { timeoutMs: 500, signal: controller.signal }]).catch(() => {});
  controller.abort();
  await world.run(1);
  assert.deepEqual(posted, [
    { kind: 'call', id: 1, method: 'whenReady', args: [1, { timeoutMs: 500, signal: undefined }], signalAt: 1 },
    { kind: 'abort', id: 1 },
  ]);
});

test('an answer to an earlier start of the shard is not taken for one to the later', async () => {
  const { world, client, shard } = play((sequence) => sequence);
  const old = shard.propose(text('to the old one'), 100);
  await world.until(() => client.sentBytes > 0);
  client.endShard(1, new DrakkarError('ERR_SHARD_STOPPED', 'stopped'));
  await assert.rejects(old, { code: 'ERR_SHARD_STOPPED', outcome: 'unknown' });
  client.addShard(1, 1);
  let answers = 0;
  const later = client.shards.get(1)!;
  later.proposeCallback(text('to the new one'), () => answers++, 0, 100);
  await world.until(() => answers > 0);
  assert.equal(client.sentBytes, 0, 'the answer came before the command was taken');
  await world.run(10);
  assert.equal(answers, 1);
});

test('what was not sent when the shard ended was certainly not applied', async () => {
  const { client, shard } = play((sequence) => sequence);
  const waiting = shard.propose(text('never sent'), 100);
  client.endShard(1, new DrakkarError('ERR_SHARD_STOPPED', 'stopped'));
  await assert.rejects(waiting, { code: 'ERR_SHARD_STOPPED', outcome: 'not-applied' });
  await assert.rejects(shard.propose(text('too late'), 100), { code: 'ERR_SHARD_STOPPED', outcome: 'not-applied' });
});
