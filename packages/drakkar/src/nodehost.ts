/**
 * `NodeHost`: one per process and server. Holds the replicas of many shards over one log, one transport and one engine, and is all
 * that most programs need to know. With several engines each runs in a thread, where another `NodeHost` does what this one is asked for.
 */
import type {
  AddReplicaOptions,
  CallOptions,
  MembershipOptions,
  NodeHostOptions,
  RemoveDataOptions,
  ReplicaOptions,
  SnapshotOptions,
} from './config.ts';
import {
  checkCallOptions,
  checkFormat,
  checkHostOptions,
  checkReloadTlsOptions,
  checkReplicaId,
  checkRemoveDataOptions,
  checkReplicaOptions,
  checkSnapshotOptions,
} from './config-checks.ts';
import { requestSnapshot, transferLeader } from './care-requests.ts';
import type { MembershipInfo } from './engine/membership.ts';
import { createNodeEnv } from './env/node/index.ts';
import { DrakkarError, diskErrorOf } from './errors.ts';
import type { HostEventName, HostListener } from './events.ts';
import { closeParts, openParts, openThreadParts, type HostParts, type OwnOptions } from './host-parts.ts';
import { describeShard, type HostInfo, type ShardInfo } from './info.ts';
import { shardMethods } from './log-requests.ts';
import { checkMachine, type StateMachineSource } from './machine-module.ts';
import { additionOf, promotionOf, readMembership, removalOf } from './membership-requests.ts';
import type { KnownHost } from './registry/registry.ts';
import type { ShardView } from './registry/shard-views.ts';
import type { ServedHost, ThreadOpening } from './threads/server.ts';
import type { ReloadTlsOptions } from './transport/security.ts';
import { whenReady } from './when-ready.ts';
import type { ConfigChange } from './wire/config-change.ts';
import { ShardCalls } from './shard-calls.ts';

const NO_OPTIONS: CallOptions = {};

export class NodeHost extends ShardCalls {
  private readonly starting = new Set<number>();
  private closing: Promise<void> | undefined;

  /**
   * Opens the host: takes the directory, reads the log, begins to listen.
   *
   * @throws ERR_INVALID_OPTION, ERR_DIR_LOCKED, ERR_DIR_FOREIGN, ERR_DIR_FORMAT, ERR_DIR_PERMISSIONS, ERR_DIR_CORRUPT,
   * ERR_ADDRESS_IN_USE, ERR_TLS_CONFIG, ERR_DISK_FULL, ERR_DISK_FAILED, ERR_ENGINE_FAILED
   */
  static async open(options: NodeHostOptions): Promise<NodeHost> {
    checkHostOptions(options);
    const { logger } = options;
    const env = options.env ?? createNodeEnv(logger === undefined ? {} : { logger });
    return new NodeHost(await openParts(env, options, (...args) => NodeHost.openPart(...args)));
  }

  /** For a thread: the part of a host that runs there. */
  private static async openPart(opening: ThreadOpening, own?: OwnOptions): Promise<ServedHost> {
    return new NodeHost(await openThreadParts(opening, own)).served();
  }

  private constructor(parts: HostParts) {
    super(parts);
  }

  /** What the host whose part this is may ask for, by name. */
  private served(): ServedHost {
    const methods = {
      ...this.parts.engines.partMethods(),
      ...shardMethods((shardId) => this.shards.replica(shardId)),
    };
    const others = this as unknown as typeof methods;
    return {
      replicaOf: (shardId) => this.shards.replica(shardId),
      call: (method, args) => (methods[method] ?? others[method].bind(this))(...args),
    };
  }

  /** 128 random bits as hex, made with the directory. */
  get id(): string {
    return this.parts.directory.identity.hostId;
  }

  get raftAddress(): string {
    return this.parts.directory.identity.raftAddress;
  }

  /** Set when the log failed: nothing runs here any more. */
  get failed(): DrakkarError | undefined {
    return this.shards.failure;
  }

  on<K extends HostEventName>(name: K, listener: HostListener<K>): this {
    this.parts.events.on(name, listener);
    return this;
  }

  off<K extends HostEventName>(name: K, listener: HostListener<K>): this {
    this.parts.events.off(name, listener);
    return this;
  }

  // Replicas.

  /**
   * Starts this host's replica of a shard. At the very first start of a new shard `members` names all initial members, the same on
   * every host; a replica that is added to a running shard has `members: 'join'`, and takes part once `addReplica` was called for it on
   * any host of the shard, before or after. At a restart `members` may be left out. Resolves when the state machine is restored from its snapshot; the log behind it is
   * applied as the shard goes on (`whenReady`). `machine` is a function that makes the state machine, or the module that exports it;
   * with several engines it is a module, which is loaded in the thread that the shard lives in. A witness has none.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_EXISTS, ERR_SHARD_MISMATCH, ERR_SHARD_NOT_BOOTSTRAPPED, ERR_REPLICA_REMOVED, ERR_LOG_CORRUPT,
   * ERR_SNAPSHOT_CORRUPT, ERR_STATE_MACHINE, ERR_ENGINE_FAILED
   */
  async startReplica(options: ReplicaOptions, machine?: StateMachineSource): Promise<void> {
    checkReplicaOptions(options);
    checkMachine(options, machine);
    this.shards.assertOpen();
    const { shardId } = options;
    if (this.shards.isRunning(shardId) || this.starting.has(shardId)) {
      throw new DrakkarError('ERR_SHARD_EXISTS', `shard ${shardId} runs on this host already`);
    }
    this.starting.add(shardId);
    this.shards.forget(shardId); // of an earlier start
    try {
      await (this.parts.threads ?? this.parts.engines).startReplica(options, machine);
    } catch (error) {
      throw diskErrorOf(error, `the data of shard ${shardId}`);
    } finally {
      this.starting.delete(shardId);
    }
  }

  /** Stops this host's replica; the shard goes on elsewhere, and its data stays. Waiting calls end with `ERR_SHARD_STOPPED`. */
  async stopReplica(shardId: number): Promise<void> {
    this.shards.assertOpen();
    await (this.parts.threads ?? this.parts.engines).stopReplica(shardId);
    this.shards.forget(shardId);
  }

  // Membership.

  /**
   * Adds a replica to the shard; call it on any host of the shard. Its own host starts it with `members: 'join'`, before or after. A
   * voter counts at once, also while it catches up: where that is a risk, add it with `role: 'non-voting'` and `autoPromote`.
   * Resolves with the index that identifies the new membership, once the change is applied here.
   *
   * @param address what its host is reached by: `host:port`, or a host id with gossip
   * @throws ERR_REPLICA_REMOVED (the id was used before), ERR_CONFIG_CHANGE_REFUSED, ERR_CONFIG_CHANGE_STALE,
   * ERR_CONFIG_CHANGE_PENDING, and what `propose` throws
   */
  async addReplica(
    shardId: number,
    replicaId: number,
    address: string,
    options: AddReplicaOptions = NO_OPTIONS,
  ): Promise<{ configChangeIndex: number }> {
    const change = additionOf(replicaId, address, options);
    return this.change(shardId, 'addReplica', change, [replicaId, address, options], options);
  }

  /**
   * Removes a replica, for ever: its id cannot come back. Call it on any host of the shard, its own included; it stops by itself when it
   * learns of it (`replicaRemoved`), and `removeData` gives its room back. A leader may remove itself and hands over.
   *
   * @throws ERR_REPLICA_REMOVED (it was removed before), ERR_CONFIG_CHANGE_REFUSED (no member, or the only voter), ERR_CONFIG_CHANGE_STALE,
   * ERR_CONFIG_CHANGE_PENDING, and what `propose` throws
   */
  async removeReplica(
    shardId: number,
    replicaId: number,
    options: MembershipOptions = NO_OPTIONS,
  ): Promise<{ configChangeIndex: number }> {
    const change = removalOf(replicaId, options);
    return this.change(shardId, 'removeReplica', change, [replicaId, options], options);
  }

  /**
   * Makes a non-voting member a voter, once it has caught up with the leader (`shardInfo().progress` tells).
   *
   * @throws ERR_CONFIG_CHANGE_PENDING (not caught up, or another change is under way), ERR_CONFIG_CHANGE_REFUSED,
   * ERR_REPLICA_REMOVED, ERR_CONFIG_CHANGE_STALE, and what `propose` throws
   */
  async promote(
    shardId: number,
    replicaId: number,
    options: MembershipOptions = NO_OPTIONS,
  ): Promise<{ configChangeIndex: number }> {
    const change = promotionOf(replicaId, options);
    return this.change(shardId, 'promote', change, [replicaId, options], options);
  }

  private async change(
    shardId: number,
    method: string,
    change: ConfigChange,
    args: readonly unknown[],
    options: CallOptions,
  ): Promise<{ configChangeIndex: number }> {
    return this.shards.ask(shardId, method, args, options, async () => ({
      configChangeIndex: await this.shard(shardId).changeMembership(method, change, options),
    }));
  }

  /** Who belongs to the shard, linearizably: no change that was answered before the call is missing. */
  async membership(shardId: number, options: CallOptions = NO_OPTIONS): Promise<MembershipInfo> {
    checkCallOptions('membership', options);
    return this.shards.ask(shardId, 'membership', [options], options, (replica) =>
      readMembership(replica, this.shard(shardId), options, this.parts.waiter),
    );
  }

  /**
   * Deletes all that this host holds of a replica that was removed from its shard. Refused for others unless `evenIfMember` is set: a member
   * that forgets what it promised must not come back.
   *
   * @throws ERR_SHARD_NOT_FOUND, ERR_SHARD_MISMATCH (another replica of the shard is here), ERR_NOT_REMOVED, ERR_SHARD_EXISTS (it runs;
   * with `evenIfMember`), ERR_LOG_CORRUPT, ERR_DISK_FAILED
   */
  async removeData(shardId: number, replicaId: number, options: RemoveDataOptions = {}): Promise<void> {
    checkReplicaId('removeData', replicaId);
    checkRemoveDataOptions(options);
    this.shards.assertOpen();
    try {
      await (this.parts.threads ?? this.parts.engines).removeData(shardId, replicaId, options.evenIfMember === true);
    } catch (error) {
      throw diskErrorOf(error, `the data of shard ${shardId}`);
    }
  }

  // Care.

  /**
   * Takes a snapshot of this host's replica now, and compacts the log behind it. With `exportTo` it goes into that directory instead, whole
   * and verified, for a backup or for `importSnapshot` of `drakkar/tools`; the log stays as it is. When nothing was applied since the
   * last snapshot, that one's index is given; its log is compacted further where `compactionOverhead` or `compactToIndex` say so.
   *
   * @throws ERR_INVALID_OPTION, ERR_SHARD_NOT_FOUND, ERR_SYSTEM_BUSY, ERR_DISK_FULL, ERR_DISK_FAILED, ERR_STATE_MACHINE, ERR_TIMEOUT,
   * ERR_ABORTED
   */
  async requestSnapshot(shardId: number, options: SnapshotOptions = NO_OPTIONS): Promise<{ index: number }> {
    checkSnapshotOptions(options);
    return this.shards.ask(shardId, 'requestSnapshot', [options], options, (replica) =>
      requestSnapshot(replica, options, this.parts.waiter),
    );
  }

  /** Hands the shard's leadership to another voter; resolves when it leads. Call it on the leader's host. */
  async transferLeader(shardId: number, targetReplicaId: number, options: CallOptions = NO_OPTIONS): Promise<void> {
    checkCallOptions('transferLeader', options);
    return this.shards.ask(shardId, 'transferLeader', [targetReplicaId, options], options, (replica) =>
      transferLeader(replica, targetReplicaId, options, this.parts.waiter, this.parts.events),
    );
  }

  /**
   * Reads the certificates again (`tls`), with `change` in place of what it names. New connections use them from then on, those that are up
   * are replaced without a gap, or ended where that is asked. What does not hold is refused and changes nothing.
   *
   * @throws ERR_TLS_CONFIG, ERR_INVALID_OPTION
   */
  async reloadTls(change: ReloadTlsOptions = {}): Promise<void> {
    checkReloadTlsOptions(change);
    this.shards.assertOpen();
    const { security, threads } = this.parts;
    if (security === undefined)
      throw new DrakkarError('ERR_INVALID_OPTION', 'reloadTls: the host was opened without tls');
    await security.reload(change);
    await threads?.reloadTls(change);
  }

  /** Resolves when a leader is known and this replica has applied all that was committed when it was asked. */
  async whenReady(shardId: number, options: CallOptions = NO_OPTIONS): Promise<void> {
    checkCallOptions('whenReady', options);
    return this.shards.ask(shardId, 'whenReady', [options], options, (replica) =>
      whenReady(replica, this.shard(shardId), options, this.parts.waiter),
    );
  }

  /** With several engines this, `info`, `hash` and `metrics` wait, standing still, until the engines' threads have answered. */
  shardInfo(shardId: number): ShardInfo {
    this.shards.assertOpen();
    const { threads } = this.parts;
    if (threads !== undefined) return threads.shardInfo(shardId);
    return describeShard(this.shards.replica(shardId));
  }

  info(): HostInfo {
    return (this.parts.threads ?? this.parts.engines).info();
  }

  /**
   * Ends an upgrade: from now on this host, and every other one as soon as it hears of it, may write `format`, by default the newest that
   * this release knows. Once is enough, on any host, when all run the new release and are up. There is no way back: a release that does
   * not know the format refuses the directory. Until then hosts of both releases live together, and each can go back (docs/operations.md).
   *
   * @throws ERR_INVALID_OPTION for a format that this host does not read, ERR_FORMAT_NOT_AGREED, ERR_DISK_FULL, ERR_DISK_FAILED
   */
  async enableFormat(format: number = this.parts.directory.identity.newestFormat): Promise<void> {
    const { directory, options, threads, engines } = this.parts;
    this.shards.assertOpen();
    checkFormat(format, directory.identity.newestFormat);
    try {
      await (threads ?? engines).enableFormat(format);
    } catch (error) {
      throw diskErrorOf(error, `the directory ${options.dir}`);
    }
  }

  /** The hosts that the registry knows, this one included; without gossip, only this one. */
  knownHosts(): readonly KnownHost[] {
    return this.parts.registry.hosts();
  }

  /**
   * What is known of a shard that may live elsewhere: who leads it and who belongs to it. With gossip from all hosts, seconds old and only a hint
   * where to ask; without, only of shards that run here. Undefined when nothing is known.
   */
  knownShard(shardId: number): ShardView | undefined {
    return (this.parts.threads ?? this.parts.engines).knownShard(shardId);
  }

  /** The same of all shards that anything is known of. */
  knownShards(): readonly ShardView[] {
    return (this.parts.threads ?? this.parts.engines).knownShards();
  }

  /** Digests of what is applied here, for comparing replicas at equal `appliedIndex`. */
  hash(shardId: number): { appliedIndex: number; hash: number | undefined; sessionHash: number } {
    this.shards.assertOpen();
    const { threads } = this.parts;
    if (threads !== undefined) return threads.ask(shardId, 'hash', [shardId]);
    const { rsm } = this.shards.replica(shardId);
    return { appliedIndex: rsm.appliedIndex, hash: rsm.hash(), sessionHash: rsm.sessionHash() };
  }

  /** All metrics as Prometheus text. */
  metrics(): string {
    return (this.parts.threads ?? this.parts.engines).metrics();
  }

  /** Stops all replicas, waits until what they wrote is durable, and gives the directory free. */
  close(): Promise<void> {
    if (this.closing === undefined) {
      this.parts.events.emit('hostClosing', { dir: this.parts.options.dir });
      this.shards.close();
      const error = new DrakkarError('ERR_CLOSED', 'the host was closed', { outcome: 'unknown' });
      this.closing = closeParts(this.parts, error);
    }
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
