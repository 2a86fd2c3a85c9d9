/** TCP of this machine, plain or under TLS. Plain sockets read into static buffers: no memory is made for what arrives (hot-path §3). */
import { connect as dial, createServer, Socket as NetSocket, type Server } from 'node:net';
import {
  connect as dialTls,
  createServer as createTlsServer,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import type { Certificate, Listener, Network, Security, Socket, SocketHandlers } from '../env.ts';
import { formatAddress, parseAddress } from './address.ts';
import { NodeSecurity, prepare, readCertificate } from './certificate.ts';
import { bindDatagrams } from './datagrams.ts';

const READ_BYTES = 512 * 1024;
/** A second line: whoever listens ends a handshake that takes too long before that. */
const HANDSHAKE_MAX_MS = 30_000;

class NodeSocket implements Socket {
  handlers: SocketHandlers;
  remoteAddress: string;
  certificate: Certificate | undefined;
  private socket: NetSocket;
  private error: Error | undefined;

  constructor(socket: NetSocket, handlers: SocketHandlers, remoteAddress: string) {
    this.socket = socket;
    this.handlers = handlers;
    this.remoteAddress = remoteAddress;
    this.watch(socket);
  }

  private watch(socket: NetSocket): void {
    socket.on('error', (error) => {
      this.error ??= error;
    });
    socket.on('drain', () => this.handlers.onDrain?.());
    socket.on('close', () => {
      if (socket === this.socket) this.handlers.onClose(this.error);
    });
  }

  /** The handshake is done: from now on everything goes through `secured`, which ends when all it decrypted was read. */
  adopt(secured: TLSSocket): void {
    this.socket = secured;
    this.watch(secured);
    this.opened(secured);
    if (this.certificate !== undefined)
      secured.on('data', (chunk: Buffer) => this.handlers.onData(chunk, 0, chunk.length));
  }

  opened(secured: TLSSocket): void {
    const certificate = secured.getPeerX509Certificate();
    // The one place that decides: what OpenSSL found wrong is known here only, since an accepted connection ends without a word where
    // Node itself rejects.
    if (!secured.authorized || certificate === undefined || secured.isSessionReused()) {
      // An error at one end, its code at the other.
      const why = secured.authorizationError as Error | string | null | undefined;
      const reason = why instanceof Error ? why.message : (why ?? 'there is none');
      this.destroy(new Error(`the certificate is not accepted: ${reason}`));
      return;
    }
    this.certificate = readCertificate(certificate);
    this.handlers.onOpen?.();
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

function connect(address: string, handlers: SocketHandlers, security?: Security): Socket {
  return security === undefined ? connectPlain(address, handlers) : connectSecured(address, handlers, security);
}

function connectPlain(address: string, handlers: SocketHandlers): Socket {
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

function connectSecured(address: string, handlers: SocketHandlers, security: Security): Socket {
  const secured = dialTls({
    ...parseAddress(address),
    secureContext: contextOf(security).context,
    rejectUnauthorized: true,
    // Our own policy judges names, the same at both ends (`transport/identity.ts`).
    checkServerIdentity: () => undefined,
  });
  secured.setNoDelay(true);
  const socket = new NodeSocket(secured, handlers, address);
  secured.on('data', (chunk: Buffer) => socket.handlers.onData(chunk, 0, chunk.length));
  secured.on('secureConnect', () => socket.opened(secured));
  return socket;
}

function contextOf(security: Security): NodeSecurity {
  if (!(security instanceof NodeSecurity)) throw new TypeError('this security was prepared by another network');
  return security;
}

function listen(address: string, onConnection: (socket: Socket) => void, security?: Security): Promise<Listener> {
  const { host, port } = parseAddress(address);
  const open = new Set<NetSocket>();
  const handshakes = security === undefined ? undefined : new Handshakes(contextOf(security));
  // One for all connections: a reader is done with what arrived before the next one's bytes come.
  const buffer = new Uint8Array(READ_BYTES);
  const server = createServer({ noDelay: true, pauseOnConnect: handshakes === undefined }, (accepted) => {
    let onBytes = (_bytes: Uint8Array, _length: number): void => {};
    const raw = handshakes === undefined ? readingInto(buffer, accepted, (...read) => onBytes(...read)) : accepted;
    open.add(raw);
    raw.on('close', () => open.delete(raw));
    const nobody: SocketHandlers = { onData() {}, onClose() {} };
    const socket = new NodeSocket(raw, nobody, formatAddress(raw.remoteAddress ?? 'unknown', raw.remotePort ?? 0));
    onBytes = (bytes, length) => socket.handlers.onData(bytes, 0, length);
    onConnection(socket);
    if (handshakes === undefined) raw.resume();
    else handshakes.begin(raw, socket);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      // An accept that fails (too many files) drops that connection; the server goes on.
      server.on('error', () => {});
      resolve({
        address: boundAddress(server, host, address),
        secure: (next) => handshakes?.use(contextOf(next)),
        close() {
          for (const raw of open) raw.destroy();
          return new Promise((closed) => server.close(() => closed()));
        },
      });
    });
  });
}

interface Handle {
  useUserBuffer?: unknown;
}

/**
 * A socket in the place of `accepted`, which is paused and was not read yet, that reads into `buffer`. Node offers that for dialled sockets
 * only: accepted ones make 64 KiB for every read, and the collector runs for them all the time. So another socket takes over the
 * handle. Where that is not as it is known to be, the bytes come as Node brings them.
 */
function readingInto(
  buffer: Uint8Array,
  accepted: NetSocket,
  onBytes: (bytes: Uint8Array, length: number) => void,
): NetSocket {
  const holder = accepted as unknown as { _handle: Handle | null };
  const handle = holder._handle;
  if (typeof handle?.useUserBuffer !== 'function') {
    accepted.on('data', (chunk: Buffer) => onBytes(chunk, chunk.length));
    return accepted.pause();
  }
  holder._handle = null;
  accepted.destroy(); // an empty shell
  const callback = (length: number): boolean => {
    onBytes(buffer, length);
    return true;
  };
  const options = { handle, pauseOnCreate: true, onread: { buffer, callback } };
  return new NetSocket(options as unknown as ConstructorParameters<typeof NetSocket>[0]);
}

function boundAddress(server: Server, host: string, asked: string): string {
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? formatAddress(host, bound.port) : asked;
}

/** Handshakes of accepted connections: done by a TLS server that itself listens nowhere, so that connections are seen before theirs. */
class Handshakes {
  private readonly server: TlsServer;
  private readonly waiting = new Map<string, NodeSocket>();

  constructor(security: NodeSecurity) {
    this.server = createTlsServer({
      ...security.options,
      requestCert: true,
      rejectUnauthorized: false, // `NodeSocket.opened` rejects, and knows why
      handshakeTimeout: HANDSHAKE_MAX_MS,
    });
    this.server.on('secureConnection', (secured) => this.waiting.get(endsOf(secured))?.adopt(secured));
    this.server.on('tlsClientError', (error, secured) => this.waiting.get(endsOf(secured))?.destroy(error));
  }

  begin(raw: NetSocket, socket: NodeSocket): void {
    if (raw.destroyed) return;
    const ends = endsOf(raw);
    this.waiting.set(ends, socket);
    raw.on('close', () => {
      if (this.waiting.get(ends) === socket) this.waiting.delete(ends);
    });
    this.server.emit('connection', raw);
  }

  use(security: NodeSecurity): void {
    this.server.setSecureContext(security.options);
  }
}

/** What tells one connection from all others that are open. */
function endsOf(socket: NetSocket): string {
  return `${socket.localAddress} ${socket.remoteAddress} ${socket.remotePort}`;
}

export const nodeNetwork: Network = { listen, connect, prepare, bindDatagrams };
