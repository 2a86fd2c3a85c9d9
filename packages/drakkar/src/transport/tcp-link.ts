/** One dialled connection for messages: up when the other end has proven and said who it is, then for one direction only. */
import type { Socket, Timer } from '../env/env.ts';
import { FrameReceiver } from './frame-receiver.ts';
import { HelloStatus, decodeHello, encodeHello, type Hello, type Purpose } from './hello.ts';
import { describeComplaint } from './identity.ts';
import { DIAL_TIMEOUT_MS, HELLO_TIMEOUT_MS } from './limits.ts';
import type { TcpTransport } from './tcp.ts';
import type { HostIdentity } from './transport.ts';

export interface LinkOwner {
  onLinkUp(link: TcpLink): void;
  /** Exactly once, whether it was up or not. */
  onLinkClosed(link: TcpLink, error: Error | undefined): void;
}

export class TcpLink {
  readonly socket: Socket;
  /** Set once the link is up. */
  identity: HostIdentity | undefined;
  private readonly transport: TcpTransport;
  private readonly target: string;
  private readonly owner: LinkOwner;
  private timer: Timer | undefined;

  constructor(transport: TcpTransport, target: string, address: string, purpose: Purpose, owner: LinkOwner) {
    this.transport = transport;
    this.target = target;
    this.owner = owner;
    const { env, pool, security } = transport;
    const receiver = new FrameReceiver(pool, (slab, offset, lengthBytes) => {
      if (this.identity !== undefined) throw new Error('the peer spoke on a connection that is not for it to speak on');
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
    const { security, identity } = this.transport;
    const doubt = security?.complaintAboutTarget(this.socket.certificate, this.target);
    if (doubt !== undefined) {
      this.transport.countRefusal(doubt);
      const named = { raftAddress: this.target, hostId: this.target };
      this.socket.destroy(new Error(`its certificate: ${describeComplaint(doubt, security!.roles, named)}`));
      return;
    }
    this.arm(HELLO_TIMEOUT_MS, 'no answer to HELLO');
    const hello = encodeHello({ purpose, status: HelloStatus.Ok, identity, target: this.target, explanation: '' });
    this.socket.write(hello.u8, 0, hello.usedBytes);
  }

  private onHello(hello: Hello): void {
    const complaint = this.transport.complaintAboutAnswer(hello, this.target, this.socket.certificate);
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
