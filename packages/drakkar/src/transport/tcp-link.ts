/**
 * One dialled connection for messages: up when the other end has proven and said who it is, then for one direction only, but that
 * engine 0 of a host tells where its others are.
 */
import type { Socket, Timer } from '../env/env.ts';
import { FrameType, frameType } from '../wire/frame.ts';
import type { Slab } from '../wire/slab.ts';
import { FrameReceiver } from './frame-receiver.ts';
import { HelloStatus, decodeHello, encodeHello, type Hello, type Purpose } from './hello.ts';
import { describeComplaint } from './identity.ts';
import { DIAL_TIMEOUT_MS, HELLO_TIMEOUT_MS } from './limits.ts';
import type { TcpTransport } from './tcp.ts';
import type { HostIdentity } from './transport.ts';

/** Which engine of which host is meant. What the host must prove is asked of the host, wherever its engine listens. */
export interface LinkTarget {
  readonly target: string;
  readonly engine: number;
}

export interface LinkOwner {
  /** The host says where its engines are; valid during the call. */
  onNews(slab: Slab, offset: number): void;
  onLinkUp(link: TcpLink): void;
  /** Exactly once, whether it was up or not. */
  onLinkClosed(link: TcpLink, error: Error | undefined): void;
}

export class TcpLink {
  readonly socket: Socket;
  /** Set once the link is up. */
  identity: HostIdentity | undefined;
  private readonly transport: TcpTransport;
  private readonly to: LinkTarget;
  private readonly owner: LinkOwner;
  private timer: Timer | undefined;

  constructor(transport: TcpTransport, to: LinkTarget, address: string, purpose: Purpose, owner: LinkOwner) {
    this.transport = transport;
    this.to = to;
    this.owner = owner;
    const { env, pool, security } = transport;
    const receiver = new FrameReceiver(pool, (slab, offset, lengthBytes) => {
      if (this.identity !== undefined) {
        if (to.engine > 0 || frameType(slab.u32, offset >>> 2) !== FrameType.Engines)
          throw new Error('the peer spoke on a connection that is not for it to speak on');
        owner.onNews(slab, offset);
        return;
      }
      this.onHello(decodeHello(slab.u8, slab.u32, offset, lengthBytes, transport.identity.newestFormat));
    });
    this.socket = env.network.connect(
      address,
      {
        onOpen: () => this.onOpen(purpose),
        onData: (buffer, offset, length) => {
          try {
            receiver.push(buffer, offset, length);
          } catch (error) {
            this.socket.destroy(error as Error);
          }
        },
        onClose: (error) => {
          this.timer?.cancel();
          receiver.close();
          owner.onLinkClosed(this, error);
        },
      },
      security?.current,
    );
    this.arm(DIAL_TIMEOUT_MS, 'no connection in time');
  }

  private onOpen(purpose: Purpose): void {
    const { security, identity, engine } = this.transport;
    const { target } = this.to;
    const doubt = security?.complaintAboutTarget(this.socket.certificate, target);
    if (doubt !== undefined) {
      this.transport.countRefusal(doubt);
      const named = { raftAddress: target, hostId: target };
      this.socket.destroy(new Error(`its certificate: ${describeComplaint(doubt, security!.roles, named)}`));
      return;
    }
    this.arm(HELLO_TIMEOUT_MS, 'no answer to HELLO');
    const hello = encodeHello({
      purpose,
      status: HelloStatus.Ok,
      identity,
      engine,
      target,
      targetEngine: this.to.engine,
      explanation: '',
    });
    this.socket.write(hello.u8, 0, hello.usedBytes);
  }

  private onHello(hello: Hello): void {
    const complaint = this.transport.complaintAboutAnswer(hello, this.to, this.socket.certificate);
    if (complaint !== undefined) {
      this.transport.countRefusal(complaint);
      this.socket.destroy(new Error(`refused (${complaint}): ${hello.explanation || hello.identity.raftAddress}`));
      return;
    }
    this.timer?.cancel();
    this.identity = hello.identity;
    this.owner.onLinkUp(this);
  }

  /** Sends what was written and ends; by force when that takes too long. */
  retire(afterMs: number): void {
    this.socket.end();
    this.arm(afterMs, 'it did not end');
  }

  private arm(delayMs: number, why: string): void {
    this.timer?.cancel();
    this.timer = this.transport.env.scheduler.after(delayMs, () => this.socket.destroy(new Error(why)));
  }
}
