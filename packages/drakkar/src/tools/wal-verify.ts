/** Reads the logs of a directory to their ends and tells what is in them and whether all of it is sound. */
import { DrakkarError } from '../errors.ts';
import { checkImages, type ImageReport } from './images.ts';
import { codecsOf } from '../rsm/codec.ts';
import { withLogs, type LogFiles, type LogsOptions } from './log-files.ts';
import { problemOf, type Problem } from './problem.ts';
import { envOf, type ToolOptions } from './tool-env.ts';
import { BlockHeader, blockLengthBytes, readBlockHeader } from '../wire/block.ts';
import { FRAME_HEADER_WORDS, FrameType, frameCount, frameType } from '../wire/frame.ts';
import { decodeMembership } from '../wire/membership.ts';
import type { RecoveredShard } from '../wal/logdb.ts';
import { MOVED_PREFIX_WORDS, Replay } from '../wal/replay.ts';
import { scanSegments, type FrameVisitor } from '../wal/scan.ts';

export interface VerifyOptions extends ToolOptions, LogsOptions {
  /** Reads the snapshot images of a host's directory, too. Default true. */
  readonly images?: boolean;
}

export interface LogReport {
  readonly engine: number;
  readonly walDir: string;
  readonly segments: readonly { readonly path: string; readonly epoch: number; readonly usedBytes: number }[];
  /** Number of the newest group since the log began. */
  readonly lastGroup: number;
  readonly frames: number;
  readonly blocks: number;
  readonly entries: number;
  readonly stateRecords: number;
  /** Damage of the log at large: none of its shards can be started. */
  readonly damage: Problem | undefined;
  readonly shards: readonly ShardReport[];
}

export interface ShardReport {
  readonly shardId: number;
  readonly replicaId: number;
  readonly term: number;
  readonly vote: number;
  readonly commitIndex: number;
  /** Entries in the log; `firstIndex` is above `lastIndex` when there are none. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly snapshotIndex: number;
  /** As the shard began, or was imported: replica id to address. Empty when it cannot be read. */
  readonly members: Readonly<Record<string, string>>;
  readonly images: readonly ImageReport[];
  readonly problems: readonly Problem[];
}

export interface DirectoryReport {
  readonly dir: string;
  /** Nothing is damaged. */
  readonly ok: boolean;
  readonly logs: readonly LogReport[];
}

/**
 * @throws ERR_INVALID_OPTION for a directory without a log, ERR_DIR_LOCKED for one in use, ERR_DIR_FORMAT for one of a newer version,
 * ERR_DISK_FAILED when it cannot be read. Damage is no error: it is in the report.
 */
export async function verifyLog(options: VerifyOptions): Promise<DirectoryReport> {
  const env = envOf(options);
  return withLogs(env, options, async (files) => {
    const logs: LogReport[] = [];
    for (const log of files) logs.push(await verifyOne(options, log));
    const ok = logs.every(
      ({ damage, shards }) => damage === undefined && shards.every(({ problems }) => problems.length === 0),
    );
    return { dir: options.dir, ok, logs };
  });
}

async function verifyOne(options: VerifyOptions, log: LogFiles): Promise<LogReport> {
  const counts = { frames: 0, blocks: 0, entries: 0, stateRecords: 0 };
  const replay = new Replay();
  const header = new BlockHeader();
  const visit: FrameVisitor = (segment, u8, u32, at, offset) => {
    replay.visit(segment, u8, u32, at, offset);
    counts.frames++;
    const word = at >>> 2;
    const type = frameType(u32, word);
    if (type === FrameType.Records) {
      counts.stateRecords += frameCount(u32, word);
      return;
    }
    let block = word + FRAME_HEADER_WORDS;
    for (let left = frameCount(u32, word); left > 0; left--) {
      if (type === FrameType.Moved) block += MOVED_PREFIX_WORDS;
      readBlockHeader(u32, block, header);
      counts.blocks++;
      counts.entries += header.count;
      block += blockLengthBytes(u32, block) >>> 2;
    }
  };
  let damage: DrakkarError | undefined;
  let lastGroup = 0;
  try {
    const scan = await scanSegments(log.segments, visit);
    damage = scan.damage;
    lastGroup = scan.end.groupNumber;
  } catch (error) {
    // Whole frames with contents that nobody writes.
    if (!DrakkarError.is(error, 'ERR_LOG_CORRUPT')) throw error;
    damage = error;
  }
  const shards: ShardReport[] = [];
  for (const shard of replay.finish(undefined).recovered.values())
    shards.push(await describeShard(options, log, shard));
  return {
    engine: log.engine,
    walDir: log.walDir,
    segments: log.segments.map(({ path, epoch, offset }) => ({ path, epoch, usedBytes: offset })),
    lastGroup,
    ...counts,
    damage: damage && problemOf(damage),
    shards: shards.sort((a, b) => a.shardId - b.shardId),
  };
}

async function describeShard(options: VerifyOptions, log: LogFiles, shard: RecoveredShard): Promise<ShardReport> {
  const { state, blocks, commitIndex, failure } = shard;
  const { shardId, replicaId, term, vote, snapshotIndex, compactedIndex } = state;
  const problems: Problem[] = failure === undefined ? [] : [problemOf(failure)];
  let members: Record<string, string> = {};
  try {
    members = Object.fromEntries(decodeMembership(state.bootstrap).voters);
  } catch (error) {
    if (failure === undefined) problems.push(problemOf(error));
  }
  const images =
    log.snapshotsDir === undefined
      ? []
      : await checkImages(
          envOf(options),
          `${log.snapshotsDir}/${shardId}`,
          shardId,
          options.images ?? true,
          codecsOf(options.snapshotCodecs),
        );
  const recorded = images.find(({ index }) => index === snapshotIndex);
  if (log.snapshotsDir !== undefined && snapshotIndex > 0 && recorded === undefined) {
    const message = `the log of shard ${shardId} names a snapshot at ${snapshotIndex} and its image is missing`;
    problems.push({ code: 'ERR_SNAPSHOT_CORRUPT', message });
  }
  for (const { problem } of images) if (problem !== undefined) problems.push(problem);
  return {
    shardId,
    replicaId,
    term,
    vote,
    commitIndex,
    firstIndex: Math.max(compactedIndex + 1, blocks[0]?.firstIndex ?? 0),
    lastIndex: blocks.at(-1)?.lastIndex ?? compactedIndex,
    snapshotIndex,
    members,
    images,
    problems,
  };
}
