/**
 * Room that nobody needs any more goes back: what is here of a replica that was removed from its shard, or that its operator gives up for
 * lost, and what a crash left behind on the way.
 */
import { DrakkarError } from '../errors.ts';
import type { FileSystem } from '../env/env.ts';
import type { LogDb, RecoveredShard } from '../wal/logdb.ts';
import { decodeBootstrap, encodeBootstrap } from './bootstrap-record.ts';
import type { Engine } from './engine.ts';

/**
 * At the opening: images of shards that the log knows nothing of, or only that they were given up. Of a damaged log nothing is
 * concluded. An image counts only with the record that names it (F14), so that none is lost by this.
 */
export async function removeLeftovers(fs: FileSystem, snapshotsDir: string, log: LogDb): Promise<void> {
  if (log.damage !== undefined) return;
  let isChanged = false;
  for (const name of await fs.list(snapshotsDir)) {
    if (!/^[1-9]\d{0,15}$/.test(name)) continue;
    const known = log.recovered.get(Number(name));
    if (known !== undefined && !isGivenUp(known)) continue;
    await fs.remove(`${snapshotsDir}/${name}`);
    isChanged = true;
  }
  if (isChanged) await fs.syncDirectory(snapshotsDir);
}

/** Its operator has said that it never comes back; nothing but that is remembered. */
export function isGivenUp({ failure, state }: RecoveredShard): boolean {
  return failure === undefined && state.bootstrap.length > 0 && decodeBootstrap(state.bootstrap).isGivenUp;
}

/** The images of a shard, durably: what is left of them without a record would only be found at the next start. */
export async function removeImages(engine: Engine, snapshotsDir: string, shardId: number): Promise<void> {
  await engine.env.fs.remove(`${snapshotsDir}/${shardId}`);
  await engine.env.fs.syncDirectory(snapshotsDir);
}

/**
 * Forgets all of a replica that may be a member still, but that it must never run or vote here again: a record without a log stays.
 * For its shard it is what a lost disk is.
 */
export async function giveUp(engine: Engine, snapshotsDir: string, known: RecoveredShard): Promise<void> {
  const { shardId, bootstrap } = known.state;
  await removeImages(engine, snapshotsDir, shardId);
  const nothing = { commitIndex: 0, snapshotIndex: 0, snapshotTerm: 0, compactedIndex: 0, compactedTerm: 0, pins: [] };
  const ended = encodeBootstrap({ ...decodeBootstrap(bootstrap), isRemoved: true, isGivenUp: true });
  const state = { ...known.state, ...nothing, bootstrap: ended };
  engine.parked.set(shardId, { state, blocks: [], commitIndex: 0, failure: undefined });
  const durable = engine.durability.whenStateDurable(shardId);
  engine.log.appendState(state, true);
  engine.log.flush();
  await durable;
  if (engine.failure !== undefined) throw engine.failure;
}

/** `removeData` of a replica that this host does not know to be removed, with its operator's word. */
export function checkMayGiveUp(engine: Engine, known: RecoveredShard | undefined, shardId: number): void {
  if (engine.replicas.has(shardId)) {
    throw new DrakkarError('ERR_SHARD_EXISTS', `shard ${shardId} runs on this host; stop its replica first`);
  }
  if (known?.failure !== undefined) {
    throw new DrakkarError('ERR_LOG_CORRUPT', known.failure.message, { cause: known.failure });
  }
}
