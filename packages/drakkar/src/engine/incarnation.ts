/**
 * Which host may speak for which replica (design §7.5). A member's directory is pinned, durably, at first contact; a host with
 * another directory, or with an older start of it, is refused: its disk was wiped or rolled back, and what its replica
 * promised may be gone (fault F19).
 *
 * A host that was rolled back raises its counter with every start, so a higher count proves nothing: a host names its earlier starts,
 * and the one that is pinned must be among them. One that does not remember it is told of it, a number that only its own directory can
 * have given out, and gives itself up, durably.
 */
import { meansHost } from '../transport/target.ts';
import type { HostIdentity, InboundSession, Peer } from '../transport/transport.ts';
import type { Random } from '../env/env.ts';
import { EARLIER_STARTS_MAX } from '../wire/limits.ts';
import { MessageType, type Message } from '../wire/message.ts';
import type { Engine } from './engine.ts';
import { GUEST_TICKS, STRANGERS_MAX } from './limits.ts';
import { tellRemoved, type Stranger } from './membership.ts';
import type { Replica } from './replica.ts';

/** A start counter is the count of starts, and twenty random bits that tell two starts with the same count apart. */
const COUNT_STEP = 2 ** 20;

export function nextStart(startCounter: number, random: Random): number {
  return (countOf(startCounter) + 1) * COUNT_STEP + (random.u32() % COUNT_STEP);
}

/** How often the directory was started. */
export const countOf = (startCounter: number): number => Math.floor(startCounter / COUNT_STEP);

/** Whether the directory remembers its start `known`. Of starts older than its memory it is believed. */
function remembersStart({ startCounter, earlierStarts }: HostIdentity, known: number): boolean {
  if (known === startCounter || earlierStarts.includes(known)) return true;
  return earlierStarts.length === EARLIER_STARTS_MAX && countOf(known) < countOf(earlierStarts[0]);
}

export class Incarnations {
  private readonly engine: Engine;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /**
   * Whether `session` comes from the host that `replicaId` lives at, in the incarnation that is pinned. Not only members are listened to:
   * who leads or asks for votes may have been added by a change that is not applied here yet (thesis §4.1). The removed never come
   * back, but one may not know of it and lead rightly in the old membership, or hold what nobody else does (`hasNews`).
   */
  isFromMember(replica: Replica, replicaId: number, session: InboundSession, hasNews = false): boolean {
    const slot = replica.raft.slots.indexOf(replicaId);
    if (slot < 0) return this.isFromStranger(replica, replicaId, session, hasNews);
    const verified = replica.verifiedSessions[slot];
    if (verified === session.id) return true;
    if (verified === -session.id) {
      this.engine.counters.messagesRefused++;
      return false;
    }
    return this.verify(replica, slot, replicaId, session);
  }

  /** Of a replica that is no member here, or not yet: whoever is heard of first is believed, until the membership says more. */
  private isFromStranger(replica: Replica, replicaId: number, session: InboundSession, hasNews: boolean): boolean {
    if (replica.membership.removed.has(replicaId) && !hasNews) {
      this.engine.counters.messagesRefused++;
      if (replicaId !== replica.replicaId) tellRemoved(this.engine, replica, replicaId, session);
      return false;
    }
    return this.admitsStranger(replica, replicaId, session.identity);
  }

  admitsStranger(replica: Replica, replicaId: number, identity: HostIdentity): boolean {
    const known = replica.strangers.get(replicaId);
    const isSame =
      known === undefined ||
      (known.identity.directoryHigh === identity.directoryHigh &&
        known.identity.directoryLow === identity.directoryLow &&
        remembersStart(identity, known.identity.startCounter));
    const hasRoom = known !== undefined || replica.strangers.size < STRANGERS_MAX;
    if (!isSame || !hasRoom || replicaId === replica.replicaId) {
      this.engine.counters.messagesRefused++;
      return false;
    }
    const target = identity.raftAddress;
    this.engine.ways.guests.set(target, this.engine.tickCount + GUEST_TICKS);
    if (known?.identity !== identity) replica.setStranger(replicaId, { target, identity });
    return true;
  }

  /** It has become a member. */
  pinStranger(replica: Replica, replicaId: number, { identity }: Stranger): void {
    if (!replica.pins.some((known) => known.replicaId === replicaId)) this.pin(replica, replicaId, identity);
  }

  private verify(replica: Replica, slot: number, replicaId: number, session: InboundSession): boolean {
    const { identity } = session;
    const peer = replica.peers[slot];
    if (peer === undefined || !meansHost(peer.address, identity)) {
      this.engine.counters.messagesRefused++;
      return false;
    }
    const pin = replica.pins.find((known) => known.replicaId === replicaId);
    if (pin !== undefined) {
      const sameDirectory = pin.directoryHigh === identity.directoryHigh && pin.directoryLow === identity.directoryLow;
      if (!sameDirectory || !remembersStart(identity, pin.startCounter)) {
        this.engine.counters.messagesRefused++;
        replica.verifiedSessions[slot] = -session.id; // said once for each connection
        if (sameDirectory) {
          const { startCounter: hint, directoryHigh: logIndex, directoryLow: logTerm } = pin;
          replica.raft.send(MessageType.Outdated, replicaId, { hint, logIndex, logTerm });
        }
        this.engine.refuseMember(
          replica,
          replicaId,
          sameDirectory
            ? `its directory was rolled back: in start ${countOf(identity.startCounter)} it does not remember start ${countOf(pin.startCounter)}`
            : 'its directory is another one than before',
        );
        return false;
      }
    }
    replica.verifiedSessions[slot] = session.id;
    if (pin === undefined || pin.startCounter !== identity.startCounter) this.pin(replica, replicaId, identity);
    return true;
  }

  /** A peer knows of a start of this directory; gives false when it is one that this directory does not remember. */
  remembers(message: Message): boolean {
    const { identity } = this.engine;
    const isOurs = message.logIndex === identity.directoryHigh && message.logTerm === identity.directoryLow;
    return !isOurs || remembersStart(identity, message.hint);
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
    const pin = { replicaId, directoryHigh, directoryLow, startCounter };
    replica.pins = this.engine.interned.pins([...others, pin]);
    replica.raft.saveState();
  }
}
