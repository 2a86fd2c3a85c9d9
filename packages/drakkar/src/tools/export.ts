/** Exports of a host that does not run: its newest recorded snapshot of a shard, as it stands. */
import { DrakkarError } from '../errors.ts';
import { verifyExport, writeExport, type ExportedSnapshot } from '../rsm/export.ts';
import { codecsOf } from '../rsm/codec.ts';
import { readFileChunks } from '../rsm/image-file.ts';
import { Replay } from '../wal/replay.ts';
import { scanSegments } from '../wal/scan.ts';
import { withLogs, type LogsOptions } from './log-files.ts';
import { envOf, type ToolOptions } from './tool-env.ts';

export type { ExportedSnapshot };

export interface OfflineExportOptions extends ToolOptions, LogsOptions {
  readonly shardId: number;
  /** A directory, empty or missing. */
  readonly to: string;
}

/**
 * Copies the newest recorded snapshot of a stopped host's replica. Entries behind it are not in it: where the host can still run, export
 * from the running host (`requestSnapshot` with `exportTo`), which holds all that is applied.
 *
 * @throws ERR_SHARD_NOT_FOUND when the directory has no snapshot of the shard; ERR_LOG_CORRUPT, ERR_SNAPSHOT_CORRUPT, ERR_DIR_LOCKED,
 * ERR_INVALID_OPTION, ERR_DISK_FULL, ERR_DISK_FAILED
 */
export async function exportStopped(options: OfflineExportOptions): Promise<ExportedSnapshot> {
  const env = envOf(options);
  const { dir, shardId, to } = options;
  return withLogs(env, options, async (logs) => {
    for (const { segments, snapshotsDir } of logs) {
      const replay = new Replay();
      const { damage } = await scanSegments(segments, replay.visit);
      const shard = replay.finish(damage).recovered.get(shardId);
      if (shard === undefined || snapshotsDir === undefined) continue;
      if (shard.failure !== undefined) throw shard.failure;
      const { snapshotIndex, replicaId } = shard.state;
      if (snapshotIndex === 0) break;
      const path = `${snapshotsDir}/${shardId}/${snapshotIndex.toString(16).padStart(16, '0')}.snapshot`;
      return writeExport(env.fs, to, replicaId, readFileChunks(env.fs, path), codecsOf(options.snapshotCodecs));
    }
    throw new DrakkarError('ERR_SHARD_NOT_FOUND', `${dir} holds no snapshot of shard ${shardId}`);
  });
}

export interface VerifySnapshotOptions extends ToolOptions {
  /** A directory that an export made. */
  readonly dir: string;
}

/** Reads an exported snapshot to its end; gives what it is of. Throws ERR_SNAPSHOT_CORRUPT, ERR_DIR_FORMAT, ERR_DISK_FAILED. */
export function verifySnapshot(options: VerifySnapshotOptions): Promise<ExportedSnapshot> {
  return verifyExport(envOf(options).fs, options.dir, codecsOf(options.snapshotCodecs));
}
