/**
 * The transport without a network: frames go from one host of a hub to another as bytes, at the next turn. For many hosts in one process
 * and for tests; keeps the contract of `transport.ts`, and `drakkar/compliance` holds it and TCP to it.
 */
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
}

/** The hosts that can reach each other. */
export class MemoryHub {
  readonly hosts = new Map<string, MemoryTransport>();

  readonly createTransport = (options: MemoryTransportOptions): Transport => new MemoryTransport(this, options);
}

class MemoryTransport implements Transport {
  readonly name = 'memory';
  readonly address: string;
  readonly env: Env;
  readonly identity: HostIdentity;
  readonly pool: SlabPool;
  readonly maxSendQueueBytes: number;
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
    this.address = options.listenAddress;
  }

  async start(handlers: TransportHandlers): Promise<void> {
    if (this.hub.hosts.has(this.address)) {
      throw new DrakkarError('ERR_ADDRESS_IN_USE', `${this.address} is in use by another host of the hub`);
    }
    this.handlers = handlers;
    this.hub.hosts.set(this.address, this);
  }

  peer(target: string): Peer {
    let peer = this.peers.get(target);
    if (peer === undefined) {
      peer = new MemoryPeer(this, this.peerCount++, target);
      this.peers.set(target, peer);
      peer.dial();
    }
    return peer;
  }

  addressChanged(target: string): void {
    this.peers.get(target)?.dial();
  }

  /** The host behind a target, as far as it is known and there. */
  find(target: string): MemoryTransport | undefined {
    return this.hub.hosts.get(this.resolve(target) ?? '');
  }

  release(target: string): void {
    this.peers.get(target)?.close();
    this.peers.delete(target);
  }

  /** The HELLO: a session for the dialler, or why not. */
  accept(dialler: HostIdentity, target: string, onDropped: () => void): MemorySession | string {
    let complaint = '';
    if (dialler.deploymentId !== this.identity.deploymentId) complaint = 'deployment';
    else if (!meansHost(target, this.identity)) complaint = 'address';
    if (complaint !== '') {
      countRefusal(this.counters, complaint);
      return complaint;
    }
    for (const other of this.sessions) if (other.identity.hostId === dialler.hostId) other.end();
    const session = new MemorySession(this, ++this.sessionCount, dialler, onDropped);
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
    const source: ImageFrom = () => (offsetBytes === 0 || from === undefined ? chunks : from(offsetBytes));
    try {
      const target = this.find(address);
      if (target?.handlers === undefined) throw new DrakkarError('ERR_UNREACHABLE', `no host at ${address}`);
      if (target.identity.deploymentId !== this.identity.deploymentId) {
        throw new DrakkarError('ERR_PEER_REFUSED', `${address} belongs to another deployment`);
      }
      const either = AbortSignal.any([signal, this.closing.signal, target.closing.signal]);
      const { imageBytes } = header;
      const copied = copies(source, () => offsetBytes, imageBytes, either);
      await target.handlers.onSnapshot(this.identity, header, copied, either, begin);
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

function countRefusal(counters: TransportCounters, reason: string): void {
  counters.refused.set(reason, (counters.refused.get(reason) ?? 0) + 1);
}

/** What one host sent to another and that one has not handled yet, in order. */
class MemorySession implements InboundSession {
  readonly id: number;
  readonly identity: HostIdentity;
  queuedBytes = 0;
  private readonly transport: MemoryTransport;
  private readonly onDropped: () => void;
  private frames: Slab[] = [];
  private isPaused = false;
  private isEnded = false;
  private isScheduled = false;

  constructor(transport: MemoryTransport, id: number, identity: HostIdentity, onDropped: () => void) {
    this.transport = transport;
    this.id = id;
    this.identity = identity;
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
  connected = false;
  identity: HostIdentity | undefined;
  private readonly transport: MemoryTransport;
  private session: MemorySession | undefined;
  private timer: Timer | undefined;
  private isClosed = false;

  constructor(transport: MemoryTransport, index: number, address: string) {
    this.transport = transport;
    this.index = index;
    this.address = address;
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
    const target = transport.find(this.address);
    const session = target?.accept(transport.identity, this.address, () => this.lost(session));
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
