/** A copy of a running replica's state for elsewhere. Neither recorded nor a reason to compact anything. */
import { DrakkarError } from '../errors.ts';
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
    const exported = await writeExport(engine.env.fs, dir, replicaId, rsm.saveImage(replica.stopSignal));
    engine.events.emit('snapshotExported', { shardId, replicaId, index: exported.index, dir });
    return exported;
  } finally {
    rsm.busy = false; // also when not one chunk was taken
    replica.isSnapshotting = false;
    engine.markReady(replica); // applying goes on
  }
}
