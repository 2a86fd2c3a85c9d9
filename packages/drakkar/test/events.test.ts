/** Events: each is told when what it names happens, in order, and no listener can hold up or break the host. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOST_EVENTS, type HostEventMap, type HostEventName, type Logger } from 'drakkar';
import { MemoryMachines } from 'drakkar/testing';
import { EVENTS_WAITING_MAX, HostEvents } from '../src/events.ts';
import { Trace } from '../src/engine/trace.ts';
import { TestCluster, text } from './support.ts';

interface Told {
  readonly name: HostEventName;
  readonly event: Record<string, unknown>;
}

function listenToAll(cluster: TestCluster, id: number): Told[] {
  const told: Told[] = [];
  const host = cluster.hosts.get(id)!;
  for (const name of HOST_EVENTS)
    host.on(name, (event) => told.push({ name, event: event as unknown as Record<string, unknown> }));
  return told;
}

const namesOf = (told: readonly Told[]): Set<HostEventName> => new Set(told.map(({ name }) => name));
const find = <K extends HostEventName>(told: readonly Told[], name: K): HostEventMap[K] | undefined =>
  told.find((one) => one.name === name)?.event as HostEventMap[K] | undefined;

test('life of a shard: leader, snapshot sent, received, recovered, compacted, stopped, closing', async () => {
  const cluster = new TestCluster({ replica: { snapshotEntries: 0, compactionOverhead: 0, electionRtt: 11 } });
  const told = new Map<number, Told[]>();
  for (const id of [1, 2, 3]) {
    await cluster.open(id);
    told.set(id, listenToAll(cluster, id));
  }
  for (const id of [1, 2, 3]) await cluster.startReplica(id, 1, [1, 2, 3]);
  await cluster.ready(1);
  const leader = cluster.leaderOf(1);
  const away = cluster.followerOf(1);
  assert.equal(find(told.get(away)!, 'leaderChanged')?.shardId, 1);
  assert.deepEqual(find(told.get(away)!, 'replicaReady'), { shardId: 1, replicaId: away });
  assert.equal(find(told.get(leader)!, 'connectionEstablished')?.isSnapshot, false);

  cluster.kill(away);
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 5; i++) await cluster.propose(leader, 1, `line ${i}`);
    await cluster.settle(cluster.hosts.get(leader)!.requestSnapshot(1));
  }
  const { index } = find(told.get(leader)!, 'snapshotCreated')!;
  assert.ok(index > 0);
  assert.ok(find(told.get(leader)!, 'logCompacted')!.index >= index);
  await cluster.world.until(() => namesOf(told.get(leader)!).has('snapshotCompacted'));
  assert.equal(find(told.get(leader)!, 'snapshotCompacted')!.index, index, 'the first image went when the third came');
  await cluster.world.until(() => find(told.get(leader)!, 'connectionFailed') !== undefined);
  assert.equal(find(told.get(leader)!, 'peerDown')?.address, cluster.addressOf(away));

  await cluster.open(away);
  const late = listenToAll(cluster, away);
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => namesOf(late).has('snapshotRecovered'), 60_000);
  await cluster.world.until(() => namesOf(told.get(leader)!).has('snapshotSendCompleted'), 60_000);
  const sent = { shardId: 1, replicaId: leader, to: away, index: find(late, 'snapshotRecovered')!.index };
  assert.deepEqual(find(told.get(leader)!, 'snapshotSendStarted'), sent);
  assert.deepEqual(find(told.get(leader)!, 'snapshotSendCompleted'), sent);
  assert.deepEqual(find(late, 'snapshotReceived'), { shardId: 1, replicaId: away, index: sent.index, from: leader });
  assert.ok(
    told.get(leader)!.some(({ name, event }) => name === 'connectionEstablished' && event['isSnapshot'] === true),
  );

  await cluster.settle(cluster.hosts.get(away)!.stopReplica(1));
  await cluster.settle(cluster.hosts.get(away)!.close());
  await cluster.world.run(10);
  const order = late.map(({ name }) => name).filter((name) => name === 'replicaStopped' || name === 'hostClosing');
  assert.deepEqual(order, ['replicaStopped', 'hostClosing']);
  cluster.hosts.delete(away);
  await cluster.close();
});

test('a snapshot that does not arrive is told as aborted, with the reason', async () => {
  const cluster = new TestCluster({ replica: { snapshotEntries: 0, compactionOverhead: 0, electionRtt: 11 } });
  await cluster.startAll();
  const leader = cluster.leaderOf(1);
  const away = cluster.followerOf(1);
  const told = listenToAll(cluster, leader);
  cluster.kill(away);
  for (let i = 0; i < 5; i++) await cluster.propose(leader, 1, `line ${i}`);
  await cluster.settle(cluster.hosts.get(leader)!.requestSnapshot(1));
  // The host is back, but its disk has no room for the image.
  const { disk } = cluster.machineOf.get(away)!;
  disk.fault = (operation, path) =>
    operation === 'open' && path.endsWith('.receiving') ? Object.assign(new Error('EIO'), { code: 'EIO' }) : undefined;
  await cluster.open(away);
  await cluster.startReplica(away, 1);
  await cluster.world.until(() => namesOf(told).has('snapshotSendAborted'), 60_000);
  assert.match(find(told, 'snapshotSendAborted')!.error.message, /\.receiving failed \(EIO\)/);
  disk.fault = () => undefined;
  await cluster.world.until(() => namesOf(told).has('snapshotSendCompleted'), 60_000);
  await cluster.close();
});

test('freed segments of the log are told', async () => {
  const cluster = new TestCluster({
    hosts: 1,
    segmentBytes: 64 * 1024,
    replica: { snapshotEntries: 50, compactionOverhead: 0, electionRtt: 11 },
  });
  await cluster.startAll();
  const told = listenToAll(cluster, 1);
  for (let i = 0; i < 300 && !namesOf(told).has('logSpaceFreed'); i++)
    await cluster.settle(cluster.hosts.get(1)!.propose(1, text('x'.repeat(2000))));
  assert.equal(find(told, 'logSpaceFreed')?.segments, 1);
  await cluster.close();
});

test('listeners that throw or reject are logged, and nobody else notices', async () => {
  const errors: string[] = [];
  const cluster = new TestCluster({ replica: { electionRtt: 11 } });
  const logger: Logger = { debug() {}, info() {}, warn() {}, error: (_fields, message) => errors.push(message) };
  for (const id of [1, 2, 3]) {
    const env = { ...cluster.machineOf.get(id)!.boot(), logger };
    const host = await cluster.open(id, { env });
    for (const name of HOST_EVENTS) {
      host.on(name, () => {
        throw new Error('a listener that throws');
      });
      host.on(name, () => Promise.reject(new Error('a listener that rejects')));
    }
    await cluster.startReplica(id, 1, [1, 2, 3]);
  }
  const heard: number[] = [];
  cluster.hosts.get(1)!.on('leaderChanged', ({ leaderId }) => heard.push(leaderId));
  await cluster.ready(1);
  assert.equal(await cluster.propose(cluster.followerOf(1), 1, 'goes on'), 1);
  assert.ok(heard.length > 0, 'the listener behind the broken ones was told');
  assert.ok(errors.filter((message) => message === 'an event listener threw').length >= 12);
  await cluster.close();
});

test('a slow listener delays listeners, not turns; beyond the bound events are dropped and counted', async () => {
  const machines = new MemoryMachines(1);
  const env = machines.add('slow').boot();
  let nowMs = 0;
  const slow = { ...env, clock: { nowMs: () => nowMs } };
  const events = new HostEvents(slow, new Trace(env.tracing, 'slow:1'));
  const heard: number[] = [];
  events.on('logSpaceFreed', ({ segments }) => {
    nowMs += 100; // what it takes
    heard.push(segments);
  });
  const turns: number[] = [];
  const turn = (): void => {
    turns.push(heard.length);
    if (heard.length < 3) env.scheduler.defer(turn);
  };
  for (let i = 0; i < EVENTS_WAITING_MAX + 5; i++) events.emit('logSpaceFreed', { segments: i });
  assert.equal(events.dropped, 5);
  assert.equal(heard.length, 0, 'never inside of emit');
  env.scheduler.defer(turn);
  await machines.world.until(() => heard.length >= 3);
  assert.deepEqual(heard.slice(0, 3), [0, 1, 2]);
  for (const count of [1, 2]) assert.ok(turns.includes(count), `the loop has its turn behind listener call ${count}`);
  assert.equal(events.waitingCount, EVENTS_WAITING_MAX - heard.length);
});
