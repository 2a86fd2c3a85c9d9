/**
 * What the transport tells: frames, hosts that come and go, snapshots. Each is passed on to whoever it is for. Promises that whoever sends
 * faster than this host can write is paused until half of that has left, and that members behind a lost connection are asked anew.
 *
 * Must not look into frames (`inbound.ts`), nor judge who is alive (`liveness.ts`).
 */
import type { Slab } from '../wire/slab.ts';
import type { InboundSession, Peer } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { reroute } from './reroute.ts';

export class Connections {
  private readonly engine: Engine;
  private readonly maxInboundBytes: number;
  private readonly pausedSessions = new Set<InboundSession>();

  constructor(engine: Engine, maxInboundBytes: number) {
    this.engine = engine;
    this.maxInboundBytes = maxInboundBytes;
  }

  start(): Promise<void> {
    const { engine } = this;
    return engine.transport.start({
      onFrame: (from, slab, offset, lengthBytes) => this.onFrame(from, slab, offset, lengthBytes),
      onSessionEnd: (from) => {
        this.pausedSessions.delete(from);
        engine.liveness.sessionEnded(from);
      },
      onPeerUp: (peer) => this.peerUp(peer),
      onPeerDown: (peer) => this.peerDown(peer),
      onRoutes: (address, shardIds) => reroute(engine, address, shardIds),
      onConnection: (address, isSnapshot, error) => this.connectionChanged(address, isSnapshot, error),
      onSnapshot: (...offer) => engine.arrivals.receive(...offer),
    });
  }

  private onFrame(from: InboundSession, slab: Slab, offset: number, lengthBytes: number): void {
    if (this.engine.failure !== undefined || this.engine.isClosed) return;
    this.engine.liveness.heard(from);
    this.engine.inbound.onFrame(from, slab, offset, lengthBytes);
    if (this.engine.log.pendingBytes > this.maxInboundBytes && !this.pausedSessions.has(from)) {
      this.pausedSessions.add(from);
      from.pause();
    }
  }

  private peerUp(peer: Peer): void {
    this.engine.events.emit('peerUp', { address: peer.address });
    this.engine.formats.peerUp(peer);
    this.engine.snapshots.peerUp(peer);
    this.engine.ways.forEachMemberAt(peer, (replica, replicaId) => {
      this.engine.incarnations.meet(replica, replicaId, peer);
      replica.raft.reportUnreachable(replicaId);
      replica.raft.reportReachable(replicaId);
      this.engine.markReady(replica);
    });
  }

  private peerDown(peer: Peer): void {
    this.engine.events.emit('peerDown', { address: peer.address });
    this.peerLost(peer);
    this.engine.liveness.peerDown(peer);
  }

  private connectionChanged(address: string, isSnapshot: boolean, error: Error | undefined): void {
    if (error === undefined) this.engine.events.emit('connectionEstablished', { address, isSnapshot });
    else this.engine.events.emit('connectionFailed', { address, isSnapshot, reason: error.message });
  }

  /** Frames to `peer` were lost: whoever lives there is asked anew what it has. */
  peerLost(peer: Peer): void {
    this.engine.ways.forEachMemberAt(peer, (replica, replicaId) => replica.raft.reportUnreachable(replicaId));
  }

  /** After a group became durable. */
  resumeReading(): void {
    if (this.pausedSessions.size === 0 || this.engine.log.pendingBytes >= this.maxInboundBytes / 2) return;
    for (const session of this.pausedSessions) session.resume();
    this.pausedSessions.clear();
  }
}
