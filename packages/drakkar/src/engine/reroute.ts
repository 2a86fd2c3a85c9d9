/** Members that turn out to live in another engine of their host than was known (design §5): the way to them is another one. */
import type { Peer } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import type { Replica } from './replica.ts';

export function reroute(engine: Engine, address: string, shardIds: readonly number[]): void {
  let isChanged = false;
  for (const shardId of shardIds) {
    const replica = engine.replicas.get(shardId);
    if (replica === undefined || replica.status !== 'running') continue;
    for (const [slot, old] of replica.peers.entries()) {
      if (old?.address !== address) continue;
      const peer = engine.ways.peerAt(address, shardId);
      if (peer === old) continue;
      change(engine, replica, slot, peer);
      isChanged = true;
    }
  }
  if (isChanged) engine.ways.releaseUnused();
}

/** What was sent the old way is lost: the member is asked anew what it has. */
function change(engine: Engine, replica: Replica, slot: number, peer: Peer): void {
  replica.peers = engine.interned.peers(replica.raft.membership, replica.peers.with(slot, peer));
  replica.sets = undefined;
  const replicaId = replica.raft.slots[slot];
  replica.raft.reportUnreachable(replicaId);
  if (peer.connected) {
    engine.incarnations.meet(replica, replicaId, peer);
    replica.raft.reportReachable(replicaId);
  }
  engine.liveness.joinMember(replica, slot);
  engine.markReady(replica);
}
