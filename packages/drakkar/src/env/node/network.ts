/** TCP of this machine. Dialled sockets read into one static buffer; accepted ones cannot (hot-path §3). */
import { connect as dial, createServer, type Socket as NetSocket } from 'node:net';
import type { Listener, Network, Socket, SocketHandlers } from '../env.ts';
import { formatAddress, parseAddress } from './address.ts';
import { bindDatagrams } from './datagrams.ts';

const READ_BYTES = 512 * 1024;

class NodeSocket implements Socket {
  handlers: SocketHandlers;
  remoteAddress: string;
  private readonly socket: NetSocket;
  private error: Error | undefined;

  constructor(socket: NetSocket, handlers: SocketHandlers, remoteAddress: string) {
    this.socket = socket;
    this.handlers = handlers;
    this.remoteAddress = remoteAddress;
    socket.on('error', (error) => {
      this.error ??= error;
    });
    socket.on('drain', () => this.handlers.onDrain?.());
    socket.on('close', () => this.handlers.onClose(this.error));
  }

  get queuedBytes(): number {
    return this.socket.writableLength;
  }

  write(buffer: Uint8Array, offset: number, length: number, written?: (error: Error | null) => void): boolean {
    if (this.socket.destroyed || this.socket.writableEnded) {
      if (written !== undefined) setImmediate(() => written(this.error ?? new Error('the connection has ended')));
      return false;
    }
    const piece = buffer.subarray(offset, offset + length);
    if (written === undefined) return this.socket.write(piece);
    return this.socket.write(piece, (error) => written(error ?? null));
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  destroy(error?: Error): void {
    this.error ??= error;
    this.socket.destroy();
  }

  end(): void {
    this.socket.end();
  }
}

function connect(address: string, handlers: SocketHandlers): Socket {
  const { host, port } = parseAddress(address);
  // Made by every connection: a host has few, and one buffer for all would tie them together.
  const buffer = new Uint8Array(READ_BYTES);
  const raw = dial({
    host,
    port,
    noDelay: true,
    onread: {
      buffer,
      callback(bytes: number): boolean {
        socket.handlers.onData(buffer, 0, bytes);
        return true;
      },
    },
  });
  const socket = new NodeSocket(raw, handlers, address);
  raw.on('connect', () => socket.handlers.onOpen?.());
  return socket;
}

function listen(address: string, onConnection: (socket: Socket) => void): Promise<Listener> {
  const { host, port } = parseAddress(address);
  const open = new Set<NetSocket>();
  const server = createServer({ noDelay: true }, (raw) => {
    open.add(raw);
    raw.on('close', () => open.delete(raw));
    const nobody: SocketHandlers = { onData() {}, onClose() {} };
    const socket = new NodeSocket(raw, nobody, formatAddress(raw.remoteAddress ?? 'unknown', raw.remotePort ?? 0));
    raw.on('data', (chunk: Buffer) => socket.handlers.onData(chunk, 0, chunk.length));
    onConnection(socket);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      // An accept that fails (too many files) drops that connection; the server goes on.
      server.on('error', () => {});
      const bound = server.address();
      resolve({
        address: typeof bound === 'object' && bound !== null ? formatAddress(host, bound.port) : address,
        close() {
          for (const raw of open) raw.destroy();
          return new Promise((closed) => server.close(() => closed()));
        },
      });
    });
  });
}

export const nodeNetwork: Network = { listen, connect, bindDatagrams };
