/**
 * The ways to other engines: which are needed, because a member lives there or a host is a guest, and which can be given up. Promises that a
 * way that is asked for stays until `releaseUnused` finds nobody behind it, and that everyone who keeps something by it is told then.
 *
 * Must not send anything, nor know what is sent: that is `outbound.ts`'s.
 */
import type { Peer } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import type { Replica } from './replica.ts';

export class Ways {
  private readonly engine: Engine;
  /** Hosts that are no member's and that are talked to all the same, each until a tick. */
  readonly guests = new Map<string, number>();
  /** All ways that were asked for and not given up. */
  private readonly inUse = new Set<Peer>();
  /** Of them, those on which nothing is said but where the engines of a host are. */
  private readonly forNews = new Set<Peer>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** The way to the engine of a host that the shard lives in, for as long as a member lives there or the host is a guest. */
  peerAt(target: string, shardId: number): Peer {
    const peer = this.engine.transport.peer(target, shardId);
    if (!this.inUse.has(peer) || this.forNews.has(peer)) {
      this.inUse.add(peer);
      this.forNews.delete(peer);
      this.engine.formats.settle();
    }
    return peer;
  }

  /** Whoever was not heard of lately is no guest any more. */
  checkGuests(): void {
    if (this.guests.size === 0) return;
    for (const [target, untilTick] of this.guests) if (untilTick <= this.engine.tickCount) this.guests.delete(target);
    this.releaseUnused();
  }

  /**
   * Hosts that no member lives at any more are left alone. The way to engine 0 of a host stays as long as one to another of its engines: on
   * it is told where they are.
   */
  releaseUnused(): void {
    const used = new Set<Peer | undefined>();
    const hosts = new Set<string | undefined>();
    for (const { status, peers } of this.engine.replicas.values()) {
      if (status !== 'running') continue;
      for (const peer of peers) {
        used.add(peer);
        hosts.add(peer?.address);
      }
    }
    for (const peer of this.inUse) {
      const { address, engine = 0 } = peer;
      if (used.has(peer) || this.guests.has(address)) continue;
      if (engine === 0 && hosts.has(address)) {
        this.forNews.add(peer);
        continue;
      }
      this.inUse.delete(peer);
      this.forNews.delete(peer);
      this.engine.liveness.forget(peer);
      this.engine.formats.forget(peer);
      this.engine.outbound.forget(peer);
      this.engine.transport.release(address, engine);
    }
    this.engine.formats.settle();
  }

  /** Whom this engine talks to. */
  *peers(): IterableIterator<Peer> {
    for (const peer of this.inUse) if (!this.forNews.has(peer)) yield peer;
  }

  /** Running replicas with a member whose host is reached by `peer`, each with the member's id. */
  forEachMemberAt(peer: Peer, visit: (replica: Replica, replicaId: number) => void): void {
    for (const replica of this.engine.replicas.values()) {
      if (replica.status !== 'running') continue;
      const slot = replica.peers.indexOf(peer);
      if (slot < 0) continue;
      visit(replica, replica.raft.slots[slot]);
    }
  }
}
