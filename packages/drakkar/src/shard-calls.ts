/** What callers ask of the shards of a host: writes, reads and the log, wherever on the host the shard lives. */
import type { CallOptions, LeaderWatchOptions, LogQueryOptions, ProposeOptions, WatchOptions } from './config.ts';
import { checkCallOptions, checkLeaderWatchOptions, checkLogQueryOptions, checkWatchOptions } from './config-checks.ts';
import type { Leadership } from './engine/leader-watch.ts';
import type { LogEntry } from './engine/log-entries.ts';
import type { LogQueryResult } from './engine/onlookers.ts';
import type { ProposeCallback } from './engine/pending-ring.ts';
import type { HostParts } from './host-parts.ts';
import { HostShards } from './host-shards.ts';
import { queryLog, watch, watchLeader } from './log-requests.ts';
import type { Result } from './rsm/state-machine.ts';
import { Session } from './session.ts';
import type { ShardHandle } from './shard-handle.ts';

const NO_OPTIONS: CallOptions = {};

export abstract class ShardCalls {
  protected readonly parts: HostParts;
  protected readonly shards: HostShards;

  protected constructor(parts: HostParts) {
    this.parts = parts;
    this.shards = new HostShards(parts);
  }

  // Writes and reads.

  /** A handle to a shard of this host that saves the look-up; for hot paths. Valid until the replica stops. */
  shard(shardId: number): ShardHandle {
    return this.shards.handle(shardId);
  }

  /**
   * Replicates `command`; resolves with the state machine's answer once it is applied here. On a follower it is passed on to the
   * leader. Applied at most once, but after `ERR_TIMEOUT` it is unknown whether it was: see `DrakkarError.outcome`.
   *
   * @throws ERR_SHARD_NOT_FOUND, ERR_NO_LEADER, ERR_NOT_LEADER, ERR_SYSTEM_BUSY, ERR_PAYLOAD_TOO_BIG, ERR_TIMEOUT, ERR_ABORTED,
   * ERR_DROPPED, ERR_DISK_FULL, ERR_SHARD_STOPPED, ERR_SHARD_FAILED
   */
  propose(shardId: number, command: Uint8Array, options: ProposeOptions = NO_OPTIONS): Promise<Result> {
    const handle = this.shards.known(shardId);
    if (handle !== undefined) return handle.propose(command, options);
    return this.attempt(() => this.shard(shardId).propose(command, options));
  }

  /** Replicates several commands in order; resolves with all answers, rejects with the first error. */
  proposeBatch(shardId: number, commands: readonly Uint8Array[], options: CallOptions = NO_OPTIONS): Promise<Result[]> {
    return this.attempt(() => this.shard(shardId).proposeBatch(commands, options));
  }

  /** `propose` without a promise, for load generators and gateways. */
  proposeCallback(shardId: number, command: Uint8Array, callback: ProposeCallback, cookie = 0): void {
    this.shard(shardId).proposeCallback(command, callback, cookie);
  }

  /** Opens a session: its commands are applied at most once, and retried until their deadline. */
  async openSession(shardId: number, options: CallOptions = NO_OPTIONS): Promise<Session> {
    checkCallOptions('openSession', options);
    const handle = this.shard(shardId);
    const { waiter } = this.parts;
    const session = new Session(shardId, waiter.env, (...args) => handle.proposeSession(...args), waiter.timeoutMs);
    await session.register(options);
    return session;
  }

  /** Asks the state machine, linearizably: the answer holds every write that was answered before the call (thesis §6.4). */
  read(shardId: number, query: unknown, options: CallOptions = NO_OPTIONS): Promise<unknown> {
    return this.attempt(() => this.shard(shardId).read(query, options));
  }

  /**
   * Asks the state machine of this host as it is now: fast, and possibly behind. With several engines the answer comes from another thread
   * and this gives a promise of it; `await` is right for both.
   */
  staleRead(shardId: number, query: unknown): unknown {
    return this.shard(shardId).staleRead(query);
  }

  // The log.

  /**
   * Committed entries `[firstIndex, lastIndex]` from this host's log. May give fewer than asked for, but at least one: `nextIndex` says
   * where to go on.
   *
   * @throws ERR_LOG_COMPACTED and ERR_LOG_OUT_OF_RANGE, both with the range that is `available`; ERR_SYSTEM_BUSY, ERR_TIMEOUT,
   * ERR_ABORTED, ERR_SHARD_NOT_FOUND, ERR_SHARD_FAILED, ERR_LOG_CORRUPT, ERR_DISK_FAILED
   */
  async queryLog(shardId: number, options: LogQueryOptions): Promise<LogQueryResult> {
    checkLogQueryOptions(options);
    return this.shards.ask(shardId, 'queryLog', [options], options, (replica) =>
      queryLog(replica, options, this.parts.waiter),
    );
  }

  /**
   * A change stream: the committed entries of a shard in order, as long as it is iterated. Every iteration begins anew at `fromIndex`. Ends
   * when the replica is stopped or the host closed; throws ERR_SHARD_FAILED when the replica fails, ERR_LOG_COMPACTED with the
   * range that is `available` when its next entry was given up behind a snapshot, ERR_ABORTED on `signal`, ERR_SYSTEM_BUSY
   * beyond 64 streams of a shard. With several engines the entries come from the shard's thread, in batches and only as fast as they are
   * taken; ERR_ENGINE_FAILED when that thread dies.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND
   */
  watch(shardId: number, options: WatchOptions = {}): AsyncIterable<LogEntry> {
    checkWatchOptions(options);
    this.shards.assertOpen();
    const { threads } = this.parts;
    return threads === undefined ? watch(this.shards.replica(shardId), options) : threads.shard(shardId).watch(options);
  }

  /**
   * Who leads the shard, as this replica knows it: at once what is, then what becomes. Ends as `watch` does.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND
   */
  watchLeader(shardId: number, options: LeaderWatchOptions = {}): AsyncIterable<Leadership> {
    checkLeaderWatchOptions(options);
    this.shards.assertOpen();
    const { threads } = this.parts;
    if (threads !== undefined) return threads.shard(shardId).watchLeader(options);
    return watchLeader(this.shards.replica(shardId), options);
  }

  private attempt<T>(call: () => Promise<T>): Promise<T> {
    try {
      return call();
    } catch (error) {
      return Promise.reject(error);
    }
  }
}
