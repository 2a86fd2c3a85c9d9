/**
 * Snapshots of all shards of an engine: taken, sent to those who need one, received, installed. The order on disk is the
 * whole safety: image durable, then its record, only then older entries and images go (fault F14).
 */
import { DrakkarError, diskErrorOf } from '../errors.ts';
import { meansHost } from '../transport/target.ts';
import type { HostIdentity, SnapshotHeader } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { SNAPSHOT_RETRY_MS } from './limits.ts';
import type { Replica } from './replica.ts';

export class Snapshots {
  private readonly engine: Engine;
  /** Streams under way, by shard and target, so that the core's repeated wish starts only one. */
  private readonly sending = new Set<string>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  get sendingCount(): number {
    return this.sending.size;
  }

  /** After an apply: starts an automatic snapshot when enough entries came since the last. */
  considerSnapshot(replica: Replica): void {
    const { snapshotEntries } = replica.settings;
    if (snapshotEntries === 0 || replica.isSnapshotting || replica.isRestoring) return;
    const { appliedIndex } = replica.raft;
    if (appliedIndex - replica.snapshotIndex < snapshotEntries || appliedIndex < replica.snapshotNotBefore) return;
    this.take(replica).catch((error: unknown) => this.reportFailure(replica, error));
  }

  /** Takes a snapshot now; gives its index, also when nothing was applied since the last one. */
  async take(replica: Replica): Promise<number> {
    if (replica.status !== 'running') throw replica.unavailable();
    if (replica.isSnapshotting || replica.isRestoring || replica.rsm.busy) {
      throw new DrakkarError('ERR_SYSTEM_BUSY', `a snapshot of shard ${replica.shardId} is under way; try again later`);
    }
    const index = replica.rsm.appliedIndex;
    const term = replica.rsm.appliedTerm;
    if (index === replica.snapshotIndex) return index;
    replica.isSnapshotting = true;
    try {
      await replica.snapshotter.save(index, replica.rsm.saveImage(replica.stopSignal));
      if (replica.status !== 'running') throw replica.unavailable();
      await this.record(replica, index, term);
    } finally {
      replica.rsm.busy = false; // also when not one chunk was taken
      replica.isSnapshotting = false;
      this.engine.markReady(replica); // applying goes on
    }
    this.engine.events.emit('snapshotCreated', { shardId: replica.shardId, replicaId: replica.replicaId, index });
    return index;
  }

  /** Records a durable image, waits until the record is durable, then gives up what it replaces. */
  private async record(replica: Replica, index: number, term: number): Promise<void> {
    replica.snapshotIndex = index;
    replica.snapshotTerm = term;
    replica.raft.saveState();
    await this.engine.whenDurable(replica, replica.raft.writeNumber);
    const compactTo = index - replica.settings.compactionOverhead;
    if (compactTo > replica.raft.log.compactedIndex) {
      replica.raft.compact(compactTo);
      replica.raft.saveState(); // the log learns from the record what it may free
      this.engine.events.emit('logCompacted', {
        shardId: replica.shardId,
        replicaId: replica.replicaId,
        index: compactTo,
      });
    }
    await this.retain(replica, index);
  }

  /** Older images go, but for the one before. */
  private async retain(replica: Replica, newest: number): Promise<void> {
    const { shardId, replicaId } = replica;
    for (const index of await replica.snapshotter.retain(newest))
      this.engine.events.emit('snapshotCompacted', { shardId, replicaId, index });
  }

  /** A failed snapshot loses nothing: the log behind it is still whole. */
  private reportFailure(replica: Replica, error: unknown): void {
    if (replica.status !== 'running') return;
    if (DrakkarError.is(error, 'ERR_STATE_MACHINE')) {
      this.engine.failReplica(replica, error);
      return;
    }
    this.engine.counters.snapshotsFailed++;
    this.engine.env.logger.warn({ shardId: replica.shardId, err: error }, 'snapshot failed');
    // Not again at the next entry: half of the interval later.
    const { snapshotEntries } = replica.settings;
    replica.snapshotNotBefore = replica.raft.appliedIndex + Math.ceil(snapshotEntries / 2);
  }

  /** Streams the newest image to the member in `slot`, on the core's wish. */
  send(replica: Replica, slot: number): void {
    const to = replica.raft.slots[slot];
    const peer = replica.peers[slot];
    const key = `${replica.shardId}/${to}`;
    if (peer === undefined || this.sending.has(key)) return;
    this.sending.add(key);
    const index = replica.snapshotIndex;
    // Of this moment, in which this replica leads: whoever reads the offer follows it in that term.
    const { term } = replica.raft;
    const indexTerm = replica.snapshotTerm;
    const sent = { shardId: replica.shardId, replicaId: replica.replicaId, to, index };
    this.engine.events.emit('snapshotSendStarted', sent);
    const run = async (): Promise<void> => {
      const image = await replica.snapshotter.open(index);
      const { shardId, replicaId: from } = replica;
      const header: SnapshotHeader = { shardId, from, to, term, index, indexTerm, imageBytes: image.sizeBytes };
      const signal = replica.stopSignal;
      await this.engine.transport.sendSnapshot(peer.address, header, image.chunks, signal);
    };
    run().then(
      () => {
        this.sending.delete(key);
        this.engine.events.emit('snapshotSendCompleted', sent);
        this.report(replica, to, true, index);
      },
      (error: unknown) => {
        this.engine.counters.snapshotsFailed++;
        this.engine.env.logger.warn({ shardId: replica.shardId, to, err: error }, 'sending a snapshot failed');
        this.engine.events.emit('snapshotSendAborted', { ...sent, error: sendErrorOf(error, to) });
        this.engine.env.scheduler.after(SNAPSHOT_RETRY_MS, () => {
          this.sending.delete(key);
          this.report(replica, to, false, index);
        });
      },
    );
  }

  private report(replica: Replica, to: number, ok: boolean, index: number): void {
    if (replica.status !== 'running') return;
    replica.raft.reportSnapshot(to, ok, index);
    this.engine.markReady(replica);
  }

  /** A snapshot arrives: received whole and verified, then installed. Rejecting tells the sender. */
  async receive(
    from: HostIdentity,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    const replica = this.engine.replicas.get(header.shardId);
    if (replica === undefined || replica.replicaId !== header.to) {
      throw new DrakkarError('ERR_SHARD_NOT_FOUND', `replica ${header.to} of shard ${header.shardId} is not here`);
    }
    if (replica.status !== 'running') throw replica.unavailable();
    const peer = replica.peerOf(header.from);
    if (peer === undefined || !meansHost(peer.address, from)) {
      throw new DrakkarError('ERR_PEER_REFUSED', `replica ${header.from} does not live at ${from.raftAddress}`);
    }
    const { raft } = replica;
    if (header.index <= raft.commitIndex || !raft.admitSnapshot(header.term, header.from)) {
      throw new DrakkarError('ERR_REJECTED', 'the snapshot is older than what this replica has');
    }
    if (replica.isSnapshotting || replica.isRestoring) {
      throw new DrakkarError('ERR_SYSTEM_BUSY', 'another snapshot of this shard is under way');
    }
    replica.isSnapshotting = true;
    try {
      const either = AbortSignal.any([signal, replica.stopSignal]);
      await replica.snapshotter.receive(header.index, header.indexTerm, chunks, either);
      this.engine.events.emit('snapshotReceived', {
        shardId: replica.shardId,
        replicaId: replica.replicaId,
        index: header.index,
        from: header.from,
      });
      if (replica.status !== 'running') throw replica.unavailable();
      await this.install(replica, header);
    } finally {
      replica.isSnapshotting = false;
      this.engine.markReady(replica);
    }
  }

  private async install(replica: Replica, header: SnapshotHeader): Promise<void> {
    const { raft, rsm } = replica;
    // While the image streamed, the log may have caught up by itself.
    if (header.index <= raft.commitIndex || !raft.admitSnapshot(header.term, header.from)) {
      throw new DrakkarError('ERR_REJECTED', 'the snapshot came too late');
    }
    replica.isRestoring = raft.isInstalling = true;
    try {
      const image = await replica.snapshotter.open(header.index);
      await rsm.recoverImage(image.chunks, replica.stopSignal);
      if (replica.status !== 'running') throw replica.unavailable();
      replica.snapshotIndex = header.index;
      replica.snapshotTerm = header.indexTerm;
      raft.restore(header.index, header.indexTerm, rsm.membership);
      raft.applied(header.index);
    } catch (cause) {
      const error = diskErrorOf(cause, `the snapshot at ${header.index}`);
      // The state machine may hold half an image: nothing may be applied to it or read from it any more.
      if (replica.status === 'running') this.engine.failReplica(replica, error);
      throw error;
    } finally {
      replica.isRestoring = raft.isInstalling = false;
    }
    await this.engine.whenDurable(replica, raft.writeNumber);
    await this.retain(replica, header.index);
    this.engine.events.emit('snapshotRecovered', {
      shardId: replica.shardId,
      replicaId: replica.replicaId,
      index: header.index,
    });
  }
}

function sendErrorOf(cause: unknown, to: number): DrakkarError {
  const error = diskErrorOf(cause, 'the snapshot to be sent');
  if (DrakkarError.is(error)) return error;
  return new DrakkarError('ERR_UNREACHABLE', `replica ${to} did not get the snapshot: ${String(cause)}`, { cause });
}
