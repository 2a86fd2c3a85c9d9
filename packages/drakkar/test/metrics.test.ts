/** What `metrics()` says: it parses, it is what the documentation lists, its series are bounded, and the stages measure what they say. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Histogram } from '../src/engine/histogram.ts';
import { SHARD_SERIES_MAX } from '../src/metrics.ts';
import { parseExposition, type Family } from './exposition.ts';
import { TestCluster } from './support.ts';

const STAGES = ['propose', 'append', 'fsync', 'replicate', 'commit', 'apply', 'read'];

async function clusterWithWork(hosts: number): Promise<TestCluster> {
  const cluster = new TestCluster({ hosts, replica: { electionRtt: 11 } });
  await cluster.startAll();
  for (let i = 0; i < 20; i++) await cluster.propose(cluster.leaderOf(1), 1, `line ${i}`);
  await cluster.settle(cluster.hosts.get(cluster.leaderOf(1))!.read(1, 'count'));
  return cluster;
}

function familiesOf(cluster: TestCluster, id: number): Map<string, Family> {
  return parseExposition(cluster.hosts.get(id)!.metrics());
}

function stageCount(families: Map<string, Family>, stage: string): number {
  const found = families
    .get('drakkar_stage_seconds')!
    .samples.find(({ name, labels }) => name.endsWith('_count') && labels['stage'] === stage);
  assert.ok(found, stage);
  return found.value;
}

test('every metric is in docs/operations.md with its type, and the other way round', async () => {
  const cluster = await clusterWithWork(3);
  const families = familiesOf(cluster, 1);
  const there = [...families.values()].map(({ name, type }) => `${name} ${type}`).sort();
  const docs = readFileSync(new URL('../../../docs/operations.md', import.meta.url), 'utf8');
  const rows = [...docs.matchAll(/^\| `(drakkar_\w+)`[^|]*\| (counter|gauge|histogram) \|/gm)];
  const documented = rows.map(([, name, type]) => `${name} ${type}`).filter((row) => !row.startsWith('drakkar_http_'));
  assert.deepEqual(documented.sort(), there);
  for (const { name, help } of families.values()) assert.ok(help.length > 5, name);
  await cluster.close();
});

test('every stage of a leader is measured, and a follower measures what it does itself', async () => {
  const cluster = await clusterWithWork(3);
  const leader = cluster.leaderOf(1);
  for (const stage of STAGES) assert.ok(stageCount(familiesOf(cluster, leader), stage) > 0, stage);
  const follower = cluster.followerOf(1);
  const before = stageCount(familiesOf(cluster, follower), 'propose');
  await cluster.propose(follower, 1, 'from afar');
  assert.equal(stageCount(familiesOf(cluster, follower), 'propose'), before + 1, 'a forwarded proposal counts here');
  await cluster.close();
});

test('a stage takes what the disk takes', async () => {
  const cluster = await clusterWithWork(1);
  const sumOf = (stage: string): number =>
    familiesOf(cluster, 1)
      .get('drakkar_stage_seconds')!
      .samples.find(({ name, labels }) => name.endsWith('_sum') && labels['stage'] === stage)!.value;
  const { disk } = cluster.machineOf.get(1)!;
  const before = Object.fromEntries(STAGES.map((stage) => [stage, sumOf(stage)]));
  disk.latencyMs = 100; // less than an election timeout
  await cluster.propose(1, 1, 'slow');
  for (const stage of ['propose', 'append', 'fsync', 'commit']) {
    const took = sumOf(stage) - before[stage];
    assert.ok(took >= 0.099 && took < 0.5, `${stage} took ${took} seconds`);
  }
  assert.ok(sumOf('apply') - before['apply'] < 0.05, 'the apply does not wait for the disk');
  assert.equal(stageCount(familiesOf(cluster, 1), 'replicate'), 0, 'nobody to replicate to');
  await cluster.close();
});

test('leaders that are found and lost are counted, and a disk that stands still', async () => {
  const cluster = await clusterWithWork(3);
  const of = (id: number, name: string): number => familiesOf(cluster, id).get(`drakkar_${name}`)!.samples[0].value;
  const leader = cluster.leaderOf(1);
  const id = cluster.followerOf(1);
  const [found, lost] = [of(id, 'leaders_found_total'), of(id, 'leaders_lost_total')];
  assert.ok(found >= 1);
  assert.equal(of(leader, 'disk_stalls_total'), 0);
  const { disk } = cluster.machineOf.get(leader)!;
  disk.latencyMs = 60_000;
  cluster.hosts.get(leader)!.proposeCallback(1, Buffer.from('slow'), () => {});
  await cluster.world.until(() => ![0, leader].includes(cluster.hosts.get(id)!.shardInfo(1).leaderId), 20_000);
  assert.equal(of(leader, 'disk_stalls_total'), 1);
  assert.equal(of(id, 'leaders_found_total'), found + 1);
  assert.equal(of(id, 'leaders_lost_total'), lost + 1);
  disk.latencyMs = 0.1;
  await cluster.world.run(70_000);
  await cluster.close();
});

test('a proposal that nobody answers is no latency', async () => {
  const cluster = await clusterWithWork(3);
  const leader = cluster.leaderOf(1);
  const before = stageCount(familiesOf(cluster, leader), 'propose');
  for (const id of [1, 2, 3]) if (id !== leader) cluster.kill(id);
  await assert.rejects(cluster.propose(leader, 1, 'lost', 300), { code: 'ERR_TIMEOUT' });
  await cluster.world.run(2000);
  assert.equal(stageCount(familiesOf(cluster, leader), 'propose'), before);
  await cluster.close();
});

test('series of single shards are bounded, sums are not', async () => {
  const cluster = new TestCluster({ hosts: 1, segmentBytes: 4 * 1024 * 1024 });
  await cluster.open(1);
  for (let shardId = 1; shardId <= SHARD_SERIES_MAX; shardId++) await cluster.startReplica(1, shardId, [1]);
  const full = familiesOf(cluster, 1);
  assert.equal(full.get('drakkar_raft_term')!.samples.length, SHARD_SERIES_MAX);
  await cluster.startReplica(1, SHARD_SERIES_MAX + 1, [1]);
  const families = familiesOf(cluster, 1);
  assert.equal(families.get('drakkar_shards')!.samples[0].value, SHARD_SERIES_MAX + 1);
  assert.ok(families.has('drakkar_pending_proposals'));
  for (const [name, { samples }] of families) {
    assert.ok(!name.startsWith('drakkar_raft_'), name);
    assert.ok(samples.length < 200, `${name} has ${samples.length} series`);
  }
  await cluster.close();
});

test('buckets hold what is at most their bound', () => {
  const histogram = new Histogram();
  for (const ms of [0, 0.1, 0.11, 10_000, 10_001, 1e9]) histogram.observe(ms);
  assert.equal(histogram.counts[0], 2);
  assert.equal(histogram.counts[1], 1);
  assert.equal(histogram.counts.at(-2), 1);
  assert.equal(histogram.counts.at(-1), 2);
  assert.equal(histogram.count, 6);
});
