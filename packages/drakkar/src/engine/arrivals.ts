/**
 * Snapshots that come from others: whose turn it is, received in one piece or several, verified, installed. What a stream that broke has brought is kept for
 * the next one of the same image, whoever sends it: only the image itself says what it is.
 */
import { withEither } from '../env/abort.ts';
import { DrakkarError, diskErrorOf } from '../errors.ts';
import { imageWithoutState, readImage } from '../rsm/captures.ts';
import { meansHost } from '../transport/target.ts';
import type { HostIdentity, SnapshotHeader } from '../transport/transport.ts';
import type { Membership } from '../wire/membership.ts';
import { Bandwidth } from './bandwidth.ts';
import type { Engine } from './engine.ts';
import { SNAPSHOT_PART_KEEP_MS, SNAPSHOT_RECEIVES_WAITING_MAX } from './limits.ts';
import { connectMembers, followMembership } from './membership.ts';
import { Places } from './places.ts';
import type { Replica } from './replica.ts';
import type { SnapshotLimits } from './snapshots.ts';

export class Arrivals {
  /** Whose turn it is; the others wait. */
  readonly places: Places;
  private readonly engine: Engine;
  private readonly bandwidth: Bandwidth;
  /** Streams under way, while their images are not whole. */
  private readonly streams = new Map<Replica, { readonly term: number; readonly aborting: AbortController }>();
  /** Parts of images that wait for their rest, and until when. */
  private readonly parts = new WeakMap<Replica, number>();

  constructor(engine: Engine, limits: SnapshotLimits) {
    this.engine = engine;
    this.places = new Places('offered snapshots', limits.maxReceives, SNAPSHOT_RECEIVES_WAITING_MAX);
    this.bandwidth = new Bandwidth(engine.env, limits.maxReceiveBytesPerSecond);
  }

  /** A snapshot arrives: received whole and verified, then installed. Rejecting tells the sender. */
  async receive(
    from: HostIdentity,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    begin?: (offsetBytes: number) => void,
  ): Promise<void> {
    this.admit(from, header);
    const leave = await this.places.enter(signal);
    try {
      // While it waited for its turn, much may have changed.
      const replica = this.admit(from, header);
      const aborting = new AbortController();
      this.streams.set(replica, { term: header.term, aborting });
      await withEither([signal, replica.stopSignal, aborting.signal], (any) =>
        this.receiveInTurn(replica, header, this.bandwidth.pace(untilAborted(chunks, any), any), any, begin),
      );
    } finally {
      leave();
    }
  }

  /** The replica that the snapshot is for. Throws when it is not wanted. */
  private admit(from: HostIdentity, header: SnapshotHeader): Replica {
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
      const current = this.streams.get(replica);
      // What is offered in a term that is over will not be installed.
      if (current !== undefined && current.term < header.term)
        current.aborting.abort(new DrakkarError('ERR_REJECTED', 'a leader of a newer term offers a snapshot, too'));
      throw new DrakkarError('ERR_SYSTEM_BUSY', 'another snapshot of this shard is under way');
    }
    return replica;
  }

  private async receiveInTurn(
    replica: Replica,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    begin: ((offsetBytes: number) => void) | undefined,
  ): Promise<void> {
    const { snapshotter } = replica;
    const { index, indexTerm, imageBytes, imageDigest } = header;
    replica.isSnapshotting = true;
    try {
      const isInParts = imageDigest !== undefined && begin !== undefined;
      const part = isInParts ? await snapshotter.partOf(index, indexTerm, imageBytes, imageDigest) : undefined;
      const offsetBytes = part?.offsetBytes ?? 0;
      if (offsetBytes > 0) {
        this.engine.counters.snapshotsResumed++;
        this.engine.counters.snapshotBytesNotSentAgain += offsetBytes;
      }
      begin?.(offsetBytes);
      await snapshotter.receive(index, indexTerm, chunks, signal, part);
      this.streams.delete(replica); // what is whole is installed, or refused there
      this.engine.events.emit('snapshotReceived', {
        shardId: replica.shardId,
        replicaId: replica.replicaId,
        index: header.index,
        from: header.from,
      });
      if (replica.status !== 'running') throw replica.unavailable();
      await this.install(replica, header);
    } finally {
      this.streams.delete(replica);
      replica.isSnapshotting = false;
      this.engine.markReady(replica);
      this.forgetPartLater(replica);
    }
  }

  /** What a broken stream has left waits for its rest, but not for ever. */
  forgetPartLater(replica: Replica): void {
    if (!replica.snapshotter.hasPart) return;
    const untilMs = this.engine.env.clock.nowMs() + SNAPSHOT_PART_KEEP_MS;
    this.parts.set(replica, untilMs);
    this.engine.env.scheduler.after(SNAPSHOT_PART_KEEP_MS, () => {
      if (this.parts.get(replica) !== untilMs) return; // there was another one since
      this.parts.delete(replica);
      if (replica.status !== 'running' || replica.isSnapshotting) return;
      replica.snapshotter.dropParts().catch((error: unknown) => {
        this.engine.env.logger.warn({ shardId: replica.shardId, err: error }, 'part of a snapshot stays');
      });
    });
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
        await this.engine.durability.whenDurable(replica, raft.writeNumber);
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
    await this.engine.durability.whenDurable(replica, raft.writeNumber);
    await this.engine.snapshots.retain(replica, header.index);
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

/** Whoever makes the chunks may be waiting for a peer that says nothing: nobody waits for that any more once `signal` is aborted. */
async function* untilAborted(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const source = chunks[Symbol.asyncIterator]();
  let giveUp: (reason: unknown) => void = () => {};
  const onAbort = (): void => giveUp(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for (;;) {
      signal.throwIfAborted();
      const next = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        giveUp = reject;
        source.next().then(resolve, reject);
      });
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    // Not awaited: it ends when what it waits for does.
    source.return?.(undefined).catch(() => {});
  }
}
