/**
 * The way to one engine of another host over TCP: finds out where it is, dials, sends, and dials again with growing pauses. A secured
 * connection is replaced before it is too old, without a gap: the new one is made first, and the other end reads it after the old one's end.
 */
import type { Timer } from '../env/env.ts';
import { FRAME_HEADER_BYTES, FrameType, sealFrame } from '../wire/frame.ts';
import { Slab } from '../wire/slab.ts';
import { Purpose } from './hello.ts';
import {
  BACKOFF_FIRST_MS,
  BACKOFF_LAST_MS,
  CONNECTION_AGE_GRACE,
  HANDOVER_MAX_MS,
  RENEWAL_SPREAD_MS,
} from './limits.ts';
import { TcpLink, type LinkOwner, type LinkTarget } from './tcp-link.ts';
import type { TcpTransport } from './tcp.ts';
import type { HostIdentity, Peer } from './transport.ts';

const CLOSED_BY_PEER = 'closed by the other end';
/** A connection is replaced at an age between this share of the allowed one and all of it. */
const RENEWAL_SHARE = 0.8;

export class TcpPeer implements Peer, LinkOwner {
  readonly index: number;
  readonly address: string;
  readonly engine: number;
  connected = false;
  identity: HostIdentity | undefined;
  private readonly transport: TcpTransport;
  /** The connection that is used; while not `connected`, the one that is being made. */
  private link: TcpLink | undefined;
  /** The one that is to take its place. */
  private renewal: TcpLink | undefined;
  /** Those that end; two at most, as a renewal takes longer than `HANDOVER_MAX_MS` to be due again. */
  private readonly retired = new Set<TcpLink>();
  private timer: Timer | undefined;
  private renewalTimer: Timer | undefined;
  private ageTimer: Timer | undefined;
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
    return this.link?.socket.queuedBytes ?? 0;
  }

  send(slab: Slab, offset: number, lengthBytes: number): boolean {
    const { counters, maxSendQueueBytes } = this.transport;
    if (!this.connected || this.link!.socket.queuedBytes + lengthBytes > maxSendQueueBytes) {
      counters.framesDropped++;
      return false;
    }
    slab.retain();
    counters.framesSent++;
    counters.bytesSent += lengthBytes;
    this.link!.socket.write(slab.u8, offset, lengthBytes, () => slab.release());
    return true;
  }

  dial(): void {
    if (this.isClosed) return;
    const listener = this.transport.listenerOf(this.address, this.engine);
    if (listener === undefined) {
      this.complain(new Error('its address is not known yet'));
      this.dialLater();
      return;
    }
    this.link = new TcpLink(this.transport, this.target, listener, Purpose.Messages, this);
  }

  private get target(): LinkTarget {
    return { target: this.address, engine: this.engine };
  }

  onNews(slab: Slab, offset: number): void {
    this.transport.onNews(this.address, slab, offset);
  }

  onLinkUp(link: TcpLink): void {
    const { handlers, counters } = this.transport;
    const old = link === this.renewal ? this.link : undefined;
    // Started anew meanwhile: what it knew of us is gone, whatever becomes of the old connection.
    const isOther =
      this.connected &&
      (link.identity!.hostId !== this.identity!.hostId || link.identity!.startCounter !== this.identity!.startCounter);
    if (link === this.renewal) this.renewal = undefined;
    this.link = link;
    this.backoffMs = BACKOFF_FIRST_MS;
    this.lastComplaint = '';
    counters.connectionsUp++;
    this.armAge(link);
    if (old !== undefined) {
      this.retired.add(old);
      old.retire(2 * HANDOVER_MAX_MS);
    }
    if (isOther) handlers?.onPeerDown(this);
    const isNew = !this.connected || isOther;
    this.identity = link.identity;
    this.connected = true;
    if (!isNew) return; // one that takes another's place is nothing to tell of
    handlers?.onConnection?.(this.address, false, undefined);
    handlers?.onPeerUp(this);
  }

  onLinkClosed(link: TcpLink, error: Error | undefined): void {
    const { handlers, counters } = this.transport;
    if (this.retired.delete(link)) {
      // What was under way on it may be lost after all; the engine learns of it as of any connection that breaks.
      if (error !== undefined && this.connected && !this.isClosed) {
        handlers?.onPeerDown(this);
        handlers?.onPeerUp(this);
      }
      return;
    }
    if (link.identity === undefined) counters.connectionsFailed++;
    if (link === this.renewal) {
      this.renewal = undefined;
      this.complain(error);
      this.renewAfter(BACKOFF_LAST_MS * this.jitter());
      return;
    }
    if (link !== this.link) return;
    this.renewalTimer?.cancel();
    this.ageTimer?.cancel();
    // One that is being made already is as good as a new one.
    this.link = this.renewal;
    this.renewal = undefined;
    const wasUp = this.connected;
    this.connected = false;
    this.identity = undefined;
    if (wasUp) handlers?.onPeerDown(this);
    if (this.isClosed) return;
    if (!wasUp && this.engine > 0) this.transport.askForNews(this.address);
    handlers?.onConnection?.(this.address, false, error ?? new Error(CLOSED_BY_PEER));
    this.complain(error);
    if (this.link === undefined) this.dialLater();
  }

  private armAge(link: TcpLink): void {
    const { security, env } = this.transport;
    const { certificate } = link.socket;
    if (security === undefined || certificate === undefined) return;
    const { connectionMaxAgeMs } = security;
    const ageMs = Math.min(connectionMaxAgeMs, Math.max(0, certificate.validForMs));
    this.renewAfter(ageMs * (RENEWAL_SHARE + (1 - RENEWAL_SHARE) * this.jitter()));
    this.ageTimer?.cancel();
    const lastMs = Math.min(connectionMaxAgeMs * CONNECTION_AGE_GRACE, Math.max(0, certificate.validForMs));
    this.ageTimer = env.scheduler.after(lastMs, () =>
      link.socket.destroy(new Error('it could not be replaced in time')),
    );
  }

  private renewAfter(delayMs: number): void {
    this.renewalTimer?.cancel();
    this.renewalTimer = this.transport.env.scheduler.after(delayMs, () => this.renew());
  }

  private renew(): void {
    if (this.isClosed || !this.connected || this.renewal !== undefined) return;
    const listener = this.transport.listenerOf(this.address, this.engine);
    if (listener === undefined) this.renewAfter(BACKOFF_LAST_MS * this.jitter());
    else this.renewal = new TcpLink(this.transport, this.target, listener, Purpose.Continued, this);
  }

  /** There are new certificates. One that is being made with those before must not stand. */
  renewSoon(): void {
    this.renewal?.socket.destroy(new Error('there are new certificates'));
    if (this.connected) this.renewAfter(RENEWAL_SPREAD_MS * this.jitter());
    else if (this.link !== undefined) this.link.socket.destroy(new Error('there are new certificates'));
  }

  /** Ends the connection, and dials again. */
  disconnect(): void {
    this.renewal?.socket.destroy();
    for (const link of this.retired) link.socket.destroy();
    this.link?.socket.destroy(new Error('there are new certificates'));
  }

  private dialLater(): void {
    this.timer?.cancel();
    this.timer = this.transport.env.scheduler.after(this.backoffMs * (0.5 + 0.5 * this.jitter()), () => this.dial());
    this.backoffMs = Math.min(this.backoffMs * 2, BACKOFF_LAST_MS);
  }

  /** Its engine listens elsewhere: its host was started anew. */
  move(): void {
    this.renewal?.socket.destroy();
    if (this.connected) this.link!.socket.destroy(new Error('its address is another one'));
    else this.retry();
  }

  /** A frame of no messages: where nobody is any more it ends the connection, however long nothing else was to be said. */
  ping(): void {
    if (!this.connected) return;
    const slab = new Slab(FRAME_HEADER_BYTES);
    sealFrame(slab.u8, slab.u32, 0, FRAME_HEADER_BYTES, FrameType.Messages, 0);
    this.link!.socket.write(slab.u8, 0, FRAME_HEADER_BYTES);
  }

  /** Uniform in [0, 1). */
  private jitter(): number {
    return this.transport.env.random.u32() / 2 ** 32;
  }

  /** Its address is known now, or is another one. A dial that is under way to the old one is given up. */
  retry(): void {
    if (this.isClosed || this.connected) return;
    this.backoffMs = BACKOFF_FIRST_MS;
    if (this.link === undefined) this.dialLater();
    else this.link.socket.destroy(new Error('its address is another one'));
  }

  /** Once for each change of the reason, not at every try. */
  private complain(error: Error | undefined): void {
    const why = error?.message ?? CLOSED_BY_PEER;
    if (why === this.lastComplaint) return;
    this.lastComplaint = why;
    this.transport.env.logger.info({ peer: this.address, why }, 'no connection to peer; trying again');
  }

  close(): void {
    this.isClosed = true;
    for (const timer of [this.timer, this.renewalTimer, this.ageTimer]) timer?.cancel();
    for (const link of [this.link, this.renewal, ...this.retired]) link?.socket.destroy();
  }
}
