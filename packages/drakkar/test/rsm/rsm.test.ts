/** Applying: batches, sessions at most once, and images that verify. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Entry, EntryCursor, StateMachine } from 'drakkar';
import { ApplyStatus, type ApplySink } from '../../src/rsm/apply-sink.ts';
import { Rsm } from '../../src/rsm/rsm.ts';
import { SESSIONS_MAX, Sessions } from '../../src/rsm/sessions.ts';
import { verifyImage } from '../../src/rsm/image.ts';
import { EntryType, putEntry, putSessionEntry } from '../../src/wire/entry.ts';
import { initialMembership } from '../../src/wire/membership.ts';
import { Slab } from '../../src/wire/slab.ts';
import { Journal, text } from '../support.ts';

const NONCE = 77;

interface Command {
  readonly type?: EntryType;
  readonly line?: string;
  readonly client?: number;
  readonly series?: number;
  readonly respondedTo?: number;
  readonly nonce?: number;
}

/** Applies lists of commands and remembers what was reported. */
class Bench {
  readonly rsm: Rsm;
  readonly machine: StateMachine<string, unknown> & { lines?: string[] };
  readonly answers: unknown[] = [];

  constructor(machine: StateMachine<string, unknown> = new Journal(), maxSessions?: number) {
    this.machine = machine;
    this.rsm = new Rsm({
      shardId: 1,
      replicaId: 1,
      stateMachine: machine,
      membership: initialMembership([[1, 'a:1']]),
      ...(maxSessions === undefined ? {} : { maxSessions }),
    });
  }

  apply(...commands: readonly Command[]): unknown[] {
    const slab = new Slab(256 * 1024);
    let word = 0;
    let sequence = 0;
    for (const {
      type = EntryType.Command,
      line = '',
      client,
      series = 0,
      respondedTo = 0,
      nonce = NONCE,
    } of commands) {
      const fields = { clientHigh: 0, clientLow: client ?? 0, series, respondedTo };
      word =
        client === undefined
          ? putEntry(slab.u8, slab.u32, word, type, sequence++, nonce, text(line))
          : putSessionEntry(slab.u8, slab.u32, word, type, sequence++, nonce, fields, text(line));
    }
    const answers: unknown[] = [];
    const sink: ApplySink = {
      nonce: NONCE,
      applied: (at, _index, status, result) => {
        answers[at] = status === ApplyStatus.Ok ? result : status;
      },
    };
    this.rsm.apply(slab.u8, slab.u32, 0, this.rsm.appliedIndex + 1, commands.length, 1, sink);
    return answers;
  }

  async image(): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for await (const piece of this.rsm.saveImage(new AbortController().signal)) pieces.push(piece.slice());
    return Buffer.concat(pieces);
  }
}

const register = (client: number): Command => ({ type: EntryType.SessionRegister, client });
const unregister = (client: number): Command => ({ type: EntryType.SessionUnregister, client });
const command = (client: number, series: number, line: string, respondedTo = 0): Command => ({
  type: EntryType.SessionCommand,
  client,
  series,
  line,
  respondedTo,
});

async function* cut(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test('commands are applied in order and answered, those of other hosts are not reported', () => {
  const bench = new Bench();
  assert.deepEqual([...bench.apply({ line: 'a' }, { line: 'b', nonce: 5 }, { line: 'c' })], [1, undefined, 3]);
  assert.deepEqual(bench.machine.lines, ['a', 'b', 'c']);
  assert.equal(bench.rsm.appliedIndex, 3);
});

test('thousands of commands come in bounded batches, by array and by cursor alike', () => {
  const sizes: number[] = [];
  class Counting extends Journal {
    override update(entries: readonly Entry[]): void {
      sizes.push(entries.length);
      super.update(entries);
    }
  }
  class WithCursor extends Journal {
    updateCursor(cursor: EntryCursor): void {
      let count = 0;
      while (cursor.next()) {
        count++;
        const bytes = cursor.bytes.slice(cursor.offset, cursor.offset + cursor.lengthBytes);
        cursor.setResult(this.lines.push(new TextDecoder().decode(bytes)));
      }
      assert.equal(count, cursor.count);
    }
  }
  const commands = Array.from({ length: 3000 }, (_, i) => ({ line: `line ${i}` }));
  const [byArray, byCursor] = [new Bench(new Counting()), new Bench(new WithCursor())];
  const answers = byArray.apply(...commands);
  assert.deepEqual(byCursor.apply(...commands), answers);
  assert.equal(answers[2999], 3000);
  assert.deepEqual(byCursor.machine.lines, byArray.machine.lines);
  assert.ok(sizes.every((size) => size <= 1024) && sizes.length === 3, sizes.join());
});

test('scenario 64, 65: sessions: the table of what becomes of a command', () => {
  const bench = new Bench();
  assert.deepEqual(bench.apply(command(1, 1, 'early')), [ApplyStatus.SessionNotFound]);
  assert.deepEqual(bench.apply(register(1), register(1)), [0, 0]);
  assert.deepEqual(bench.apply(command(1, 1, 'a')), [1]);
  assert.deepEqual(bench.apply(command(1, 1, 'a')), [1], 'tried again: the same answer');
  assert.deepEqual(bench.apply(command(1, 2, 'b'), command(1, 2, 'b')), [2, 2], 'twice in one batch');
  assert.deepEqual(bench.apply(command(1, 3, 'c', 2)), [3]);
  assert.deepEqual(bench.apply(command(1, 2, 'b', 2)), [ApplyStatus.SessionResponded]);
  assert.deepEqual(bench.apply(unregister(1), unregister(1)), [0, 0]);
  assert.deepEqual(bench.apply(command(1, 4, 'late')), [ApplyStatus.SessionNotFound]);
  assert.deepEqual(bench.machine.lines, ['a', 'b', 'c']);
});

test('scenario 63: the least recently used session goes first, and the order is the same after a snapshot', async () => {
  const bench = new Bench(new Journal(), 3);
  bench.apply(register(1), register(2), register(3), command(1, 1, 'used'));
  const copy = new Bench(new Journal(), 3);
  await copy.rsm.recoverImage(cut(await bench.image(), 100), new AbortController().signal);
  for (const one of [bench, copy]) {
    one.apply(register(4));
    assert.deepEqual(one.apply(command(2, 1, 'x')), [ApplyStatus.SessionNotFound], 'session 2 was the oldest');
    assert.deepEqual(one.apply(command(1, 1, 'used')), [1], 'session 1 was used');
    assert.equal(one.rsm.sessionCount, 3);
  }
  assert.equal(copy.rsm.sessionHash(), bench.rsm.sessionHash());
});

test('there are never more sessions than the bound', () => {
  const bench = new Bench();
  const count = SESSIONS_MAX + 100;
  for (let at = 0; at < count; at += 500) {
    bench.apply(...Array.from({ length: Math.min(500, count - at) }, (_, i) => register(at + i + 1)));
  }
  assert.equal(bench.rsm.sessionCount, SESSIONS_MAX);
});

test('an answer that is a view of the command is copied, since those bytes are used again', () => {
  class Echo extends Journal {
    override update(entries: readonly Entry[]): void {
      for (const entry of entries) entry.result = entry.bytes.subarray(entry.offset, entry.offset + entry.lengthBytes);
    }
  }
  const bench = new Bench(new Echo());
  bench.apply(register(1));
  const [answer] = bench.apply(command(1, 1, 'echo')) as [Uint8Array];
  assert.equal(new TextDecoder().decode(answer), 'echo');
  assert.ok(answer.buffer.byteLength < 1000, 'the answer pins its slab');
});

test('scenario 47: an image brings back state, sessions and membership, however it is cut', async () => {
  const bench = new Bench();
  bench.apply(
    register(9),
    command(9, 1, 'one'),
    ...Array.from({ length: 900 }, (_, i) => ({ line: `line ${i} ${'x'.repeat(50)}` })),
  );
  for (let i = 0; i < 12; i++) bench.apply({ line: `${i} ${'y'.repeat(60_000)}` });
  const image = await bench.image();
  assert.ok(image.length > 700_000, 'the image has several blocks');
  for (const size of [7919, 64 * 1024, image.length]) {
    const copy = new Bench();
    await copy.rsm.recoverImage(cut(image, size), new AbortController().signal);
    assert.deepEqual(copy.machine.lines, bench.machine.lines);
    assert.equal(copy.rsm.hash(), bench.rsm.hash());
    assert.equal(copy.rsm.sessionHash(), bench.rsm.sessionHash());
    assert.deepEqual([copy.rsm.appliedIndex, copy.rsm.appliedTerm], [bench.rsm.appliedIndex, 1]);
    assert.deepEqual(copy.rsm.membership, bench.rsm.membership);
    assert.deepEqual(copy.apply(command(9, 1, 'one')), [1]);
  }
});

test('F17: every flipped byte and every cut of an image is noticed before it is used', async () => {
  const bench = new Bench();
  bench.apply(register(1), command(1, 1, 'a'), { line: 'b' }, { line: 'c' });
  const image = await bench.image();
  assert.equal((await verifyImage(cut(image, 64))).index, 4);
  for (let at = 0; at < image.length; at++) {
    const damaged = image.slice();
    damaged[at] ^= 0x20;
    await assert.rejects(verifyImage(cut(damaged, 64)), { code: 'ERR_SNAPSHOT_CORRUPT' }, `byte ${at}`);
  }
  for (let length = 0; length < image.length; length++) {
    await assert.rejects(
      verifyImage(cut(image.subarray(0, length), 64)),
      { code: 'ERR_SNAPSHOT_CORRUPT' },
      `${length} bytes`,
    );
  }
  await assert.rejects(verifyImage(cut(Buffer.concat([image, image.subarray(0, 4)]), 64)), {
    code: 'ERR_SNAPSHOT_CORRUPT',
  });
});

test('scenario 75: an image of another shard is refused', async () => {
  const bench = new Bench();
  bench.apply({ line: 'a' });
  const other = new Rsm({
    shardId: 2,
    replicaId: 1,
    stateMachine: new Journal(),
    membership: initialMembership([[1, 'a:1']]),
  });
  const recovering = other.recoverImage(cut(await bench.image(), 64), new AbortController().signal);
  await assert.rejects(recovering, { code: 'ERR_SNAPSHOT_CORRUPT', message: /of shard 1, not 2/ });
});

test('scenario 56: while an image streams nothing may be applied, and afterwards it may', async () => {
  const bench = new Bench();
  bench.apply({ line: 'a' });
  const chunks = bench.rsm.saveImage(new AbortController().signal)[Symbol.asyncIterator]();
  await chunks.next();
  assert.throws(() => bench.apply({ line: 'b' }), { code: 'ERR_INVARIANT' });
  await chunks.return?.();
  assert.deepEqual(bench.apply({ line: 'b' }), [2]);
});

test('what a state machine throws while it saves or recovers has a code', async () => {
  class Broken extends Journal {
    override *saveSnapshot(): Iterable<Uint8Array> {
      yield text('a');
      throw new Error('no more');
    }
    override async recoverFromSnapshot(): Promise<void> {
      throw new Error('not mine');
    }
  }
  const sound = new Bench();
  sound.apply({ line: 'a' });
  const broken = new Bench(new Broken());
  await assert.rejects(broken.image(), { code: 'ERR_STATE_MACHINE' });
  const recovering = broken.rsm.recoverImage(cut(await sound.image(), 64), new AbortController().signal);
  await assert.rejects(recovering, { code: 'ERR_STATE_MACHINE' });
});

test('sessions survive encoding, also with long answers', () => {
  const sessions = new Sessions();
  for (let client = 1; client <= 5; client++) {
    sessions.register(client, client);
    sessions.use(client, client)!.keep(1, new Uint8Array(client * 1000).fill(client));
    sessions.use(client, client)!.keep(2, client / 3);
  }
  const copy = Sessions.decode(sessions.encode());
  assert.deepEqual(copy.encode(), sessions.encode());
  assert.equal(copy.use(3, 3)!.answers.get(2), 1);
});
