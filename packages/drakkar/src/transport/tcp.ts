/**
 * The TCP transport, plain or secured: listens, dials, and bounds what strangers may cost. A connection may only say HELLO before it is
 * known (`tcp-inbound.ts`).
 */
import { withEither } from '../env/abort.ts';
import { DrakkarError } from '../errors.ts';
import type { Certificate, Env, Listener, Socket, Timer } from '../env/env.ts';
import type { Slab, SlabPool } from '../wire/slab.ts';
import { Admission } from './admission.ts';
import { HelloStatus, type Hello } from './hello.ts';
import { isLoopback, provenIdentity } from './identity.ts';
import { PEER_QUEUE_MAX_BYTES, REFUSAL_LOG_MS, SNAPSHOTS_MAX, STALL_MS } from './limits.ts';
import { OwnRoutes, Routes, decodeNews } from './routes.ts';
import type { TransportSecurity } from './security.ts';
import { sendSnapshotStream } from './snapshot-outbound.ts';
import { meansHost } from './target.ts';
import { TcpInbound } from './tcp-inbound.ts';
import type { LinkTarget } from './tcp-link.ts';
import { TcpPeer } from './tcp-peer.ts';
import type {
  HostIdentity,
  ImageFrom,
  Peer,
  Resolve,
  SnapshotHeader,
  Transport,
  TransportCounters,
  TransportHandlers,
} from './transport.ts';

export interface TcpTransportOptions {
  readonly env: Env;
  readonly identity: HostIdentity;
  readonly listenAddress: string;
  readonly pool: SlabPool;
  /** Default: a target is its own address. */
  readonly resolve?: Resolve;
  /** Bytes queued for one peer; more are dropped. Default 64 MiB. */
  readonly maxSendQueueBytes?: number;
  /** Every connection proves by it who it is. Default: plain connections, for trusted networks. */
  readonly security?: TransportSecurity | undefined;
  /** The number of the engine this is for. Default 0. */
  readonly engine?: number;
}

export function createTcpTransport(options: TcpTransportOptions): Transport {
  return new TcpTransport(options);
}

export class TcpTransport implements Transport {
  readonly name = 'tcp';
  readonly env: Env;
  readonly identity: HostIdentity;
  readonly pool: SlabPool;
  readonly maxSendQueueBytes: number;
  readonly resolve: Resolve;
  readonly security: TransportSecurity | undefined;
  readonly engine: number;
  readonly counters: TransportCounters = {
    connectionsUp: 0,
    connectionsFailed: 0,
    framesSent: 0,
    framesReceived: 0,
    framesDropped: 0,
    bytesSent: 0,
    bytesReceived: 0,
    snapshotsSent: 0,
    snapshotsReceived: 0,
    snapshotsFailed: 0,
    refused: new Map(),
  };
  handlers: TransportHandlers | undefined;
  address: string;
  private readonly listenAddress: string;
  private listener: Listener | undefined;
  private readonly peers = new Map<string, TcpPeer>();
  private readonly routes = new Routes();
  private readonly ownRoutes = new OwnRoutes();
  private peerCount = 0;
  private readonly inbound = new Set<TcpInbound>();
  private readonly strangers = new Admission<TcpInbound>((oldest) => oldest.drop('limit'));
  private progressTimer: Timer | undefined;
  /** Ends hearing of new certificates. */
  private deafen: (() => void) | undefined;
  /** When a refusal was logged last, by its reason: a bounded set of names. */
  private readonly logged = new Map<string, number>();
  private sessionCount = 0;
  private readonly closing = new AbortController();
  private outboundSnapshots = 0;
  inboundSnapshots = 0;

  constructor(options: TcpTransportOptions) {
    this.env = options.env;
    this.identity = options.identity;
    this.pool = options.pool;
    this.maxSendQueueBytes = options.maxSendQueueBytes ?? PEER_QUEUE_MAX_BYTES;
    this.resolve = options.resolve ?? ((target) => target);
    this.security = options.security;
    this.engine = options.engine ?? 0;
    this.listenAddress = options.listenAddress;
    this.address = options.listenAddress;
  }

  async start(handlers: TransportHandlers): Promise<void> {
    this.handlers = handlers;
    const { security } = this;
    try {
      this.listener = await this.env.network.listen(
        this.listenAddress,
        (socket) => this.accept(socket),
        security?.current,
      );
    } catch (cause) {
      const code = (cause as { code?: unknown }).code;
      if (code !== 'EADDRINUSE') {
        throw new DrakkarError(
          'ERR_INVALID_OPTION',
          `cannot listen at ${this.listenAddress} (${String(code)}); set listenAddress to an address of this machine`,
          { cause },
        );
      }
      throw new DrakkarError(
        'ERR_ADDRESS_IN_USE',
        `${this.listenAddress} is in use by another process; stop it, or choose another address`,
        { cause },
      );
    }
    this.address = this.listener.address;
    this.armProgress();
    if (security !== undefined) this.deafen = security.onChange((disconnect) => this.renew(disconnect));
    else if (!isLoopback(this.address)) {
      const { address } = this;
      this.env.logger.warn(
        { address },
        'anybody who reaches this address may speak Raft: set tls, or keep it in a trusted network',
      );
    }
  }

  /** New certificates: connections that were made with the ones before are replaced one after the other, or ended. */
  private renew(disconnect: boolean): void {
    this.listener?.secure(this.security!.current);
    for (const peer of this.peers.values()) peer.renewSoon();
    if (!disconnect) return;
    for (const peer of this.peers.values()) peer.disconnect();
    for (const connection of [...this.inbound]) connection.drop('certificates');
  }

  private armProgress(): void {
    this.progressTimer = this.env.scheduler.after(STALL_MS, () => {
      for (const connection of [...this.inbound]) connection.checkProgress();
      this.armProgress();
    });
  }

  peer(target: string, shardId = 0): Peer {
    const engine = this.routes.engineOf(target, shardId);
    const key = keyOf(target, engine);
    let peer = this.peers.get(key);
    if (peer === undefined) {
      peer = new TcpPeer(this, this.peerCount++, target, engine);
      this.peers.set(key, peer);
      peer.dial();
    }
    return peer;
  }

  addressChanged(target: string): void {
    this.peers.get(target)?.retry();
  }

  /** Where that engine of the host listens, as far as it is known. */
  listenerOf(target: string, engine: number): string | undefined {
    return engine === 0 ? this.resolve(target) : this.routes.listenerOf(target, engine);
  }

  /** The host that `target` names says where its engines are, and its shards. */
  onNews(target: string, slab: Slab, offset: number): void {
    const news = decodeNews(slab.u8, slab.u32, offset);
    const before = this.routes.listenerOf(target, news.engine);
    const moved = this.routes.learn(target, news);
    if (news.engine > 0 && before !== news.address) this.peers.get(keyOf(target, news.engine))?.move();
    if (moved.length > 0) this.handlers?.onRoutes?.(target, moved);
  }

  /**
   * An engine is not where its host said. That host may have been started anew, and its engine 0, which would say so, may have nothing else to
   * hear from this one: a connection that is never used outlives its other end.
   */
  askForNews(target: string): void {
    this.peers.get(target)?.ping();
  }

  announce(engine: number, address: string, shardIds: readonly number[]): void {
    const frames = this.ownRoutes.announce({ engine, address, shardIds });
    for (const connection of this.inbound) if (connection.isMessages) connection.tell(frames);
  }

  /** All that was announced, for a connection that begins. */
  tellAll(connection: TcpInbound): void {
    if (!this.ownRoutes.isEmpty) connection.tell(this.ownRoutes.frames());
  }

  release(target: string, engine = 0): void {
    const key = keyOf(target, engine);
    this.peers.get(key)?.close();
    this.peers.delete(key);
    if (engine === 0) this.routes.forget(target);
  }

  async sendSnapshot(
    target: string,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    from?: ImageFrom,
  ): Promise<void> {
    if (this.outboundSnapshots >= SNAPSHOTS_MAX) {
      throw new DrakkarError('ERR_LIMIT', `${SNAPSHOTS_MAX} snapshots are being sent already; this one has to wait`);
    }
    this.outboundSnapshots++;
    try {
      const engine = this.routes.engineOf(target, header.shardId);
      const to = { target, engine, listener: this.listenerOf(target, engine) };
      await withEither([signal, this.closing.signal], (either) =>
        sendSnapshotStream(this, to, header, chunks, either, from),
      );
      this.counters.snapshotsSent++;
    } catch (error) {
      this.counters.snapshotsFailed++;
      throw error;
    } finally {
      this.outboundSnapshots--;
    }
  }

  /** Why a HELLO cannot be accepted; undefined when it can. */
  complaintAbout(hello: Hello): string | undefined {
    if (hello.status === HelloStatus.WrongVersion) return 'version';
    if (hello.identity.deploymentId !== this.identity.deploymentId) return 'deployment';
    if (hello.status === HelloStatus.WrongDeployment) return 'deployment';
    if (hello.status === HelloStatus.WrongAddress) return 'address';
    if (hello.status === HelloStatus.Busy) return 'busy';
    if (hello.status === HelloStatus.NotAllowed) return 'not-allowed';
    return undefined;
  }

  /** Why the answer to our HELLO does not come from the host that was meant. */
  complaintAboutAnswer(hello: Hello, to: LinkTarget, certificate: Certificate | undefined): string | undefined {
    const complaint = this.complaintAbout(hello) ?? this.security?.complaintAbout(certificate, hello.identity);
    const isMeant = meansHost(to.target, provenIdentity(certificate, hello.identity)) && hello.engine === to.engine;
    return complaint ?? (isMeant ? undefined : 'address');
  }

  countRefusal(reason: string): void {
    this.counters.refused.set(reason, (this.counters.refused.get(reason) ?? 0) + 1);
  }

  /** Counts it, and logs it unless the same was logged a moment ago: strangers must not fill the log. */
  refuse(reason: string, from: string, why?: unknown): void {
    this.countRefusal(reason);
    const now = this.env.clock.nowMs();
    if (now - (this.logged.get(reason) ?? Number.NEGATIVE_INFINITY) < REFUSAL_LOG_MS) return;
    this.logged.set(reason, now);
    this.env.logger.warn({ from, reason, err: why }, 'connection refused or dropped');
  }

  private accept(socket: Socket): void {
    const connection = new TcpInbound(this, socket, ++this.sessionCount);
    this.inbound.add(connection);
    this.strangers.enter(connection, socket.remoteAddress);
  }

  admitted(connection: TcpInbound): void {
    this.strangers.leave(connection);
  }

  get knownConnections(): number {
    return this.inbound.size - this.strangers.count;
  }

  /** The connection for messages that the same engine of the same host had before. */
  olderOf(connection: TcpInbound): TcpInbound | undefined {
    const { hostId, identity, engine } = connection;
    for (const other of this.inbound) {
      if (other === connection || !other.isMessages || other.hasSuccessor || other.engine !== engine) continue;
      if (other.hostId === hostId && other.identity.raftAddress === identity.raftAddress) return other;
    }
    return undefined;
  }

  forget(connection: TcpInbound): void {
    this.strangers.leave(connection);
    this.inbound.delete(connection);
  }

  get closingSignal(): AbortSignal {
    return this.closing.signal;
  }

  async close(): Promise<void> {
    this.closing.abort(new DrakkarError('ERR_CLOSED', 'the host was closed'));
    for (const peer of this.peers.values()) peer.close();
    for (const connection of this.inbound) connection.socket.destroy();
    this.progressTimer?.cancel();
    this.deafen?.();
    await this.listener?.close();
  }
}

const keyOf = (address: string, engine: number): string => (engine === 0 ? address : `${address}#${engine}`);
