/** Whatever is wrong gives one clear error, or a dropped connection and a counter; nothing crashes, hangs or loses data. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DrakkarError, NodeHost, type ErrorCode, type NodeHostOptions, type ReplicaOptions } from 'drakkar';
import type { Socket } from '../src/env/env.ts';
import { FRAME_HEADER_BYTES, FrameType, sealFrame } from '../src/wire/frame.ts';
import { Slab } from '../src/wire/slab.ts';
import { Purpose, encodeHello } from '../src/transport/hello.ts';
import { Journal, TestCluster, text } from './support.ts';
import { identityOf } from './transport/compliance.ts';

const is = (code: ErrorCode, message: RegExp) => (error: unknown) => {
  assert.ok(DrakkarError.is(error, code), `${String(error)} is not ${code}`);
  assert.match(error.message, message);
  return true;
};

// Options.

const badHostOptions: [what: string, options: unknown, message: RegExp][] = [
  ['nothing', undefined, /expected an object/],
  ['no dir', { raftAddress: 'a:1' }, /dir is undefined; expected a string/],
  ['an empty dir', { dir: '', raftAddress: 'a:1' }, /dir is ""/],
  ['no address', { dir: 'd' }, /raftAddress is undefined; expected "host:port"/],
  ['an address without a port', { dir: 'd', raftAddress: 'localhost' }, /raftAddress is "localhost"/],
  ['a port out of range', { dir: 'd', raftAddress: 'a:70000' }, /raftAddress is "a:70000"/],
  [
    'a codec without a function',
    { dir: 'd', raftAddress: 'a:1', snapshotCodecs: [{ name: 'snappy', compress: () => {} }] },
    /snapshotCodecs is \[\{"name":"snappy"\}\]; expected codecs with a name each/,
  ],
  [
    'less bandwidth than anything can arrive with',
    { dir: 'd', raftAddress: 'a:1', maxSnapshotSendBytesPerSecond: 100 },
    /maxSnapshotSendBytesPerSecond is 100; expected a whole number from 4096/,
  ],
  ['a tick of zero', { dir: 'd', raftAddress: 'a:1', rttMs: 0 }, /rttMs is 0; expected a whole number from 1/],
  ['half a tick', { dir: 'd', raftAddress: 'a:1', rttMs: 1.5 }, /rttMs is 1.5/],
  ['a word for a number', { dir: 'd', raftAddress: 'a:1', timeoutMs: 'soon' }, /timeoutMs is "soon"/],
  ['a deployment of zero', { dir: 'd', raftAddress: 'a:1', deploymentId: 0 }, /deploymentId is 0/],
  [
    'a deployment beyond 2^53',
    { dir: 'd', raftAddress: 'a:1', deploymentId: 2 ** 53 },
    /deploymentId is 9007199254740992/,
  ],
  [
    'a logger that is none',
    { dir: 'd', raftAddress: 'a:1', logger: {} },
    /logger is \{\}; expected an object with debug/,
  ],
  ['a misspelt name', { dir: 'd', raftAddress: 'a:1', rttMS: 5 }, /there is no option rttMS; there are dir, /],
];

for (const [what, options, message] of badHostOptions) {
  test(`NodeHost.open with ${what} is refused`, async () => {
    await assert.rejects(NodeHost.open(options as NodeHostOptions), is('ERR_INVALID_OPTION', message));
  });
}

const members = { 1: 'host1:7000' };
const badReplicaOptions: [what: string, options: unknown, message: RegExp][] = [
  ['no shard', { replicaId: 1, members }, /shardId is undefined/],
  ['shard zero', { shardId: 0, replicaId: 1, members }, /shardId is 0/],
  ['a negative replica', { shardId: 1, replicaId: -1, members }, /replicaId is -1/],
  ['members without itself', { shardId: 1, replicaId: 2, members }, /expected replica 2 among them/],
  ['no members in the list', { shardId: 1, replicaId: 1, members: {} }, /members is \{\}/],
  [
    'two members at one address',
    { shardId: 1, replicaId: 1, members: { 1: 'a:1', 2: 'a:1' } },
    /one distinct "host:port"/,
  ],
  ['a member without a port', { shardId: 1, replicaId: 1, members: { 1: 'a' } }, /members is/],
  [
    'an election shorter than heartbeats',
    { shardId: 1, replicaId: 1, members, electionRtt: 10 },
    /more than twice heartbeatRtt/,
  ],
  [
    'a yes for a true',
    { shardId: 1, replicaId: 1, members, preVote: 'yes' },
    /preVote is "yes"; expected true or false/,
  ],
];

for (const [what, options, message] of badReplicaOptions) {
  test(`startReplica with ${what} is refused`, async () => {
    const cluster = new TestCluster({ hosts: 1 });
    const host = await cluster.open(1);
    const starting = host.startReplica(options as ReplicaOptions, () => new Journal());
    await assert.rejects(cluster.settle(starting), is('ERR_INVALID_OPTION', message));
    await cluster.close();
  });
}

test('calls with bad arguments are refused before anything happens', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll();
  const host = cluster.hosts.get(1)!;
  const refused = async (work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> => {
    await assert.rejects(cluster.settle(work), is(code, message));
  };
  await refused(host.propose(1, 'text' as never), 'ERR_INVALID_OPTION', /expected a Uint8Array/);
  await refused(host.propose(1, text('x'), { timeoutMs: 0 }), 'ERR_INVALID_OPTION', /timeoutMs is 0/);
  await refused(
    host.propose(1, text('x'), { timeout: 5 } as never),
    'ERR_INVALID_OPTION',
    /there is no option timeout/,
  );
  await refused(host.propose(1, text('x'), { signal: {} as never }), 'ERR_INVALID_OPTION', /signal is \{\}/);
  await refused(host.proposeBatch(1, [text('x'), null as never]), 'ERR_INVALID_OPTION', /expected a Uint8Array/);
  await refused(host.propose(1, new Uint8Array(9 * 1024 * 1024)), 'ERR_PAYLOAD_TOO_BIG', /exceeds 8388608/);
  await refused(host.propose(7, text('x')), 'ERR_SHARD_NOT_FOUND', /shard 7 does not run on this host/);
  await refused(host.read(7, 'all'), 'ERR_SHARD_NOT_FOUND', /shard 7/);
  await refused(
    host.startReplica({ shardId: 2, replicaId: 1, members }, null as never),
    'ERR_INVALID_OPTION',
    /second argument/,
  );
  assert.deepEqual(cluster.lines(1, 1), []);
  await cluster.close();
});

// The directory.

test('a directory in use by another host is refused, and free again when that one is closed', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  const first = await cluster.open(1);
  const env = { ...cluster.machineOf.get(1)!.boot() };
  const again = (): Promise<NodeHost> => cluster.settle(NodeHost.open({ dir: 'data', raftAddress: 'host1:7001', env }));
  await assert.rejects(again(), is('ERR_DIR_LOCKED', /data is in use by another process/));
  assert.equal(first.failed, undefined);
});

test('an address in use is refused, and the directory is free again', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.open(1);
  const env = cluster.machines.add('other').boot();
  const options = { dir: 'data', raftAddress: 'other:7000', env };
  const opening = NodeHost.open({ ...options, listenAddress: 'host1:7000' });
  await assert.rejects(cluster.settle(opening), is('ERR_ADDRESS_IN_USE', /host1:7000 is in use by another process/));
  const host = await cluster.settle(NodeHost.open(options));
  await cluster.settle(host.close());
  await cluster.close();
});

async function stoppedHost(): Promise<TestCluster> {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll();
  await cluster.propose(1, 1, 'kept');
  await cluster.close();
  return cluster;
}

test('scenario 72: a directory of another deployment or another address is refused and left as it is', async () => {
  const cluster = await stoppedHost();
  await assert.rejects(cluster.open(1, { deploymentId: 2 }), is('ERR_DIR_FOREIGN', /belongs to deployment 1, not 2/));
  await assert.rejects(
    cluster.open(1, { raftAddress: 'host9:7000' }),
    is('ERR_DIR_FOREIGN', /belongs to the host at host1:7000/),
  );
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  assert.deepEqual(cluster.lines(1, 1), ['kept']);
  await cluster.close();
});

function editIdentity(cluster: TestCluster, change: (json: string) => string): void {
  cluster.machineOf.get(1)!.disk.edit('data/identity.json', (bytes) => {
    const changed = change(new TextDecoder().decode(bytes));
    bytes.fill(0x20);
    bytes.set(text(changed).subarray(0, bytes.length));
  });
}

test('a directory of a newer format is refused', async () => {
  const cluster = await stoppedHost();
  editIdentity(cluster, (json) => json.replace('"format": 1', '"format": 7'));
  await assert.rejects(
    cluster.open(1),
    is('ERR_DIR_FORMAT', /has format 7, made by a newer version; this one knows up to 1/),
  );
});

test('a damaged identity is refused, whatever is wrong with it', async () => {
  for (const change of [
    () => '',
    () => 'null',
    (json: string) => json.slice(5),
    (json: string) => json.replace(/"hostId": "./, '"hostId": "x'),
    (json: string) => json.replace(/"startCounter": \d+/, '"startCounter": -1'),
    (json: string) => json.replace('"format": 1', '"format": "1"'),
    (json: string) => json.replace('host1:7000', 'hnst1:7000'),
    (json: string) => json.replace(/"startCounter": \d+/, '"startCounter": 9'),
  ]) {
    const cluster = await stoppedHost();
    editIdentity(cluster, change);
    await assert.rejects(cluster.open(1), is('ERR_DIR_CORRUPT', /data\/identity.json is damaged/));
  }
});

test('an identity that is gone while the log is there is refused: a new one would vote twice (F19)', async () => {
  const cluster = await stoppedHost();
  cluster.machineOf.get(1)!.disk.remove('data/identity.json');
  await assert.rejects(cluster.open(1), is('ERR_DIR_CORRUPT', /is missing though data holds a log/));
});

test('a directory or identity that others may read is refused', async () => {
  const cluster = await stoppedHost();
  const { disk } = cluster.machineOf.get(1)!;
  disk.setMode('data', 0o755);
  await assert.rejects(cluster.open(1), is('ERR_DIR_PERMISSIONS', /data has mode 755/));
  disk.setMode('data', 0o700);
  disk.setMode('data/identity.json', 0o640);
  await assert.rejects(cluster.open(1), is('ERR_DIR_PERMISSIONS', /identity.json has mode 640/));
});

// Replicas.

test('a wrong replica, other members, or none at the first start are refused', async () => {
  const cluster = await stoppedHost();
  const host = await cluster.open(1);
  const start = (options: ReplicaOptions): Promise<void> =>
    cluster.settle(host.startReplica(options, () => new Journal()));
  await assert.rejects(
    start({ shardId: 1, replicaId: 2 }),
    is('ERR_SHARD_MISMATCH', /holds replica 1 of shard 1, not 2/),
  );
  await assert.rejects(
    start({ shardId: 1, replicaId: 1, members: { 1: 'host1:7000', 2: 'host2:7000' } }),
    is('ERR_SHARD_MISMATCH', /began with members/),
  );
  await assert.rejects(start({ shardId: 2, replicaId: 1 }), is('ERR_SHARD_NOT_BOOTSTRAPPED', /has never run in data/));
  await assert.rejects(
    start({ shardId: 2, replicaId: 1, members: { 1: 'elsewhere:7000' } }),
    is('ERR_SHARD_MISMATCH', /lives at elsewhere:7000; this host is host1:7000/),
  );
  await start({ shardId: 1, replicaId: 1 });
  await assert.rejects(start({ shardId: 1, replicaId: 1 }), is('ERR_SHARD_EXISTS', /runs on this host already/));
  await cluster.ready(1);
  assert.deepEqual(cluster.lines(1, 1), ['kept']);
  await cluster.close();
});

test('a factory that throws leaves the shard as it was', async () => {
  const cluster = await stoppedHost();
  const host = await cluster.open(1);
  const starting = host.startReplica({ shardId: 1, replicaId: 1 }, () => {
    throw new Error('no machine today');
  });
  await assert.rejects(cluster.settle(starting), is('ERR_STATE_MACHINE', /the factory of shard 1 threw/));
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  assert.deepEqual(cluster.lines(1, 1), ['kept']);
  await cluster.close();
});

test('a damaged snapshot is refused at the start, and other shards start', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll([1, 2]);
  for (let i = 0; i < 20; i++) await cluster.propose(1, 1, `line ${i}`);
  await cluster.propose(1, 2, 'sound');
  await cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1));
  await cluster.close();
  const { disk } = cluster.machineOf.get(1)!;
  const [image] = disk.paths().filter((path) => path.endsWith('.snapshot'));
  disk.edit(image, (bytes) => {
    bytes[bytes.length >> 1] ^= 4;
  });
  await cluster.open(1);
  await assert.rejects(cluster.startReplica(1, 1), is('ERR_SNAPSHOT_CORRUPT', /./));
  await cluster.startReplica(1, 2);
  await cluster.ready(2);
  assert.deepEqual(cluster.lines(1, 2), ['sound']);
  await cluster.close();
});

test('a snapshot that is missing though the log names it is refused', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll();
  await cluster.propose(1, 1, 'line');
  await cluster.settle(cluster.hosts.get(1)!.requestSnapshot(1));
  await cluster.close();
  const { disk } = cluster.machineOf.get(1)!;
  disk.remove(disk.paths().find((path) => path.endsWith('.snapshot'))!);
  await cluster.open(1);
  await assert.rejects(cluster.startReplica(1, 1), is('ERR_SNAPSHOT_CORRUPT', /is missing though the log names it/));
  await cluster.close();
});

test('a damaged log fails its replicas with a clear error; the host opens, and the other hosts go on', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  for (let i = 0; i < 10; i++) await cluster.propose(1, 1, `line ${i}`);
  const damaged = cluster.followerOf(1);
  cluster.kill(damaged);
  const { disk } = cluster.machineOf.get(damaged)!;
  disk.edit('data/engine-0/wal/0000000000000001.wal', (bytes) => {
    bytes[4096 * 3 + 50] ^= 1;
  });
  await cluster.open(damaged);
  await assert.rejects(cluster.startReplica(damaged, 1), is('ERR_LOG_CORRUPT', /is damaged at byte/));
  await cluster.propose(cluster.leaderOf(1), 1, 'without it');
  await cluster.close();
});

// Peers.

/** Dials the host's Raft port as a stranger, sends, and waits for the end of the connection. */
async function stranger(cluster: TestCluster, send: (socket: Socket) => void, waitMs = 10_000): Promise<void> {
  const network = cluster.machines.add('stranger').boot().network;
  let isClosed = false;
  const socket = network.connect('host1:7000', {
    onOpen: () => send(socket),
    onData() {},
    onClose() {
      isClosed = true;
    },
  });
  await cluster.world.until(() => isClosed, waitMs);
}

const raw = (bytes: Uint8Array) => (socket: Socket) => void socket.write(bytes, 0, bytes.length);

function hello(): Uint8Array {
  const slab = encodeHello({
    purpose: Purpose.Messages,
    status: 0,
    identity: identityOf('stranger'),
    target: 'host1:7000',
    explanation: '',
  });
  return slab.u8.slice(0, slab.usedBytes);
}

function sealed(type: FrameType, words: number, count: number): Uint8Array {
  const slab = new Slab(FRAME_HEADER_BYTES + words * 4);
  slab.u32.fill(0xffffffff);
  sealFrame(slab.u8, slab.u32, 0, slab.sizeBytes, type, count);
  return slab.u8;
}

/** Connections refused or dropped, by reason, as the host's metrics tell. */
function refusals(host: NodeHost): string[] {
  return [...host.metrics().matchAll(/^drakkar_transport_refused_total\{reason="([^"]+)"\} (\d+)$/gm)].map(
    ([, reason, count]) => `${reason} ${count}`,
  );
}

const helloWith = (change: (bytes: Uint8Array) => void): Uint8Array => {
  const bytes = hello();
  change(bytes);
  return bytes;
};

const strangers: [what: string, bytes: Uint8Array, reason: string][] = [
  ['another protocol', text('GET / HTTP/1.1\r\nHost: a\r\n\r\n'), 'bad-hello'],
  ['a huge frame before its HELLO', new Uint8Array(Uint32Array.of(1 << 30, 0, 0, 0).buffer), 'bad-hello'],
  ['a frame of no length', new Uint8Array(64), 'bad-hello'],
  ['a garbled HELLO', helloWith((bytes) => (bytes[40] ^= 1)), 'bad-hello'],
  ['another frame in place of a HELLO', sealed(FrameType.Messages, 20, 1), 'bad-hello'],
  ['nothing at all', new Uint8Array(0), 'hello-timeout'],
  ['half a HELLO', hello().subarray(0, 30), 'hello-timeout'],
  ['a huge frame', Buffer.concat([hello(), new Uint8Array(Uint32Array.of(1 << 30, 0, 0, 0).buffer)]), 'bad-frame'],
  ['a garbled frame', Buffer.concat([hello(), helloWith((bytes) => (bytes[20] ^= 1))]), 'bad-frame'],
  ['a frame of an unknown type', Buffer.concat([hello(), sealed(99 as FrameType, 4, 1)]), 'bad-frame'],
  ['a frame of the log', Buffer.concat([hello(), sealed(FrameType.Records, 30, 1)]), 'bad-frame'],
  ['messages that are none', Buffer.concat([hello(), sealed(FrameType.Messages, 20, 1)]), 'bad-frame'],
  ['blocks that are none', Buffer.concat([hello(), sealed(FrameType.Blocks, 50, 2)]), 'bad-frame'],
];

for (const [what, bytes, reason] of strangers) {
  test(`a peer that sends ${what} is dropped and counted; the host goes on`, async () => {
    const cluster = new TestCluster({ hosts: 1 });
    await cluster.startAll();
    const host = cluster.hosts.get(1)!;
    await stranger(cluster, raw(bytes));
    assert.deepEqual(refusals(host), [`${reason} 1`]);
    assert.equal(await cluster.propose(1, 1, 'still here'), 1);
    await cluster.close();
  });
}

test('connections that say nothing are bounded', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll();
  const network = cluster.machines.add('stranger').boot().network;
  for (let i = 0; i < 100; i++) network.connect('host1:7000', { onData() {}, onClose() {} });
  await cluster.world.run(10);
  assert.deepEqual(refusals(cluster.hosts.get(1)!), ['limit 36']);
  await cluster.world.run(6000);
  assert.deepEqual(refusals(cluster.hosts.get(1)!), ['limit 36', 'hello-timeout 64']);
  await cluster.close();
});

test('scenario 71: a host that was wiped is refused as the replica it was, until it is replaced (F19)', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  await cluster.propose(1, 1, 'kept');
  const wiped = cluster.followerOf(1);
  cluster.kill(wiped);
  cluster.machineOf.get(wiped)!.disk.remove('data');
  const refused: string[] = [];
  for (const host of cluster.hosts.values()) host.on('memberRefused', ({ reason }) => refused.push(reason));
  await cluster.open(wiped);
  await cluster.startReplica(wiped, 1, [1, 2, 3]);
  await cluster.world.until(() => refused.length >= 1);
  assert.ok(refused.every((reason) => reason === 'its directory is another one than before'));
  await cluster.world.run(20_000);
  const count = refused.length;
  assert.ok(count <= 4, `the refusal was reported ${count} times`);
  // Its vote does not count either: with the leader gone there is no majority left.
  const leader = cluster.leaderOf(1);
  cluster.kill(leader);
  await cluster.world.run(20_000);
  assert.equal(cluster.leaderOf(1), 0);
});

// Disks.

test('a host whose disk was rolled back gives itself up, for ever, however often it is started (F19)', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const victim = cluster.followerOf(1);
  const { disk } = cluster.machineOf.get(victim)!;
  const leader = cluster.leaderOf(1);
  cluster.losePower(victim);
  const copy = disk.clone();
  await cluster.open(victim);
  await cluster.startReplica(victim, 1);
  await cluster.propose(leader, 1, 'promised by the start that is forgotten');
  await cluster.ready(1);
  cluster.losePower(victim);
  disk.restore(copy);
  // The copy's next start has the same number as the one that the others know.
  const host = await cluster.open(victim);
  await cluster.startReplica(victim, 1);
  await cluster.world.until(() => host.failed !== undefined, 10_000);
  is('ERR_DIR_CORRUPT', /was rolled back: peers know of start 2, it remembers 2/)(host.failed);
  await cluster.world.run(100);
  for (let start = 0; start < 3; start++) {
    cluster.losePower(victim);
    await assert.rejects(cluster.open(victim), is('ERR_DIR_CORRUPT', /was rolled back/));
  }
  await cluster.propose(leader, 1, 'the others go on');
  await cluster.close();
});

test('a host whose disk was rolled back is not believed after more starts than its peers know of (F19)', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const victim = cluster.followerOf(1);
  const { disk } = cluster.machineOf.get(victim)!;
  cluster.losePower(victim);
  const copy = disk.clone();
  await cluster.open(victim);
  await cluster.startReplica(victim, 1);
  await cluster.ready(1);
  cluster.losePower(victim);
  disk.restore(copy);
  // Starts that nobody hears of: the count passes the one that the others have pinned.
  const { network } = cluster.machines;
  for (const other of cluster.hosts.keys()) {
    if (other === victim) continue;
    network.cutOneWay(`host${victim}`, `host${other}`);
    network.cutOneWay(`host${other}`, `host${victim}`);
  }
  for (let start = 0; start < 4; start++) {
    await cluster.open(victim);
    cluster.losePower(victim);
  }
  network.heal();
  const host = await cluster.open(victim);
  await cluster.startReplica(victim, 1);
  await cluster.world.until(() => host.failed !== undefined, 10_000);
  is('ERR_DIR_CORRUPT', /was rolled back: peers know of start 2, it remembers 6/)(host.failed);
  await cluster.close();
});

test('a leader on a full disk gives its leadership away; its shards go on, and it comes back with room', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const full = cluster.leaderOf(1);
  const { disk } = cluster.machineOf.get(full)!;
  const host = cluster.hosts.get(full)!;
  const events: string[] = [];
  host.on('diskFull', () => events.push('full'));
  host.on('diskRoom', () => events.push('room'));
  await cluster.world.run(100);
  disk.capacityBytes = disk.usedBytes;
  const large = 'x'.repeat(20_000);
  const waiting: Promise<unknown>[] = [];
  for (let i = 0; i < 60 && !events.includes('full'); i++) {
    const write = host.propose(1, text(`${i} ${large}`), { timeoutMs: 60_000 });
    write.catch(() => {});
    waiting.push(write);
    await cluster.world.run(20);
  }
  assert.deepEqual(events, ['full']);
  await assert.rejects(
    cluster.settle(host.propose(1, text('now'))),
    is('ERR_DISK_FULL', /the disk under data is full/),
  );
  await cluster.world.until(() => cluster.leaderOf(1) !== full && cluster.leaderOf(1) !== 0, 30_000);
  await cluster.propose(cluster.leaderOf(1), 1, 'the others go on');
  assert.ok(Array.isArray(host.staleRead(1, 'all')), 'stale reads work on a full disk');
  await assert.rejects(
    cluster.settle(host.read(1, 'all')),
    (error: unknown) => DrakkarError.is(error, 'ERR_DISK_FULL') && error.retryable,
  );
  disk.capacityBytes = Number.POSITIVE_INFINITY;
  await cluster.world.until(() => events.includes('room'), 30_000);
  await cluster.ready(1);
  await cluster.assertEqual(1);
  await Promise.allSettled(waiting.map((write) => cluster.settle(write)));
  assert.equal(await cluster.settle(cluster.hosts.get(full)!.read(1, 'count')), cluster.lines(full, 1).length);
  await cluster.close();
});

test('a disk that fails ends its host and nothing else; nothing acknowledged is lost (F5)', async () => {
  const cluster = new TestCluster();
  await cluster.startAll();
  const broken = cluster.leaderOf(1);
  const host = cluster.hosts.get(broken)!;
  await cluster.propose(broken, 1, 'before');
  let failed: unknown;
  host.on('hostFailed', ({ error }) => (failed = error));
  cluster.machineOf.get(broken)!.disk.fault = (operation, path) =>
    operation === 'write' && path.endsWith('.wal') ? Object.assign(new Error('EIO'), { code: 'EIO' }) : undefined;
  await assert.rejects(cluster.settle(host.propose(1, text('lost?'))), { outcome: 'unknown' });
  await cluster.world.until(() => failed !== undefined);
  assert.ok(DrakkarError.is(failed, 'ERR_DISK_FAILED'));
  assert.equal(host.failed, failed);
  await assert.rejects(cluster.settle(host.propose(1, text('more'))), { code: 'ERR_SHARD_FAILED' });
  await cluster.settle(host.close());
  cluster.hosts.delete(broken);
  await cluster.world.until(() => cluster.leaderOf(1) !== 0, 30_000);
  await cluster.propose(cluster.leaderOf(1), 1, 'after');
  assert.equal(cluster.lines(cluster.leaderOf(1), 1)[0], 'before');
  await cluster.close();
});

test('a snapshot that cannot be written loses nothing', async () => {
  const cluster = new TestCluster({ hosts: 1 });
  await cluster.startAll();
  await cluster.propose(1, 1, 'kept');
  const host = cluster.hosts.get(1)!;
  cluster.machineOf.get(1)!.disk.fault = (operation, path) =>
    operation === 'write' && path.includes('snapshots')
      ? Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
      : undefined;
  await assert.rejects(cluster.settle(host.requestSnapshot(1)), is('ERR_DISK_FULL', /no room for the snapshot/));
  assert.equal(await cluster.propose(1, 1, 'it goes on'), 2);
  cluster.machineOf.get(1)!.disk.fault = () => undefined;
  await cluster.settle(host.requestSnapshot(1));
  cluster.losePower(1);
  await cluster.open(1);
  await cluster.startReplica(1, 1);
  await cluster.ready(1);
  assert.deepEqual(cluster.lines(1, 1), ['kept', 'it goes on']);
  await cluster.close();
});
