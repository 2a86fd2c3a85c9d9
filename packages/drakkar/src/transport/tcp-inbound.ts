/**
 * An accepted connection: unknown until its handshake and its HELLO, then a session for frames or one snapshot stream. Whatever it sends
 * wrongly, or does not send in time, ends it and is counted under a reason.
 */
import { DrakkarError } from '../errors.ts';
import type { Socket, Timer } from '../env/env.ts';
import { FORMAT_OLDEST } from '../wire/formats.ts';
import type { Slab } from '../wire/slab.ts';
import { FrameReceiver } from './frame-receiver.ts';
import { HelloStatus, Purpose, decodeHello, encodeHello, type Hello } from './hello.ts';
import { describeComplaint, provenIdentity } from './identity.ts';
import {
  CONNECTIONS_MAX,
  CONNECTION_AGE_GRACE,
  HANDOVER_MAX_MS,
  HELLO_TIMEOUT_MS,
  ROUTES_QUEUE_MAX_BYTES,
  SNAPSHOTS_MAX,
  SNAPSHOT_CONNECTION_MAX_AGE_MS,
} from './limits.ts';
import { SnapshotInbound } from './snapshot-inbound.ts';
import { meansHost } from './target.ts';
import type { TcpTransport } from './tcp.ts';
import type { HostIdentity, InboundSession } from './transport.ts';

interface Refusal {
  readonly status: HelloStatus;
  readonly reason: string;
  readonly explanation: string;
}

export class TcpInbound implements InboundSession {
  readonly id: number;
  readonly socket: Socket;
  isUnknown = true;
  isMessages = false;
  /** Holds only what is proven, where the connection is secured. */
  identity!: HostIdentity;
  /** As the host itself says, and which engine of it dialled. */
  hostId = '';
  engine = 0;
  private readonly transport: TcpTransport;
  private readonly receiver: FrameReceiver;
  /** For the HELLO, then for the age. */
  private timer: Timer;
  private snapshot: SnapshotInbound | undefined;
  private isOpen: boolean;
  private hasEnded = false;
  /** Has its reason counted. */
  private isCounted = false;
  /** The connection that carries on when this one has ended, and what ends this one if it does not. */
  private successor: TcpInbound | undefined;
  private handover: Timer | undefined;
  /** Waits for an older connection; or its receiver asked for a pause. */
  private isHeld = false;
  private isPaused = false;
  private stalledBytes = 0;

  constructor(transport: TcpTransport, socket: Socket, id: number) {
    this.transport = transport;
    this.socket = socket;
    this.id = id;
    this.isOpen = transport.security === undefined;
    this.receiver = new FrameReceiver(
      transport.pool,
      (slab, offset, lengthBytes) => this.onFrame(slab, offset, lengthBytes),
      transport.identity.newestFormat,
    );
    this.timer = transport.env.scheduler.after(HELLO_TIMEOUT_MS, () =>
      this.drop(this.isOpen ? 'hello-timeout' : 'handshake-timeout'),
    );
    socket.handlers = {
      onOpen: () => this.onOpen(),
      onData: (buffer, offset, length) => this.onData(buffer, offset, length),
      onDrain: () => {},
      onClose: (error) => this.onClose(error),
    };
  }

  /** A secured connection has proven whose it is; whoever has no business here is not listened to. */
  private onOpen(): void {
    this.isOpen = true;
    const complaint = this.transport.security?.complaintAboutRole(this.socket.certificate);
    if (complaint !== undefined) this.drop(complaint);
  }

  private onData(buffer: Uint8Array, offset: number, length: number): void {
    this.transport.counters.bytesReceived += length;
    try {
      this.receiver.push(buffer, offset, length);
    } catch (error) {
      const reason = DrakkarError.is(error, 'ERR_FRAME') ? (this.isUnknown ? 'bad-hello' : 'bad-frame') : 'error';
      this.drop(reason, error);
    }
  }

  private onFrame(slab: Slab, offset: number, lengthBytes: number): void {
    this.transport.counters.framesReceived++;
    if (this.isUnknown) this.onHello(this.helloOf(slab, offset, lengthBytes));
    else if (this.snapshot !== undefined) this.snapshot.onFrame(slab, offset, lengthBytes);
    else this.transport.handlers!.onFrame(this, slab, offset, lengthBytes);
  }

  private helloOf(slab: Slab, offset: number, lengthBytes: number): Hello {
    return decodeHello(slab.u8, slab.u32, offset, lengthBytes, this.transport.identity.newestFormat);
  }

  private onHello(hello: Hello): void {
    const { transport } = this;
    const refusal = this.refusalOf(hello);
    const answer = encodeHello({
      purpose: hello.purpose,
      status: refusal?.status ?? HelloStatus.Ok,
      identity: transport.identity,
      engine: transport.engine,
      target: hello.identity.raftAddress,
      ...(hello.engine === undefined ? {} : { targetEngine: hello.engine }),
      explanation: refusal?.explanation ?? '',
    });
    this.socket.write(answer.u8, 0, answer.usedBytes);
    if (refusal !== undefined) {
      this.count(refusal.reason, hello.identity.raftAddress);
      this.receiver.close(); // what follows a refused HELLO is nobody's
      this.socket.end();
      return;
    }
    this.hostId = hello.identity.hostId;
    this.engine = hello.engine ?? 0;
    this.identity = provenIdentity(this.socket.certificate, hello.identity);
    this.isUnknown = false;
    this.receiver.admit();
    transport.admitted(this);
    this.armAge(hello.purpose);
    if (hello.purpose === Purpose.Snapshot) {
      this.snapshot = new SnapshotInbound(transport, this.socket, this.identity);
      return;
    }
    const older = transport.olderOf(this);
    this.isMessages = true;
    transport.tellAll(this);
    if (older === undefined) return;
    if (hello.purpose === Purpose.Continued) this.follow(older);
    else older.socket.destroy(); // an engine that dials anew has given it up
  }

  private refusalOf(hello: Hello): Refusal | undefined {
    const { transport } = this;
    const { identity } = transport;
    const complaint = transport.complaintAbout(hello);
    if (complaint === 'version')
      return { status: HelloStatus.WrongVersion, reason: complaint, explanation: noCommonFormat(hello, identity) };
    // Who is not known to be who it says learns nothing of this host.
    const doubt = transport.security?.complaintAbout(this.socket.certificate, hello.identity);
    if (doubt !== undefined) {
      const why = describeComplaint(doubt, transport.security!.roles, hello.identity);
      return { status: HelloStatus.NotAllowed, reason: doubt, explanation: `the dialler's certificate: ${why}` };
    }
    if (complaint !== undefined) {
      const explanation = `this is deployment ${identity.deploymentId}`;
      return { status: HelloStatus.WrongDeployment, reason: complaint, explanation };
    }
    if (!meansHost(hello.target, identity) || (hello.targetEngine ?? 0) !== transport.engine) {
      const explanation = `this is host ${identity.hostId} at ${identity.raftAddress}`;
      return { status: HelloStatus.WrongAddress, reason: 'address', explanation };
    }
    if (hello.purpose === Purpose.Snapshot && transport.inboundSnapshots >= SNAPSHOTS_MAX)
      return { status: HelloStatus.Busy, reason: 'busy', explanation: 'too many snapshots at the moment' };
    if (transport.knownConnections >= CONNECTIONS_MAX)
      return { status: HelloStatus.Busy, reason: 'limit', explanation: 'too many connections at the moment' };
    return undefined;
  }

  /** Nobody keeps for ever what was proven once: who dialled has replaced the connection long before that, or may not any more. */
  private armAge(purpose: Purpose): void {
    this.timer.cancel();
    const { security, env } = this.transport;
    const { certificate } = this.socket;
    if (security === undefined || certificate === undefined) return;
    const ageMs =
      purpose === Purpose.Snapshot
        ? SNAPSHOT_CONNECTION_MAX_AGE_MS
        : security.connectionMaxAgeMs * CONNECTION_AGE_GRACE;
    this.timer = env.scheduler.after(Math.max(0, Math.min(ageMs, certificate.validForMs)), () => this.drop('aged'));
  }

  /** News of this host's engines. */
  tell(frames: Iterable<Slab>): void {
    for (const { u8, usedBytes } of frames) this.socket.write(u8, 0, usedBytes);
    if (this.socket.queuedBytes > ROUTES_QUEUE_MAX_BYTES) this.drop('limit');
  }

  get hasSuccessor(): boolean {
    return this.successor !== undefined;
  }

  /** Frames of the older connection come first: nothing is read here before it has ended. */
  private follow(older: TcpInbound): void {
    this.isHeld = true;
    this.socket.pause();
    older.successor = this;
    older.handover = this.transport.env.scheduler.after(HANDOVER_MAX_MS, () => older.socket.destroy());
  }

  private release(): void {
    this.isHeld = false;
    if (!this.isPaused) this.socket.resume();
  }

  private onClose(error: Error | undefined): void {
    this.hasEnded = true;
    this.timer.cancel();
    this.handover?.cancel();
    this.receiver.close();
    this.transport.forget(this);
    if (!this.isOpen) this.count('handshake', error);
    this.snapshot?.onClose();
    if (this.isMessages) this.transport.handlers?.onSessionEnd(this);
    this.successor?.release();
  }

  pause(): void {
    this.isPaused = true;
    this.socket.pause();
  }

  resume(): void {
    this.isPaused = false;
    if (!this.isHeld && !this.hasEnded) this.socket.resume();
  }

  /** Called every `STALL_MS`: a frame that has begun must go on. */
  checkProgress(): void {
    const { partialBytes } = this.receiver;
    const isStalled = partialBytes > 0 && partialBytes === this.stalledBytes && !this.isPaused && !this.isHeld;
    this.stalledBytes = partialBytes;
    if (isStalled && !this.isUnknown && this.snapshot === undefined) this.drop('stalled');
  }

  drop(reason: string, why?: unknown): void {
    this.count(reason, why);
    this.receiver.close();
    this.socket.destroy();
  }

  private count(reason: string, why: unknown): void {
    if (this.isCounted) return;
    this.isCounted = true;
    this.transport.refuse(reason, this.identity?.raftAddress || this.socket.remoteAddress, why);
  }
}

function noCommonFormat(hello: Hello, identity: HostIdentity): string {
  const { oldestFormat, identity: dialler } = hello;
  return (
    `this host reads formats ${FORMAT_OLDEST} to ${identity.newestFormat}, ` +
    `the dialler ${oldestFormat} to ${dialler.newestFormat}; upgrade the older one`
  );
}
