/**
 * Counters in SQLite (`node:sqlite`): a transaction for each batch holds the changes, the index and the changed sessions, so that a crash
 * leaves all of them or none.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync as Database, StatementSync } from 'node:sqlite';
import type { DiskBatch, DiskRecoveryContext, Entry, OnDiskStateMachine, OpenedState, SessionChange } from 'drakkar';
import { decodeAdd, decodeRows, encodeRows, type Row } from './lines.ts';

/** Some versions of Node call SQLite experimental at every start; that one warning is kept back, no other. */
async function loadSqlite(): Promise<typeof import('node:sqlite')> {
  const emitWarning = process.emitWarning.bind(process);
  process.emitWarning = (warning: string | Error, ...rest: any[]): void => {
    if (!String(warning).includes('SQLite is an experimental feature')) emitWarning(warning, ...rest);
  };
  try {
    return await import('node:sqlite');
  } finally {
    process.emitWarning = emitWarning;
  }
}

const { DatabaseSync } = await loadSqlite();

const SCHEMA = `
  PRAGMA journal_mode = WAL;    -- a snapshot reads its own version while updates go on
  PRAGMA synchronous = FULL;    -- what is committed is durable, so that no sync() is needed
  CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS applied (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL);
  INSERT OR IGNORE INTO applied VALUES (1, 0);`;

export class SqliteCounters implements OnDiskStateMachine<string, number, Database> {
  readonly kind = 'on-disk';
  private readonly path: string;
  private db!: Database;
  private add!: StatementSync;
  private find!: StatementSync;
  private putSession!: StatementSync;
  private dropSession!: StatementSync;
  private setApplied!: StatementSync;

  constructor(dir: string) {
    mkdirSync(dir, { recursive: true });
    this.path = join(dir, 'counters.sqlite');
  }

  open(): OpenedState {
    this.db = new DatabaseSync(this.path);
    this.db.exec(SCHEMA);
    this.add = this.db.prepare(
      'INSERT INTO counters VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value RETURNING value',
    );
    this.find = this.db.prepare('SELECT value FROM counters WHERE key = ?');
    this.putSession = this.db.prepare('INSERT OR REPLACE INTO sessions VALUES (?, ?)');
    this.dropSession = this.db.prepare('DELETE FROM sessions WHERE key = ?');
    this.setApplied = this.db.prepare('UPDATE applied SET position = ?');
    const { position } = this.db.prepare('SELECT position FROM applied').get() as { position: number };
    const sessions = this.db.prepare('SELECT key, value FROM sessions').all() as { key: string; value: Uint8Array }[];
    return { appliedIndex: position, sessions: sessions.map(({ key, value }) => [key, value] as const) };
  }

  update(entries: readonly Entry[], batch: DiskBatch): void {
    this.transaction(() => {
      for (const entry of entries) {
        const { key, by } = decodeAdd(entry.command);
        entry.result = (this.add.get(key, by) as { value: number }).value;
      }
      this.store(batch.index, batch.sessionChanges()); // the results are set: their sessions remember them
    });
  }

  private store(index: number, sessions: readonly SessionChange[]): void {
    for (const { key, value } of sessions) {
      if (value === undefined) this.dropSession.run(key);
      else this.putSession.run(key, value);
    }
    this.setApplied.run(index);
  }

  private transaction(work: () => void): void {
    this.db.exec('BEGIN IMMEDIATE');
    try {
      work();
      this.db.exec('COMMIT');
    } catch (error) {
      this.db.exec('ROLLBACK');
      throw error;
    }
  }

  lookup(key: string): number {
    return (this.find.get(key) as { value: number } | undefined)?.value ?? 0;
  }

  /** A connection of its own whose transaction sees the database as it is now. */
  prepareSnapshot(): Database {
    const reader = new DatabaseSync(this.path, { readOnly: true });
    reader.exec('BEGIN');
    reader.prepare('SELECT position FROM applied').get(); // a transaction begins with its first read
    return reader;
  }

  saveSnapshot(reader: Database): AsyncIterable<Uint8Array> {
    const rows = reader.prepare('SELECT key, value FROM counters ORDER BY key').iterate();
    function* pairs(): IterableIterator<Row> {
      for (const { key, value } of rows as Iterable<{ key: string; value: number }>) yield [key, value];
    }
    return encodeRows(pairs());
  }

  releaseSnapshot(reader: Database): void {
    reader.close();
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>, context: DiskRecoveryContext): Promise<void> {
    // Into a table beside, since the image comes piece by piece; then all at once.
    this.db.exec('DROP TABLE IF EXISTS incoming; CREATE TABLE incoming (key TEXT PRIMARY KEY, value INTEGER NOT NULL)');
    const insert = this.db.prepare('INSERT INTO incoming VALUES (?, ?)');
    for await (const [key, value] of decodeRows(image)) insert.run(key, value);
    this.transaction(() => {
      this.db.exec('DELETE FROM counters; DELETE FROM sessions');
      this.db.exec('INSERT INTO counters SELECT key, value FROM incoming; DROP TABLE incoming');
      this.store(context.index, context.sessions);
    });
  }

  close(): void {
    this.db?.close();
  }
}
