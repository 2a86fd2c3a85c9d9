/** The disk check and the benchmark on a disk whose times are known. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openWal, type WalOptions } from 'drakkar';
import { MemoryMachines } from 'drakkar/testing';
import { checkDisk, runBench } from 'drakkar/tools';

const logDb = (context: WalOptions): ReturnType<typeof openWal> =>
  openWal({ ...context, segmentBytes: 4 * 1024 * 1024 });

test('a disk that takes 4 ms for a flush is told so, and what was made is gone', async () => {
  const machines = new MemoryMachines(1);
  const machine = machines.add('disk');
  const env = machine.boot();
  const { world } = machines;
  await world.settle(env.fs.makeDirectory('here'));
  machine.disk.latencyOf = (operation) => (operation === 'write' ? 4 : 0.01);
  const result = await world.settle(checkDisk({ env, dir: 'here', durationMs: 400, shards: 4, logDb }), 600_000);
  assert.deepEqual(
    result.flushes.map(({ sizeBytes }) => sizeBytes),
    [4096, 131_072],
  );
  for (const flush of result.flushes) {
    for (const ms of [flush.meanMs, flush.p50Ms, flush.p99Ms, flush.maxMs]) assert.ok(Math.abs(ms - 4) < 0.01, `${ms}`);
    assert.ok(Math.abs(flush.perSecond - 250) < 3, `${flush.perSecond}`);
    assert.equal(flush.count, 100);
  }
  const { host } = result;
  assert.equal(host.hosts, 1);
  assert.equal(host.errors, 0);
  assert.ok(host.writes >= host.inflight * 10, `${host.writes} writes`);
  assert.ok(host.latency.p50Ms >= 4 && host.latency.p50Ms < 20, `${host.latency.p50Ms}`);
  assert.ok(host.flushesPerSecond <= 250 && host.writesPerFlush > 100);
  assert.deepEqual(
    machine.disk.paths().filter((path) => path.startsWith('here/')),
    [],
  );
});

test('a benchmark of three hosts ends, with all answered', async () => {
  const machines = new MemoryMachines(2);
  const env = machines.add('disk').boot();
  const run = runBench({ env, dir: '.', hosts: 3, shards: 3, inflight: 60, durationMs: 300, payloadBytes: 100, logDb });
  const result = await machines.world.settle(run, 600_000);
  assert.equal(result.errors, 0);
  assert.ok(result.writes > 600);
  assert.equal(result.latency.count, result.writes);
  assert.deepEqual([result.hosts, result.shards, result.payloadBytes, result.inflight], [3, 3, 100, 60]);
});

test('a disk without room fails the check with its code, and what was made is gone', async () => {
  const machines = new MemoryMachines(3);
  const machine = machines.add('disk', { capacityBytes: 1024 * 1024 });
  const env = machine.boot();
  await machines.world.settle(env.fs.makeDirectory('here'));
  await assert.rejects(machines.world.settle(checkDisk({ env, dir: 'here', durationMs: 100, logDb }), 600_000), {
    code: 'ERR_DISK_FULL',
  });
  assert.deepEqual(
    machine.disk.paths().filter((path) => path.startsWith('here/')),
    [],
  );
});
