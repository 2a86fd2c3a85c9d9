/** Hosts that find one another by id: on simulated machines, and sealed datagrams on the real network. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { NodeHost, type GossipOptions, type NodeHostOptions, type Registry } from 'drakkar';
import { MemoryMachines } from 'drakkar/testing';
import { createNodeEnv } from '../../src/env/node/index.ts';
import { Journal, text } from '../support.ts';

const KEY = new Uint8Array(32).fill(7);
const idOf = (number: number): string => `${number}`.repeat(32);

/** Hosts 1 to 3 with one shard whose members are host ids. */
class Wanderers {
  readonly machines = new MemoryMachines(5);
  readonly machineOf = new Map([1, 2, 3].map((id) => [id, this.machines.add(`m${id}`)] as const));
  readonly hosts = new Map<number, NodeHost>();

  get world(): MemoryMachines['world'] {
    return this.machines.world;
  }

  async start(id: number, port: number, gossip: Partial<GossipOptions> = {}): Promise<NodeHost> {
    const { world } = this;
    const host = await world.settle(
      NodeHost.open({
        dir: 'data',
        raftAddress: `m${id}:${port}`,
        hostId: idOf(id),
        env: this.machineOf.get(id)!.boot(),
        gossip: {
          bindAddress: `m${id}:${port + 1}`,
          seeds: ['m1:7001', 'm2:7001', 'm1:8001'],
          keys: [KEY],
          meta: `rack ${id}`,
          ...gossip,
        },
      }),
    );
    this.hosts.set(id, host);
    const members = { 1: idOf(1), 2: idOf(2), 3: idOf(3) };
    await world.settle(host.startReplica({ shardId: 1, replicaId: id, members }, () => new Journal()));
    return host;
  }

  async ready(): Promise<void> {
    for (const host of this.hosts.values()) await this.world.settle(host.whenReady(1, { timeoutMs: 60_000 }));
  }

  propose(id: number, line: string): Promise<unknown> {
    return this.world.settle(this.hosts.get(id)!.propose(1, text(line)));
  }

  async close(): Promise<void> {
    for (const host of this.hosts.values()) await this.world.settle(host.close());
  }
}

test('members named by host id find one another, and again after every one of them moved', async () => {
  const wanderers = new Wanderers();
  for (const id of [1, 2, 3]) await wanderers.start(id, 7000);
  await wanderers.ready();
  await wanderers.propose(1, 'before');
  for (const [round, id] of [3, 1, 2].entries()) {
    await wanderers.world.settle(wanderers.hosts.get(id)!.close());
    wanderers.machineOf.get(id)!.kill();
    await wanderers.start(id, 8000);
    await wanderers.ready();
    assert.equal(await wanderers.propose(id, `moved ${id}`), round + 2);
  }
  const known = wanderers.hosts.get(2)!.knownHosts();
  assert.deepEqual(known.map(({ raftAddress, meta }) => `${raftAddress} ${meta}`).sort(), [
    'm1:8000 rack 1',
    'm2:8000 rack 2',
    'm3:8000 rack 3',
  ]);
  await wanderers.close();
});

test('a host without the key is heard by nobody and finds nobody', async () => {
  const wanderers = new Wanderers();
  for (const id of [1, 2]) await wanderers.start(id, 7000);
  const stranger = await wanderers.start(3, 7000, { keys: [new Uint8Array(32)] });
  wanderers.hosts.delete(3);
  await wanderers.ready();
  await wanderers.world.run(20_000);
  assert.deepEqual(
    stranger.knownHosts().map(({ hostId }) => hostId),
    [idOf(3)],
  );
  assert.equal(wanderers.hosts.get(1)!.knownHosts().length, 2);
  await wanderers.world.settle(stranger.close());
  await wanderers.close();
});

test('a key is changed host by host: the first seals, all open', async () => {
  const wanderers = new Wanderers();
  const fresh = new Uint8Array(32).fill(9);
  await wanderers.start(1, 7000, { keys: [KEY, fresh] });
  await wanderers.start(2, 7000, { keys: [fresh, KEY] });
  await wanderers.start(3, 7000, { keys: [KEY, fresh] });
  await wanderers.ready();
  for (const host of wanderers.hosts.values()) assert.equal(host.knownHosts().length, 3);
  await wanderers.close();
});

test('another host at a known address is refused by its id', async () => {
  const wanderers = new Wanderers();
  for (const id of [1, 2, 3]) await wanderers.start(id, 7000);
  await wanderers.ready();
  await wanderers.world.settle(wanderers.hosts.get(3)!.close());
  wanderers.hosts.delete(3);
  wanderers.machineOf.get(3)!.kill();
  // Somebody else listens where host 3 was.
  const usurper = await wanderers.world.settle(
    NodeHost.open({ dir: 'other', raftAddress: 'm3:7000', hostId: idOf(4), env: wanderers.machineOf.get(3)!.boot() }),
  );
  await wanderers.world.run(10_000);
  const [peer] = wanderers.hosts
    .get(1)!
    .info()
    .peers.filter(({ address }) => address === idOf(3));
  assert.equal(peer.connected, false);
  await wanderers.world.settle(usurper.close());
  await wanderers.close();
});

test('without gossip a directory keeps its address; a host id is kept with gossip, too', async () => {
  const machines = new MemoryMachines(1);
  const machine = machines.add('m1');
  const open = (fields: Partial<NodeHostOptions>): Promise<NodeHost> => {
    return machines.world.settle(
      NodeHost.open({ dir: 'data', raftAddress: 'm1:7000', env: machine.boot(), ...fields }),
    );
  };
  const gossip = { bindAddress: 'm1:7001', seeds: [], keys: [KEY] };
  await machines.world.settle((await open({ hostId: idOf(1) })).close());
  await assert.rejects(open({ raftAddress: 'm1:8000' }), { code: 'ERR_DIR_FOREIGN' });
  await assert.rejects(open({ hostId: idOf(2), gossip }), { code: 'ERR_DIR_FOREIGN' });
  const moved = await open({ raftAddress: 'm1:8000', gossip });
  assert.equal(moved.id, idOf(1));
  await machines.world.settle(moved.close());
});

const bad: Record<string, [fields: object, message: RegExp]> = {
  'a host id that is none': [{ hostId: 'orders-1' }, /hostId is "orders-1"; expected 32 lower-case hex digits/],
  'no keys': [{ gossip: { bindAddress: 'a:1', seeds: [], keys: [] } }, /keys is \[\]; expected one or more keys of 32/],
  'a short key': [{ gossip: { bindAddress: 'a:1', seeds: [], keys: [new Uint8Array(8)] } }, /keys is/],
  'a seed without a port': [{ gossip: { bindAddress: 'a:1', seeds: ['b'], keys: [KEY] } }, /seeds is \["b"\]/],
  'a long meta': [
    { gossip: { bindAddress: 'a:1', seeds: [], keys: [KEY], meta: 'x'.repeat(513) } },
    /at most 512 bytes/,
  ],
  'a meta that is long once it is written': [
    { gossip: { bindAddress: 'a:1', seeds: [], keys: [KEY], meta: '\n'.repeat(512) } },
    /shorten gossip.meta/,
  ],
  'two registries': [
    { gossip: { bindAddress: 'a:1', seeds: [], keys: [KEY] }, registry: () => ({}) },
    /both gossip and registry/,
  ],
};

for (const [what, [fields, message]] of Object.entries(bad)) {
  test(`${what} is refused`, async () => {
    const machines = new MemoryMachines(1);
    const options = { dir: 'data', raftAddress: 'm1:7000', env: machines.add('m1').boot(), ...fields };
    await assert.rejects(machines.world.settle(NodeHost.open(options)), { code: 'ERR_INVALID_OPTION', message });
  });
}

test('another registry takes the place of gossip', async () => {
  const machines = new MemoryMachines(1);
  const table = new Map([1, 2].map((id) => [idOf(id), `m${id}:7000`]));
  const registry = (): Registry => ({
    resolve: (target) => table.get(target),
    start: () => Promise.resolve(),
    hosts: () => [],
    close: () => Promise.resolve(),
  });
  const hosts: NodeHost[] = [];
  for (const id of [1, 2]) {
    const env = machines.add(`m${id}`).boot();
    const options = { dir: 'data', raftAddress: `m${id}:7000`, hostId: idOf(id), env, registry };
    const host = await machines.world.settle(NodeHost.open(options));
    hosts.push(host);
    const members = { 1: idOf(1), 2: idOf(2) };
    await machines.world.settle(host.startReplica({ shardId: 1, replicaId: id, members }, () => new Journal()));
  }
  assert.equal(await machines.world.settle(hosts[0].whenReady(1).then(() => hosts[0].propose(1, text('found')))), 1);
  for (const host of hosts) await machines.world.settle(host.close());
});

test('datagrams on the real network: sealed with the first key, opened with any, others are refused', async () => {
  const { network } = createNodeEnv();
  const [oldKey, newKey] = [randomBytes(32), randomBytes(32)];
  const heard: string[] = [];
  let wake = (): void => {};
  const receiver = await network.bindDatagrams('127.0.0.1:0', [newKey, oldKey], (_from, bytes) => {
    heard.push(Buffer.from(bytes).toString());
    wake();
  });
  const until = async (count: number): Promise<void> => {
    while (heard.length < count) await new Promise<void>((resolve) => (wake = resolve));
  };
  const senders = await Promise.all(
    [oldKey, newKey, randomBytes(32)].map((key) => network.bindDatagrams('127.0.0.1:0', [key], () => {})),
  );
  senders[2].send(receiver.address, Buffer.from('of a stranger'));
  const raw = createSocket('udp4');
  raw.send(
    'not sealed at all, and long enough to be taken for it',
    Number(receiver.address.split(':')[1]),
    '127.0.0.1',
  );
  senders[0].send(receiver.address, Buffer.from('old'));
  await until(1);
  senders[1].send(receiver.address, Buffer.from('new'));
  await until(2);
  assert.deepEqual(heard, ['old', 'new']);
  assert.equal(receiver.refused, 2);
  await assert.rejects(
    network.bindDatagrams(receiver.address, [oldKey], () => {}),
    { code: 'EADDRINUSE' },
  );
  raw.close();
  await once(raw, 'close');
  for (const socket of [receiver, ...senders]) await socket.close();
});
