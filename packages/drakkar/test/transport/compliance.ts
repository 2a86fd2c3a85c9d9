/** The bench of `drakkar/compliance` under the names that tests of transports use. */
import { BenchHost, VirtualBench, identityOf, sendTag } from '../../src/compliance/transport-bench.ts';
import type { Peer, TransportContext } from '../../src/transport/transport.ts';

export { frame, identityOf } from '../../src/compliance/transport-bench.ts';
export { BenchHost as TestHost };

/** Two machines in memory, and more, with a transport each. */
export class TestPair extends VirtualBench {
  /** Engines 0 and 1 of one host. */
  async engines(name: string): Promise<[BenchHost, BenchHost]> {
    const env = this.machines.add(name).boot();
    const open = (more: Partial<TransportContext>): Promise<BenchHost> =>
      this.begin(new BenchHost(this.create, env, identityOf(name), more));
    return [await open({ engine: 0 }), await open({ engine: 1, listenAddress: `${name}:0` })];
  }

  send(peer: Peer, tag: number, words = 1): boolean {
    return sendTag(peer, tag, words);
  }
}
