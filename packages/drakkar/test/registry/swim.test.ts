/** SWIM among pure hosts: everybody finds everybody, the dead are noticed, the living contradict. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../src/env/memory/index.ts';
import { DATAGRAM_MAX_BYTES, HOSTS_MAX } from '../../src/registry/limits.ts';
import { decodeGossip, encodeGossip, type Gossip, type Rumour } from '../../src/registry/swim-codec.ts';
import { Swim } from '../../src/registry/swim.ts';

const idOf = (number: number): string => number.toString(16).padStart(32, '0');
const rumourOf = (number: number, fields: Partial<Rumour> = {}): Rumour => ({
  hostId: idOf(number),
  state: 'alive',
  incarnation: 1,
  raftAddress: `host${number}:7000`,
  gossipAddress: `host${number}:7001`,
  meta: '',
  ...fields,
});

interface Datagram {
  readonly from: string;
  readonly to: string;
  readonly bytes: Uint8Array;
}

/** Hosts whose datagrams pass between periods, unless `isLost` says otherwise. */
class Town {
  readonly hosts = new Map<string, Swim>();
  readonly changes: [at: string, rumour: Rumour][] = [];
  isLost: (datagram: Datagram) => boolean = () => false;
  private readonly random = seededRandom(7);
  private queue: Datagram[] = [];

  add(number: number, seeds: readonly number[], fields: Partial<Rumour> = {}): Swim {
    const self = rumourOf(number, fields);
    const from = self.gossipAddress;
    const host = new Swim(
      {
        self,
        seeds: seeds.map((seed) => `host${seed}:7001`),
        random: () => this.random.u32(),
        syncPeriods: 10,
        suspicionPeriods: 2,
        deadPeriods: 1000,
      },
      {
        send: (to, gossip) => {
          const bytes = encodeGossip(gossip);
          assert.ok(bytes.length <= DATAGRAM_MAX_BYTES, `a datagram of ${bytes.length} bytes`);
          this.queue.push({ from, to, bytes });
        },
        changed: (rumour) => this.changes.push([from, rumour]),
      },
    );
    this.hosts.set(from, host);
    return host;
  }

  remove(number: number): void {
    this.hosts.delete(`host${number}:7001`);
  }

  run(periods: number): void {
    for (let period = 0; period < periods; period++) {
      for (const host of this.hosts.values()) host.beginPeriod();
      this.deliver();
      for (const host of this.hosts.values()) host.midPeriod();
      this.deliver();
    }
  }

  private deliver(): void {
    while (this.queue.length > 0) {
      const [datagram] = this.queue.splice(this.random.u32() % this.queue.length, 1);
      if (this.isLost(datagram)) continue;
      this.hosts.get(datagram.to)?.receive(datagram.from, decodeGossip(datagram.bytes)!);
    }
  }

  statesAt(host: Swim): Record<string, string> {
    return Object.fromEntries(host.hosts.map(({ raftAddress, state }) => [raftAddress, state]));
  }
}

function townOf(count: number): Town {
  const town = new Town();
  for (let number = 1; number <= count; number++) town.add(number, [1, 2]);
  return town;
}

const everybody = (count: number, states: Record<number, string> = {}): Record<string, string> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`host${i + 1}:7000`, states[i + 1] ?? 'alive']));

test('hosts that know only two seeds find everybody', () => {
  const town = townOf(30);
  town.run(30);
  for (const host of town.hosts.values()) assert.deepEqual(town.statesAt(host), everybody(30));
});

test('a host that is gone is suspect, then dead, everywhere; it comes back with a newer start at another address', () => {
  const town = townOf(10);
  town.run(30);
  town.remove(7);
  town.run(40);
  for (const host of town.hosts.values()) assert.deepEqual(town.statesAt(host), everybody(10, { 7: 'dead' }));
  const states = town.changes.filter(([, { hostId }]) => hostId === idOf(7)).map(([, { state }]) => state);
  assert.ok(states.indexOf('suspect') > 0 && states.indexOf('suspect') < states.indexOf('dead'));
  town.add(7, [2], { incarnation: 2, raftAddress: 'elsewhere:9', gossipAddress: 'elsewhere:10' });
  town.run(30);
  for (const host of town.hosts.values()) {
    assert.deepEqual(host.find(idOf(7)), {
      ...rumourOf(7, { incarnation: 2, raftAddress: 'elsewhere:9', gossipAddress: 'elsewhere:10' }),
    });
  }
});

test('a host that leaves is dead at once, without being suspect', () => {
  const town = townOf(6);
  town.run(20);
  const leaving = town.hosts.get('host3:7001')!;
  town.changes.length = 0;
  leaving.leave();
  town.remove(3);
  town.run(8);
  for (const host of town.hosts.values()) assert.equal(host.find(idOf(3))?.state, 'dead');
  assert.ok(town.changes.every(([, { hostId, state }]) => hostId !== idOf(3) || state === 'dead'));
});

test('a host that is only hard to reach contradicts and stays alive', () => {
  const town = townOf(8);
  town.run(20);
  // Nobody's ping reaches host 5 directly for a while; others pass it on.
  town.isLost = ({ from, to }) => from === 'host1:7001' && to === 'host5:7001';
  town.run(60);
  for (const host of town.hosts.values()) assert.equal(host.find(idOf(5))?.state, 'alive');
  // A rumour that it is dead is contradicted with a newer incarnation.
  const [liar] = town.hosts.values();
  liar.receive('host2:7001', { kind: 'rumours', number: 0, target: '', rumours: [rumourOf(5, { state: 'dead' })] });
  assert.equal(liar.find(idOf(5))?.state, 'dead');
  town.isLost = () => false;
  town.run(30);
  for (const host of town.hosts.values()) {
    assert.equal(host.find(idOf(5))?.state, 'alive');
    assert.equal(host.find(idOf(5))?.incarnation, 2);
  }
});

test('with a third of the datagrams lost nobody stays dead that lives', () => {
  const town = townOf(12);
  const dice = seededRandom(3);
  town.isLost = () => dice.u32() % 3 === 0;
  town.run(150);
  town.isLost = () => false;
  town.run(60);
  for (const host of town.hosts.values()) assert.deepEqual(town.statesAt(host), everybody(12));
});

test('two halves that took each other for dead find together again', () => {
  const town = townOf(10);
  town.run(20);
  const half = (address: string): boolean => Number(/\d+/.exec(address)![0]) <= 5;
  town.isLost = ({ from, to }) => half(from) !== half(to);
  town.run(60);
  assert.equal(town.hosts.get('host1:7001')!.find(idOf(9))?.state, 'dead');
  town.isLost = () => false;
  town.run(80);
  for (const host of town.hosts.values()) assert.deepEqual(town.statesAt(host), everybody(10));
});

test('the table of hosts is bounded', () => {
  const town = new Town();
  const host = town.add(1, []);
  const rumours = Array.from({ length: HOSTS_MAX + 10 }, (_, i) => rumourOf(i + 2));
  host.receive('host2:7001', { kind: 'rumours', number: 0, target: '', rumours });
  assert.equal(host.hosts.length, HOSTS_MAX);
  assert.equal(host.ignored, 11);
});

test('what is not gossip is not taken, whatever it is', () => {
  const gossip: Gossip = { kind: 'ping', number: 3, target: 'a:1', rumours: [rumourOf(1), rumourOf(2)] };
  const good = encodeGossip(gossip);
  assert.deepEqual(decodeGossip(good), gossip);
  const dice = seededRandom(11);
  let refused = 0;
  for (let round = 0; round < 20_000; round++) {
    const bytes = good.slice(0, 1 + (dice.u32() % good.length));
    for (let flips = 1 + (dice.u32() % 3); flips > 0; flips--) bytes[dice.u32() % bytes.length] = dice.u32();
    const decoded = decodeGossip(bytes);
    if (decoded === undefined) refused++;
    else for (const { hostId } of decoded.rumours) assert.match(hostId, /^[0-9a-f]{32}$/);
  }
  assert.ok(refused > 15_000);
  for (const text of ['', 'null', '[]', '[0,1,"a",[[]]]', '[9,1,"",[]]', '[0,-1,"",[]]', '[0,1,2,[]]', '{"0":1}'])
    assert.equal(decodeGossip(new TextEncoder().encode(text)), undefined);
});
