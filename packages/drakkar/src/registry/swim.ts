/**
 * Who is there, learned from one another: the SWIM protocol (Das, Gupta, Motivala, DSN 2002) with suspicion. Pure: it is told of
 * datagrams and of the beginning and the middle of its periods; it tells its `SwimOutbox` what to send and what changed.
 *
 * Each period one host is pinged; when no ack came by the middle, some others are asked to ping it; when none came by the end, it is
 * suspect, and dead if nobody contradicts for a while. What is new rides on every datagram, a limited number of times. Once in
 * a while a host asks another one, or a seed, for everything: so that a healed network finds together again.
 */
import { HOSTS_MAX, RELAYS_MAX } from './limits.ts';
import { RUMOURS_MAX_BYTES, rumourBytes, type Gossip, type HostState, type Rumour } from './swim-codec.ts';

export interface SwimOptions {
  readonly self: Rumour;
  /** Gossip addresses to begin with. */
  readonly seeds: readonly string[];
  /** Uniform in [0, 2^32). */
  readonly random: () => number;
  /** Periods between two exchanges of everything. */
  readonly syncPeriods: number;
  /** Periods that a suspect has to contradict, times log2 of the number of hosts. */
  readonly suspicionPeriods: number;
  /** Periods that a dead host is remembered. */
  readonly deadPeriods: number;
}

export interface SwimOutbox {
  send(toGossipAddress: string, gossip: Gossip): void;
  /** A host wants to know all there is. */
  askedForAll?(gossipAddress: string): void;
  /** A host is known now, or its state or address is another one. */
  changed(rumour: Rumour): void;
}

/** Others that are asked to ping a host that did not answer. */
const RELAYS = 3;
/** A rumour rides on this many datagrams times log2 of the number of hosts. */
const RETELL_FACTOR = 4;

interface Known {
  rumour: Rumour;
  /** Datagrams that it still rides on. */
  tellings: number;
  /** Period in which it became suspect or dead. */
  since: number;
}

export class Swim {
  private readonly options: SwimOptions;
  private readonly outbox: SwimOutbox;
  private readonly known = new Map<string, Known>();
  private self: Known;
  private period = 0;
  /** Of the newest ping, own or for another host. */
  private pingNumber = 0;
  /** The host that is pinged in this period, until it answers, and the number of that ping. */
  private pinged: string | undefined;
  private ownPing = 0;
  /** Hosts in the order in which they are pinged; drawn anew when it is used up (SWIM §4.3). */
  private round: string[] = [];
  /** Pings on behalf of others: own number to who asked, and under which number. */
  private readonly relays = new Map<number, { readonly to: string; readonly number: number }>();
  /** Hosts that did not fit into the table. */
  ignored = 0;

  constructor(options: SwimOptions, outbox: SwimOutbox) {
    this.options = options;
    this.outbox = outbox;
    this.self = { rumour: options.self, tellings: 0, since: 0 };
    this.known.set(options.self.hostId, this.self);
  }

  /** Tellings after which a rumour has probably reached everybody. */
  get tellings(): number {
    return RETELL_FACTOR * this.logHosts;
  }

  /** Gossip addresses of some hosts that are there. */
  someOthers(): string[] {
    const alive = this.others().filter(({ state }) => state === 'alive');
    return this.shuffled(alive)
      .slice(0, RELAYS)
      .map(({ gossipAddress }) => gossipAddress);
  }

  get hosts(): readonly Rumour[] {
    return [...this.known.values()].map(({ rumour }) => rumour);
  }

  find(hostId: string): Rumour | undefined {
    return this.known.get(hostId)?.rumour;
  }

  // Periods.

  /** The end of a period and the beginning of the next. */
  beginPeriod(): void {
    if (this.pinged !== undefined) this.suspect(this.pinged);
    this.period++;
    this.relays.clear();
    this.age();
    this.pinged = this.nextToPing();
    const target = this.pinged === undefined ? undefined : this.known.get(this.pinged);
    if (target !== undefined) {
      this.ownPing = ++this.pingNumber;
      // A suspect hears what is said of it, so that it can contradict.
      this.send(
        target.rumour.gossipAddress,
        'ping',
        this.ownPing,
        '',
        target.rumour.state === 'suspect' ? target : undefined,
      );
    }
    if (this.isAlone || this.period % this.options.syncPeriods === 0) this.askForAll();
  }

  /** No ack came yet: others may reach it. */
  midPeriod(): void {
    const target = this.pinged === undefined ? undefined : this.find(this.pinged);
    if (target === undefined) return;
    const others = this.others().filter(({ hostId, state }) => hostId !== target.hostId && state === 'alive');
    for (const other of this.shuffled(others).slice(0, RELAYS)) {
      this.send(other.gossipAddress, 'relay', this.ownPing, target.gossipAddress);
    }
  }

  /** Tells the others that this host goes away. */
  leave(): void {
    this.self.rumour = { ...this.self.rumour, state: 'dead', incarnation: this.self.rumour.incarnation + 1 };
    this.retell(this.self);
    for (const { gossipAddress } of this.shuffled(this.others()).slice(0, 2 * RELAYS)) {
      this.send(gossipAddress, 'rumours', 0);
    }
  }

  private get isAlone(): boolean {
    return this.others().length === 0;
  }

  private others(): Rumour[] {
    return this.hosts.filter(({ hostId, state }) => hostId !== this.self.rumour.hostId && state !== 'dead');
  }

  private nextToPing(): string | undefined {
    if (this.round.length === 0) this.round = this.shuffled(this.others()).map(({ hostId }) => hostId);
    while (this.round.length > 0) {
      const hostId = this.round.pop()!;
      const state = this.find(hostId)?.state;
      if (state !== undefined && state !== 'dead') return hostId;
    }
    return undefined;
  }

  /** A seed, or any host, the dead included: the network may have healed. */
  private askForAll(): void {
    const { seeds, self } = this.options;
    const addresses = new Set([...seeds, ...this.hosts.map(({ gossipAddress }) => gossipAddress)]);
    addresses.delete(self.gossipAddress);
    const [address] = this.shuffled([...addresses]);
    if (address !== undefined) this.send(address, 'sync', 0);
  }

  private suspect(hostId: string): void {
    const rumour = this.find(hostId);
    if (rumour?.state === 'alive') this.learn({ ...rumour, state: 'suspect' });
  }

  private age(): void {
    const { suspicionPeriods, deadPeriods } = this.options;
    const patience = suspicionPeriods * this.logHosts;
    for (const [hostId, known] of this.known) {
      const { rumour, since } = known;
      if (rumour.state === 'suspect' && this.period - since > patience) this.learn({ ...rumour, state: 'dead' });
      else if (rumour.state === 'dead' && hostId !== this.self.rumour.hostId && this.period - since > deadPeriods)
        this.known.delete(hostId);
    }
  }

  private get logHosts(): number {
    return Math.max(1, Math.ceil(Math.log2(this.known.size + 1)));
  }

  // Datagrams.

  receive(from: string, gossip: Gossip): void {
    for (const rumour of gossip.rumours) this.learn(rumour);
    switch (gossip.kind) {
      case 'ping':
        this.send(from, 'ack', gossip.number);
        return;
      case 'ack':
        this.onAck(gossip.number);
        return;
      case 'relay':
        if (this.relays.size >= RELAYS_MAX) return;
        this.relays.set(++this.pingNumber, { to: from, number: gossip.number });
        this.send(gossip.target, 'ping', this.pingNumber);
        return;
      case 'sync':
        this.tellAll(from);
        this.outbox.askedForAll?.(from);
        return;
      default: // the rumours were all
    }
  }

  private onAck(number: number): void {
    const relay = this.relays.get(number);
    if (relay !== undefined) {
      this.relays.delete(number);
      this.send(relay.to, 'ack', relay.number);
      return;
    }
    // An ack of an earlier period says nothing of this one's host.
    if (number === this.ownPing) this.pinged = undefined;
  }

  /** What is said of a host counts if it is newer, or as new and worse. */
  private learn(rumour: Rumour): void {
    if (rumour.hostId === this.self.rumour.hostId) {
      this.contradict(rumour);
      return;
    }
    const known = this.known.get(rumour.hostId);
    if (known === undefined) {
      if (this.known.size >= HOSTS_MAX) {
        this.ignored++;
        return;
      }
      const fresh: Known = { rumour, tellings: 0, since: this.period };
      this.known.set(rumour.hostId, fresh);
      this.retell(fresh);
      this.outbox.changed(rumour);
      return;
    }
    if (!overrides(rumour, known.rumour)) return;
    if (rumour.state !== known.rumour.state) known.since = this.period;
    known.rumour = rumour;
    this.retell(known);
    this.outbox.changed(rumour);
  }

  /** Something else than the truth is told of this host: a newer incarnation puts it right. */
  private contradict(rumour: Rumour): void {
    const { rumour: own } = this.self;
    if (own.state === 'dead' || !overrides(rumour, own)) return;
    this.self.rumour = { ...own, incarnation: rumour.incarnation + 1 };
    this.retell(this.self);
  }

  private retell(known: Known): void {
    known.tellings = this.tellings;
  }

  private send(to: string, kind: Gossip['kind'], number: number, target = '', about?: Known): void {
    this.outbox.send(to, { kind, number, target, rumours: this.newest(kind, about) });
  }

  /** The least told rumours that fit; this host's own rides on what is sent to begin an acquaintance. */
  private newest(kind: Gossip['kind'], about: Known | undefined): Rumour[] {
    const rumours: Rumour[] = [];
    let bytes = 0;
    const add = (known: Known): void => {
      const more = rumourBytes(known.rumour);
      if (bytes + more > RUMOURS_MAX_BYTES) return;
      bytes += more;
      rumours.push(known.rumour);
      if (known.tellings > 0) known.tellings--;
    };
    if (about !== undefined) add(about);
    if (kind === 'sync' || kind === 'ping') add(this.self);
    const fresh = [...this.known.values()].filter((known) => known.tellings > 0 && !rumours.includes(known.rumour));
    for (const known of fresh.sort((a, b) => b.tellings - a.tellings)) add(known);
    return rumours;
  }

  private tellAll(to: string): void {
    let rumours: Rumour[] = [];
    let bytes = 0;
    for (const { rumour } of this.known.values()) {
      const more = rumourBytes(rumour);
      if (bytes + more > RUMOURS_MAX_BYTES) {
        this.outbox.send(to, { kind: 'rumours', number: 0, target: '', rumours });
        rumours = [];
        bytes = 0;
      }
      rumours.push(rumour);
      bytes += more;
    }
    this.outbox.send(to, { kind: 'rumours', number: 0, target: '', rumours });
  }

  private shuffled<T>(items: readonly T[]): T[] {
    const mixed = [...items];
    for (let i = mixed.length - 1; i > 0; i--) {
      const j = this.options.random() % (i + 1);
      [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
    }
    return mixed;
  }
}

const WORSE: Record<HostState, number> = { alive: 0, suspect: 1, dead: 2 };

function overrides(rumour: Rumour, known: Rumour): boolean {
  if (rumour.incarnation !== known.incarnation) return rumour.incarnation > known.incarnation;
  return WORSE[rumour.state] > WORSE[known.state];
}
