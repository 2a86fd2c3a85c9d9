import { once } from 'node:events';
import { NodeHost, type Entry } from 'drakkar';

class Counter {
  total = 0;
  update(entries: readonly Entry[]) {
    for (const entry of entries) entry.result = this.total += entry.bytes[entry.offset]; // same on every replica
  }
  lookup = () => this.total;
  *saveSnapshot() {
    yield Buffer.from(String(this.total));
  }
  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>) {
    this.total = Number(Buffer.concat(await Array.fromAsync(image)));
  }
}

const stopped = once(process, 'SIGINT');
const id = Number(process.argv[2]) as 1 | 2 | 3; // run it three times: with 1, with 2 and with 3
const members = { 1: '127.0.0.1:7201', 2: '127.0.0.1:7202', 3: '127.0.0.1:7203' };
const host = await NodeHost.open({ dir: `data/counter-${id}`, raftAddress: members[id] });
await host.startReplica({ shardId: 1, replicaId: id, members }, () => new Counter());
await host.whenReady(1, { timeoutMs: 60_000 });
console.log('written:', await host.propose(1, Uint8Array.of(id))); // durable on a majority, applied here
console.log('read:', await host.read(1, undefined)); // linearizable, on any host
await stopped;
await host.close();
