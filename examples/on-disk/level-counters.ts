/**
 * Counters in LevelDB (`classic-level`): a write batch for each batch of commands holds the changes, the index and the changed sessions, so
 * that a crash leaves all of them or none.
 */
import { ClassicLevel } from 'classic-level';
import type { DiskBatch, DiskRecoveryContext, Entry, OnDiskStateMachine, OpenedState, SessionChange } from 'drakkar';
import { decodeAdd, decodeRows, encodeRows, type Row } from './lines.ts';

type Snapshot = ReturnType<ClassicLevel<string, Uint8Array>['snapshot']>;
type Operation =
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: string };

const INDEX = 'applied';
const COUNTER = 'counter!';
const SESSION = 'session!';
/** All keys with a prefix. */
const range = (prefix: string): { gte: string; lt: string } => ({ gte: prefix, lt: `${prefix.slice(0, -1)}"` });
/** LevelDB's logs are durable only as far as a write with `sync` was acknowledged; with it every batch is, and no sync() is needed. */
const DURABLE = { sync: true } as const;
const LOAD_ROWS = 1000;

const put = (key: string, value: Uint8Array): Operation => ({ type: 'put', key, value });
const putNumber = (key: string, value: number): Operation => put(key, Buffer.from(String(value)));
const numberOf = (value: Uint8Array | undefined): number => (value === undefined ? 0 : Number(Buffer.from(value)));
const sessionOperation = ({ key, value }: SessionChange): Operation =>
  value === undefined ? { type: 'del', key: SESSION + key } : put(SESSION + key, value);

export class LevelCounters implements OnDiskStateMachine<string, Promise<number>, Snapshot> {
  readonly kind = 'on-disk';
  private readonly db: ClassicLevel<string, Uint8Array>;

  constructor(dir: string) {
    this.db = new ClassicLevel(dir, { valueEncoding: 'view' });
  }

  async open(): Promise<OpenedState> {
    await this.db.open();
    const sessions: [string, Uint8Array][] = [];
    for await (const [key, value] of this.db.iterator(range(SESSION)))
      sessions.push([key.slice(SESSION.length), value]);
    return { appliedIndex: numberOf(await this.db.get(INDEX)), sessions };
  }

  async update(entries: readonly Entry[], batch: DiskBatch): Promise<void> {
    const adds = entries.map((entry) => decodeAdd(entry.command));
    const keys = [...new Set(adds.map(({ key }) => key))];
    const found = await this.db.getMany(keys.map((key) => COUNTER + key));
    const values = new Map(keys.map((key, at) => [key, numberOf(found[at])]));
    for (const [at, { key, by }] of adds.entries()) {
      const value = values.get(key)! + by;
      values.set(key, value);
      entries[at].result = value;
    }
    const operations = [...values].map(([key, value]) => putNumber(COUNTER + key, value));
    operations.push(...batch.sessionChanges().map(sessionOperation)); // the results are set: their sessions remember them
    operations.push(putNumber(INDEX, batch.index));
    await this.db.batch(operations, DURABLE);
  }

  async lookup(key: string): Promise<number> {
    return numberOf(await this.db.get(COUNTER + key));
  }

  prepareSnapshot(): Snapshot {
    return this.db.snapshot();
  }

  saveSnapshot(snapshot: Snapshot): AsyncIterable<Uint8Array> {
    const entries = this.db.iterator({ ...range(COUNTER), snapshot });
    async function* rows(): AsyncGenerator<Row> {
      for await (const [key, value] of entries) yield [key.slice(COUNTER.length), numberOf(value)];
    }
    return encodeRows(rows());
  }

  async releaseSnapshot(snapshot: Snapshot): Promise<void> {
    await snapshot.close();
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: DiskRecoveryContext): Promise<void> {
    // Too large for one batch: until the last one the store says that it has nothing, and a crash begins the recovery anew.
    await this.db.batch([putNumber(INDEX, 0)], DURABLE);
    await this.db.clear(range(COUNTER));
    await this.db.clear(range(SESSION));
    let operations: Operation[] = [];
    for await (const [key, value] of decodeRows(image)) {
      operations.push(putNumber(COUNTER + key, value));
      if (operations.length < LOAD_ROWS) continue;
      await this.db.batch(operations);
      operations = [];
    }
    operations.push(...context.sessions.map(sessionOperation), putNumber(INDEX, context.index));
    await this.db.batch(operations, DURABLE);
  }

  async close(): Promise<void> {
    await this.db.close();
  }
}
