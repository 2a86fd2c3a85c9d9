/**
 * How a replica comes to life: from what the log holds of it, or, at its very first start, from the members its caller names. The
 * bootstrap record says once and for ever who the initial members were and what kind of state machine this is.
 */
import { DrakkarError } from '../errors.ts';
import type { BlockRef } from '../wire/block-ref.ts';
import { initialMembership, type Membership } from '../wire/membership.ts';
import type { RecoveredShard, ReplicaPin } from '../wal/logdb.ts';
import { DEFAULT_MAX_INFLIGHT_BLOCKS, DEFAULT_MAX_INFLIGHT_BYTES, DEFAULT_MAX_SEND_BYTES } from '../raft/config.ts';
import { Raft } from '../raft/raft.ts';
import { Rsm } from '../rsm/rsm.ts';
import { Snapshotter } from '../rsm/snapshotter.ts';
import type { StateMachineFactory } from '../rsm/state-machine.ts';
import { meansHost } from '../transport/target.ts';
import type { HostIdentity } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { Replica, type ReplicaSettings } from './replica.ts';
import { ReplicaOutbox } from './replica-outbox.ts';

export interface ReplicaStart extends ReplicaSettings {
  readonly members: Readonly<Record<number, string>> | undefined;
  readonly heartbeatTicks: number;
  readonly preVote: boolean;
  readonly checkQuorum: boolean;
  readonly maxInMemoryLogBytes: number;
  readonly quiesce: boolean;
  readonly snapshotsDir: string;
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
  factory: StateMachineFactory,
): Promise<Replica> {
  const origin = findOrigin(engine, start);
  const { known } = origin;
  if (known?.failure !== undefined) {
    throw new DrakkarError('ERR_LOG_CORRUPT', known.failure.message, { cause: known.failure });
  }
  const snapshotter = new Snapshotter(engine.env.fs, `${start.snapshotsDir}/${start.shardId}`);
  const snapshotIndex = known?.state.snapshotIndex ?? 0;
  await snapshotter.processOrphans(snapshotIndex, origin.bootstrap);
  let stateMachine;
  try {
    stateMachine = factory(start.shardId, start.replicaId);
  } catch (cause) {
    throw new DrakkarError('ERR_STATE_MACHINE', `the factory of shard ${start.shardId} threw`, {
      cause,
      outcome: 'not-applied',
    });
  }
  const { shardId, replicaId } = start;
  const rsm = new Rsm({ shardId, replicaId, stateMachine, membership: origin.initial });
  if (snapshotIndex > 0) {
    const image = await snapshotter.open(snapshotIndex);
    await rsm.recoverImage(image.chunks, new AbortController().signal);
  }
  if (engine.replicas.has(shardId))
    throw new DrakkarError('ERR_SHARD_EXISTS', `shard ${shardId} is running here already`);
  const pins: readonly ReplicaPin[] = (known?.state.pins ?? []).map((pin) => engine.interned.pin(pin));
  const replica = new Replica(engine, start, rsm, snapshotter, origin.bootstrap, pins);
  replica.snapshotIndex = snapshotIndex;
  replica.snapshotTerm = known?.state.snapshotTerm ?? 0;
  const outbox = new ReplicaOutbox(engine, replica);
  replica.raft = new Raft(
    {
      shardId,
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
    },
    {
      term: known?.state.term ?? 0,
      vote: known?.state.vote ?? 0,
      commitIndex: known?.commitIndex ?? 0,
      appliedIndex: rsm.appliedIndex,
      compactedIndex: known?.state.compactedIndex ?? 0,
      compactedTerm: known?.state.compactedTerm ?? 0,
      blocks: liveBlocksOf(known),
      membership: rsm.membership,
    },
    outbox,
  );
  replica.peers = replica.raft.slots.map((id) => {
    const address = addressOf(rsm.membership, id);
    return id === replicaId ? undefined : engine.transport.peer(address, shardId);
  });
  replica.verifiedSessions = replica.raft.slots.map(() => 0);
  engine.addReplica(replica, outbox);
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
    if (start.members === undefined) {
      throw new DrakkarError(
        'ERR_SHARD_NOT_BOOTSTRAPPED',
        `shard ${shardId} has never run in ${engine.dir}; name its initial members`,
      );
    }
    const initial = initialMembership(Object.entries(start.members).map(([id, address]) => [Number(id), address]));
    checkAddress(initial, start, engine.identity);
    const { bytes, membership } = engine.interned.bootstrapOf(initial);
    return { known: undefined, bootstrap: bytes, initial: membership };
  }
  if (known.failure !== undefined && known.state.replicaId === 0)
    return { known, bootstrap: new Uint8Array(0), initial: initialMembership([]) };
  if (known.state.replicaId !== replicaId) {
    throw new DrakkarError(
      'ERR_SHARD_MISMATCH',
      `${engine.dir} holds replica ${known.state.replicaId} of shard ${shardId}, not ${replicaId}; start that one`,
    );
  }
  const { bytes: bootstrap, membership: initial } = engine.interned.bootstrap(known.state.bootstrap);
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

function checkAddress(membership: Membership, start: ReplicaStart, identity: HostIdentity): void {
  const address = membership.voters.get(start.replicaId);
  if (address !== undefined && meansHost(address, identity)) return;
  throw new DrakkarError(
    'ERR_SHARD_MISMATCH',
    `replica ${start.replicaId} of shard ${start.shardId} lives at ${address ?? 'no address'}; this host is ${identity.raftAddress}, id ${identity.hostId}`,
  );
}

const describe = (membership: Membership): string => JSON.stringify(Object.fromEntries(membership.voters));

function addressOf(membership: Membership, replicaId: number): string {
  const address =
    membership.voters.get(replicaId) ?? membership.nonVotings.get(replicaId) ?? membership.witnesses.get(replicaId);
  if (address === undefined) throw new DrakkarError('ERR_INVARIANT', `replica ${replicaId} has no address`);
  return address;
}
