/**
 * A network in memory: connections deliver in order after a delay. A cut link holds bytes back until it heals, as a partition does to
 * TCP; a process that dies ends its connections.
 */
import type { Certificate, Listener, Network, Security, Socket, SocketHandlers } from '../env.ts';
import { MemoryDatagrams } from './datagrams.ts';
import { systemError } from './disk.ts';
import type { Process } from './process.ts';
import { MemorySecurity, ours } from './security.ts';
import type { World } from './world.ts';

const WRITE_BUFFER_BYTES = 64 * 1024;
/** Most bytes that arrive in one event. */
const ARRIVAL_MAX_BYTES = 256 * 1024;

/** Process that dials or listens, as the network knows it. */
export type HostName = string;

export class MemoryNetwork {
  readonly world: World;
  /** Virtual milliseconds from one host to another. */
  latencyMs = 0.5;
  /** The same for each delivery of `length` bytes; `latencyMs` unless it is replaced. */
  delayOf: (from: HostName, to: HostName, length: number) => number = () => this.latencyMs;
  /** How many of the bytes that wait arrive together; all unless it is replaced. */
  portionOf: (length: number) => number = (length) => length;
  /** May damage what arrives. */
  spoil: ((from: HostName, to: HostName, bytes: Uint8Array) => void) | undefined;
  readonly listeners: Map<string, MemoryListener> = new Map();
  readonly datagrams: MemoryDatagrams = new MemoryDatagrams(this);
  private readonly cuts = new Set<string>();
  readonly sockets: Set<MemorySocket> = new Set();
  private ephemeralPort = 40_000;

  constructor(world: World) {
    this.world = world;
  }

  /** The network as the process `name` sees it. */
  attach(name: HostName, owner: Process): Network {
    return {
      listen: (address, onConnection, security) => this.listen(name, owner, address, onConnection, security),
      connect: (address, handlers, security) => this.connect(name, owner, address, handlers, security),
      prepare: (material) => new MemorySecurity(this.world, material),
      bindDatagrams: (address, keys, onDatagram) => this.datagrams.bind(name, owner, address, keys, onDatagram),
    };
  }

  /** Nothing passes from `from` to `to`. */
  cutOneWay(from: HostName, to: HostName): void {
    this.cuts.add(`${from}>${to}`);
  }

  cut(a: HostName, b: HostName): void {
    this.cutOneWay(a, b);
    this.cutOneWay(b, a);
  }

  /** Passes again from `from` to `to`; what was held back arrives. */
  healOneWay(from: HostName, to: HostName): void {
    if (this.cuts.delete(`${from}>${to}`)) for (const socket of this.sockets) socket.flow();
  }

  /** Everything passes again; what was held back arrives. */
  heal(): void {
    this.cuts.clear();
    for (const socket of this.sockets) socket.flow();
  }

  isCut(from: HostName, to: HostName): boolean {
    return this.cuts.has(`${from}>${to}`);
  }

  /** Ends all connections between two hosts; they may dial again. What was under way is lost. */
  reset(a: HostName, b: HostName): void {
    for (const socket of [...this.sockets]) {
      if (socket.local === a && socket.remote === b) socket.destroy(systemError('ECONNRESET', `${a} ${b}`));
    }
  }

  /** The process is gone: its listeners and connections, too. */
  detach(name: HostName): void {
    for (const [address, listener] of this.listeners) if (listener.name === name) this.listeners.delete(address);
    for (const socket of [...this.sockets]) if (socket.local === name) socket.destroy();
    this.datagrams.detach(name);
  }

  /** A thread is gone: its listeners and connections, too. */
  detachOwner(owner: Process): void {
    for (const [address, listener] of this.listeners) if (listener.owner === owner) this.listeners.delete(address);
    for (const socket of [...this.sockets]) if (socket.owner === owner) socket.destroy();
  }

  private async listen(
    name: HostName,
    owner: Process,
    address: string,
    onConnection: (socket: Socket) => void,
    security: Security | undefined,
  ): Promise<Listener> {
    const bound = address.replace(/:0$/, `:${++this.ephemeralPort}`);
    if (this.listeners.has(bound)) throw systemError('EADDRINUSE', bound);
    const listener = new MemoryListener(this, name, owner, bound, onConnection, ours(security));
    this.listeners.set(bound, listener);
    return listener;
  }

  private connect(
    name: HostName,
    owner: Process,
    address: string,
    handlers: SocketHandlers,
    security: Security | undefined,
  ): Socket {
    const socket = new MemorySocket(this, owner, name, address, handlers);
    const target = this.listeners.get(address)?.name ?? '';
    this.world.schedule(this.delayOf(name, target, 0), () => {
      const listener = this.listeners.get(address);
      if (listener === undefined) {
        socket.destroy(systemError('ECONNREFUSED', address));
        return;
      }
      // Behind a cut the first packet is lost: the dialler gives up by itself.
      if (this.isCut(name, listener.name) || this.isCut(listener.name, name) || socket.isEnded) return;
      const nobody: SocketHandlers = { onData() {}, onClose() {} };
      const remoteAddress = `${name}:${++this.ephemeralPort}`;
      const accepted = new MemorySocket(this, listener.owner, listener.name, remoteAddress, nobody);
      socket.join(accepted, listener.name);
      accepted.join(socket, name);
      listener.owner.run(() => listener.onConnection(accepted));
      const own = ours(security);
      if (own === undefined && listener.security === undefined) socket.opens();
      else if (own !== undefined) this.shakeHands(socket, own, accepted, listener);
      // A plain one at a secured port is up as far as it knows; what it says there is no handshake.
      else {
        accepted.refuses = 'not a handshake';
        socket.opens();
      }
    });
    return socket;
  }

  /** Takes a round trip more than a plain connection. Either end may have left, or changed its mind, meanwhile. */
  private shakeHands(
    socket: MemorySocket,
    own: MemorySecurity,
    accepted: MemorySocket,
    listener: MemoryListener,
  ): void {
    this.world.schedule(this.delayOf(socket.local, socket.remote, 0), () => {
      const { security } = listener;
      if (socket.isEnded || accepted.isEnded || this.isCut(socket.local, socket.remote)) return;
      if (this.isCut(socket.remote, socket.local)) return;
      const complaint =
        security === undefined ? 'no handshake here' : (security.complaintAbout(own) ?? own.complaintAbout(security));
      if (security === undefined || complaint !== undefined) {
        const error = Object.assign(new Error(`handshake failed: ${complaint}`), { code: 'EPROTO' });
        accepted.destroy(error);
        socket.destroy(error);
        return;
      }
      socket.certificate = security.certificate;
      accepted.certificate = own.certificate;
      accepted.opens();
      socket.opens();
    });
  }
}

class MemoryListener implements Listener {
  readonly name: HostName;
  readonly owner: Process;
  readonly address: string;
  readonly onConnection: (socket: Socket) => void;
  security: MemorySecurity | undefined;
  private readonly network: MemoryNetwork;

  constructor(
    network: MemoryNetwork,
    name: HostName,
    owner: Process,
    address: string,
    onConnection: (socket: Socket) => void,
    security: MemorySecurity | undefined,
  ) {
    this.network = network;
    this.name = name;
    this.owner = owner;
    this.address = address;
    this.onConnection = onConnection;
    this.security = security;
  }

  secure(security: Security): void {
    if (this.security !== undefined) this.security = ours(security);
  }

  close(): Promise<void> {
    if (this.network.listeners.get(this.address) === this) this.network.listeners.delete(this.address);
    return Promise.resolve();
  }
}

interface Piece {
  readonly bytes: Uint8Array;
  /** Bytes of it that have arrived. */
  sent: number;
  readonly written: ((error: Error | null) => void) | undefined;
}

/** Small ones share a pool, which costs a tenth of an array buffer each. */
function copyOf(bytes: Uint8Array, offset: number, length: number): Uint8Array {
  const copy = Buffer.allocUnsafe(length);
  copy.set(bytes.subarray(offset, offset + length));
  return copy;
}

class MemorySocket implements Socket {
  handlers: SocketHandlers;
  readonly remoteAddress: string;
  readonly local: HostName;
  remote: HostName = '';
  queuedBytes = 0;
  isEnded = false;
  certificate: Certificate | undefined;
  /** Why bytes that come end it. */
  refuses: string | undefined;
  private readonly network: MemoryNetwork;
  readonly owner: Process;
  private other: MemorySocket | undefined;
  private outgoing: Piece[] = [];
  private isFlowing = false;
  private isPaused = false;
  private wantsDrain = false;
  private isHalfClosed = false;

  constructor(
    network: MemoryNetwork,
    owner: Process,
    local: HostName,
    remoteAddress: string,
    handlers: SocketHandlers,
  ) {
    this.network = network;
    this.owner = owner;
    this.local = local;
    this.remoteAddress = remoteAddress;
    this.handlers = handlers;
    network.sockets.add(this);
  }

  join(other: MemorySocket, remote: HostName): void {
    this.other = other;
    this.remote = remote;
    this.flow();
  }

  opens(): void {
    this.owner.run(() => {
      if (!this.isEnded) this.handlers.onOpen?.();
    });
  }

  write(buffer: Uint8Array, offset: number, length: number, written?: (error: Error | null) => void): boolean {
    if (this.isEnded || this.isHalfClosed) {
      if (written !== undefined) this.owner.defer(() => written(systemError('EPIPE', this.remoteAddress)));
      return false;
    }
    this.outgoing.push({ bytes: copyOf(buffer, offset, length), sent: 0, written });
    this.queuedBytes += length;
    this.flow();
    if (this.queuedBytes <= WRITE_BUFFER_BYTES) return true;
    this.wantsDrain = true;
    return false;
  }

  /** Carries on with what waits, if it can travel. */
  flow(): void {
    if (this.isFlowing || !this.isPassable || this.outgoing.length === 0) return;
    this.isFlowing = true;
    const { network } = this;
    network.world.schedule(network.delayOf(this.local, this.remote, this.queuedBytes), () => {
      this.isFlowing = false;
      if (this.isPassable && !this.isEnded) this.arrive();
    });
  }

  private get isPassable(): boolean {
    return this.other !== undefined && !this.network.isCut(this.local, this.remote) && !this.other.isPaused;
  }

  private arrive(): void {
    const other = this.other!;
    if (other.isEnded) {
      // Nobody is there any more, and the word of it was lost behind a cut: the first bytes are answered with a reset.
      this.finish(systemError('ECONNRESET', this.remoteAddress));
      return;
    }
    const waiting = Math.min(this.queuedBytes, ARRIVAL_MAX_BYTES);
    const bytes = this.take(waiting === 0 ? 0 : Math.max(1, Math.min(waiting, this.network.portionOf(waiting))));
    this.network.spoil?.(this.local, this.remote, bytes);
    if (other.refuses !== undefined) {
      other.destroy(new Error(`handshake failed: ${other.refuses}`));
      return;
    }
    other.owner.run(() => {
      if (!other.isEnded && bytes.length > 0) other.handlers.onData(bytes, 0, bytes.length);
    });
    if (this.outgoing.length > 0) this.flow();
    else if (this.isHalfClosed) this.destroy();
    else if (this.wantsDrain) {
      this.wantsDrain = false;
      this.owner.run(() => this.handlers.onDrain?.());
    }
  }

  /** The next `length` bytes; who wrote them hears of it. */
  private take(length: number): Uint8Array {
    const { outgoing } = this;
    const isWhole = outgoing.length > 0 && outgoing[0].sent === 0 && outgoing[0].bytes.length === length;
    // Each piece is a copy that nobody else has.
    const all = isWhole ? outgoing[0].bytes : Buffer.allocUnsafe(length);
    let filled = 0;
    while (filled < length || (outgoing.length > 0 && outgoing[0].bytes.length === 0)) {
      const piece = outgoing[0];
      const count = Math.min(length - filled, piece.bytes.length - piece.sent);
      if (!isWhole) all.set(piece.bytes.subarray(piece.sent, piece.sent + count), filled);
      filled += count;
      piece.sent += count;
      if (piece.sent < piece.bytes.length) break;
      outgoing.shift();
      const { written } = piece;
      if (written !== undefined) this.owner.run(() => written(null));
    }
    this.queuedBytes -= filled;
    return filled === length ? all : all.subarray(0, filled);
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    this.other?.flow();
  }

  destroy(error?: Error): void {
    if (this.isEnded) return;
    const { other, network } = this;
    this.finish(error);
    if (other === undefined) return;
    // The other end hears of it when the network lets it.
    network.world.schedule(network.delayOf(this.local, this.remote, 0), () => {
      if (!network.isCut(this.local, this.remote)) other.finish(undefined);
    });
  }

  private finish(error: Error | undefined): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.network.sockets.delete(this);
    const lost = this.outgoing;
    this.outgoing = [];
    this.queuedBytes = 0;
    this.owner.defer(() => {
      for (const { written } of lost) written?.(error ?? systemError('ECONNRESET', this.remoteAddress));
      this.handlers.onClose(error);
    });
  }

  end(): void {
    this.isHalfClosed = true;
    if (this.outgoing.length === 0) this.destroy();
  }
}
