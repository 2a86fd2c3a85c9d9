/**
 * A disk as a crash or damage left it, opened by a host of its own in a world of its own: what the old host had promised is there, or,
 * where the disk is damaged, the host says so.
 */
import type { Env } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import { replicasOf, type ReplicaView } from '../inspect.ts';
import { NodeHost } from '../nodehost.ts';
import { MemoryMachines, type MemoryDisk } from '../testing.ts';
import { openWal } from '../wal/open.ts';
import { simpleCodec } from './codec.ts';
import { DATA_DIR, type SimHost } from './host.ts';
import { DAMAGE_CODES } from './refusals.ts';
import { watchMachine } from './machine.ts';
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import { checkLogKept, type Observer } from './observer.ts';
import { Violation, describe, holds } from './violation.ts';
import type { Workload } from './workload.ts';

export interface Recovery {
  readonly host: SimHost;
  readonly observer: Observer;
  /** Used up. */
  readonly disk: MemoryDisk;
  readonly workload: Workload;
  /** It may be refused, with a code that says why. */
  readonly isDamaged?: boolean;
}

/** Virtual milliseconds that a snapshot may take. */
const SNAPSHOT_WAITS = 1000;

/** True when the host opened, false when it was refused for its damage. Throws a violation, which names `what` was done to the disk. */
export function recover(recovery: Recovery, what: string): boolean {
  const { host, observer, isDamaged } = recovery;
  const machines = new MemoryMachines(1);
  const machine = machines.add(host.name);
  machine.disk = recovery.disk;
  const run = async (): Promise<void> => {
    const recovered = await open(recovery, machine.boot());
    for (const { shardId } of host.plan.shards) check(recovered, host, observer, shardId);
    for (const view of replicasOf(recovered)) {
      // What is replayed may ask for a snapshot at once: while one is being recorded there is one image more.
      const isBusy = (): boolean => recovered.shardInfo(view.shardId).isSnapshotting;
      for (let left = SNAPSHOT_WAITS; isBusy() && left > 0; left--) {
        await new Promise<void>((resolve) => void machines.world.schedule(1, resolve));
      }
      checkFiles(host, machine.disk, view);
    }
  };
  try {
    machines.world.settleNow(run());
    return true;
  } catch (error) {
    if (isDamaged === true && DrakkarError.is(error) && DAMAGE_CODES.has(error.code)) return false;
    if (error instanceof Violation) throw new Violation(error.kind, error.rule, `${error.message} (${what})`);
    throw new Violation('safety', 'every crash is recovered from', `${host.name}, ${what}: ${describe(error)}`);
  } finally {
    machine.kill();
  }
}

async function open({ host, observer, workload }: Recovery, env: Env): Promise<NodeHost> {
  const { plan } = host;
  const opened = await NodeHost.open({
    ...host.directories,
    raftAddress: host.address,
    rttMs: plan.rttMs,
    env,
    snapshotCodecs: [simpleCodec()],
    logDb: (context) => openWal({ ...context, segmentBytes: plan.segmentBytes }),
  });
  for (const shardId of host.placements.keys()) {
    const truth = observer.truths.get(shardId)!;
    const makes = (): AnyStateMachine => {
      return watchMachine(workload.createStateMachine(shardId, host.id, host.placeOf(shardId, env)), {
        onGiven() {},
        onApplied: (...args) => truth.applies(...args),
        onDigest: (...args) => truth.hasDigest(...args),
        onOpened() {},
        onRepeated: (...args) => truth.repeats(...args),
      });
    };
    await opened.startReplica(host.replicaOptions(shardId), makes);
  }
  return opened;
}

/** A start leaves the recorded image, the one before it, at most the beginning of one to come, and nothing else. */
function checkFiles(host: SimHost, disk: MemoryDisk, { shardId, snapshotIndex }: ReplicaView): void {
  // Below whichever engine has the shard.
  const dir = `/snapshots/${shardId}/`;
  const names = disk
    .paths()
    .filter((path) => path.startsWith(DATA_DIR) && path.includes(dir))
    .map((path) => path.slice(path.indexOf(dir) + dir.length));
  const indexOf = (name: string): number => Number.parseInt(name, 16);
  const images = names.filter((name) => name.endsWith('.snapshot'));
  const parts = names.filter((name) => /^[0-9a-f]{16}\.[0-9a-f]{8}-[0-9a-f]+\.receiving$/.test(name));
  const isRight =
    names.length === images.length + parts.length &&
    (snapshotIndex === 0 || images.some((name) => indexOf(name) === snapshotIndex)) &&
    images.length <= 2 &&
    images.every((name) => indexOf(name) <= snapshotIndex) &&
    parts.length <= 1 &&
    parts.every((name) => indexOf(name) > snapshotIndex);
  holds(isRight, 'a start leaves nothing behind', () => {
    return `${host.name}, shard ${shardId}, snapshot at ${snapshotIndex}: ${names.join(' ')}`;
  });
}

function check(recovered: NodeHost, host: SimHost, observer: Observer, shardId: number): void {
  const promised = observer.promiseOf(host, shardId);
  if (promised === undefined) return;
  const who = `${host.name}, shard ${shardId}`;
  const view = [...replicasOf(recovered)].find((each) => each.shardId === shardId)!;
  const { term, vote } = view;
  holds(term >= promised.term, 'a restart keeps the term', () => `${who}: ${promised.term} was durable, now ${term}`);
  const keepsVote = term > promised.term || promised.vote === 0 || vote === promised.vote;
  holds(keepsVote, 'a restart keeps the vote', () => `${who}: ${promised.vote} of term ${term}, now ${vote}`);
  checkLogKept(who, promised.view, view);
  // What a snapshot or another leader's entries had replaced does not come back behind them.
  const truth = observer.truths.get(shardId)!;
  for (let index = view.compactedIndex + 1; index <= view.lastIndex; index++) {
    truth.holdsEntry(index, view.termAt(index)!, view.termAt(index - 1)!);
  }
  const { snapshotIndex } = promised;
  holds(view.snapshotIndex >= snapshotIndex && view.appliedIndex >= snapshotIndex, 'the newest snapshot counts', () => {
    return `${who}: the snapshot at ${snapshotIndex} was recorded, begun with ${view.snapshotIndex}, applied ${view.appliedIndex}`;
  });
}
