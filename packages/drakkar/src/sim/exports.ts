/**
 * An exported snapshot is of use when an import makes a replica of it that holds exactly what was applied at its index. So each export of
 * a run is imported, on a copy of the disk, into a host of its own in a world of its own.
 */
import { DrakkarError } from '../errors.ts';
import { replicasOf } from '../inspect.ts';
import { NodeHost } from '../nodehost.ts';
import { MemoryMachines } from '../testing.ts';
import { importSnapshot } from '../tools/import.ts';
import { openWal } from '../wal/open.ts';
import { simpleCodec } from './codec.ts';
import type { SimHost } from './host.ts';
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import { watchMachine } from './machine.ts';
import type { ShardTruth } from './truth.ts';
import { Violation, describe, holds } from './violation.ts';
import type { Workload } from './workload.ts';

/** No replica of a run has it; the one that exports may have been removed by then. */
const IMPORTED_ID = 50;

export interface ExportedSim {
  readonly host: SimHost;
  readonly shardId: number;
  readonly truth: ShardTruth;
  readonly workload: Workload;
  /** On the host's disk; removed. */
  readonly dir: string;
  readonly index: number;
}

/** Throws a violation when the import does not hold what it must. */
export function checkExport(exported: ExportedSim): void {
  const { host, dir } = exported;
  if (!host.machine.disk.paths().includes(dir)) return; // the disk was lost or rolled back since
  const machines = new MemoryMachines(1);
  const machine = machines.add(host.name);
  machine.disk = host.machine.disk.clone();
  // The copy is another disk, which has room.
  machine.disk.capacityBytes = Number.POSITIVE_INFINITY;
  host.machine.disk.remove(dir);
  try {
    machines.world.settleNow(importAndCompare(exported, machine.boot()));
  } catch (error) {
    // What the watched state machine says of its digest comes wrapped.
    const cause = DrakkarError.is(error) ? error.cause : error;
    if (cause instanceof Violation) throw cause;
    throw new Violation('safety', 'every export can be imported', `${host.name}, ${dir}: ${describe(error)}`);
  } finally {
    machine.kill();
  }
}

async function importAndCompare(exported: ExportedSim, env: ReturnType<SimHost['machine']['boot']>): Promise<void> {
  const { host, shardId, truth, workload, index } = exported;
  const members = { [IMPORTED_ID]: host.address };
  const common = { env, dir: 'imported', logDb, snapshotCodecs: [simpleCodec()] };
  await importSnapshot({ ...common, from: exported.dir, replicaId: IMPORTED_ID, members });
  const opened = await NodeHost.open({ ...common, raftAddress: host.address });
  // A store of its own: an on-disk state machine is given the image.
  const place = { ...host.placeOf(shardId, env), dir: 'imported-stores' };
  const makes = (): AnyStateMachine =>
    watchMachine(workload.createStateMachine(shardId, IMPORTED_ID, place), {
      onGiven() {},
      onApplied: (...args) => truth.applies(...args),
      // The digest at the index of the last command must be the one that every replica had there.
      onDigest: (...args) => truth.hasDigest(...args),
      onOpened() {},
      onRepeated: (...args) => truth.repeats(...args),
    });
  await opened.startReplica({ shardId, replicaId: IMPORTED_ID }, makes);
  const [view] = replicasOf(opened);
  const isThere = view.appliedIndex === index && view.commitIndex === index && view.lastIndex === index;
  holds(isThere, 'an import begins at the index of its export', () => {
    return `${host.name}, shard ${shardId}: exported at ${index}, applied ${view.appliedIndex} of ${view.lastIndex}`;
  });
}

const logDb: NonNullable<Parameters<typeof NodeHost.open>[0]['logDb']> = (context) =>
  openWal({ ...context, segmentBytes: 64 * 4096 });
