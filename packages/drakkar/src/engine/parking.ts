/** A replica as the log knows it: its state record, and what a later start in this process finds of it. */
import type { RecoveredShard, ShardState } from '../wal/logdb.ts';
import type { Replica } from './replica.ts';

export function stateOf(replica: Replica): ShardState {
  const { term, vote, commitIndex } = replica.raft.hardState();
  const { compactedIndex, compactedTerm } = replica.raft.log;
  return {
    shardId: replica.shardId,
    replicaId: replica.replicaId,
    term,
    vote,
    commitIndex,
    snapshotIndex: replica.snapshotIndex,
    snapshotTerm: replica.snapshotTerm,
    compactedIndex,
    compactedTerm,
    bootstrap: replica.bootstrap,
    pins: replica.pins,
  };
}

/** A stopped replica, as if the log had just been read. Only what is durable counts: a stop must not know more than a crash would leave. */
export function parkReplica(replica: Replica): RecoveredShard {
  const { raft } = replica;
  const blocks = [...raft.log.blocks()];
  for (const ref of blocks) ref.dropBytes();
  const durable = blocks.filter((ref) => ref.place !== undefined);
  const isWhole = durable.length === blocks.length;
  return {
    state: stateOf(replica),
    blocks: durable,
    commitIndex: isWhole ? raft.commitIndex : Math.min(raft.commitIndex, raft.durableIndex),
    failure: replica.failure,
  };
}
