/**
 * A transport over HTTP/2 without TLS, in real time: a long request to each peer whose body are the frames, and one request for each
 * snapshot, answered when it is installed. Shows that the contract is enough to write one by.
 */
import { once } from 'node:events';
import * as http2 from 'node:http2';
import {
  DrakkarError,
  FrameReceiver,
  meansHost,
  type HostIdentity,
  type ImageFrom,
  type InboundSession,
  type Peer,
  type Slab,
  type SnapshotHeader,
  type Transport,
  type TransportContext,
  type TransportCounters,
  type TransportHandlers,
} from 'drakkar';

const RETRY_MS = 30;

const read = (headers: http2.IncomingHttpHeaders, name: string): unknown =>
  JSON.parse(decodeURIComponent(String(headers[name])));
const text = (value: unknown): string => encodeURIComponent(JSON.stringify(value));

export function createHttp2Transport(context: TransportContext): Transport {
  return new Http2Transport(context);
}

class Http2Transport implements Transport {
  readonly name = 'http2';
  readonly address: string;
  readonly context: TransportContext;
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
  isClosed = false;
  private readonly server = http2.createServer();
  private readonly connections = new Set<http2.ServerHttp2Session>();
  private readonly peers = new Map<string, Http2Peer>();
  private peerCount = 0;
  private sessionCount = 0;
  private readonly closing = new AbortController();

  constructor(context: TransportContext) {
    this.context = context;
    this.address = context.listenAddress;
  }

  async start(handlers: TransportHandlers): Promise<void> {
    this.handlers = handlers;
    this.server.on('session', (session) => {
      this.connections.add(session);
      session.on('error', () => {});
      session.on('close', () => this.connections.delete(session));
    });
    this.server.on('stream', (stream, headers) => this.accept(stream, headers));
    const [host, port] = this.address.split(':');
    this.server.listen(Number(port), host);
    try {
      await once(this.server, 'listening');
    } catch (cause) {
      throw new DrakkarError('ERR_ADDRESS_IN_USE', `${this.address} is in use`, { cause });
    }
  }

  count(reason: string): void {
    this.counters.refused.set(reason, (this.counters.refused.get(reason) ?? 0) + 1);
  }

  private accept(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
    stream.on('error', () => {});
    const { identity } = this.context;
    const from = read(headers, 'x-identity') as HostIdentity;
    let complaint = '';
    if (from.deploymentId !== identity.deploymentId) complaint = 'deployment';
    else if (!meansHost(read(headers, 'x-target') as string, identity)) complaint = 'address';
    if (complaint !== '') {
      this.count(complaint);
      stream.respond({ ':status': 403 });
      stream.end(complaint);
      return;
    }
    if (headers[':path'] === '/snapshot') {
      void this.receiveSnapshot(stream, from, read(headers, 'x-header') as SnapshotHeader, 'x-offers-rest' in headers);
      return;
    }
    stream.respond({ ':status': 200, 'x-identity': text(identity) });
    new Http2Inbound(this, stream, ++this.sessionCount, from);
  }

  private async receiveSnapshot(
    stream: http2.ServerHttp2Stream,
    from: HostIdentity,
    header: SnapshotHeader,
    offersRest: boolean,
  ): Promise<void> {
    const aborting = new AbortController();
    let isWhole = false;
    // Said before anything of it is read; the sender waits for it where it has offered to begin elsewhere.
    let offset: number | undefined;
    const begin = (wanted: number): void => {
      if (offset !== undefined) return;
      offset = wanted;
      if (offersRest) stream.additionalHeaders({ ':status': 103, 'x-begin': `${wanted}` });
    };
    stream.on('trailers', (trailers) => (isWhole = trailers['x-whole'] === '1'));
    stream.on('aborted', () => aborting.abort(new Error('the sender gave the snapshot up')));
    async function* chunks(): AsyncGenerator<Uint8Array> {
      begin(0);
      let bytes = offset!;
      if (bytes > header.imageBytes || (bytes > 0 && !offersRest))
        throw new DrakkarError('ERR_FRAME', `a snapshot from byte ${bytes} on was not offered`);
      for await (const chunk of stream) {
        bytes += (chunk as Uint8Array).length;
        yield chunk as Uint8Array;
      }
      aborting.signal.throwIfAborted();
      if (!isWhole) throw new DrakkarError('ERR_UNREACHABLE', 'the snapshot ended in the middle');
      if (header.imageBytes !== 0 && bytes !== header.imageBytes)
        throw new DrakkarError('ERR_FRAME', `a snapshot of ${bytes} bytes, not ${header.imageBytes}`);
    }
    const signal = AbortSignal.any([aborting.signal, this.closing.signal]);
    try {
      await this.handlers!.onSnapshot(from, header, chunks(), signal, begin);
      this.counters.snapshotsReceived++;
      stream.respond({ ':status': 200 });
      stream.end();
    } catch (error) {
      this.counters.snapshotsFailed++;
      if (stream.destroyed) return;
      stream.respond({ ':status': 409 });
      stream.end(String(error));
    }
  }

  request(
    path: string,
    target: string,
    more: Record<string, string> = {},
  ): { connection: http2.ClientHttp2Session; request: http2.ClientHttp2Stream; isWhole: boolean } | undefined {
    const address = this.context.resolve(target);
    if (address === undefined) return undefined;
    const connection = http2.connect(`http://${address}`);
    connection.on('error', () => {});
    const request = connection.request(
      {
        ':method': 'POST',
        ':path': path,
        'x-identity': text(this.context.identity),
        'x-target': text(target),
        ...more,
      },
      { endStream: false, waitForTrailers: true },
    );
    request.on('error', () => {});
    // Whoever closes a request ends it, too: the end alone says nothing.
    const made = { connection, request, isWhole: false };
    request.on('wantTrailers', () => request.sendTrailers(made.isWhole ? { 'x-whole': '1' } : {}));
    request.on('close', () => connection.destroy());
    return made;
  }

  peer(target: string): Peer {
    let peer = this.peers.get(target);
    if (peer === undefined) {
      peer = new Http2Peer(this, this.peerCount++, target);
      this.peers.set(target, peer);
      peer.dial();
    }
    return peer;
  }

  addressChanged(target: string): void {
    this.peers.get(target)?.dial();
  }

  release(target: string): void {
    this.peers.get(target)?.close();
    this.peers.delete(target);
  }

  async sendSnapshot(
    target: string,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    from?: ImageFrom,
  ): Promise<void> {
    const rest = header.imageDigest === undefined ? undefined : from;
    const more = { 'x-header': text(header), ...(rest === undefined ? {} : { 'x-offers-rest': '1' }) };
    const made = this.isClosed ? undefined : this.request('/snapshot', target, more);
    try {
      if (made === undefined) throw new DrakkarError('ERR_UNREACHABLE', `no address of ${target}`);
      const { request } = made;
      const ended = Promise.withResolvers<{ status: number; body: string }>();
      ended.promise.catch(() => {});
      let body = '';
      let status = 0;
      request.on('response', (headers) => (status = Number(headers[':status'])));
      request.setEncoding('utf8').on('data', (piece: string) => (body += piece));
      request.on('close', () => {
        if (status === 0) ended.reject(new DrakkarError('ERR_UNREACHABLE', `${target} is not to be reached`));
        else ended.resolve({ status, body });
      });
      const either = AbortSignal.any([signal, this.closing.signal]);
      const cancel = (): void => request.close(http2.constants.NGHTTP2_CANCEL);
      either.addEventListener('abort', cancel, { once: true });
      either.throwIfAborted();
      let source = chunks;
      if (rest !== undefined) {
        const begun = once(request, 'headers').then(([headers]) =>
          Number((headers as Record<string, string>)['x-begin']),
        );
        begun.catch(() => {});
        const offset = await Promise.race([begun, ended.promise.then(() => 0)]);
        if (offset > 0) source = rest(offset);
      }
      for await (const chunk of source) {
        either.throwIfAborted();
        if (request.closed || status !== 0) break;
        if (!request.write(chunk)) await Promise.race([once(request, 'drain'), ended.promise]);
      }
      made.isWhole = true;
      request.end();
      const answer = await ended.promise;
      either.removeEventListener('abort', cancel);
      if (answer.status !== 200)
        throw new DrakkarError('ERR_PEER_REFUSED', `${target} did not install the snapshot: ${answer.body}`);
      this.counters.snapshotsSent++;
    } catch (error) {
      made?.request.close(http2.constants.NGHTTP2_CANCEL);
      this.counters.snapshotsFailed++;
      if (signal.aborted) throw new DrakkarError('ERR_ABORTED', 'sending the snapshot was aborted', { cause: error });
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.closing.abort(new DrakkarError('ERR_CLOSED', 'the host was closed'));
    for (const peer of this.peers.values()) peer.close();
    const closed = once(this.server, 'close');
    this.server.close();
    for (const connection of this.connections) connection.destroy();
    await closed;
  }
}

class Http2Inbound implements InboundSession {
  readonly id: number;
  readonly identity: HostIdentity;
  private readonly transport: Http2Transport;
  private readonly stream: http2.ServerHttp2Stream;
  private readonly receiver: FrameReceiver;
  private isDropped = false;

  constructor(transport: Http2Transport, stream: http2.ServerHttp2Stream, id: number, identity: HostIdentity) {
    this.transport = transport;
    this.stream = stream;
    this.id = id;
    this.identity = identity;
    const { pool, identity: own } = transport.context;
    const onFrame = (slab: Slab, offset: number, lengthBytes: number): void => {
      transport.counters.framesReceived++;
      transport.handlers!.onFrame(this, slab, offset, lengthBytes);
    };
    this.receiver = new FrameReceiver(pool, onFrame, own.newestFormat);
    this.receiver.admit();
    stream.on('data', (bytes: Uint8Array) => this.onData(bytes));
    stream.on('close', () => {
      this.receiver.close();
      transport.handlers!.onSessionEnd(this);
    });
  }

  private onData(bytes: Uint8Array): void {
    if (this.isDropped || this.transport.isClosed) return;
    this.transport.counters.bytesReceived += bytes.length;
    try {
      this.receiver.push(bytes, 0, bytes.length);
    } catch (error) {
      this.drop(DrakkarError.is(error, 'ERR_FRAME') ? 'bad-frame' : 'error');
    }
  }

  pause(): void {
    this.stream.pause();
  }

  resume(): void {
    this.stream.resume();
  }

  drop(reason: string): void {
    if (this.isDropped) return;
    this.isDropped = true;
    this.transport.count(reason);
    this.stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
  }
}

class Http2Peer implements Peer {
  readonly index: number;
  readonly address: string;
  connected = false;
  identity: HostIdentity | undefined;
  queuedBytes = 0;
  private readonly transport: Http2Transport;
  private request: http2.ClientHttp2Stream | undefined;
  private isClosed = false;
  private timer: { cancel(): void } | undefined;

  constructor(transport: Http2Transport, index: number, address: string) {
    this.transport = transport;
    this.index = index;
    this.address = address;
  }

  dial(): void {
    if (this.isClosed || this.request !== undefined) return;
    this.timer?.cancel();
    const request = this.transport.request('/frames', this.address)?.request;
    this.request = request;
    if (request === undefined) {
      this.retry();
      return;
    }
    request.on('response', (headers) => {
      if (this.isClosed) return;
      if (headers[':status'] !== 200) {
        request.close();
        return;
      }
      this.identity = read(headers, 'x-identity') as HostIdentity;
      this.connected = true;
      this.transport.counters.connectionsUp++;
      this.transport.handlers!.onPeerUp(this);
    });
    request.on('close', () => this.lost());
    request.resume();
  }

  private lost(): void {
    const wasUp = this.connected;
    this.request = undefined;
    this.connected = false;
    this.identity = undefined;
    if (this.isClosed) return;
    if (wasUp) this.transport.handlers!.onPeerDown(this);
    else this.transport.counters.connectionsFailed++;
    this.retry();
  }

  private retry(): void {
    this.timer?.cancel();
    this.timer = this.transport.context.env.scheduler.after(RETRY_MS, () => this.dial());
  }

  send(slab: Slab, offset: number, lengthBytes: number): boolean {
    const { counters, context } = this.transport;
    if (!this.connected || this.queuedBytes + lengthBytes > context.maxSendQueueBytes) {
      counters.framesDropped++;
      return false;
    }
    slab.retain();
    this.queuedBytes += lengthBytes;
    counters.framesSent++;
    counters.bytesSent += lengthBytes;
    this.request!.write(slab.u8.subarray(offset, offset + lengthBytes), () => {
      this.queuedBytes -= lengthBytes;
      slab.release();
    });
    return true;
  }

  close(): void {
    this.isClosed = true;
    this.connected = false;
    this.timer?.cancel();
    this.request?.close(http2.constants.NGHTTP2_CANCEL);
  }
}
