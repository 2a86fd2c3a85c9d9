/** The way to one other host over TCP: finds out where it is, dials, says HELLO, sends, and dials again with growing pauses. */
import type { Socket, Timer } from '../env/env.ts';
import { Slab } from '../wire/slab.ts';
import { FRAME_HEADER_BYTES, FrameType, frameType, sealFrame } from '../wire/frame.ts';
import { FrameReceiver } from './frame-receiver.ts';
import { HelloStatus, Purpose, decodeHello, encodeHello } from './hello.ts';
import {
  BACKOFF_FIRST_MS,
  BACKOFF_LAST_MS,
  DIAL_TIMEOUT_MS,
  HELLO_TIMEOUT_MS,
  PEER_QUEUE_MAX_BYTES,
} from './limits.ts';
import { meansHost } from './target.ts';
import type { TcpTransport } from './tcp.ts';
import type { HostIdentity, Peer } from './transport.ts';

const CLOSED_BY_PEER = 'closed by the other end';

export class TcpPeer implements Peer {
  readonly index: number;
  readonly address: string;
  readonly engine: number;
  connected = false;
  identity: HostIdentity | undefined;
  private readonly transport: TcpTransport;
  private socket: Socket | undefined;
  private timer: Timer | undefined;
  private backoffMs = BACKOFF_FIRST_MS;
  private lastComplaint = '';
  private isClosed = false;
  constructor(transport: TcpTransport, index: number, address: string, engine = 0) {
    this.transport = transport;
    this.index = index;
    this.address = address;
    this.engine = engine;
  }

  get queuedBytes(): number {
    return this.socket?.queuedBytes ?? 0;
  }

  send(slab: Slab, offset: number, lengthBytes: number): boolean {
    const { counters } = this.transport;
    if (!this.connected || this.socket!.queuedBytes + lengthBytes > PEER_QUEUE_MAX_BYTES) {
      counters.framesDropped++;
      return false;
    }
    slab.retain();
    counters.framesSent++;
    counters.bytesSent += lengthBytes;
    this.socket!.write(slab.u8, offset, lengthBytes, () => slab.release());
    return true;
  }

  dial(): void {
    if (this.isClosed) return;
    const { env, pool, identity } = this.transport;
    const listener = this.transport.listenerOf(this.address, this.engine);
    if (listener === undefined) {
      this.complain(new Error('its address is not known yet'));
      this.dialLater();
      return;
    }
    const receiver = new FrameReceiver(pool, (slab, offset, lengthBytes) => {
      if (this.connected && frameType(slab.u32, offset >>> 2) === FrameType.Engines && this.engine === 0) {
        this.transport.onNews(this.address, slab, offset);
        return;
      }
      if (this.connected) throw new Error('the peer spoke on a connection that is not for it to speak on');
      this.onHello(socket, slab, offset, lengthBytes);
    });
    const socket = env.network.connect(listener, {
      onOpen: () => {
        this.arm(HELLO_TIMEOUT_MS, () => socket.destroy(new Error('no answer to HELLO')));
        const hello = encodeHello({
          purpose: Purpose.Messages,
          status: HelloStatus.Ok,
          identity,
          engine: this.transport.engine,
          target: this.address,
          targetEngine: this.engine,
          explanation: '',
        });
        socket.write(hello.u8, 0, hello.usedBytes);
      },
      onData: (buffer, offset, length) => {
        try {
          receiver.push(buffer, offset, length);
        } catch (error) {
          socket.destroy(error as Error);
        }
      },
      onClose: (error) => {
        receiver.close();
        this.onClose(socket, error);
      },
    });
    this.socket = socket;
    this.arm(DIAL_TIMEOUT_MS, () => socket.destroy(new Error('no connection in time')));
  }

  private onHello(socket: Socket, slab: Slab, offset: number, lengthBytes: number): void {
    const hello = decodeHello(slab.u8, slab.u32, offset, lengthBytes);
    const complaint =
      this.transport.complaintAbout(hello) ??
      (meansHost(this.address, hello.identity) && hello.engine === this.engine ? undefined : 'address');
    if (complaint !== undefined) {
      this.transport.countRefusal(complaint);
      socket.destroy(new Error(`refused (${complaint}): ${hello.explanation || hello.identity.raftAddress}`));
      return;
    }
    this.timer?.cancel();
    this.backoffMs = BACKOFF_FIRST_MS;
    this.lastComplaint = '';
    this.identity = hello.identity;
    this.connected = true;
    this.transport.counters.connectionsUp++;
    this.transport.handlers?.onConnection?.(this.address, false, undefined);
    this.transport.handlers?.onPeerUp(this);
  }

  private onClose(socket: Socket, error: Error | undefined): void {
    if (socket !== this.socket) return;
    this.timer?.cancel();
    this.socket = undefined;
    const wasUp = this.connected;
    this.connected = false;
    this.identity = undefined;
    if (wasUp) this.transport.handlers?.onPeerDown(this);
    else this.transport.counters.connectionsFailed++;
    if (this.isClosed) return;
    if (!wasUp && this.engine > 0) this.transport.askForNews(this.address);
    this.transport.handlers?.onConnection?.(this.address, false, error ?? new Error(CLOSED_BY_PEER));
    this.complain(error);
    this.dialLater();
  }

  private dialLater(): void {
    const jitter = 0.5 + (this.transport.env.random.u32() / 2 ** 32) * 0.5;
    this.arm(this.backoffMs * jitter, () => this.dial());
    this.backoffMs = Math.min(this.backoffMs * 2, BACKOFF_LAST_MS);
  }

  /** Its engine listens elsewhere: its host was started anew. */
  move(): void {
    if (this.connected) this.socket?.destroy(new Error('its address is another one'));
    else this.retry();
  }

  /** A frame of no messages: where nobody is any more it ends the connection, however long nothing else was to be said. */
  ping(): void {
    if (!this.connected) return;
    const slab = new Slab(FRAME_HEADER_BYTES);
    sealFrame(slab.u8, slab.u32, 0, FRAME_HEADER_BYTES, FrameType.Messages, 0);
    this.socket!.write(slab.u8, 0, FRAME_HEADER_BYTES);
  }

  /** Its address is known now, or is another one. A dial that is under way to the old one is given up. */
  retry(): void {
    if (this.isClosed || this.connected) return;
    this.backoffMs = BACKOFF_FIRST_MS;
    if (this.socket === undefined) this.dialLater();
    else this.socket.destroy(new Error('its address is another one'));
  }

  /** Once for each change of the reason, not at every try. */
  private complain(error: Error | undefined): void {
    const why = error?.message ?? CLOSED_BY_PEER;
    if (why === this.lastComplaint) return;
    this.lastComplaint = why;
    this.transport.env.logger.info({ peer: this.address, why }, 'no connection to peer; trying again');
  }

  private arm(delayMs: number, task: () => void): void {
    this.timer?.cancel();
    this.timer = this.transport.env.scheduler.after(delayMs, task);
  }

  close(): void {
    this.isClosed = true;
    this.timer?.cancel();
    this.socket?.destroy();
  }
}
