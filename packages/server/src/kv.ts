/**
 * Keys over shards: finds a key's shard, writes and reads it, and tries again where that is certainly safe. Knows nothing of HTTP.
 */
import { DrakkarError, type NodeHost } from 'drakkar';
import { Operation, encodeCommand } from './commands.ts';
import type { Found, Listed } from './store.ts';

/** Time for one request, unless it says otherwise; the host's own default is the same. */
export const TIMEOUT_MS = 5000;
const RETRY_MS = 25;

/** Told once: an error, or the answer of the write. */
export type Done = (error: unknown, answer: number) => void;

export interface Deadline {
  /** Milliseconds left. */
  leftMs(): number;
}

export function deadlineIn(timeoutMs: number): Deadline {
  const end = performance.now() + timeoutMs;
  return { leftMs: () => Math.floor(end - performance.now()) };
}

/** FNV-1a of the key; shards are numbered from 1. Part of the data's layout: the count of shards must not change. */
export function shardOfKey(key: string, shardCount: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return ((hash >>> 0) % shardCount) + 1;
}

export class ShardedStore {
  private readonly host: NodeHost;
  readonly shardCount: number;

  constructor(host: NodeHost, shardCount: number) {
    this.host = host;
    this.shardCount = shardCount;
  }

  shardOf(key: string): number {
    return shardOfKey(key, this.shardCount);
  }

  put(key: string, value: Uint8Array, deadline: Deadline): Promise<number> {
    return this.write(key, encodeCommand(Operation.Put, key, value), deadline);
  }

  /** `version` 0: only when there is no such key. Gives the new version, or a conflict (`isConflict`). */
  putIf(key: string, value: Uint8Array, version: number, deadline: Deadline): Promise<number> {
    return this.write(key, encodeCommand(Operation.PutIf, key, value, version), deadline);
  }

  delete(key: string, deadline: Deadline): Promise<number> {
    return this.write(key, encodeCommand(Operation.Delete, key), deadline);
  }

  deleteIf(key: string, version: number, deadline: Deadline): Promise<number> {
    return this.write(key, encodeCommand(Operation.DeleteIf, key, undefined, version), deadline);
  }

  /** `put` in the default time, without a promise. */
  putThen(key: string, value: Uint8Array, done: Done): void {
    this.writeThen(key, encodeCommand(Operation.Put, key, value), done);
  }

  deleteThen(key: string, done: Done): void {
    this.writeThen(key, encodeCommand(Operation.Delete, key), done);
  }

  private writeThen(key: string, command: Uint8Array, done: Done): void {
    const deadline = deadlineIn(TIMEOUT_MS);
    const onError = (error: unknown): void => {
      if (!isSafeToRepeat(error)) done(error, 0);
      else
        this.write(key, command, deadline).then(
          (answer) => done(null, answer),
          (last: unknown) => done(last, 0),
        );
    };
    try {
      this.host.proposeCallback(this.shardOf(key), command, (error, answer) => {
        if (error === null) done(null, answer as number);
        else onError(error);
      });
    } catch (error) {
      onError(error);
    }
  }

  private async write(key: string, command: Uint8Array, deadline: Deadline): Promise<number> {
    const shardId = this.shardOf(key);
    return (await untilDeadline(deadline, (timeoutMs) => this.host.propose(shardId, command, { timeoutMs }))) as number;
  }

  async get(key: string, deadline: Deadline): Promise<Found | undefined> {
    const shardId = this.shardOf(key);
    const query = { kind: 'get', key };
    return (await untilDeadline(deadline, (timeoutMs) => this.host.read(shardId, query, { timeoutMs }))) as
      | Found
      | undefined;
  }

  /** From this host's memory, possibly behind. */
  async getStale(key: string): Promise<Found | undefined> {
    return (await this.host.staleRead(this.shardOf(key), { kind: 'get', key })) as Found | undefined;
  }

  /** Keys with `prefix` behind `after`, sorted. Each shard is read linearizably; the shards are read one by one. */
  async list(prefix: string, after: string, limit: number, deadline: Deadline): Promise<Listed[]> {
    const query = { kind: 'list', prefix, after, limit };
    const parts: Listed[][] = [];
    for (let shardId = 1; shardId <= this.shardCount; shardId++) {
      parts.push(
        (await untilDeadline(deadline, (timeoutMs) => this.host.read(shardId, query, { timeoutMs }))) as Listed[],
      );
    }
    const merged = parts.flat().sort((a, b) => (a.key < b.key ? -1 : 1));
    return merged.slice(0, limit);
  }
}

function isSafeToRepeat(error: unknown): boolean {
  return DrakkarError.is(error) && error.retryable && error.outcome === 'not-applied';
}

/** Tries until the deadline, again only after errors that say that nothing was done. */
async function untilDeadline<T>(deadline: Deadline, attempt: (timeoutMs: number) => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt(Math.max(1, deadline.leftMs()));
    } catch (error) {
      if (!isSafeToRepeat(error) || deadline.leftMs() <= RETRY_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
