/**
 * How a replica comes to life: from what the log holds of it, or, at its very first start, from the members its caller names. The
 * bootstrap record says once and for ever who the initial members were and what kind of state machine this is.
 */
import { DrakkarError } from '../errors.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import { UNKNOWN_MEMBERSHIP, initialMembership, type Membership } from '../wire/membership.ts';
import type { RecoveredShard } from '../wal/logdb.ts';
import { DEFAULT_MAX_INFLIGHT_BLOCKS, DEFAULT_MAX_INFLIGHT_BYTES, DEFAULT_MAX_SEND_BYTES } from '../raft/config.ts';
import { Raft } from '../raft/raft.ts';
import type { Codecs } from '../rsm/codec.ts';
import type { Packing } from '../rsm/image.ts';
import { Rsm } from '../rsm/rsm.ts';
import { createWitnessMachine } from '../rsm/witness.ts';
import { Snapshotter } from '../rsm/snapshotter.ts';
import type { StateMachineFactory } from '../rsm/state-machine.ts';
import { meansHost } from '../transport/target.ts';
import type { HostIdentity } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { connectMembers, givenUpError, removedError } from './membership.ts';
import { Replica, type ReplicaSettings } from './replica.ts';
import { ReplicaOutbox } from './replica-outbox.ts';
import { restoreState } from './restore.ts';

export interface ReplicaStart extends ReplicaSettings {
  readonly shardId: number;
  readonly replicaId: number;
  readonly members: Readonly<Record<number, string>> | 'join' | undefined;
  readonly heartbeatTicks: number;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  readonly maxInMemoryLogBytes: number;
  readonly quiesce: boolean;
  readonly snapshotsDir: string;
  readonly codecs: Codecs;
  readonly packing: Packing;
  /** Aborted when the host closes. */
  readonly signal: AbortSignal;
}

/** What the log, or the caller at the first start, says of the shard. */
interface Origin {
  readonly known: RecoveredShard | undefined;
  readonly bootstrap: Uint8Array;
  readonly initial: Membership;
}

export async function startReplica(
  engine: Engine,
  start: ReplicaStart,
  factory: StateMachineFactory | undefined,
): Promise<Replica> {
  const origin = findOrigin(engine, start);
  const { known } = origin;
  if (known?.failure !== undefined) {
    throw new DrakkarError('ERR_LOG_CORRUPT', known.failure.message, { cause: known.failure });
  }
  const { codecs, packing } = start;
  const snapshotter = new Snapshotter(engine.env.fs, start.snapshotsDir, start.shardId, codecs);
  const snapshotIndex = known?.state.snapshotIndex ?? 0;
  await snapshotter.processOrphans(snapshotIndex, origin.bootstrap);
  let stateMachine;
  try {
    stateMachine = factory === undefined ? createWitnessMachine() : factory(start.shardId, start.replicaId);
  } catch (cause) {
    throw new DrakkarError('ERR_STATE_MACHINE', `the factory of shard ${start.shardId} threw`, {
      cause,
      outcome: 'not-applied',
    });
  }
  const { shardId, replicaId } = start;
  const options = { shardId, replicaId, stateMachine, membership: origin.initial, codecs, packing };
  const rsm = new Rsm({ ...options, files: snapshotter });
  let replica: Replica;
  try {
    await restoreState(rsm, snapshotter, known, start.signal);
    if (start.signal.aborted) throw new DrakkarError('ERR_CLOSED', 'the host was closed');
    replica = addReplica(engine, start, origin, rsm, snapshotter);
  } catch (error) {
    await rsm.close().catch((cause: unknown) => engine.env.logger.warn({ shardId, err: cause }, 'close failed'));
    throw error;
  }
  return replica;
}

function addReplica(
  engine: Engine,
  start: ReplicaStart,
  { known, bootstrap }: Origin,
  rsm: Rsm,
  snapshotter: Snapshotter,
): Replica {
  const { shardId, replicaId } = start;
  if (engine.replicas.has(shardId))
    throw new DrakkarError('ERR_SHARD_EXISTS', `shard ${shardId} is running here already`);
  const pins = engine.interned.pins(known?.state.pins ?? []);
  const replica = new Replica(engine, engine.interned.settings(start), start, rsm, snapshotter, bootstrap, pins);
  replica.snapshotIndex = known?.state.snapshotIndex ?? 0;
  replica.snapshotTerm = known?.state.snapshotTerm ?? 0;
  const outbox = new ReplicaOutbox(engine, replica);
  replica.raft = new Raft(
    engine.interned.raftConfig({
      replicaId,
      electionTicks: start.electionTicks,
      heartbeatTicks: start.heartbeatTicks,
      preVote: start.preVote,
      checkQuorum: start.checkQuorum,
      quiesce: start.quiesce,
      maxInflightBlocks: DEFAULT_MAX_INFLIGHT_BLOCKS,
      maxInflightBytes: DEFAULT_MAX_INFLIGHT_BYTES,
      maxSendBytes: DEFAULT_MAX_SEND_BYTES,
      maxUnappliedBytes: start.maxInMemoryLogBytes,
      random: engine.random,
    }),
    {
      shardId,
      term: known?.state.term ?? 0,
      vote: known?.state.vote ?? 0,
      // What an on-disk state machine has applied was committed.
      commitIndex: Math.max(known?.commitIndex ?? 0, rsm.openIndex),
      appliedIndex: rsm.appliedIndex,
      compactedIndex: known?.state.compactedIndex ?? 0,
      compactedTerm: known?.state.compactedTerm ?? 0,
      blocks: liveBlocksOf(known),
      membership: rsm.membership,
    },
    outbox,
  );
  connectMembers(engine, replica);
  engine.addReplica(replica, outbox);
  engine.arrivals.forgetPartLater(replica);
  // The first record makes the shard known to the log; later ones are only written when something changes.
  if (known === undefined) replica.raft.saveState();
  return replica;
}

function liveBlocksOf(known: RecoveredShard | undefined): readonly BlockRef[] {
  return known?.blocks ?? [];
}

function findOrigin(engine: Engine, start: ReplicaStart): Origin {
  const known = engine.parked.get(start.shardId);
  const { shardId, replicaId } = start;
  if (known === undefined) {
    // Begun anew, the replica would have forgotten its votes and acknowledgements.
    const { damage } = engine.log;
    if (damage !== undefined) throw new DrakkarError('ERR_LOG_CORRUPT', damage.message, { cause: damage });
    return begin(engine, start);
  }
  if (known.failure !== undefined && known.state.replicaId === 0)
    return { known, bootstrap: new Uint8Array(0), initial: UNKNOWN_MEMBERSHIP };
  const {
    bytes: bootstrap,
    initial,
    hasJoined,
    isWitness,
    isRemoved,
    isGivenUp: wasGivenUp,
  } = engine.interned.bootstrap(known.state.bootstrap);
  if (wasGivenUp) throw givenUpError(shardId, known.state.replicaId);
  if (isRemoved) throw removedError(shardId, known.state.replicaId);
  if (known.state.replicaId !== replicaId) {
    throw new DrakkarError(
      'ERR_SHARD_MISMATCH',
      `${engine.dir} holds replica ${known.state.replicaId} of shard ${shardId}, not ${replicaId}; start that one`,
    );
  }
  if (isWitness !== start.isWitness) {
    throw new DrakkarError(
      'ERR_SHARD_MISMATCH',
      `replica ${replicaId} of shard ${shardId} is ${isWitness ? 'a witness' : 'no witness'} since its first start; say so again`,
    );
  }
  if (start.members === 'join' || (start.members !== undefined && hasJoined)) {
    if (start.members === 'join' && hasJoined) return { known, bootstrap, initial };
    throw new DrakkarError(
      'ERR_SHARD_MISMATCH',
      hasJoined
        ? `replica ${replicaId} of shard ${shardId} joined when the shard was running already; this is a restart: leave members out, or say 'join' again`
        : `replica ${replicaId} of shard ${shardId} runs in ${engine.dir} since the shard began; this is a restart: leave members out, it has nothing to join`,
    );
  }
  if (hasJoined) return { known, bootstrap, initial };
  if (start.members !== undefined) {
    const given = initialMembership(Object.entries(start.members).map(([id, address]) => [Number(id), address]));
    if (describe(given) !== describe(initial)) {
      throw new DrakkarError(
        'ERR_SHARD_MISMATCH',
        `shard ${shardId} began with members ${describe(initial)}, not ${describe(given)}; leave members out at a restart`,
      );
    }
  }
  checkAddress(initial, start, engine.identity);
  return { known, bootstrap, initial };
}

/** The very first start here: of a new shard, or of a replica that is added to a running one. */
function begin(engine: Engine, start: ReplicaStart): Origin {
  const { shardId, members, isWitness } = start;
  if (members === undefined) {
    throw new DrakkarError(
      'ERR_SHARD_NOT_BOOTSTRAPPED',
      `shard ${shardId} has never run in ${engine.dir}, so this is no restart: name its initial members if the shard is new, ` +
        "or set members to 'join' if it runs already and this replica is to be added to it",
    );
  }
  if (members === 'join') {
    const record = { initial: UNKNOWN_MEMBERSHIP, hasJoined: true, isWitness, isRemoved: false, isGivenUp: false };
    const { bytes, initial } = engine.interned.bootstrapOf(record);
    return { known: undefined, bootstrap: bytes, initial };
  }
  const initial = initialMembership(Object.entries(members).map(([id, address]) => [Number(id), address]));
  checkAddress(initial, start, engine.identity);
  const record = { initial, hasJoined: false, isWitness: false, isRemoved: false, isGivenUp: false };
  const shared = engine.interned.bootstrapOf(record);
  return { known: undefined, bootstrap: shared.bytes, initial: shared.initial };
}

function checkAddress(membership: Membership, start: ReplicaStart, identity: HostIdentity): void {
  const address = membership.voters.get(start.replicaId);
  if (address !== undefined && meansHost(address, identity)) return;
  throw new DrakkarError(
    'ERR_SHARD_MISMATCH',
    `replica ${start.replicaId} of shard ${start.shardId} lives at ${address ?? 'no address'}; this host is ${identity.raftAddress}, id ${identity.hostId}`,
  );
}

const describe = (membership: Membership): string => JSON.stringify(Object.fromEntries(membership.voters));
