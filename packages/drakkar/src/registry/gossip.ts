/**
 * The registry of deployments whose hosts change their addresses: members are named by host ids, and hosts tell one another where they
 * are (`swim.ts`). Datagrams are sealed with a key that all hosts share; without it nobody is heard. What is learned here is a
 * hint where to dial and nothing more.
 */
import { DrakkarError } from '../errors.ts';
import type { DatagramKey, DatagramSocket, Env, Timer } from '../env/env.ts';
import { isHostId } from '../transport/target.ts';
import type { KnownHost, Registry, RegistryContext } from './registry.ts';
import { SHARDS_PER_SYNC, SHARD_DATAGRAMS_PER_PERIOD } from './limits.ts';
import { NEWS_MAX_BYTES, decodeNews, encodeNews, type ShardNews } from './shard-codec.ts';
import { ShardViews, type ShardView } from './shard-views.ts';
import { Swim } from './swim.ts';
import { RUMOURS_MAX_BYTES, decodeGossip, encodeGossip, rumourBytes, type Gossip, type Rumour } from './swim-codec.ts';

export interface GossipOptions {
  /** `host:port` to bind for datagrams. */
  readonly bindAddress: string;
  /** `host:port` that the other hosts reach it at. Default: `bindAddress`. */
  readonly advertiseAddress?: string;
  /** Gossip addresses of some other hosts, to begin with. */
  readonly seeds: readonly string[];
  /** Shared keys of 32 bytes: the first one seals, all of them open, so that a key can be changed host by host. */
  readonly keys: readonly DatagramKey[];
  /** Free text for the other hosts' `hosts()`. At most 512 bytes. */
  readonly meta?: string;
  /** Milliseconds between two pings. Default 500. */
  readonly periodMs?: number;
}

const PERIOD_MS = 500;
/** Of a period, until others are asked to ping. */
const MID_SHARE = 0.4;
const SYNC_PERIODS = 20;
const SUSPICION_PERIODS = 4;
const DEAD_PERIODS = 7200;

export function createGossipRegistry(options: GossipOptions): (context: RegistryContext) => Registry {
  return (context) => new GossipRegistry(options, context);
}

class GossipRegistry implements Registry {
  private readonly env: Env;
  private readonly options: GossipOptions;
  private readonly swim: Swim;
  private readonly views = new ShardViews();
  private readonly periodMs: number;
  private socket: DatagramSocket | undefined;
  private timer: Timer | undefined;
  private onChange: (target: string) => void = () => {};

  constructor(options: GossipOptions, { env, identity }: RegistryContext) {
    this.env = env;
    this.options = options;
    this.periodMs = options.periodMs ?? PERIOD_MS;
    const self: Rumour = {
      hostId: identity.hostId,
      state: 'alive',
      // Newer than whatever was said of earlier starts.
      incarnation: identity.startCounter,
      raftAddress: identity.raftAddress,
      gossipAddress: options.advertiseAddress ?? options.bindAddress,
      meta: options.meta ?? '',
    };
    if (rumourBytes(self) > RUMOURS_MAX_BYTES) {
      throw new DrakkarError(
        'ERR_INVALID_OPTION',
        `NodeHost.open: what this host tells of itself takes ${rumourBytes(self)} bytes; at most ${RUMOURS_MAX_BYTES} fit into a datagram, shorten gossip.meta`,
      );
    }
    this.swim = new Swim(
      {
        self,
        seeds: options.seeds,
        random: () => env.random.u32(),
        syncPeriods: SYNC_PERIODS,
        suspicionPeriods: SUSPICION_PERIODS,
        deadPeriods: DEAD_PERIODS,
      },
      {
        send: (to, gossip) => this.send(to, gossip),
        changed: (rumour) => this.changed(rumour),
        askedForAll: (from) => this.tellShards(from, this.views.some(SHARDS_PER_SYNC)),
      },
    );
  }

  resolve(target: string): string | undefined {
    return isHostId(target) ? this.swim.find(target)?.raftAddress : target;
  }

  async start(onChange: (target: string) => void): Promise<void> {
    this.onChange = onChange;
    const { bindAddress, keys } = this.options;
    try {
      this.socket = await this.env.network.bindDatagrams(bindAddress, keys, (from, bytes) => this.receive(from, bytes));
    } catch (cause) {
      throw new DrakkarError(
        'ERR_ADDRESS_IN_USE',
        `cannot bind ${bindAddress} for gossip (${String((cause as { code?: unknown }).code)}); choose another bindAddress`,
        { cause },
      );
    }
    this.period();
  }

  hosts(): readonly KnownHost[] {
    return this.swim.hosts.map(({ hostId, raftAddress, state, meta }) => ({ hostId, raftAddress, state, meta }));
  }

  tellShard(view: ShardView): void {
    this.views.tell(view, this.swim.tellings);
  }

  shard(shardId: number): ShardView | undefined {
    return this.views.get(shardId);
  }

  shards(): readonly ShardView[] {
    return this.views.all();
  }

  /** A datagram with the newest goes to each of some others, as often as the bound allows. */
  private spreadShards(): void {
    for (let sent = 0; sent < SHARD_DATAGRAMS_PER_PERIOD; ) {
      const others = this.swim.someOthers();
      const news = others.length === 0 ? [] : this.views.takeFresh(NEWS_MAX_BYTES);
      if (news.length === 0) return;
      for (const other of others) this.tellShards(other, news);
      sent += others.length;
    }
  }

  private tellShards(to: string, news: readonly ShardNews[]): void {
    for (const bytes of encodeNews(news)) this.socket?.send(to, bytes);
  }

  async close(): Promise<void> {
    this.timer?.cancel();
    if (this.socket === undefined) return;
    this.swim.leave();
    const { socket } = this;
    this.socket = undefined;
    await socket.close();
  }

  private period(): void {
    this.swim.beginPeriod();
    this.spreadShards();
    this.timer = this.env.scheduler.after(this.periodMs * MID_SHARE, () => {
      this.swim.midPeriod();
      this.timer = this.env.scheduler.after(this.periodMs * (1 - MID_SHARE), () => this.period());
    });
  }

  private send(to: string, gossip: Gossip): void {
    this.socket?.send(to, encodeGossip(gossip));
  }

  private receive(from: string, bytes: Uint8Array): void {
    if (this.socket === undefined) return;
    const gossip = decodeGossip(bytes);
    if (gossip !== undefined) {
      this.swim.receive(from, gossip);
      return;
    }
    for (const news of decodeNews(bytes) ?? []) this.views.learn(news, this.swim.tellings);
  }

  private changed(rumour: Rumour): void {
    if (rumour.state === 'alive') this.onChange(rumour.hostId);
  }
}
