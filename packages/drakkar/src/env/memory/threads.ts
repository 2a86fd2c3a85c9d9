/**
 * Threads of a process in memory: each is a process of its own inside it, with its own timers and sockets, and ends with it. Messages are
 * cloned and take an event each, so that nothing is shared but what real threads share.
 */
import type { Env, Thread, ThreadSide, ThreadStart, Threads } from '../env.ts';
import type { MemoryNetwork } from './network.ts';
import { Process } from './process.ts';

export class MemoryThread implements Thread {
  readonly name: string;
  onMessage: (message: unknown) => void = () => {};
  onExit: (error: Error | undefined) => void = () => {};
  private readonly parent: Process;
  private readonly inside: Process;
  private readonly network: MemoryNetwork;
  private readonly side: ThreadSide;
  private hasExited = false;

  constructor(start: ThreadStart, parent: Process, network: MemoryNetwork, bootEnv: (owner: Process) => Env) {
    this.name = start.name;
    this.parent = parent;
    this.network = network;
    this.inside = new Process(parent.world, parent);
    this.side = {
      onMessage() {},
      onAsk: () => undefined,
      post: (message, transfer) => {
        const copy = clone(message, transfer);
        parent.enter(0, () => {
          if (!this.hasExited) this.onMessage(copy);
        });
      },
    };
    this.inside.enter(0, () => start.run(this.side, bootEnv(this.inside)));
  }

  post(message: unknown, transfer?: readonly ArrayBuffer[]): void {
    const copy = clone(message, transfer);
    this.inside.enter(0, () => this.side.onMessage(copy));
  }

  ask(question: unknown, _timeoutMs: number): unknown {
    if (!this.inside.isAlive) return undefined;
    return clone(this.side.onAsk(clone(question)));
  }

  terminate(): Promise<void> {
    this.end(undefined);
    return Promise.resolve();
  }

  /** What an uncaught error does to a thread. */
  crash(error: Error): void {
    this.end(error);
  }

  private end(error: Error | undefined): void {
    if (this.hasExited) return;
    this.inside.end();
    this.network.detachOwner(this.inside);
    this.parent.enter(0, () => {
      this.hasExited = true;
      this.onExit(error);
    });
  }
}

function clone(message: unknown, transfer: readonly ArrayBuffer[] = []): unknown {
  return structuredClone(message, { transfer: [...transfer] });
}

export function memoryThreads(
  parent: Process,
  network: MemoryNetwork,
  bootEnv: (owner: Process) => Env,
  started: MemoryThread[],
): Threads {
  return {
    isInProcess: true,
    start(start) {
      const thread = new MemoryThread(start, parent, network, bootEnv);
      started.push(thread);
      return thread;
    },
  };
}
