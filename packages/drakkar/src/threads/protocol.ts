/** What a host and its threads say to each other. Both ends are of one version: nothing here is checked. */
import type { EnginePaths } from '../engine/directory.ts';
import type { ShardView } from '../registry/shard-views.ts';
import type { HostIdentity } from '../transport/transport.ts';
import type { EntryType, SessionFields } from '../wire/entry.ts';

/** The thread's part of a host, as it is told to open it. */
export interface Opening {
  /** Options of the host that can be cloned. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly identity: HostIdentity;
  /** That its directory may hold. */
  readonly format: number;
  readonly engines: readonly EnginePaths[];
  /** The host asks a registry for addresses; without one they never change. */
  readonly hasRegistry: boolean;
  /** That registry is told of shards. */
  readonly wantsShards: boolean;
}

/** One engine, as its thread has opened it. */
export interface EngineReport {
  readonly number: number;
  /** `host:port` that the other hosts reach it at. */
  readonly address: string;
  /** Shards that its log holds. */
  readonly shardIds: readonly number[];
  /** Of these, the ones whose replica here was removed, with its id. */
  readonly removed: readonly (readonly [shardId: number, replicaId: number])[];
  /** Packed; set when its log is damaged at large. */
  readonly damage: unknown;
}

/** What makes a command one of a session. */
export type SessionEntry = readonly [type: EntryType, fields: SessionFields];

/** A read: shard, number of the read, query, ticks until it gives up; 0 ticks: a stale one. */
export type ReadRequest = readonly [shardId: number, id: number, query: unknown, ticks: number];
/** Number of the read, its value, and the packed error when there is none. */
export type ReadAnswer = readonly [id: number, value: unknown, error: unknown];

export type ToThread =
  | { readonly kind: 'open'; readonly id: number; readonly opening: Opening }
  /** `method` of the host in the thread. A signal cannot be cloned: it stood in the options at `signalAt`. */
  | {
      readonly kind: 'call';
      readonly id: number;
      readonly method: string;
      readonly args: readonly unknown[];
      readonly signalAt: number | undefined;
      /** The method gets a function behind its arguments: what it is called with comes back as `told`. */
      readonly tells?: boolean;
    }
  | { readonly kind: 'abort'; readonly id: number }
  /** Commands of one turn (`command-batch.ts`). */
  | { readonly kind: 'propose'; readonly buffer: ArrayBuffer }
  | { readonly kind: 'read'; readonly reads: readonly ReadRequest[] }
  | { readonly kind: 'condemned'; readonly error: unknown }
  /** The directory may hold this one from now on. */
  | { readonly kind: 'format'; readonly format: number }
  /** The answer to `enableFormat`, in the order of the questions. */
  | { readonly kind: 'formatEnabled'; readonly error: unknown }
  | { readonly kind: 'address'; readonly target: string; readonly address: string | undefined };

export type FromThread =
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown; readonly error: unknown }
  | { readonly kind: 'told'; readonly id: number; readonly value: unknown }
  /** Answers of one turn (`answer-batch.ts`), and how many bytes of commands were taken over. */
  | {
      readonly kind: 'answers';
      readonly buffer: ArrayBuffer;
      readonly errors: readonly unknown[];
      readonly taken: number;
    }
  | { readonly kind: 'read'; readonly answers: readonly ReadAnswer[] }
  | { readonly kind: 'event'; readonly name: string; readonly payload: unknown }
  | { readonly kind: 'log'; readonly level: string; readonly fields: unknown; readonly message: string }
  | { readonly kind: 'condemn'; readonly newestStart: number }
  | { readonly kind: 'enableFormat'; readonly format: number }
  | { readonly kind: 'resolve'; readonly target: string }
  | { readonly kind: 'shard'; readonly view: ShardView };

/** A question that is answered at once: a method without promise of the host in the thread. */
export interface Question {
  readonly method: string;
  readonly args: readonly unknown[];
}
export interface Reply {
  readonly value: unknown;
  readonly error: unknown;
}
