/**
 * The TCP transport: listens, takes HELLOs, and hands out frames. A connection may only say HELLO before it is known; whatever
 * else it sends, or sends wrongly, ends it and is counted under a reason.
 */
import { DrakkarError } from '../errors.ts';
import type { Env, Listener, Socket, Timer } from '../env/env.ts';
import { FRAME_MAX_BYTES } from '../wire/limits.ts';
import type { Slab, SlabPool } from '../wire/slab.ts';
import { FrameReceiver } from './frame-receiver.ts';
import { HelloStatus, Purpose, decodeHello, encodeHello, type Hello } from './hello.ts';
import {
  CONNECTIONS_MAX,
  CONNECTIONS_MAX_BEFORE_HELLO,
  HELLO_TIMEOUT_MS,
  ROUTES_QUEUE_MAX_BYTES,
  SNAPSHOTS_MAX,
} from './limits.ts';
import { OwnRoutes, Routes, decodeNews } from './routes.ts';
import { SnapshotInbound } from './snapshot-inbound.ts';
import { sendSnapshotStream } from './snapshot-outbound.ts';
import { meansHost } from './target.ts';
import { TcpPeer } from './tcp-peer.ts';
import type {
  HostIdentity,
  InboundSession,
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
  readonly resolve: Resolve;
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
  private readonly inbound = new Set<Inbound>();
  private sessionCount = 0;
  private readonly closing = new AbortController();
  private outboundSnapshots = 0;
  inboundSnapshots = 0;

  constructor(options: TcpTransportOptions) {
    this.env = options.env;
    this.identity = options.identity;
    this.pool = options.pool;
    this.resolve = options.resolve ?? ((target) => target);
    this.engine = options.engine ?? 0;
    this.listenAddress = options.listenAddress;
    this.address = options.listenAddress;
  }

  async start(handlers: TransportHandlers): Promise<void> {
    this.handlers = handlers;
    try {
      this.listener = await this.env.network.listen(this.listenAddress, (socket) => this.accept(socket));
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
  }

  peer(target: string, shardId = 0): Peer {
    const engine = this.routes.engineOf(target, shardId);
    const key = keyOf(target, engine);
    let peer = this.peers.get(key);
    if (peer === undefined) {
      peer = new TcpPeer(this, this.peers.size, target, engine);
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
  tellAll(connection: Inbound): void {
    if (!this.ownRoutes.isEmpty) connection.tell(this.ownRoutes.frames());
  }

  async sendSnapshot(
    target: string,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    if (this.outboundSnapshots >= SNAPSHOTS_MAX) {
      throw new DrakkarError('ERR_LIMIT', `${SNAPSHOTS_MAX} snapshots are being sent already; this one has to wait`);
    }
    this.outboundSnapshots++;
    try {
      const engine = this.routes.engineOf(target, header.shardId);
      const to = { target, engine, listener: this.listenerOf(target, engine) };
      await sendSnapshotStream(this, to, header, chunks, AbortSignal.any([signal, this.closing.signal]));
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
    return undefined;
  }

  countRefusal(reason: string): void {
    this.counters.refused.set(reason, (this.counters.refused.get(reason) ?? 0) + 1);
  }

  private accept(socket: Socket): void {
    const before = [...this.inbound].filter((known) => known.isUnknown && sameHost(known.socket, socket)).length;
    if (this.inbound.size >= CONNECTIONS_MAX || before >= CONNECTIONS_MAX_BEFORE_HELLO) {
      this.countRefusal('limit');
      socket.handlers = { onData() {}, onClose() {} };
      socket.destroy();
      return;
    }
    this.inbound.add(new Inbound(this, socket, ++this.sessionCount));
  }

  /** An engine that dials anew has given up its older connection. */
  replaceOlder(connection: Inbound): void {
    for (const other of this.inbound) {
      const isSame = other.identity?.hostId === connection.identity?.hostId && other.engine === connection.engine;
      if (other !== connection && other.isMessages && isSame) other.socket.destroy();
    }
  }

  forget(connection: Inbound): void {
    this.inbound.delete(connection);
  }

  get closingSignal(): AbortSignal {
    return this.closing.signal;
  }

  async close(): Promise<void> {
    this.closing.abort(new DrakkarError('ERR_CLOSED', 'the host was closed'));
    for (const peer of this.peers.values()) peer.close();
    for (const connection of this.inbound) connection.socket.destroy();
    await this.listener?.close();
  }
}

const keyOf = (address: string, engine: number): string => (engine === 0 ? address : `${address}#${engine}`);

function sameHost(a: Socket, b: Socket): boolean {
  const host = (socket: Socket): string => socket.remoteAddress.slice(0, socket.remoteAddress.lastIndexOf(':'));
  return host(a) === host(b);
}

/** An accepted connection: unknown until its HELLO, then a session for frames or one snapshot stream. */
class Inbound implements InboundSession {
  readonly id: number;
  readonly socket: Socket;
  isUnknown = true;
  isMessages = false;
  identity!: HostIdentity;
  /** Which engine of its host dialled. */
  engine = 0;
  private readonly transport: TcpTransport;
  private readonly receiver: FrameReceiver;
  private readonly timer: Timer;
  private snapshot: SnapshotInbound | undefined;

  constructor(transport: TcpTransport, socket: Socket, id: number) {
    this.transport = transport;
    this.socket = socket;
    this.id = id;
    this.receiver = new FrameReceiver(transport.pool, (slab, offset, lengthBytes) =>
      this.onFrame(slab, offset, lengthBytes),
    );
    this.timer = transport.env.scheduler.after(HELLO_TIMEOUT_MS, () => this.drop('hello-timeout'));
    socket.handlers = {
      onData: (buffer, offset, length) => this.onData(buffer, offset, length),
      onDrain: () => {},
      onClose: () => this.onClose(),
    };
  }

  private onData(buffer: Uint8Array, offset: number, length: number): void {
    this.transport.counters.bytesReceived += length;
    try {
      this.receiver.push(buffer, offset, length);
    } catch (error) {
      const reason = DrakkarError.is(error, 'ERR_FRAME') ? (this.isUnknown ? 'bad-hello' : 'bad-frame') : 'error';
      this.transport.env.logger.warn({ from: this.socket.remoteAddress, err: error }, 'connection dropped');
      this.drop(reason);
    }
  }

  private onFrame(slab: Slab, offset: number, lengthBytes: number): void {
    this.transport.counters.framesReceived++;
    if (this.isUnknown) this.onHello(decodeHello(slab.u8, slab.u32, offset, lengthBytes));
    else if (this.snapshot !== undefined) this.snapshot.onFrame(slab, offset, lengthBytes);
    else this.transport.handlers!.onFrame(this, slab, offset, lengthBytes);
  }

  private onHello(hello: Hello): void {
    const { transport } = this;
    let status: HelloStatus = HelloStatus.Ok;
    const complaint = transport.complaintAbout(hello);
    if (complaint === 'version') status = HelloStatus.WrongVersion;
    else if (complaint !== undefined) status = HelloStatus.WrongDeployment;
    else if (!meansHost(hello.target, transport.identity) || hello.targetEngine !== transport.engine)
      status = HelloStatus.WrongAddress;
    else if (hello.purpose === Purpose.Snapshot && transport.inboundSnapshots >= SNAPSHOTS_MAX)
      status = HelloStatus.Busy;
    const answer = encodeHello({
      purpose: hello.purpose,
      status,
      identity: transport.identity,
      engine: transport.engine,
      target: hello.identity.raftAddress,
      ...(hello.engine === undefined ? {} : { targetEngine: hello.engine }),
      explanation: status === HelloStatus.Ok ? '' : explain(status, transport.identity),
    });
    this.socket.write(answer.u8, 0, answer.usedBytes);
    if (status !== HelloStatus.Ok) {
      transport.countRefusal(complaint ?? (status === HelloStatus.Busy ? 'busy' : 'address'));
      this.socket.end();
      return;
    }
    this.timer.cancel();
    this.identity = hello.identity;
    this.engine = hello.engine ?? 0;
    this.isUnknown = false;
    this.receiver.maxFrameBytes = FRAME_MAX_BYTES;
    if (hello.purpose === Purpose.Snapshot) this.snapshot = new SnapshotInbound(transport, this.socket, hello.identity);
    else {
      this.isMessages = true;
      transport.replaceOlder(this);
      transport.tellAll(this);
    }
  }

  tell(frames: Iterable<Slab>): void {
    for (const { u8, usedBytes } of frames) this.socket.write(u8, 0, usedBytes);
    if (this.socket.queuedBytes > ROUTES_QUEUE_MAX_BYTES) this.drop('limit');
  }

  private onClose(): void {
    this.timer.cancel();
    this.receiver.close();
    this.transport.forget(this);
    this.snapshot?.onClose();
    if (this.isMessages) this.transport.handlers?.onSessionEnd(this);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  drop(reason: string): void {
    this.transport.countRefusal(reason);
    this.receiver.close();
    this.socket.destroy();
  }
}

function explain(status: HelloStatus, identity: HostIdentity): string {
  if (status === HelloStatus.WrongDeployment) return `this is deployment ${identity.deploymentId}`;
  if (status === HelloStatus.WrongAddress) return `this is host ${identity.hostId} at ${identity.raftAddress}`;
  return status === HelloStatus.WrongVersion ? 'no wire version in common' : 'too many snapshots at the moment';
}
