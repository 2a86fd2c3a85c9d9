/**
 * Which host may speak for which replica (design §7.5). A member's directory is pinned, durably, at first contact; a host with
 * another directory, or with an older start of it, is refused: its disk was wiped or rolled back, and what its replica
 * promised may be gone (fault F19).
 */
import type { HostIdentity, InboundSession, Peer } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import type { Replica } from './replica.ts';

export class Incarnations {
  private readonly engine: Engine;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** Whether `session` comes from the host that `replicaId` lives at, in the incarnation that is pinned. */
  isFromMember(replica: Replica, replicaId: number, session: InboundSession): boolean {
    const slot = replica.raft.slots.indexOf(replicaId);
    if (slot < 0) {
      this.engine.counters.messagesRefused++;
      return false;
    }
    const verified = replica.verifiedSessions[slot];
    if (verified === session.id) return true;
    if (verified === -session.id) {
      this.engine.counters.messagesRefused++;
      return false;
    }
    return this.verify(replica, slot, replicaId, session);
  }

  private verify(replica: Replica, slot: number, replicaId: number, session: InboundSession): boolean {
    const { identity } = session;
    const peer = replica.peers[slot];
    if (peer === undefined || peer.address !== identity.raftAddress) {
      this.engine.counters.messagesRefused++;
      return false;
    }
    const pin = replica.pins.find((known) => known.replicaId === replicaId);
    if (pin !== undefined) {
      const sameDirectory = pin.directoryHigh === identity.directoryHigh && pin.directoryLow === identity.directoryLow;
      if (!sameDirectory || identity.startCounter < pin.startCounter) {
        this.engine.counters.messagesRefused++;
        replica.verifiedSessions[slot] = -session.id; // said once for each connection
        this.engine.refuseMember(
          replica,
          replicaId,
          sameDirectory
            ? `its directory went back from start ${pin.startCounter} to start ${identity.startCounter}`
            : 'its directory is another one than before',
        );
        return false;
      }
    }
    replica.verifiedSessions[slot] = session.id;
    if (pin === undefined || pin.startCounter !== identity.startCounter) this.pin(replica, replicaId, identity);
    return true;
  }

  /**
   * A connection to the host that `replicaId` lives at is up: whoever is there first is pinned, so that a follower that
   * never hears of another follower still knows it when it comes back without its disk.
   */
  meet(replica: Replica, replicaId: number, peer: Peer): void {
    if (peer.identity === undefined || replica.pins.some((known) => known.replicaId === replicaId)) return;
    this.pin(replica, replicaId, peer.identity);
  }

  private pin(replica: Replica, replicaId: number, identity: HostIdentity): void {
    const { directoryHigh, directoryLow, startCounter } = identity;
    const others = replica.pins.filter((known) => known.replicaId !== replicaId);
    replica.pins = [...others, { replicaId, directoryHigh, directoryLow, startCounter }];
    replica.raft.saveState();
  }
}
