/**
 * Which hosts are there, or which engines of hosts that have several (design §5): watched for all shards at once, so that silent ones need no heartbeats of their own. A host is up while
 * it can be reached and a frame from it came lately; whoever has nothing else to send says so now and then. A host that comes
 * back on another connection was away in between: it may have begun anew.
 *
 * Knows no terms and no leaders; what the loss of a host means to a replica is the protocol's to decide.
 */
import * as quiesce from '../raft/quiesce.ts';
import { meansHost } from '../transport/target.ts';
import type { InboundSession, Peer } from '../transport/transport.ts';
import { Message, MessageType } from '../wire/message.ts';
import type { Engine } from './engine.ts';
import type { Replica } from './replica.ts';

class Link {
  readonly peer: Peer;
  isUp = false;
  /** The connection that was heard last, 0 for none. */
  sessionId = 0;
  heardTick = Number.NEGATIVE_INFINITY;
  /** The least of all shards that both hosts have in common: what the one needs, the other does. */
  beatTicks = Number.POSITIVE_INFINITY;
  silentTicks = Number.POSITIVE_INFINITY;
  nextBeatTick = 0;

  constructor(peer: Peer) {
    this.peer = peer;
  }
}

export class Liveness {
  private readonly engine: Engine;
  private readonly links = new Map<Peer, Link>();
  private readonly message = new Message();
  /** Frames come in bursts from one host. */
  private lastSession: InboundSession | undefined;
  private lastLinks: readonly Link[] = [];

  constructor(engine: Engine) {
    this.engine = engine;
    this.message.type = MessageType.Alive;
  }

  /** Watches the hosts of the replica's members from now on, and tells it which are away. */
  join(replica: Replica): void {
    for (let slot = 0; slot < replica.peers.length; slot++) this.joinMember(replica, slot);
  }

  /** The member at `slot` lives behind a peer that is new to the replica. */
  joinMember(replica: Replica, slot: number): void {
    const { heartbeatTicks, electionTicks, quiesce: mayQuiesce } = replica.raft.config;
    const peer = replica.peers[slot];
    if (!mayQuiesce || peer === undefined) return;
    let link = this.links.get(peer);
    if (link === undefined) {
      link = new Link(peer);
      this.links.set(peer, link);
      this.lastSession = undefined;
    }
    if (heartbeatTicks < link.beatTicks) link.beatTicks = heartbeatTicks;
    if (electionTicks < link.silentTicks) link.silentTicks = electionTicks;
    const id = replica.raft.slots[slot];
    if (link.isUp) quiesce.hostBack(replica.raft, id);
    else quiesce.hostLost(replica.raft, id, 0);
  }

  /** The way to the host was given up. */
  forget(peer: Peer): void {
    this.links.delete(peer);
    this.lastSession = undefined;
  }

  /** A frame came. */
  heard(session: InboundSession): void {
    if (session !== this.lastSession) {
      this.lastSession = session;
      this.lastLinks = this.linksTo(session);
    }
    for (let i = 0; i < this.lastLinks.length; i++) {
      const link = this.lastLinks[i];
      if (link.sessionId !== session.id) {
        this.lose(link);
        link.sessionId = session.id;
      }
      link.heardTick = this.engine.tickCount;
    }
  }

  /** One host may be meant by its address in one shard and by its id in another. */
  private linksTo({ identity, engine = 0 }: InboundSession): readonly Link[] {
    return [...this.links.values()].filter(
      ({ peer }) => (peer.engine ?? 0) === engine && meansHost(peer.address, identity),
    );
  }

  sessionEnded(session: InboundSession): void {
    for (const link of this.linksTo(session)) {
      if (link.sessionId !== session.id) continue;
      this.lose(link);
      link.sessionId = 0;
      link.heardTick = Number.NEGATIVE_INFINITY;
    }
  }

  peerDown(peer: Peer): void {
    const link = this.links.get(peer);
    if (link !== undefined) this.lose(link);
  }

  tick(tickCount: number): void {
    for (const link of this.links.values()) {
      const isHeard = tickCount - link.heardTick <= link.silentTicks;
      if (link.isUp && !isHeard) this.lose(link);
      else if (!link.isUp && isHeard && link.peer.connected) this.find(link);
      if (tickCount >= link.nextBeatTick && link.peer.connected) {
        link.nextBeatTick = tickCount + link.beatTicks;
        this.engine.outbound.addMessage(link.peer, this.message);
        this.engine.scheduleTurn();
      }
    }
  }

  private lose(link: Link): void {
    if (!link.isUp) return;
    link.isUp = false;
    const heardAgo = this.engine.tickCount - link.heardTick;
    this.engine.ways.forEachMemberAt(link.peer, (replica, id) => quiesce.hostLost(replica.raft, id, heardAgo));
  }

  private find(link: Link): void {
    link.isUp = true;
    this.engine.ways.forEachMemberAt(link.peer, (replica, id) => quiesce.hostBack(replica.raft, id));
  }
}
