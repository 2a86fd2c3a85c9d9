/** The compliance suites against what is built in, against other implementations, and against ones that break the contract. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeHost, createGossipRegistry, openWal, type LogDb } from 'drakkar';
import { logDbCompliance, registryCompliance, type ComplianceCase, type CreateLogDb } from 'drakkar/compliance';
import { MemoryMachines } from 'drakkar/testing';
import { createStaticRegistry } from '../../src/registry/registry.ts';
import { Journal, text } from '../support.ts';
import { openSingleFileLog } from './single-file-log.ts';

function all(what: string, cases: readonly ComplianceCase[]): void {
  for (const { name, run } of cases) test(`${what}: ${name}`, run);
}

const small: CreateLogDb = (context) => openWal({ ...context, segmentBytes: 128 * 1024 });

all('the log', logDbCompliance(small));
all('a log in a single file', logDbCompliance(openSingleFileLog));
all('fixed addresses', registryCompliance(createStaticRegistry, false));
all(
  'gossip',
  registryCompliance((context, number) => {
    const gossip = { bindAddress: `host${number}:7001`, seeds: ['host1:7001'], keys: [new Uint8Array(32)] };
    return createGossipRegistry(gossip)(context);
  }, true),
);

/** A log that is changed on its way. */
function broken(change: (log: LogDb) => Partial<LogDb>): CreateLogDb {
  return async (context) => {
    const log = await small(context);
    return new Proxy(log, {
      get(target, name) {
        const value = (change(log) as Record<PropertyKey, unknown>)[name] ?? Reflect.get(target, name);
        return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
      },
    });
  };
}

const breaches: Record<string, CreateLogDb> = {
  'does not tell of blocks': broken((log) => ({
    start: (sink, live) => log.start({ ...sinkOf(sink), blockDurable() {} }, live),
  })),
  'loses every reset': broken((log) => ({ appendState: (state) => log.appendState(state, false) })),
  'forgets votes': broken((log) => ({
    appendState: (state, resets) => log.appendState({ ...state, vote: 0 }, resets),
  })),
  'keeps slabs': broken((log) => ({
    appendFrame(slab, offset, lengthBytes) {
      slab.retain();
      log.appendFrame(slab, offset, lengthBytes);
    },
  })),
  'does not remove shards': broken(() => ({ removeShard: () => Promise.resolve() })),
};

type Sink = Parameters<LogDb['start']>[0];

function sinkOf(sink: Sink): Sink {
  return {
    blockDurable: (...args) => sink.blockDurable(...args),
    stateDurable: (shardId) => sink.stateDurable(shardId),
    groupDurable: () => sink.groupDurable(),
    diskFull: (error) => sink.diskFull(error),
    roomAgain: () => sink.roomAgain(),
    failed: (error) => sink.failed(error),
  };
}

for (const [what, create] of Object.entries(breaches)) {
  test(`a log that ${what} is found out`, async () => {
    const found: string[] = [];
    for (const { name, run } of logDbCompliance(create)) await run().catch(() => found.push(name));
    assert.ok(found.length > 0, 'every case held');
  });
}

test('three hosts replicate over another log, and find everything again', async () => {
  const machines = new MemoryMachines(3);
  const { world } = machines;
  const ids = [1, 2, 3];
  const members = Object.fromEntries(ids.map((id) => [id, `m${id}:7000`]));
  const machineOf = new Map(ids.map((id) => [id, machines.add(`m${id}`)]));
  const start = async (id: number): Promise<NodeHost> => {
    const env = machineOf.get(id)!.boot();
    const options = { dir: 'data', raftAddress: `m${id}:7000`, env, logDb: openSingleFileLog };
    const host = await world.settle(NodeHost.open(options));
    await world.settle(
      host.startReplica({ shardId: 1, replicaId: id, members, snapshotEntries: 20 }, () => new Journal()),
    );
    return host;
  };
  let hosts = await Promise.all(ids.map(start));
  await world.settle(hosts[0].whenReady(1, { timeoutMs: 30_000 }));
  for (let line = 1; line <= 50; line++) assert.equal(await world.settle(hosts[0].propose(1, text(`${line}`))), line);
  for (const id of ids) machineOf.get(id)!.losePower();
  hosts = await Promise.all(ids.map(start));
  for (const host of hosts) {
    await world.settle(host.whenReady(1, { timeoutMs: 30_000 }));
    assert.equal(await world.settle(host.read(1, 'count')), 50);
  }
  for (const host of hosts) await world.settle(host.close());
});
