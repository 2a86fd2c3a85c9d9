/**
 * The transport without a network: frames go from one host of a hub to another as bytes, at the next turn. For many hosts in one process
 * and for tests; keeps the contract of `transport.ts`, and `drakkar/compliance` holds it and TCP to it.
 */
import { withEither } from '../env/abort.ts';
import { DrakkarError } from '../errors.ts';
import type { Env, Timer } from '../env/env.ts';
import type { Slab, SlabPool } from '../wire/slab.ts';
import { checkFrame } from '../wire/frame.ts';
import { FRAME_MAX_BYTES } from '../wire/limits.ts';
import { BACKOFF_FIRST_MS, PEER_QUEUE_MAX_BYTES } from './limits.ts';
import { meansHost } from './target.ts';
import type {
  HostIdentity,
  ImageFrom,
  InboundSession,
  Peer,
  Resolve,
  SnapshotHeader,
  Transport,
  TransportCounters,
  TransportHandlers,
} from './transport.ts';
import { SIZE_UNKNOWN } from './transport.ts';

export interface MemoryTransportOptions {
  readonly env: Env;
  readonly identity: HostIdentity;
  readonly listenAddress: string;
  readonly pool: SlabPool;
  /** Default: a target is its own address. */
  readonly resolve?: Resolve;
  /** Bytes queued for one peer; more are dropped. Default 64 MiB. */
  readonly maxSendQueueBytes?: number;
  /** The number of the engine this is for. Default 0. */
  readonly engine?: number;
}

/** The hosts that can reach each other. */
export class MemoryHub {
  /** By address; engines other than 0 behind a number. */
  readonly hosts = new Map<string, MemoryTransport>();
  /** What hosts with several engines announced, by host id. */
  private readonly routes = new Map<string, Map<number, number>>();

  engineOf(hostId: string, shardId: number): number {
    return this.routes.get(hostId)?.get(shardId) ?? 0;
  }

  announce({ hostId, raftAddress }: HostIdentity, engine: number, shardIds: readonly number[]): void {
    let known = this.routes.get(hostId);
    if (known === undefined) this.routes.set(hostId, (known = new Map()));
    for (const shardId of shardIds) known.set(shardId, engine);
    for (const host of this.hosts.values()) host.hears([raftAddress, hostId], shardIds);
  }

  readonly createTransport = (options: MemoryTransportOptions): Transport => new MemoryTransport(this, options);
}

class MemoryTransport implements Transport {
  readonly name = 'memory';
  readonly address: string;
  readonly env: Env;
  readonly identity: HostIdentity;
  readonly pool: SlabPool;
  readonly maxSendQueueBytes: number;
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
  readonly hub: MemoryHub;
  private readonly resolve: Resolve;
  handlers: TransportHandlers | undefined;
  readonly sessions = new Set<MemorySession>();
  private readonly peers = new Map<string, MemoryPeer>();
  private peerCount = 0;
  private readonly closing = new AbortController();
  private sessionCount = 0;

  constructor(hub: MemoryHub, options: MemoryTransportOptions) {
    this.hub = hub;
    this.env = options.env;
    this.identity = options.identity;
    this.pool = options.pool;
    this.maxSendQueueBytes = options.maxSendQueueBytes ?? PEER_QUEUE_MAX_BYTES;
    this.resolve = options.resolve ?? ((target) => target);
    this.engine = options.engine ?? 0;
    this.address = keyOf(this.engine === 0 ? options.listenAddress : options.identity.raftAddress, this.engine);
  }

  async start(handlers: TransportHandlers): Promise<void> {
    if (this.hub.hosts.has(this.address)) {
      throw new DrakkarError('ERR_ADDRESS_IN_USE', `${this.address} is in use by another host of the hub`);
    }
    this.handlers = handlers;
    this.hub.hosts.set(this.address, this);
  }

  peer(target: string, shardId = 0): Peer {
    const engine = this.engineOf(target, shardId);
    const key = keyOf(target, engine);
    let peer = this.peers.get(key);
    if (peer === undefined) {
      peer = new MemoryPeer(this, this.peerCount++, target, engine);
      this.peers.set(key, peer);
      peer.dial();
    }
    return peer;
  }

  addressChanged(target: string): void {
    this.peers.get(target)?.dial();
  }

  announce(engine: number, _address: string, shardIds: readonly number[]): void {
    this.hub.announce(this.identity, engine, shardIds);
  }

  /** Shards of the host with these names may live in another engine. */
  hears(names: readonly string[], shardIds: readonly number[]): void {
    this.env.scheduler.defer(() => {
      for (const name of names) this.handlers?.onRoutes?.(name, shardIds);
    });
  }

  private engineOf(target: string, shardId: number): number {
    const host = this.find(target, 0);
    return host === undefined ? 0 : this.hub.engineOf(host.identity.hostId, shardId);
  }

  /** The engine of the host behind a target, as far as it is known and there. */
  find(target: string, engine: number): MemoryTransport | undefined {
    const address = this.resolve(target);
    return address === undefined ? undefined : this.hub.hosts.get(keyOf(address, engine));
  }

  release(target: string, engine = 0): void {
    const key = keyOf(target, engine);
    this.peers.get(key)?.close();
    this.peers.delete(key);
  }

  /** The HELLO: a session for the dialler, or why not. */
  accept(from: MemoryTransport, target: string, onDropped: () => void): MemorySession | string {
    const dialler = from.identity;
    let complaint = '';
    if (dialler.deploymentId !== this.identity.deploymentId) complaint = 'deployment';
    else if (!meansHost(target, this.identity)) complaint = 'address';
    if (complaint !== '') {
      countRefusal(this.counters, complaint);
      return complaint;
    }
    for (const other of this.sessions) {
      if (other.identity.hostId === dialler.hostId && other.engine === from.engine) other.end();
    }
    const session = new MemorySession(this, ++this.sessionCount, dialler, from.engine, onDropped);
    this.sessions.add(session);
    return session;
  }

  async sendSnapshot(
    address: string,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    from?: ImageFrom,
  ): Promise<void> {
    let offsetBytes = 0;
    const begin = (wanted: number): void => void (offsetBytes = wanted);
    const source: ImageFrom = () => {
      if (offsetBytes === 0) return chunks;
      if (from !== undefined && header.imageDigest !== undefined && offsetBytes <= header.imageBytes)
        return from(offsetBytes);
      throw new DrakkarError('ERR_FRAME', `an image from byte ${offsetBytes} on was not offered`);
    };
    try {
      const target = this.find(address, this.engineOf(address, header.shardId));
      if (target?.handlers === undefined) throw new DrakkarError('ERR_UNREACHABLE', `no host at ${address}`);
      if (target.identity.deploymentId !== this.identity.deploymentId) {
        throw new DrakkarError('ERR_PEER_REFUSED', `${address} belongs to another deployment`);
      }
      const { handlers, closing } = target;
      await withEither([signal, this.closing.signal, closing.signal], (either) => {
        const copied = copies(source, () => offsetBytes, header.imageBytes, either);
        return handlers.onSnapshot(this.identity, header, copied, either, begin);
      });
      target.counters.snapshotsReceived++;
      this.counters.snapshotsSent++;
    } catch (error) {
      this.counters.snapshotsFailed++;
      if (signal.aborted) throw new DrakkarError('ERR_ABORTED', 'sending the snapshot was aborted', { cause: error });
      if (DrakkarError.is(error, 'ERR_UNREACHABLE')) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new DrakkarError('ERR_PEER_REFUSED', `${address} did not install the snapshot: ${why}`, { cause: error });
    }
  }

  async close(): Promise<void> {
    this.closing.abort(new DrakkarError('ERR_CLOSED', 'the host was closed'));
    if (this.hub.hosts.get(this.address) === this) this.hub.hosts.delete(this.address);
    for (const peer of this.peers.values()) peer.close();
    for (const session of [...this.sessions]) session.end();
  }
}

/** What is given to the other host is its own; as many bytes as announced, or an error. */
async function* copies(
  from: ImageFrom,
  offsetBytes: () => number,
  imageBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let total = offsetBytes();
  for await (const chunk of from(total)) {
    signal.throwIfAborted();
    total += chunk.length;
    if (total > (imageBytes || Number.MAX_SAFE_INTEGER))
      throw new DrakkarError('ERR_FRAME', 'a snapshot is longer than announced');
    yield chunk.slice();
  }
  if (imageBytes !== SIZE_UNKNOWN && total !== imageBytes)
    throw new DrakkarError('ERR_FRAME', 'a snapshot is shorter than announced');
}

const keyOf = (address: string, engine: number): string => (engine === 0 ? address : `${address}#${engine}`);

function countRefusal(counters: TransportCounters, reason: string): void {
  counters.refused.set(reason, (counters.refused.get(reason) ?? 0) + 1);
}

/** What one host sent to another and that one has not handled yet, in order. */
class MemorySession implements InboundSession {
  readonly id: number;
  readonly identity: HostIdentity;
  /** Which engine of its host dialled. */
  readonly engine: number;
  queuedBytes = 0;
  private readonly transport: MemoryTransport;
  private readonly onDropped: () => void;
  private frames: Slab[] = [];
  private isPaused = false;
  private isEnded = false;
  private isScheduled = false;

  constructor(transport: MemoryTransport, id: number, identity: HostIdentity, engine: number, onDropped: () => void) {
    this.transport = transport;
    this.id = id;
    this.identity = identity;
    this.engine = engine;
    this.onDropped = onDropped;
  }

  push(slab: Slab, offset: number, lengthBytes: number): void {
    const copy = this.transport.pool.acquire(lengthBytes);
    copy.u8.set(slab.u8.subarray(offset, offset + lengthBytes));
    copy.usedBytes = lengthBytes;
    this.frames.push(copy);
    this.queuedBytes += lengthBytes;
    this.schedule();
  }

  private schedule(): void {
    if (this.isScheduled || this.isPaused || this.isEnded || this.frames.length === 0) return;
    this.isScheduled = true;
    this.transport.env.scheduler.defer(() => {
      this.isScheduled = false;
      this.deliver();
    });
  }

  private deliver(): void {
    while (this.frames.length > 0 && !this.isPaused && !this.isEnded) {
      const slab = this.frames.shift()!;
      const lengthBytes = slab.usedBytes;
      this.queuedBytes -= lengthBytes;
      this.transport.counters.framesReceived++;
      this.transport.counters.bytesReceived += lengthBytes;
      try {
        checkFrame(slab.u8, slab.u32, 0, lengthBytes, FRAME_MAX_BYTES, this.transport.identity.newestFormat);
        this.transport.handlers?.onFrame(this, slab, 0, lengthBytes);
      } catch (error) {
        this.transport.env.logger.warn({ from: this.identity.raftAddress, err: error }, 'connection dropped');
        this.drop(DrakkarError.is(error, 'ERR_FRAME') ? 'bad-frame' : 'error');
      } finally {
        slab.release();
      }
    }
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    this.schedule();
  }

  drop(reason: string): void {
    countRefusal(this.transport.counters, reason);
    this.end();
  }

  end(): void {
    if (this.isEnded) return;
    this.isEnded = true;
    for (const slab of this.frames.splice(0)) slab.release();
    this.queuedBytes = 0;
    this.transport.sessions.delete(this);
    this.transport.handlers?.onSessionEnd(this);
    this.transport.env.scheduler.defer(this.onDropped);
    // The host may be gone; then its own scheduler is, too, and the dialler notices at its next frame.
  }

  get hasEnded(): boolean {
    return this.isEnded;
  }
}

class MemoryPeer implements Peer {
  readonly index: number;
  readonly address: string;
  readonly engine: number;
  connected = false;
  identity: HostIdentity | undefined;
  private readonly transport: MemoryTransport;
  private session: MemorySession | undefined;
  private timer: Timer | undefined;
  private isClosed = false;

  constructor(transport: MemoryTransport, index: number, address: string, engine: number) {
    this.transport = transport;
    this.index = index;
    this.address = address;
    this.engine = engine;
  }

  get queuedBytes(): number {
    return this.session?.queuedBytes ?? 0;
  }

  dial(): void {
    this.transport.env.scheduler.defer(() => this.connect());
  }

  private connect(): void {
    if (this.isClosed || this.connected) return;
    const { transport } = this;
    const target = transport.find(this.address, this.engine);
    const session = target?.accept(transport, this.address, () => this.lost(session));
    if (target === undefined || session === undefined || typeof session === 'string') {
      transport.counters.connectionsFailed++;
      if (typeof session === 'string') countRefusal(transport.counters, session);
      this.retry();
      return;
    }
    this.session = session;
    this.connected = true;
    this.identity = target.identity;
    transport.counters.connectionsUp++;
    transport.handlers?.onPeerUp(this);
  }

  private retry(): void {
    if (!this.isClosed) this.timer = this.transport.env.scheduler.after(BACKOFF_FIRST_MS, () => this.connect());
  }

  private lost(session: MemorySession | string | undefined): void {
    if (session !== this.session || !this.connected) return;
    this.connected = false;
    this.session = undefined;
    this.identity = undefined;
    if (!this.isClosed) this.transport.handlers?.onPeerDown(this);
    this.retry();
  }

  send(slab: Slab, offset: number, lengthBytes: number): boolean {
    const { counters } = this.transport;
    const { session } = this;
    if (session?.hasEnded === true) this.lost(session);
    if (
      !this.connected ||
      session === undefined ||
      session.queuedBytes + lengthBytes > this.transport.maxSendQueueBytes
    ) {
      counters.framesDropped++;
      return false;
    }
    counters.framesSent++;
    counters.bytesSent += lengthBytes;
    session.push(slab, offset, lengthBytes);
    return true;
  }

  close(): void {
    this.isClosed = true;
    this.timer?.cancel();
    this.session?.end();
    this.connected = false;
  }
}
