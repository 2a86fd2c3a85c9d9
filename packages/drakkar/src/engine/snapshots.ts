/**
 * Snapshots of all shards of an engine: taken, and sent to those who need one (`arrivals.ts` has those that come). The order on disk is the
 * whole safety: image durable, then its record, only then older entries and images go (fault F14).
 */
import { withEither } from '../env/abort.ts';
import { DrakkarError, diskErrorOf } from '../errors.ts';
import { capture, imageWithoutState, sync, type Capture } from '../rsm/captures.ts';
import { SIZE_UNKNOWN, type ImageFrom, type Peer, type SnapshotHeader } from '../transport/transport.ts';
import type { OpenedImage } from '../rsm/snapshotter.ts';
import { isKnown } from '../wire/membership.ts';
import { imageForWitness } from '../rsm/witness.ts';
import { Bandwidth } from './bandwidth.ts';
import type { Engine } from './engine.ts';
import { SNAPSHOT_RETRY_MS, SNAPSHOT_SENDS_WAITING_MAX } from './limits.ts';
import { notMember } from './membership.ts';
import { Places } from './places.ts';
import type { Replica } from './replica.ts';

interface Streamable extends Capture {
  readonly imageBytes: number;
  /** Of an image that can be sent from any byte on. */
  readonly again: Pick<OpenedImage, 'digest' | 'from'> | undefined;
}

/** A stream under way. */
interface Sending {
  readonly term: number;
  readonly peer: Peer;
  /** Start of the host that it began to go to, if that was known. */
  readonly startCounter: number | undefined;
  readonly aborting: AbortController;
}

/** What snapshots on their way may take of a host. Bytes per second: 0 for no bound. */
export interface SnapshotLimits {
  readonly maxSendBytesPerSecond: number;
  readonly maxReceiveBytesPerSecond: number;
  readonly maxSends: number;
  readonly maxReceives: number;
}

/** How much of the log goes with a snapshot; as the replica's settings say, unless one of the two does. */
export interface Compaction {
  /** Entries kept behind the snapshot. */
  readonly overhead?: number | undefined;
  /** The last entry that goes, never one behind the snapshot. */
  readonly toIndex?: number | undefined;
}

export class Snapshots {
  /** Whose turn it is; the others wait. */
  readonly sends: Places;
  private readonly engine: Engine;
  private readonly sendBandwidth: Bandwidth;
  /** On-disk state machines are asked for one image at a time. */
  private readonly streaming = new Set<Replica>();
  /** Streams under way, by shard and target, so that the core's repeated wish starts only one. */
  private readonly sending = new Map<string, Sending>();

  constructor(engine: Engine, limits: SnapshotLimits) {
    this.engine = engine;
    this.sends = new Places('snapshots to be sent', limits.maxSends, SNAPSHOT_SENDS_WAITING_MAX);
    this.sendBandwidth = new Bandwidth(engine.env, limits.maxSendBytesPerSecond);
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

  /** Takes a snapshot now; gives its index, also when nothing was applied since the last one: then only the log is compacted, if that is asked for. */
  async take(replica: Replica, compaction: Compaction = {}): Promise<number> {
    if (replica.status !== 'running') throw replica.unavailable();
    if (replica.isSnapshotting || replica.isRestoring || replica.rsm.busy) {
      throw new DrakkarError('ERR_SYSTEM_BUSY', `a snapshot of shard ${replica.shardId} is under way; try again later`);
    }
    if (!isKnown(replica.membership)) throw notMember(replica) ?? replica.unavailable();
    replica.isSnapshotting = true;
    try {
      if (replica.rsm.isOnDisk) return await this.takeWithoutState(replica, compaction);
      if (replica.rsm.appliedIndex === replica.snapshotIndex) return this.compactAgain(replica, compaction);
      const image = capture(replica.rsm, replica.stopSignal);
      const { index, term } = image;
      try {
        await replica.snapshotter.save(index, image.chunks);
        if (replica.status !== 'running') throw replica.unavailable();
        await this.record(replica, index, term, compaction);
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
  private async takeWithoutState(replica: Replica, compaction: Compaction): Promise<number> {
    const { rsm, shardId } = replica;
    const release = await rsm.gate.hold();
    let index: number;
    let term: number;
    try {
      if (replica.status !== 'running') throw replica.unavailable();
      index = rsm.appliedIndex;
      term = rsm.appliedTerm;
      if (index <= replica.snapshotIndex || rsm.isReplaying) return this.compactAgain(replica, compaction);
      await rsm.storeIndex();
      await sync(rsm);
    } finally {
      release();
      this.engine.markReady(replica);
    }
    await replica.snapshotter.save(index, imageWithoutState({ shardId, index, term }, rsm.membership));
    if (replica.status !== 'running') throw replica.unavailable();
    this.engine.counters.snapshotsWithoutState++;
    await this.record(replica, index, term, compaction);
    return index;
  }

  /** Records a durable image, waits until the record is durable, then gives up what it replaces. */
  private async record(replica: Replica, index: number, term: number, compaction: Compaction = {}): Promise<void> {
    replica.snapshotIndex = index;
    replica.snapshotTerm = term;
    replica.raft.saveState();
    await this.engine.durability.whenDurable(replica, replica.raft.writeNumber);
    this.compact(replica, index, compaction);
    await this.retain(replica, index);
    this.engine.events.emit('snapshotCreated', { shardId: replica.shardId, replicaId: replica.replicaId, index });
  }

  /** Behind the durable snapshot at `index`. */
  private compact(replica: Replica, index: number, { overhead, toIndex }: Compaction): void {
    const { shardId, replicaId, raft, settings } = replica;
    const compactTo = Math.min(index, toIndex ?? index - (overhead ?? settings.compactionOverhead));
    if (compactTo <= raft.log.compactedIndex) return;
    raft.compact(compactTo);
    raft.saveState(); // the log learns from the record what it may free
    this.engine.events.emit('logCompacted', { shardId, replicaId, index: compactTo });
  }

  /** The newest snapshot is as good as another one. */
  private compactAgain(replica: Replica, compaction: Compaction): number {
    const { snapshotIndex } = replica;
    const isAsked = compaction.overhead !== undefined || compaction.toIndex !== undefined;
    if (isAsked && snapshotIndex > 0) this.compact(replica, snapshotIndex, compaction);
    return snapshotIndex;
  }

  /** Older images go, but for the one before. */
  async retain(replica: Replica, newest: number): Promise<void> {
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
    let hasBegun = false;
    const sent = { shardId: replica.shardId, replicaId: replica.replicaId, to, index };
    const stream = async (signal: AbortSignal): Promise<void> => {
      const { shardId, replicaId: from } = replica;
      const image = await this.imageFor(replica, to);
      index = image.index;
      const { imageBytes, again } = image;
      const header: SnapshotHeader = { shardId, from, to, term, index, indexTerm: image.term, imageBytes };
      const offer = again === undefined ? header : { ...header, imageDigest: again.digest };
      const rest: ImageFrom | undefined =
        again && ((offsetBytes) => this.sendBandwidth.pace(again.from(offsetBytes), signal));
      try {
        const chunks = this.sendBandwidth.pace(image.chunks, signal);
        await this.engine.transport.sendSnapshot(peer.address, offer, chunks, signal, rest);
      } finally {
        await image.release();
      }
    };
    const run = async (signal: AbortSignal): Promise<void> => {
      const leave = await this.sends.enter(signal);
      try {
        hasBegun = true;
        this.engine.events.emit('snapshotSendStarted', sent);
        await stream(signal);
      } finally {
        leave();
      }
    };
    withEither([replica.stopSignal, aborting.signal], run).then(
      () => {
        this.sending.delete(key);
        this.engine.events.emit('snapshotSendCompleted', { ...sent, index });
        this.report(replica, to, true, index);
      },
      (error: unknown) => {
        this.failOn(replica, error);
        if (hasBegun) {
          this.engine.counters.snapshotsFailed++;
          this.engine.env.logger.warn({ shardId: replica.shardId, to, err: error }, 'sending a snapshot failed');
          this.engine.events.emit('snapshotSendAborted', { ...sent, error: sendErrorOf(error, to) });
        }
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
      try {
        const { sizeBytes: imageBytes, chunks } = await imageForWitness(recorded.chunks, replica.rsm.codecs);
        return { ...recorded, chunks, imageBytes, again: undefined };
      } catch (error) {
        await recorded.release();
        throw error;
      }
    }
    return replica.rsm.isOnDisk ? this.captureStream(replica) : this.openRecorded(replica);
  }

  private async openRecorded(replica: Replica): Promise<Streamable> {
    const { snapshotIndex: index, snapshotTerm: term } = replica;
    const opened = await replica.snapshotter.open(index);
    const { chunks, sizeBytes: imageBytes } = opened;
    // Also when nobody came to read any of it: else it would be kept for ever.
    return { index, term, chunks, imageBytes, again: opened, release: async () => opened.release() };
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
        return { ...image, imageBytes: SIZE_UNKNOWN, again: undefined, release };
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
}

function sendErrorOf(cause: unknown, to: number): DrakkarError {
  const error = diskErrorOf(cause, 'the snapshot to be sent');
  if (DrakkarError.is(error)) return error;
  return new DrakkarError('ERR_UNREACHABLE', `replica ${to} did not get the snapshot: ${String(cause)}`, { cause });
}
