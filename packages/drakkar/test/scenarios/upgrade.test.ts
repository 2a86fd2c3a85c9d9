/** Scenario 73: a cluster goes from one release to the next, host by host, and back, under load (design §7.8). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORMAT_NEWEST, FORMAT_OLDEST, FORMAT_REHEARSAL, type NodeHostOptions } from 'drakkar';
import { MemoryHub } from 'drakkar/testing';
import { createTcpTransport } from '../../src/transport/tcp.ts';
import { frameFormat } from '../../src/wire/frame.ts';
import { TestCluster, replicaOf, text } from '../support.ts';

const IDS = [1, 2, 3] as const;
/** The release before, and the one that knows a format more. */
const OLD: Partial<NodeHostOptions> = { newestFormat: FORMAT_NEWEST };
const NEW: Partial<NodeHostOptions> = { newestFormat: FORMAT_REHEARSAL };

class UpgradedCluster extends TestCluster {
  written = 0;
  /** Formats of the frames that left, by host. */
  readonly sent = new Map<number, Set<number>>();

  override open(id: number, more: Partial<NodeHostOptions> = {}): ReturnType<TestCluster['open']> {
    const formats = new Set<number>();
    this.sent.set(id, formats);
    return super.open(id, {
      transport: (context) => {
        const transport = createTcpTransport(context);
        const peer = transport.peer.bind(transport);
        transport.peer = (target, shardId) => {
          const found = peer(target, shardId);
          const send = found.send.bind(found);
          found.send = (slab, offset, lengthBytes) => {
            formats.add(frameFormat(slab.u32, offset >>> 2));
            return send(slab, offset, lengthBytes);
          };
          return found;
        };
        return transport;
      },
      ...more,
    });
  }

  async begin(id: number, release: Partial<NodeHostOptions>): Promise<void> {
    await this.open(id, release);
    await this.startReplica(id, 1, this.written === 0 ? IDS : undefined);
  }

  async change(id: number, release: Partial<NodeHostOptions>): Promise<void> {
    await this.settle(this.hosts.get(id)!.close());
    this.hosts.delete(id);
    await this.begin(id, release);
    await this.write();
  }

  /** Every host writes, and reads all that was ever written. */
  async write(): Promise<void> {
    for (const [id, host] of this.hosts) {
      await this.ready(1);
      await this.propose(id, 1, `line ${++this.written}`);
      const lines = (await this.settle(host.read(1, 'all'))) as string[];
      assert.equal(lines.length, this.written, `host ${id} lost something`);
    }
    await this.assertEqual(1);
  }

  formats(id: number): { enabled: number; written: number } {
    const { enabled, written } = this.hosts.get(id)!.info().formats;
    return { enabled, written };
  }

  async enabled(): Promise<void> {
    const all = [...this.hosts.keys()];
    await this.world.until(() => all.every((id) => this.formats(id).written === FORMAT_REHEARSAL), 30_000);
  }
}

/** Snapshots are taken often, so that they, too, pass between the releases. */
const replica = { snapshotEntries: 5, compactionOverhead: 0 };

test('scenario 73: host by host to the next release and back, then for good', async () => {
  const cluster = new UpgradedCluster({ replica });
  for (const id of IDS) await cluster.begin(id, OLD);
  await cluster.write();
  for (const id of IDS) {
    await cluster.change(id, NEW);
    assert.deepEqual(cluster.formats(id), { enabled: FORMAT_OLDEST, written: FORMAT_OLDEST });
  }
  // All can go back as long as nobody has said otherwise.
  for (const id of IDS) await cluster.change(id, OLD);
  for (const id of IDS) await cluster.change(id, NEW);
  for (const id of IDS) assert.deepEqual([...cluster.sent.get(id)!], [FORMAT_OLDEST]);

  const events: number[] = [];
  for (const host of cluster.hosts.values()) host.on('formatEnabled', ({ format }) => events.push(format));
  await cluster.settle(cluster.hosts.get(2)!.enableFormat());
  await cluster.enabled();
  await cluster.write();
  assert.deepEqual(events, [FORMAT_REHEARSAL, FORMAT_REHEARSAL, FORMAT_REHEARSAL]);
  for (const id of IDS)
    assert.ok(cluster.sent.get(id)!.has(FORMAT_REHEARSAL), `host ${id} still writes the old format`);

  // It is for ever: the older release says so and touches nothing, the newer one goes on.
  await cluster.settle(cluster.hosts.get(1)!.close());
  cluster.hosts.delete(1);
  await assert.rejects(cluster.open(1, OLD), {
    code: 'ERR_DIR_FORMAT',
    message: /has format 255, made by a newer version; this one knows up to 1; upgrade/,
  });
  await cluster.begin(1, NEW);
  await cluster.write();
  assert.deepEqual(cluster.formats(1).enabled, FORMAT_REHEARSAL);
  for (const id of IDS) cluster.losePower(id, () => false);
  for (const id of IDS) await cluster.begin(id, NEW);
  await cluster.write();
  await cluster.close();
});

test('a format is not enabled while a host does not read it, or is away', async () => {
  const cluster = new UpgradedCluster();
  for (const id of IDS) await cluster.begin(id, id === 3 ? OLD : NEW);
  await cluster.write();
  const host = cluster.hosts.get(1)!;
  await assert.rejects(cluster.settle(host.enableFormat()), {
    code: 'ERR_FORMAT_NOT_AGREED',
    retryable: true,
    message: /host3:7000 reads formats up to 1; upgrade or remove/,
  });
  cluster.kill(3);
  await cluster.world.until(() => host.info().peers.some(({ connected }) => !connected), 10_000);
  await assert.rejects(cluster.settle(host.enableFormat()), {
    code: 'ERR_FORMAT_NOT_AGREED',
    message: /host3:7000 is away/,
  });
  assert.deepEqual(cluster.formats(1), { enabled: FORMAT_OLDEST, written: FORMAT_OLDEST });
  await assert.rejects(host.enableFormat(7), {
    code: 'ERR_INVALID_OPTION',
    message: /no format 7 .* upgrade it first/,
  });
  await cluster.begin(3, NEW);
  await cluster.write();
  await cluster.settle(host.enableFormat());
  await cluster.enabled();
  await cluster.settle(host.enableFormat()); // again is no error
  await cluster.write();
  await cluster.close();
});

test('hosts in the new format go on talking the old one to a host that has only that', async () => {
  const cluster = new UpgradedCluster({ hosts: 4, replica });
  for (const id of IDS) await cluster.begin(id, NEW);
  await cluster.write();
  await cluster.settle(cluster.hosts.get(1)!.enableFormat());
  await cluster.enabled();
  // An older release joins all the same: what is enabled need not be used.
  await cluster.open(4, OLD);
  await cluster.startReplica(4, 1, 'join');
  await cluster.settle(cluster.hosts.get(1)!.addReplica(1, 4, cluster.addressOf(4), { timeoutMs: 30_000 }));
  await cluster.write();
  assert.deepEqual(cluster.formats(1), { enabled: FORMAT_REHEARSAL, written: FORMAT_OLDEST });
  assert.equal(cluster.formats(4).enabled, FORMAT_OLDEST);
  await cluster.settle(cluster.hosts.get(1)!.removeReplica(1, 4, { timeoutMs: 30_000 }));
  await cluster.world.until(() => IDS.every((id) => cluster.formats(id).written === FORMAT_REHEARSAL), 60_000);
  await cluster.close();
});

test('a host that has said nothing of the new format drops who sends it, and keeps nothing of it', async () => {
  const hub = new MemoryHub();
  const cluster = new TestCluster({ hosts: 2 });
  for (const id of [1, 2]) await cluster.open(id, { ...NEW, transport: hub.createTransport });
  for (const id of [1, 2]) await cluster.startReplica(id, 1, [1, 2]);
  await cluster.ready(1);
  const [one, two] = [cluster.hosts.get(1)!, cluster.hosts.get(2)!];
  const [from, to] = [one, two].map((host) => replicaOf(host, 1).engine);
  // As a defect would have it.
  from.formats.settle = () => {};
  const before = from.transport.counters.connectionsUp;
  from.outbound.format = FORMAT_REHEARSAL;
  const refused = (): number | undefined => to.transport.counters.refused.get('bad-frame');
  await cluster.world.until(() => (refused() ?? 0) > 0, 30_000);
  from.outbound.format = FORMAT_OLDEST;
  await cluster.world.until(() => from.transport.counters.connectionsUp > before, 10_000);
  await cluster.ready(1);
  await cluster.settle(one.propose(1, text('after')));
  await cluster.settle(two.close());
  cluster.hosts.delete(2);
  await cluster.open(2, { ...OLD, transport: hub.createTransport });
  await cluster.close();
});
