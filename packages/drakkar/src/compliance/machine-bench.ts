/** What the cases for state machines stand on: a log of commands with and without sessions, applied as a replica would. */
import type { Env } from '../env/env.ts';
import { ApplyStatus, type ApplySink } from '../rsm/apply-sink.ts';
import { capture, open, readImage, type Capture } from '../rsm/captures.ts';
import { Rsm } from '../rsm/rsm.ts';
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import { EntryType, entryWords, putEntry, putSessionEntry } from '../wire/entry.ts';
import { initialMembership } from '../wire/membership.ts';
import { Slab } from '../wire/slab.ts';

const NONCE = 7;
const SHARD_ID = 1;
/** Of the commands, these come through a session, and of those some twice. */
const SESSION_EVERY = 3;
const RETRY_EVERY = 4;

export const never: AbortSignal = new AbortController().signal;

/** Where a state machine under test lives. */
export interface StateMachinePlace {
  readonly env: Env;
  /** For it alone; the same for those that are to find what it stored. Not there at first. */
  readonly dir: string;
}

/** The entries of a shard, the first at index 1. */
export class CommandLog {
  private readonly slab: Slab;
  private readonly words: number[] = [];

  constructor(command: (n: number) => Uint8Array, count: number) {
    const commands = Array.from({ length: count }, (_, n) => command(n));
    const bytes = commands.reduce((sum, { length }) => sum + 2 * (length + 64), 256);
    this.slab = new Slab(bytes);
    let end = 0;
    let series = 0;
    const put = (type: EntryType, payload: Uint8Array, isSession: boolean): void => {
      const { u8, u32 } = this.slab;
      const sequence = this.words.push(end);
      const fields = { clientHigh: 1, clientLow: 2, series, respondedTo: 0 };
      end = isSession
        ? putSessionEntry(u8, u32, end, type, sequence, NONCE, fields, payload)
        : putEntry(u8, u32, end, type, sequence, NONCE, payload);
    };
    put(EntryType.SessionRegister, new Uint8Array(0), true);
    for (const [n, payload] of commands.entries()) {
      const isSession = n % SESSION_EVERY === 0;
      if (isSession) series++;
      put(isSession ? EntryType.SessionCommand : EntryType.Command, payload, isSession);
      if (isSession && series % RETRY_EVERY === 0) put(EntryType.SessionCommand, payload, true);
    }
  }

  get lastIndex(): number {
    return this.words.length;
  }

  /** Applies what follows, up to `toIndex`, `step` entries at a time; gives the answers by index. */
  async apply(rsm: Rsm, toIndex: number, step: number): Promise<Map<number, unknown>> {
    const answers = new Map<number, unknown>();
    const sink: ApplySink = {
      nonce: NONCE,
      applied: (index, _, status, result) => {
        const value = typeof result === 'number' ? result : [...result];
        answers.set(index, status === ApplyStatus.Ok ? value : `status ${status}`);
      },
    };
    const { u8, u32 } = this.slab;
    while (rsm.appliedIndex < toIndex) {
      const from = rsm.appliedIndex + 1;
      const count = Math.min(step, toIndex - rsm.appliedIndex);
      const word = this.words[from - 1];
      if (rsm.isOnDisk) {
        rsm.gather(u8, u32, word, from, count, 1, sink);
        await rsm.store(sink);
      } else rsm.apply(u8, u32, word, from, count, 1, sink);
    }
    return answers;
  }

  /** Bytes of the entries, for those who want to know. */
  get sizeBytes(): number {
    const last = this.words.at(-1)!;
    return (last + entryWords(this.slab.u32, last)) << 2;
  }
}

export async function start(stateMachine: AnyStateMachine): Promise<Rsm> {
  const membership = initialMembership([[1, 'host1:7000']]);
  const rsm = new Rsm({ shardId: SHARD_ID, replicaId: 1, stateMachine, membership });
  await open(rsm, never);
  // The log of these cases has no snapshot behind it: everything is gone through again.
  return rsm;
}

export async function imageOf(rsm: Rsm): Promise<Uint8Array[]> {
  return collect(capture(rsm, never));
}

export async function collect(image: Capture): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of image.chunks) chunks.push(chunk.slice());
  } finally {
    await image.release();
  }
  return chunks;
}

/** As it would arrive: in pieces of `size` bytes. */
export async function recover(rsm: Rsm, image: readonly Uint8Array[], size: number): Promise<void> {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (const chunk of image) {
      for (let at = 0; at < chunk.length; at += size) yield chunk.subarray(at, at + size);
    }
  }
  await (await readImage(rsm, pieces())).recover(never);
}
