/** The bench of `drakkar/compliance` under the names that tests of transports use. */
import { BenchHost, VirtualBench, sendTag } from '../../src/compliance/transport-bench.ts';
import type { Peer } from '../../src/transport/transport.ts';

export { frame, identityOf } from '../../src/compliance/transport-bench.ts';
export { BenchHost as TestHost };

/** Two machines in memory, and more, with a transport each. */
export class TestPair extends VirtualBench {
  send(peer: Peer, tag: number, words = 1): boolean {
    return sendTag(peer, tag, words);
  }
}
