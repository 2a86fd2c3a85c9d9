/**
 * A network in memory: connections deliver in order after a delay. A cut link holds bytes back until it heals, as a partition does to
 * TCP; a process that dies ends its connections.
 */
import type { Listener, Network, Socket, SocketHandlers } from '../env.ts';
import { systemError } from './disk.ts';
import type { World } from './world.ts';

const WRITE_BUFFER_BYTES = 64 * 1024;

/** Process that dials or listens, as the network knows it. */
export type HostName = string;

export class MemoryNetwork {
  readonly world: World;
  /** Virtual milliseconds from one host to another. */
  latencyMs = 0.5;
  readonly listeners = new Map<string, MemoryListener>();
  private readonly cuts = new Set<string>();
  readonly sockets = new Set<MemorySocket>();
  private ephemeralPort = 40_000;

  constructor(world: World) {
    this.world = world;
  }

  /** The network as the process `name` sees it. */
  attach(name: HostName): Network {
    return {
      listen: (address, onConnection) => this.listen(name, address, onConnection),
      connect: (address, handlers) => this.connect(name, address, handlers),
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

  /** Everything passes again; what was held back arrives. */
  heal(): void {
    this.cuts.clear();
    for (const socket of this.sockets) socket.flow();
  }

  isCut(from: HostName, to: HostName): boolean {
    return this.cuts.has(`${from}>${to}`);
  }

  /** Ends all connections between two hosts; they may dial again. */
  reset(a: HostName, b: HostName): void {
    for (const socket of [...this.sockets]) {
      if (socket.local === a && socket.remote === b) socket.destroy(systemError('ECONNRESET', `${a} ${b}`));
    }
  }

  /** The process is gone: its listeners and connections, too. */
  detach(name: HostName): void {
    for (const [address, listener] of this.listeners) if (listener.name === name) this.listeners.delete(address);
    for (const socket of [...this.sockets]) if (socket.local === name) socket.die();
  }

  private async listen(name: HostName, address: string, onConnection: (socket: Socket) => void): Promise<Listener> {
    const bound = address.replace(/:0$/, `:${++this.ephemeralPort}`);
    if (this.listeners.has(bound)) throw systemError('EADDRINUSE', bound);
    const listener = new MemoryListener(this, name, bound, onConnection);
    this.listeners.set(bound, listener);
    return listener;
  }

  private connect(name: HostName, address: string, handlers: SocketHandlers): Socket {
    const socket = new MemorySocket(this, name, address, handlers);
    this.world.schedule(this.latencyMs, () => {
      const listener = this.listeners.get(address);
      if (listener === undefined) {
        socket.destroy(systemError('ECONNREFUSED', address));
        return;
      }
      // Behind a cut the first packet is lost: the dialler gives up by itself.
      if (this.isCut(name, listener.name) || this.isCut(listener.name, name) || socket.isEnded) return;
      const nobody: SocketHandlers = { onData() {}, onClose() {} };
      const accepted = new MemorySocket(this, listener.name, `${name}:${++this.ephemeralPort}`, nobody);
      socket.join(accepted, listener.name);
      accepted.join(socket, name);
      listener.onConnection(accepted);
      socket.handlers.onOpen?.();
    });
    return socket;
  }
}

class MemoryListener implements Listener {
  readonly name: HostName;
  readonly address: string;
  readonly onConnection: (socket: Socket) => void;
  private readonly network: MemoryNetwork;

  constructor(network: MemoryNetwork, name: HostName, address: string, onConnection: (socket: Socket) => void) {
    this.network = network;
    this.name = name;
    this.address = address;
    this.onConnection = onConnection;
  }

  close(): Promise<void> {
    if (this.network.listeners.get(this.address) === this) this.network.listeners.delete(this.address);
    return Promise.resolve();
  }
}

interface Piece {
  readonly bytes: Uint8Array;
  readonly written: ((error: Error | null) => void) | undefined;
}

class MemorySocket implements Socket {
  handlers: SocketHandlers;
  readonly remoteAddress: string;
  readonly local: HostName;
  remote: HostName = '';
  queuedBytes = 0;
  isEnded = false;
  private readonly network: MemoryNetwork;
  private other: MemorySocket | undefined;
  private outgoing: Piece[] = [];
  private isFlowing = false;
  private isPaused = false;
  private wantsDrain = false;
  private isHalfClosed = false;

  constructor(network: MemoryNetwork, local: HostName, remoteAddress: string, handlers: SocketHandlers) {
    this.network = network;
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

  write(buffer: Uint8Array, offset: number, length: number, written?: (error: Error | null) => void): boolean {
    const bytes = buffer.slice(offset, offset + length);
    if (this.isEnded || this.isHalfClosed) {
      if (written !== undefined)
        this.network.world.schedule(0, () => written(systemError('EPIPE', this.remoteAddress)));
      return false;
    }
    this.outgoing.push({ bytes, written });
    this.queuedBytes += length;
    this.flow();
    if (this.queuedBytes <= WRITE_BUFFER_BYTES) return true;
    this.wantsDrain = true;
    return false;
  }

  /** Carries on with what waits, if it can travel. */
  flow(): void {
    const { other } = this;
    if (this.isFlowing || other === undefined || this.outgoing.length === 0) return;
    if (this.network.isCut(this.local, this.remote) || other.isPaused) return;
    this.isFlowing = true;
    this.network.world.schedule(this.network.latencyMs, () => {
      this.isFlowing = false;
      if (this.network.isCut(this.local, this.remote) || other.isPaused || this.isEnded) return;
      const pieces = this.outgoing;
      this.outgoing = [];
      for (const { bytes, written } of pieces) {
        this.queuedBytes -= bytes.length;
        if (!other.isEnded) other.handlers.onData(bytes, 0, bytes.length);
        written?.(null);
      }
      if (this.isHalfClosed && this.outgoing.length === 0) this.destroy();
      else if (this.wantsDrain && this.queuedBytes === 0) {
        this.wantsDrain = false;
        this.handlers.onDrain?.();
      }
      this.flow();
    });
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
    const { other } = this;
    const { world } = this.network;
    this.finish(error);
    if (other === undefined) return;
    // The other end hears of it when the network lets it.
    world.schedule(this.network.latencyMs, () => {
      if (!this.network.isCut(this.local, this.remote)) other.finish(undefined);
    });
  }

  /** Its process is gone: nothing is called here any more; the other end hears of it. */
  die(): void {
    this.handlers = { onData() {}, onClose() {} };
    this.outgoing = this.outgoing.map(({ bytes }) => ({ bytes, written: undefined }));
    this.destroy();
  }

  private finish(error: Error | undefined): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.network.sockets.delete(this);
    const lost = this.outgoing;
    this.outgoing = [];
    this.queuedBytes = 0;
    this.network.world.schedule(0, () => {
      for (const { written } of lost) written?.(error ?? systemError('ECONNRESET', this.remoteAddress));
      this.handlers.onClose(error);
    });
  }

  end(): void {
    this.isHalfClosed = true;
    if (this.outgoing.length === 0) this.destroy();
  }
}
