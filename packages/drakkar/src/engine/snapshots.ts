/**
 * Snapshots of all shards of an engine: taken, sent to those who need one, received, installed. The order on disk is the
 * whole safety: image durable, then its record, only then older entries and images go (fault F14).
 */
import { DrakkarError, diskErrorOf } from '../errors.ts';
import { capture, imageWithoutState, readImage, sync, type Capture } from '../rsm/captures.ts';
import { meansHost } from '../transport/target.ts';
import { SIZE_UNKNOWN, type HostIdentity, type Peer, type SnapshotHeader } from '../transport/transport.ts';
import { isKnown, type Membership } from '../wire/membership.ts';
import { imageForWitness } from '../rsm/witness.ts';
import type { Engine } from './engine.ts';
import { SNAPSHOT_RETRY_MS } from './limits.ts';
import { connectMembers, followMembership, notMember } from './membership.ts';
import type { Replica } from './replica.ts';

interface Streamable extends Capture {
  readonly imageBytes: number;
}

/** A stream under way. */
interface Sending {
  readonly term: number;
  readonly peer: Peer;
  /** Start of the host that it began to go to, if that was known. */
  readonly startCounter: number | undefined;
  readonly aborting: AbortController;
}

export class Snapshots {
  private readonly engine: Engine;
  /** On-disk state machines are asked for one image at a time. */
  private readonly streaming = new Set<Replica>();
  /** Streams under way, by shard and target, so that the core's repeated wish starts only one. */
  private readonly sending = new Map<string, Sending>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  get sendingCount(): number {
    return this.sending.size;
  }

  /** After an apply: starts an automatic snapshot when enough entries came since the last. */
  considerSnapshot(replica: Replica): void {
    const { snapshotEntries } = replica.settings;
    if (snapshotEntries === 0 || replica.isSnapshotting || replica.isRestoring || replica.rsm.isReplaying) return;
    if (!isKnown(replica.membership)) return; // an image says who belongs to the shard
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
    if (!isKnown(replica.membership)) throw notMember(replica) ?? replica.unavailable();
    replica.isSnapshotting = true;
    try {
      if (replica.rsm.isOnDisk) return await this.takeWithoutState(replica);
      if (replica.rsm.appliedIndex === replica.snapshotIndex) return replica.snapshotIndex;
      const image = capture(replica.rsm, replica.stopSignal);
      const { index, term } = image;
      try {
        await replica.snapshotter.save(index, image.chunks);
        if (replica.status !== 'running') throw replica.unavailable();
        await this.record(replica, index, term);
      } finally {
        await image.release();
      }
      return index;
    } catch (error) {
      this.failOn(replica, error);
      throw error;
    } finally {
      replica.isSnapshotting = false;
      this.engine.markReady(replica); // applying goes on
    }
  }

  /** On-disk: what is stored is made durable and recorded, with no image; then the log may go (fault F15). */
  private async takeWithoutState(replica: Replica): Promise<number> {
    const { rsm, shardId } = replica;
    const release = await rsm.gate.hold();
    let index: number;
    let term: number;
    try {
      if (replica.status !== 'running') throw replica.unavailable();
      index = rsm.appliedIndex;
      term = rsm.appliedTerm;
      if (index <= replica.snapshotIndex || rsm.isReplaying) return replica.snapshotIndex;
      await rsm.storeIndex();
      await sync(rsm);
    } finally {
      release();
      this.engine.markReady(replica);
    }
    await replica.snapshotter.save(index, imageWithoutState({ shardId, index, term }, rsm.membership));
    if (replica.status !== 'running') throw replica.unavailable();
    this.engine.counters.snapshotsWithoutState++;
    await this.record(replica, index, term);
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
    this.engine.events.emit('snapshotCreated', { shardId: replica.shardId, replicaId: replica.replicaId, index });
  }

  /** Older images go, but for the one before. */
  private async retain(replica: Replica, newest: number): Promise<void> {
    const { shardId, replicaId } = replica;
    for (const index of await replica.snapshotter.retain(newest))
      this.engine.events.emit('snapshotCompacted', { shardId, replicaId, index });
  }

  /** A state machine that throws is not trusted any more. */
  private failOn(replica: Replica, error: unknown): void {
    if (DrakkarError.is(error, 'ERR_STATE_MACHINE')) this.engine.failReplica(replica, error);
  }

  /** A failed snapshot loses nothing: the log behind it is still whole. */
  private reportFailure(replica: Replica, error: unknown): void {
    if (replica.status !== 'running') return;
    if (DrakkarError.is(error, 'ERR_ABORTED')) this.engine.counters.snapshotsAborted++;
    else this.engine.counters.snapshotsFailed++;
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
    if (peer === undefined) return;
    // Of this moment, in which this replica leads: whoever reads the offer follows it in that term.
    const { term } = replica.raft;
    const known = this.sending.get(key);
    if (known !== undefined) {
      // What was offered in another term will not be taken; its end asks anew.
      if (known.term !== term) known.aborting.abort();
      return;
    }
    const aborting = new AbortController();
    this.sending.set(key, { term, peer, startCounter: peer.identity?.startCounter, aborting });
    let index = replica.snapshotIndex;
    const sent = { shardId: replica.shardId, replicaId: replica.replicaId, to, index };
    this.engine.events.emit('snapshotSendStarted', sent);
    const run = async (): Promise<void> => {
      const { shardId, replicaId: from } = replica;
      const signal = AbortSignal.any([replica.stopSignal, aborting.signal]);
      const image = await this.imageFor(replica, to);
      index = image.index;
      const { imageBytes } = image;
      const header: SnapshotHeader = { shardId, from, to, term, index, indexTerm: image.term, imageBytes };
      try {
        await this.engine.transport.sendSnapshot(peer.address, header, image.chunks, signal);
      } finally {
        await image.release();
      }
    };
    run().then(
      () => {
        this.sending.delete(key);
        this.engine.events.emit('snapshotSendCompleted', { ...sent, index });
        this.report(replica, to, true, index);
      },
      (error: unknown) => {
        this.failOn(replica, error);
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

  /** The host at `peer` is there, maybe after a new start: a stream to its old process would wait for an answer that cannot come. */
  peerUp(peer: Peer): void {
    for (const { peer: to, startCounter, aborting } of this.sending.values()) {
      if (to === peer && startCounter !== undefined && startCounter !== peer.identity?.startCounter) aborting.abort();
    }
  }

  private async imageFor(replica: Replica, to: number): Promise<Streamable> {
    if (replica.membership.witnesses.has(to)) {
      const recorded = await this.openRecorded(replica);
      const { sizeBytes: imageBytes, chunks } = await imageForWitness(recorded.chunks);
      return { ...recorded, chunks, imageBytes };
    }
    return replica.rsm.isOnDisk ? this.captureStream(replica) : this.openRecorded(replica);
  }

  private async openRecorded(replica: Replica): Promise<Streamable> {
    const { snapshotIndex: index, snapshotTerm: term } = replica;
    const { chunks, sizeBytes: imageBytes } = await replica.snapshotter.open(index);
    return { index, term, chunks, imageBytes, release: async () => {} };
  }

  /** On-disk: the state between two updates, straight from the store; its size is not known. */
  private async captureStream(replica: Replica): Promise<Streamable> {
    const { rsm, shardId } = replica;
    const busy = (why: string): DrakkarError =>
      new DrakkarError('ERR_SYSTEM_BUSY', `no image of shard ${shardId} can be streamed: ${why}`);
    if (this.streaming.has(replica)) throw busy('another one is under way');
    this.streaming.add(replica);
    try {
      const letGo = await rsm.gate.hold();
      try {
        if (replica.status !== 'running' || replica.isRestoring) throw busy('its state is being replaced');
        if (rsm.isReplaying || rsm.appliedIndex < replica.snapshotIndex) throw busy('it goes through its log');
        const image = capture(rsm, replica.stopSignal);
        this.engine.counters.imagesStreamed++;
        const release = (): Promise<void> => {
          this.streaming.delete(replica);
          return image.release();
        };
        return { ...image, imageBytes: SIZE_UNKNOWN, release };
      } finally {
        letGo();
        this.engine.markReady(replica);
      }
    } catch (error) {
      this.streaming.delete(replica);
      throw error;
    }
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
    const isMember = replica.raft.memberOf(header.from) !== undefined;
    const isHere = isMember
      ? meansHost(replica.peerOf(header.from)?.address ?? '', from)
      : header.term >= replica.raft.term && this.engine.incarnations.admitsStranger(replica, header.from, from);
    if (!isHere) {
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
    const release = await rsm.gate.hold();
    try {
      const image = await readImage(rsm, (await replica.snapshotter.open(header.index)).chunks);
      if (!image.hasState) throw new DrakkarError('ERR_SNAPSHOT_CORRUPT', 'the snapshot holds no state');
      // A crash while a store takes the image over must find it named by the log (fault F15).
      if (rsm.isOnDisk) {
        this.takeOver(replica, header, image.membership);
        await this.engine.whenDurable(replica, raft.writeNumber);
        if (replica.status !== 'running') throw replica.unavailable();
      }
      await image.recover(replica.stopSignal);
      if (replica.status !== 'running') throw replica.unavailable();
      if (rsm.isOnDisk) await this.shrink(replica, header);
      else this.takeOver(replica, header, image.membership);
      followMembership(this.engine, replica);
    } catch (cause) {
      const error = diskErrorOf(cause, `the snapshot at ${header.index}`);
      // The state machine may hold half an image: nothing may be applied to it or read from it any more.
      if (replica.status === 'running') this.engine.failReplica(replica, error);
      throw error;
    } finally {
      release();
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

  /** The log begins behind the image from now on. Nothing is applied or read until the state machine has come there, too. */
  private takeOver(replica: Replica, header: SnapshotHeader, membership: Membership): void {
    const { raft } = replica;
    if (replica.status !== 'running') throw replica.unavailable();
    replica.snapshotIndex = header.index;
    replica.snapshotTerm = header.indexTerm;
    // Meanwhile the log may have come there by itself; the record says what is on the disk all the same.
    if (!raft.restore(header.index, header.indexTerm, membership)) raft.saveState();
    raft.applied(header.index);
    connectMembers(this.engine, replica);
  }

  /** The store has what was in the image. */
  private async shrink(replica: Replica, header: SnapshotHeader): Promise<void> {
    const { shardId, rsm } = replica;
    const info = { shardId, index: header.index, term: header.indexTerm };
    await replica.snapshotter.save(header.index, imageWithoutState(info, rsm.membership));
    this.engine.counters.imagesShrunk++;
  }
}

function sendErrorOf(cause: unknown, to: number): DrakkarError {
  const error = diskErrorOf(cause, 'the snapshot to be sent');
  if (DrakkarError.is(error)) return error;
  return new DrakkarError('ERR_UNREACHABLE', `replica ${to} did not get the snapshot: ${String(cause)}`, { cause });
}
