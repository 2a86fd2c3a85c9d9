/** What travels between threads arrives as it was sent. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError } from 'drakkar';
import fc from 'fast-check';
import { BlockBuffers, OpenBlock } from '../../src/engine/open-block.ts';
import { AnswerBatch, visitAnswers } from '../../src/threads/answer-batch.ts';
import { encodeCommands, visitCommands, type CommandSection } from '../../src/threads/command-batch.ts';
import { packError, packErrors, unpackError, unpackErrors } from '../../src/threads/error-codec.ts';
import { EntryType, headerWords, payloadLengthBytes } from '../../src/wire/entry.ts';

const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const id = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });

interface Sent {
  readonly shardId: number;
  readonly port: number;
  readonly commands: readonly { sequence: number; ticks: number; bytes: Uint8Array; isSession: boolean }[];
}

test('commands of many shards go through one buffer', () => {
  const command = fc.record({
    sequence: uint32,
    ticks: uint32,
    bytes: fc.uint8Array({ maxLength: 100 }),
    isSession: fc.boolean(),
  });
  const shard = fc.record({ shardId: id, port: uint32, commands: fc.array(command, { minLength: 1, maxLength: 20 }) });
  fc.assert(
    fc.property(fc.array(shard, { maxLength: 8 }), (shards: Sent[]) => {
      const sections: CommandSection[] = [];
      for (const { shardId, port, commands } of shards) {
        const open = new OpenBlock(new BlockBuffers());
        for (const { sequence, ticks, bytes, isSession } of commands) {
          const session = { clientHigh: 1, clientLow: 2, series: 3, respondedTo: 2 };
          if (isSession) open.putSession(EntryType.SessionCommand, sequence, ticks, session, bytes);
          else open.put(EntryType.Command, sequence, ticks, bytes);
        }
        for (let block = open.take(); block !== undefined; block = open.take()) sections.push({ shardId, port, block });
      }
      const received: unknown[] = [];
      let from: [number, number] = [0, 0];
      visitCommands(encodeCommands(sections), {
        onShard: (...section) => (from = section),
        onCommand(u32, word, sequence, ticks) {
          const start = (word + headerWords(u32, word)) << 2;
          const bytes = new Uint8Array(u32.buffer.slice(start, start + payloadLengthBytes(u32, word)) as ArrayBuffer);
          received.push([...from, sequence, ticks, [...bytes]]);
        },
      });
      const sent = shards.flatMap(({ shardId, port, commands }) =>
        commands.map(({ sequence, ticks, bytes }) => [shardId, port, sequence, ticks, [...bytes]]),
      );
      assert.deepEqual(received, sent);
    }),
  );
});

test('an entry that is taken over gets the key of its new replica and keeps all else', () => {
  const from = new OpenBlock(new BlockBuffers());
  const session = { clientHigh: 9, clientLow: 8, series: 7, respondedTo: 6 };
  from.put(EntryType.Command, 1, 2, Uint8Array.of(1, 2, 3, 4, 5));
  from.putSession(EntryType.SessionCommand, 3, 4, session, Uint8Array.of(6));
  const to = new OpenBlock(new BlockBuffers());
  let next = 100;
  const section = { shardId: 1, port: 1, block: from.take()! };
  visitCommands(encodeCommands([section]), {
    onShard() {},
    onCommand: (u32, word) => to.putCopyAs(u32, word, next++, 77),
  });
  const expected = new OpenBlock(new BlockBuffers());
  expected.put(EntryType.Command, 100, 77, Uint8Array.of(1, 2, 3, 4, 5));
  expected.putSession(EntryType.SessionCommand, 101, 77, session, Uint8Array.of(6));
  const [taken, whole] = [to.take()!, expected.take()!];
  assert.equal(taken.count, 2);
  assert.deepEqual(taken.u32.slice(0, taken.endWord), whole.u32.slice(0, whole.endWord));
});

test('answers of every kind go through one buffer, and an error that many share goes once', () => {
  const errors = [new DrakkarError('ERR_NO_LEADER', 'one'), new DrakkarError('ERR_TIMEOUT', 'other')];
  const result = fc.oneof(
    fc.double(),
    uint32,
    fc.constantFrom(-0, -1, 2 ** 32, Number.NaN),
    fc.uint8Array({ maxLength: 5000 }),
    fc.constantFrom(...errors),
  );
  const answers = fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), uint32, result), { maxLength: 200 });
  const batch = new AnswerBatch();
  fc.assert(
    fc.property(answers, (sent) => {
      for (const [port, sequence, value] of sent) {
        if (value instanceof DrakkarError) batch.add(port, sequence, value, 0);
        else batch.add(port, sequence, null, value);
      }
      const taken = batch.take();
      assert.equal(batch.isEmpty, true);
      const received: unknown[] = [];
      let port = 0;
      visitAnswers(taken.buffer, {
        onPort: (to) => (port = to),
        onResult: (sequence, value) => received.push([port, sequence, value]),
        onError: (sequence, place) => received.push([port, sequence, taken.errors[place]]),
      });
      assert.deepEqual(received, sent);
    }),
  );
  for (let i = 0; i < 100; i++) batch.add(1, i, errors[0], 0);
  assert.equal(batch.take().errors.length, 1);
});

test('errors keep their code, outcome, causes and place, wherever they stand', () => {
  const cause = Object.assign(new Error('the disk is gone'), { code: 'EIO' });
  const ours = new DrakkarError('ERR_DISK_FAILED', 'writing failed', { cause, outcome: 'not-applied' });
  const back = unpackError(structuredClone(packError(ours))) as DrakkarError;
  assert.ok(DrakkarError.is(back, 'ERR_DISK_FAILED'));
  assert.deepEqual(
    [back.outcome, back.retryable, back.message, back.stack],
    ['not-applied', ours.retryable, 'writing failed', ours.stack],
  );
  assert.equal((back.cause as { code: string }).code, 'EIO');
  const range = unpackError(structuredClone(packError(new RangeError('out of it'))));
  assert.deepEqual([range.name, range.message], ['RangeError', 'out of it']);
  assert.equal(unpackError(packError('thrown text')).message, 'thrown text');
  const value = { shards: [{ failure: ours, bytes: Uint8Array.of(1) }], map: new Map([[1, 2]]), none: undefined };
  const copy = unpackErrors(structuredClone(packErrors(value))) as typeof value;
  assert.ok(DrakkarError.is(copy.shards[0].failure, 'ERR_DISK_FAILED'));
  assert.deepEqual(copy.shards[0].bytes, Uint8Array.of(1));
  assert.equal(copy.map.get(1), 2);
});

test('an error that is its own cause, or has a long chain of them, travels cut off', () => {
  const circle = new Error('circle');
  circle.cause = circle;
  assert.equal(unpackError(packError(circle)).message, 'circle');
});
