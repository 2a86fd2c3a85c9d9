/**
 * The store of the project's own runs as an on-disk and as a concurrent state machine. On disk it is a journal: a record for each batch with
 * values, index and changed sessions, each with a checksum that goes on from the one before it, so that a crash cuts the journal off
 * somewhere and nothing behind the cut is believed.
 */
import type { Env, File } from '../env/env.ts';
import type {
  ConcurrentStateMachine,
  DiskBatch,
  DiskRecoveryContext,
  Entry,
  OnDiskStateMachine,
  OpenedState,
  SessionChange,
  SnapshotContext,
} from '../rsm/state-machine.ts';
import { Store } from './store.ts';
import type { MachinePlace } from './workload.ts';

type Values = readonly (readonly [key: string, value: number])[];

/** What is true once a record is stored. */
interface JournalRecord {
  readonly index: number;
  /** Of all commands ever applied, in order: tells a command that was applied twice. */
  readonly digest: number;
  readonly values: Values;
  readonly sessions: readonly (readonly [key: string, value: readonly number[] | null])[];
}

const HEADER_BYTES = 8;
const PIECE_BYTES = 40;
/** Between two pieces of an image, so that updates go on meanwhile. */
const PIECE_MS = 0.5;
const text = new TextEncoder();
const untext = new TextDecoder();

const rowsOf = (changes: readonly SessionChange[]): JournalRecord['sessions'] =>
  changes.map(({ key, value }) => [key, value === undefined ? null : [...value]]);

function hashOf(bytes: Uint8Array, seed: number): number {
  let hash = seed ^ 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash >>> 0;
}

async function* pieces(env: Env, value: unknown): AsyncGenerator<Uint8Array> {
  const bytes = text.encode(JSON.stringify(value));
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    yield bytes.subarray(at, at + PIECE_BYTES);
    await new Promise<void>((resolve) => void env.scheduler.after(PIECE_MS, resolve));
  }
}

async function parse(image: AsyncIterable<Uint8Array>): Promise<unknown> {
  let json = '';
  for await (const chunk of image) json += untext.decode(chunk);
  return JSON.parse(json);
}

/** Holds what was prepared to account: released exactly once. */
class Releases {
  private readonly prepared = new Set<object>();

  prepare<T extends object>(value: T): T {
    this.prepared.add(value);
    return value;
  }

  release(value: object): void {
    if (!this.prepared.delete(value)) throw new Error('a prepared snapshot was released twice');
  }
}

export class ConcurrentStore implements ConcurrentStateMachine<string, number | null, Values> {
  readonly kind = 'concurrent';
  private readonly store = new Store();
  private readonly env: Env;
  private readonly releases = new Releases();

  constructor({ env }: MachinePlace) {
    this.env = env;
  }

  update(entries: readonly Entry[]): void {
    this.store.update(entries);
  }

  lookup(key: string): number | null {
    return this.store.lookup(key);
  }

  prepareSnapshot(): Values {
    return this.releases.prepare(this.store.all());
  }

  saveSnapshot(prepared: Values): AsyncIterable<Uint8Array> {
    return pieces(this.env, prepared);
  }

  releaseSnapshot(prepared: Values): void {
    this.releases.release(prepared);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
    this.store.load((await parse(image)) as Values);
  }

  hash(): number {
    return this.store.hash();
  }
}

export class DiskStore implements OnDiskStateMachine<string, Promise<number | null>, JournalRecord> {
  readonly kind = 'on-disk';
  private readonly env: Env;
  private readonly dir: string;
  private readonly store = new Store();
  private readonly releases = new Releases();
  private readonly sessions = new Map<string, readonly number[]>();
  private index = 0;
  private digest = 0;
  private journal: File | undefined;
  private endBytes = 0;
  private checksum = 0;

  constructor({ env, dir }: MachinePlace) {
    this.env = env;
    this.dir = dir;
  }

  async open(_context?: SnapshotContext): Promise<OpenedState> {
    const { fs } = this.env;
    await fs.makeDirectory(this.dir);
    const path = `${this.dir}/journal`;
    const stat = await fs.stat(path);
    if (stat !== undefined) {
      const file = await fs.open(path, 'read');
      const bytes = new Uint8Array(stat.sizeBytes);
      await file.read(bytes, 0, bytes.length, 0);
      await file.close();
      this.replay(bytes);
    }
    // What was read may be of a flush that failed, and not on the disk at all: it is written anew (fault F5).
    await this.rewrite();
    const sessions = [...this.sessions].map(([key, value]): [string, Uint8Array] => [key, Uint8Array.from(value)]);
    return { appliedIndex: this.index, sessions };
  }

  private replay(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    let seed = 0;
    for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
      const length = view.getUint32(at, true);
      const body = bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length);
      if (length === 0 || body.length < length || view.getUint32(at + 4, true) !== hashOf(body, seed)) return;
      seed = hashOf(body, seed);
      this.take(JSON.parse(untext.decode(body)) as JournalRecord);
      at += HEADER_BYTES + length;
    }
  }

  private take({ index, digest, values, sessions }: JournalRecord): void {
    this.index = index;
    this.digest = digest;
    this.store.load(values);
    for (const [key, value] of sessions) {
      if (value === null) this.sessions.delete(key);
      else this.sessions.set(key, value);
    }
  }

  /** A new journal with one record in place of the old. */
  private async rewrite(): Promise<void> {
    const { fs } = this.env;
    const temporary = `${this.dir}/journal.new`;
    await fs.remove(temporary);
    this.journal = await fs.open(temporary, 'create');
    this.endBytes = this.checksum = 0;
    await this.append({ ...this.state(), sessions: [...this.sessions] });
    await this.journal.sync();
    await fs.rename(temporary, `${this.dir}/journal`);
    await fs.syncDirectory(this.dir);
  }

  private state(): Omit<JournalRecord, 'sessions'> {
    return { index: this.index, digest: this.digest, values: this.store.all() };
  }

  private append(record: JournalRecord): Promise<void> {
    const body = text.encode(JSON.stringify(record));
    const bytes = new Uint8Array(HEADER_BYTES + body.length);
    const view = new DataView(bytes.buffer);
    this.checksum = hashOf(body, this.checksum);
    view.setUint32(0, body.length, true);
    view.setUint32(4, this.checksum, true);
    bytes.set(body, HEADER_BYTES);
    const at = this.endBytes;
    this.endBytes += bytes.length;
    return new Promise((resolve, reject) => {
      this.journal!.write(bytes, 0, bytes.length, at, (error) => (error === null ? resolve() : reject(error)));
    });
  }

  async update(entries: readonly Entry[], batch: DiskBatch): Promise<void> {
    this.store.update(entries);
    for (const { bytes, offset, lengthBytes } of entries) {
      this.digest = hashOf(bytes.subarray(offset, offset + lengthBytes), this.digest);
    }
    this.index = batch.index;
    const record: JournalRecord = { ...this.state(), sessions: rowsOf(batch.sessionChanges()) };
    this.take(record);
    await this.append(record);
  }

  async sync(): Promise<void> {
    await this.journal!.sync();
  }

  async lookup(key: string): Promise<number | null> {
    return this.store.lookup(key);
  }

  prepareSnapshot(): JournalRecord {
    return this.releases.prepare({ ...this.state(), sessions: [] });
  }

  saveSnapshot(prepared: JournalRecord): AsyncIterable<Uint8Array> {
    return pieces(this.env, prepared);
  }

  releaseSnapshot(prepared: JournalRecord): void {
    this.releases.release(prepared);
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, { index, sessions }: DiskRecoveryContext): Promise<void> {
    const record = (await parse(image)) as JournalRecord;
    this.sessions.clear();
    this.take({ ...record, index, sessions: rowsOf(sessions) });
    await this.rewrite();
  }

  hash(): number {
    return (this.store.hash() ^ this.digest) >>> 0;
  }

  async close(): Promise<void> {
    await this.journal?.close();
  }
}
