/**
 * What a replica's state machine begins with: one in memory with the recorded snapshot, an on-disk one with what it has stored, unless the
 * recorded snapshot is an image that it had no time to take over before a crash (fault F15).
 */
import { DrakkarError } from '../errors.ts';
import { imageWithoutState, open, readImage } from '../rsm/captures.ts';
import type { Rsm } from '../rsm/rsm.ts';
import type { Snapshotter } from '../rsm/snapshotter.ts';
import type { RecoveredShard } from '../wal/logdb.ts';

export async function restoreState(
  rsm: Rsm,
  snapshotter: Snapshotter,
  known: RecoveredShard | undefined,
  signal: AbortSignal,
): Promise<void> {
  const snapshotIndex = known?.state.snapshotIndex ?? 0;
  if (!rsm.isOnDisk) {
    if (snapshotIndex > 0) await rsm.recoverImage((await snapshotter.open(snapshotIndex)).chunks, signal);
    return;
  }
  await open(rsm, signal);
  if (snapshotIndex > 0) await reconcile(rsm, snapshotter, snapshotIndex, signal);
  checkIndex(rsm, known);
}

/** The newer of store and snapshot wins, but nothing wins over an import until it is taken over. */
async function reconcile(
  rsm: Rsm,
  snapshotter: Snapshotter,
  snapshotIndex: number,
  signal: AbortSignal,
): Promise<void> {
  const image = await readImage(rsm, (await snapshotter.open(snapshotIndex)).chunks);
  if (image.hasState && (image.isImported || rsm.openIndex < snapshotIndex)) await image.recover(signal);
  else {
    await image.close();
    rsm.membership = image.membership;
    rsm.membershipIndex = snapshotIndex;
    // What it lacks of a state that was durable once is in the log, or `checkIndex` says so.
    rsm.appliedIndex = Math.min(snapshotIndex, rsm.openIndex);
    rsm.appliedTerm = image.info.term;
  }
  // The state is in the store now: a copy is of no use.
  if (image.hasState) await snapshotter.save(snapshotIndex, imageWithoutState(image.info, image.membership));
}

/** The log holds what comes behind the store's index, and the store nothing that the log does not have. */
function checkIndex(rsm: Rsm, known: RecoveredShard | undefined): void {
  const { openIndex, shardId } = rsm;
  const firstIndex = (known?.state.compactedIndex ?? 0) + 1;
  const lastIndex = Math.max(firstIndex - 1, known?.blocks.at(-1)?.lastIndex ?? 0);
  const message = `the state machine of shard ${shardId} has stored index ${openIndex};`;
  if (openIndex > lastIndex) {
    throw new DrakkarError(
      'ERR_STATE_MACHINE_INDEX',
      `${message} the log ends at ${lastIndex}: the log was lost, or this is the store of another replica`,
    );
  }
  if (openIndex < firstIndex - 1) {
    throw new DrakkarError(
      'ERR_STATE_MACHINE_INDEX',
      `${message} the log begins at ${firstIndex}: the store lost what sync had made durable; begin with a new replica`,
    );
  }
}
