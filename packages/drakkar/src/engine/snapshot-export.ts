/** A copy of a running replica's state for elsewhere. Neither recorded nor a reason to compact anything. */
import { DrakkarError } from '../errors.ts';
import { capture, type Capture } from '../rsm/captures.ts';
import { writeExport, type ExportedSnapshot } from '../rsm/export.ts';
import type { Replica } from './replica.ts';

/** Takes a snapshot of what is applied now into the directory `dir`, which must be empty or missing. */
export async function exportSnapshot(replica: Replica, dir: string): Promise<ExportedSnapshot> {
  if (replica.status !== 'running') throw replica.unavailable();
  const { engine, rsm, shardId, replicaId } = replica;
  if (replica.isSnapshotting || replica.isRestoring || rsm.busy) {
    throw new DrakkarError('ERR_SYSTEM_BUSY', `a snapshot of shard ${shardId} is under way; try again later`);
  }
  if (rsm.appliedIndex === 0) {
    throw new DrakkarError('ERR_SHARD_NOT_READY', `shard ${shardId} has applied nothing yet; try again`);
  }
  replica.isSnapshotting = true;
  try {
    const image = await captureNow(replica);
    try {
      const exported = await writeExport(engine.env.fs, dir, replicaId, image.chunks, rsm.codecs);
      engine.events.emit('snapshotExported', { shardId, replicaId, index: exported.index, dir });
      return exported;
    } finally {
      await image.release();
    }
  } catch (error) {
    if (DrakkarError.is(error, 'ERR_STATE_MACHINE')) engine.failReplica(replica, error);
    throw error;
  } finally {
    replica.isSnapshotting = false;
    engine.markReady(replica); // applying goes on
  }
}

/** The whole state, between two updates also where the state machine keeps it itself. */
async function captureNow(replica: Replica): Promise<Capture> {
  const { rsm, shardId } = replica;
  const letGo = await rsm.gate.hold();
  try {
    if (replica.status !== 'running') throw replica.unavailable();
    if (rsm.isReplaying) {
      throw new DrakkarError('ERR_SHARD_NOT_READY', `shard ${shardId} goes through its log; try again`);
    }
    return capture(rsm, replica.stopSignal);
  } finally {
    letGo();
  }
}
