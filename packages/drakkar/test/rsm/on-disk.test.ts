/** On-disk state machines under the replicated one: batches, sessions in the same write, what is refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DiskBatch, DiskRecoveryContext, Entry, OnDiskStateMachine, OpenedState, SessionChange } from 'drakkar';
import { ApplyStatus, type ApplySink } from '../../src/rsm/apply-sink.ts';
import { capture, open, readImage } from '../../src/rsm/captures.ts';
import { Rsm } from '../../src/rsm/rsm.ts';
import { EntryType, putEntry, putSessionEntry } from '../../src/wire/entry.ts';
import { initialMembership } from '../../src/wire/membership.ts';
import { Slab } from '../../src/wire/slab.ts';
import { text } from '../support.ts';

const NONCE = 77;
const never = new AbortController().signal;
const untext = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** What is on the disk: survives its `Lines`. */
class Disk {
  lines: string[] = [];
  index = 0;
  sessions = new Map<string, Uint8Array>();
  readonly batches: number[] = [];

  take(changes: readonly SessionChange[]): void {
    for (const { key, value } of changes) {
      if (value === undefined) this.sessions.delete(key);
      else this.sessions.set(key, value);
    }
  }
}

/** Answers a line with its number. */
class Lines implements OnDiskStateMachine<undefined, readonly string[], string[]> {
  readonly kind = 'on-disk';
  readonly disk: Disk;
  released = 0;

  constructor(disk: Disk) {
    this.disk = disk;
  }

  open(): OpenedState {
    return { appliedIndex: this.disk.index, sessions: this.disk.sessions };
  }

  async update(entries: readonly Entry[], batch: DiskBatch): Promise<void> {
    const { disk } = this;
    const lines = [...disk.lines];
    for (const entry of entries) entry.result = lines.push(untext(entry.command));
    const changes = batch.sessionChanges();
    await Promise.resolve();
    disk.take(changes);
    disk.lines = lines;
    disk.index = batch.index;
    disk.batches.push(entries.length);
  }

  lookup(): readonly string[] {
    return this.disk.lines;
  }

  prepareSnapshot(): string[] {
    return this.disk.lines;
  }

  *saveSnapshot(lines: string[]): Iterable<Uint8Array> {
    yield text(JSON.stringify(lines));
  }

  releaseSnapshot(): void {
    this.released++;
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: DiskRecoveryContext): Promise<void> {
    this.disk.lines = JSON.parse(untext(Buffer.concat(await Array.fromAsync(image)))) as string[];
    this.disk.index = context.index;
    this.disk.sessions = new Map();
    this.disk.take(context.sessions);
  }
}

interface Command {
  readonly type?: EntryType;
  readonly line?: string;
  readonly client?: number;
  readonly series?: number;
}

const register = (client: number): Command => ({ type: EntryType.SessionRegister, client });
const command = (client: number, series: number, line: string): Command => ({
  type: EntryType.SessionCommand,
  client,
  series,
  line,
});

async function opened(machine: OnDiskStateMachine, maxSessions?: number): Promise<Rsm> {
  const membership = initialMembership([[1, 'a:1']]);
  const bound = maxSessions === undefined ? {} : { maxSessions };
  const rsm = new Rsm({ shardId: 1, replicaId: 1, stateMachine: machine, membership, ...bound });
  await open(rsm, never);
  return rsm;
}

/** Applies a log from the replica's index on, in as many batches as it takes. */
async function apply(rsm: Rsm, log: readonly Command[]): Promise<unknown[]> {
  const slab = new Slab(1024 * 1024);
  const words: number[] = [];
  let end = 0;
  for (const [at, { type = EntryType.Command, line = '', client, series = 0 }] of log.entries()) {
    words.push(end);
    const fields = { clientHigh: 0, clientLow: client ?? 0, series, respondedTo: 0 };
    end =
      client === undefined
        ? putEntry(slab.u8, slab.u32, end, type, at, NONCE, text(line))
        : putSessionEntry(slab.u8, slab.u32, end, type, at, NONCE, fields, text(line));
  }
  const answers: unknown[] = [];
  const sink: ApplySink = {
    nonce: NONCE,
    applied: (at, _index, status, result) => {
      answers[at] = status === ApplyStatus.Ok ? result : status;
    },
  };
  for (let at = rsm.appliedIndex; at < log.length; at = rsm.appliedIndex) {
    const taken = rsm.gather(slab.u8, slab.u32, words[at], at + 1, log.length - at, 1, sink);
    assert.ok(taken > 0);
    await rsm.store(sink);
  }
  return answers;
}

const LOG = [register(1), command(1, 1, 'a'), { line: 'b' }, command(1, 1, 'a'), command(1, 2, 'c'), { line: 'd' }];

test('entries are stored in batches with index and sessions; a retry ends a batch', async () => {
  const disk = new Disk();
  const rsm = await opened(new Lines(disk));
  assert.deepEqual(await apply(rsm, LOG), [0, 1, 2, 1, 3, 4]);
  assert.deepEqual(disk.lines, ['a', 'b', 'c', 'd']);
  assert.equal(disk.index, 6);
  assert.deepEqual(disk.batches, [2, 2], 'the second try waits for the answer to the first');
  assert.equal(disk.sessions.size, 1);
});

test('F15: whatever was stored at the crash, the log gives the same state, answers and sessions', async () => {
  const whole = await opened(new Lines(new Disk()));
  await apply(whole, LOG);
  for (let stop = 0; stop <= LOG.length; stop++) {
    const disk = new Disk();
    await apply(await opened(new Lines(disk)), LOG.slice(0, stop));
    const storedIndex = disk.index;
    const again = await opened(new Lines(disk));
    assert.equal(again.openIndex, storedIndex);
    const answers = await apply(again, LOG);
    assert.deepEqual(disk.lines, ['a', 'b', 'c', 'd'], `stopped at ${stop}`);
    assert.equal(again.sessionHash(), whole.sessionHash(), `stopped at ${stop}`);
    // What it had stored it answers nobody; the rest as if nothing had happened.
    for (const [at, answer] of [0, 1, 2, 1, 3, 4].entries()) {
      if (at >= storedIndex) assert.equal(answers[at], answer, `entry ${at + 1}, stopped at ${stop}`);
    }
  }
});

test('the order in which sessions are forgotten survives the store', async () => {
  const disk = new Disk();
  const log = [register(1), register(2), register(3), command(1, 1, 'used')];
  await apply(await opened(new Lines(disk), 3), log);
  const again = await opened(new Lines(disk), 3);
  const more = [...log, register(4), command(2, 1, 'x'), command(1, 1, 'used'), { line: 'y' }];
  const answers = await apply(again, more);
  assert.deepEqual(answers.slice(4), [0, ApplyStatus.SessionNotFound, 1, 2]);
  assert.deepEqual(
    [...disk.sessions.keys()].sort(),
    [1, 3, 4].map((id) => id.toString(16).padStart(16, '0')),
  );
});

test('index and sessions without a command are stored when a snapshot asks for it', async () => {
  const disk = new Disk();
  const rsm = await opened(new Lines(disk));
  await apply(rsm, [register(1), register(2)]);
  assert.deepEqual([disk.index, disk.sessions.size], [0, 0]);
  await rsm.storeIndex();
  assert.deepEqual([disk.index, disk.sessions.size, disk.batches], [2, 2, [0]]);
});

test('an image goes from store to store, with sessions, and what was prepared is released once', async () => {
  const from = new Lines(new Disk());
  const rsm = await opened(from);
  await apply(rsm, LOG);
  const image = capture(rsm, never);
  await apply(rsm, [...LOG, { line: 'later' }]);
  const other = new Lines(new Disk());
  other.disk.lines = ['what was there'];
  const copy = await opened(other);
  await (await readImage(copy, image.chunks)).recover(never);
  await Promise.all([image.release(), image.release()]);
  assert.equal(from.released, 1);
  assert.deepEqual(other.disk.lines, ['a', 'b', 'c', 'd']);
  assert.deepEqual([other.disk.index, copy.appliedIndex, copy.openIndex], [6, 6, 6]);
  const reopened = await opened(new Lines(other.disk));
  assert.equal(reopened.sessionHash(), copy.sessionHash());
});

test('a store that forgets to ask for the session changes fails, and so does one that rejects or gives no index', async () => {
  class Forgetful extends Lines {
    override async update(_entries: readonly Entry[], batch: DiskBatch): Promise<void> {
      this.disk.index = batch.index;
    }
  }
  await assert.rejects(apply(await opened(new Forgetful(new Disk())), LOG), { code: 'ERR_STATE_MACHINE' });
  class Full extends Lines {
    override async update(): Promise<void> {
      throw new Error('no room');
    }
  }
  await assert.rejects(apply(await opened(new Full(new Disk())), LOG), { code: 'ERR_STATE_MACHINE' });
  class Odd extends Lines {
    override open(): OpenedState {
      return { appliedIndex: -1 };
    }
  }
  await assert.rejects(opened(new Odd(new Disk())), { code: 'ERR_STATE_MACHINE' });
});

test('a store without a session table refuses sessions', async () => {
  class Plain extends Lines {
    override open(): OpenedState {
      return { appliedIndex: this.disk.index };
    }
  }
  const rsm = await opened(new Plain(new Disk()));
  const { NoSessions } = ApplyStatus;
  assert.deepEqual(await apply(rsm, LOG), [NoSessions, NoSessions, 1, NoSessions, NoSessions, 2]);
});
