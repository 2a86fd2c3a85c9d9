/** Datagrams in memory: late, lost behind a cut, lost at random where a test wants it, and dropped when the keys differ. */
import type { DatagramKey, DatagramSocket } from '../env.ts';
import { systemError } from './disk.ts';
import type { HostName, MemoryNetwork } from './network.ts';
import type { Process } from './process.ts';

interface Bound {
  readonly name: HostName;
  readonly owner: Process;
  readonly keys: readonly string[];
  readonly onDatagram: (fromAddress: string, bytes: Uint8Array) => void;
  refused: number;
}

export class MemoryDatagrams {
  /** Whether a datagram is lost; none unless it is replaced. */
  isLost: (from: HostName, to: HostName) => boolean = () => false;
  private readonly network: MemoryNetwork;
  private readonly bound = new Map<string, Bound>();

  constructor(network: MemoryNetwork) {
    this.network = network;
  }

  async bind(
    name: HostName,
    owner: Process,
    address: string,
    keys: readonly DatagramKey[],
    onDatagram: (fromAddress: string, bytes: Uint8Array) => void,
  ): Promise<DatagramSocket> {
    if (this.bound.has(address)) throw systemError('EADDRINUSE', address);
    const self: Bound = { name, owner, keys: keys.map(String), onDatagram, refused: 0 };
    this.bound.set(address, self);
    return {
      address,
      get refused() {
        return self.refused;
      },
      send: (toAddress, bytes) => this.send(self, address, toAddress, bytes.slice()),
      close: () => {
        if (this.bound.get(address) === self) this.bound.delete(address);
        return Promise.resolve();
      },
    };
  }

  private send(from: Bound, fromAddress: string, toAddress: string, bytes: Uint8Array): void {
    const { network } = this;
    const to = this.bound.get(toAddress)?.name ?? '';
    network.world.schedule(network.delayOf(from.name, to, bytes.length), () => {
      const target = this.bound.get(toAddress);
      if (target === undefined || network.isCut(from.name, target.name) || this.isLost(from.name, target.name)) return;
      if (target.keys.includes(from.keys[0])) target.owner.run(() => target.onDatagram(fromAddress, bytes));
      else target.refused++;
    });
  }

  /** The process is gone. */
  detach(name: HostName): void {
    for (const [address, { name: owner }] of this.bound) if (owner === name) this.bound.delete(address);
  }
}
