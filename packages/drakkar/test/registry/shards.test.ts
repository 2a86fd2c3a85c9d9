/** What hosts tell one another of shards: as bytes, as views, and between hosts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NodeHost, type ShardView } from 'drakkar';
import { MemoryMachines } from 'drakkar/testing';
import { DATAGRAM_MAX_BYTES, SHARD_VIEWS_MAX } from '../../src/registry/limits.ts';
import {
  NEWS_MAX_BYTES,
  decodeNews,
  encodeNews,
  newsBytes,
  splitMembers,
  type ShardNews,
} from '../../src/registry/shard-codec.ts';
import { ShardViews } from '../../src/registry/shard-views.ts';
import { Journal } from '../support.ts';

const target = fc.oneof(
  fc.integer({ min: 1, max: 9 }).map((digit) => `${digit}`.repeat(32)),
  fc.string({ minLength: 1, maxLength: 60, unit: 'binary' }).map((name) => `${name}:7000`),
);
const members = fc.dictionary(
  fc.integer({ min: 1, max: 1000 }).map((id) => `${id}`),
  target,
  { maxKeys: 10, noNullPrototype: true },
);

/** One history of a shard: memberships by ascending index, leaders by ascending term. */
const view = fc.record({
  shardId: fc.integer({ min: 1, max: 3 }),
  leaderId: fc.integer({ min: 0, max: 1000 }),
  term: fc.integer({ min: 1, max: 5 }),
  configChangeIndex: fc.integer({ min: 0, max: 5 }),
  voters: members,
  nonVotings: members,
  witnesses: members,
});

const newsOf = (from: ShardView): ShardNews[] => {
  const { shardId, leaderId, term, configChangeIndex, ...rest } = from;
  const leader: ShardNews[] = leaderId === 0 ? [] : [{ kind: 'leader', shardId, leaderId, term }];
  return [...leader, ...splitMembers(shardId, configChangeIndex, rest)];
};

test('news come out of their datagrams as they went in, and every datagram passes', () => {
  fc.assert(
    fc.property(fc.array(view, { maxLength: 30 }), (views) => {
      const news = views.flatMap(newsOf);
      const datagrams = encodeNews(news);
      for (const { length } of datagrams) assert.ok(length <= DATAGRAM_MAX_BYTES, `${length} bytes`);
      assert.deepEqual(
        datagrams.flatMap((bytes) => decodeNews(bytes)!),
        news,
      );
    }),
  );
});

test('what is no news is nothing', () => {
  const good = encodeNews(newsOf({ ...EMPTY, shardId: 1, leaderId: 2, term: 3, voters: { 1: 'a:1' } }))[0];
  assert.equal(decodeNews(good)?.length, 2);
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
      const bytes = good.slice();
      bytes[at] = byte;
      for (const news of decodeNews(bytes) ?? []) assert.ok(Number.isSafeInteger(news.shardId) && news.shardId > 0);
    }),
  );
  for (const bad of [
    [64, [[0, 1, 1]]],
    [64, [[1, 0, 1]]],
    [64, [[1, 2, -1]]],
    [64, [[1, 2, 2 ** 53]]],
    [64, [[1, 2, 3, 1, [[1, 0, 'a']]]]],
    [64, [[1, 2, 0, 31, [[1, 0, 'a']]]]],
    [64, [[1, 2, 0, 1, []]]],
    [64, [[1, 2, 0, 1, [[1, 3, 'a']]]]],
    [64, [[1, 2, 0, 1, [[1, 0, 'a'.repeat(257)]]]]],
    [63, []],
    [64],
    {},
    null,
  ]) {
    assert.equal(decodeNews(new TextEncoder().encode(JSON.stringify(bad))), undefined, JSON.stringify(bad));
  }
  assert.equal(decodeNews(new Uint8Array(DATAGRAM_MAX_BYTES + 1)), undefined);
});

const EMPTY: ShardView = {
  shardId: 1,
  leaderId: 0,
  term: 0,
  configChangeIndex: 0,
  voters: {},
  nonVotings: {},
  witnesses: {},
};

test('the newest leader and the newest whole membership count, in whatever order news come', () => {
  // In truth a number names one leader, or one membership.
  const histories = fc
    .uniqueArray(view, { maxLength: 12, selector: ({ shardId, term }) => `${shardId}/${term}` })
    .map((views) => {
      const seen = new Set<string>();
      return views.filter(({ shardId, configChangeIndex }) => {
        const key = `${shardId}/${configChangeIndex}`;
        const isNew = !seen.has(key);
        seen.add(key);
        return isNew;
      });
    });
  fc.assert(
    fc.property(histories, fc.infiniteStream(fc.nat()), (history, choices) => {
      const news = history.flatMap(newsOf);
      const views = new ShardViews();
      // Twice, in another order each.
      for (const _ of [1, 2]) {
        const rest = [...news];
        while (rest.length > 0) views.learn(rest.splice(choices.next().value % rest.length, 1)[0], 1);
      }
      for (const shardId of [1, 2, 3]) {
        const of = history.filter((each) => each.shardId === shardId);
        const led = of.filter(({ leaderId }) => leaderId !== 0).sort((a, b) => b.term - a.term)[0];
        const known = of
          .filter(
            ({ voters, nonVotings, witnesses }) => Object.keys({ ...voters, ...nonVotings, ...witnesses }).length > 0,
          )
          .sort((a, b) => b.configChangeIndex - a.configChangeIndex)[0];
        const got = views.get(shardId);
        if (led === undefined && known === undefined) assert.equal(got, undefined);
        else {
          assert.deepEqual([got?.leaderId, got?.term], [led?.leaderId ?? 0, led?.term ?? 0]);
          assert.deepEqual(
            [got?.configChangeIndex, got?.voters, got?.nonVotings, got?.witnesses],
            [known?.configChangeIndex ?? 0, known?.voters ?? {}, known?.nonVotings ?? {}, known?.witnesses ?? {}],
          );
        }
      }
    }),
  );
});

test('news are told as often as asked for, those first that were told least lately; then no more', () => {
  const views = new ShardViews();
  for (let shardId = 1; shardId <= 100; shardId++) views.learn({ kind: 'leader', shardId, leaderId: 1, term: 1 }, 3);
  const told = new Map<number, number>();
  let bytes = 0;
  for (let datagrams = 0; ; datagrams++) {
    const news = views.takeFresh(300);
    if (news.length === 0) break;
    assert.ok(datagrams < 100, 'it never ends');
    bytes = Math.max(
      bytes,
      news.reduce((sum, each) => sum + newsBytes(each), 0),
    );
    for (const { shardId } of news) told.set(shardId, (told.get(shardId) ?? 0) + 1);
    const counts = [...told.values()];
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, 'one is told again before others were told');
    assert.equal(new Set(news.map(({ shardId }) => shardId)).size, news.length, 'twice in one datagram');
  }
  assert.ok(bytes <= 300);
  assert.deepEqual(new Set(told.values()), new Set([3]));
  views.learn({ kind: 'leader', shardId: 5, leaderId: 1, term: 1 }, 3);
  assert.deepEqual(views.takeFresh(300), [], 'no news');
});

test('thirty members with long addresses take several datagrams; a part that is missing keeps the old membership', () => {
  const voters = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [i + 1, `${'x'.repeat(240)}${i}:7000`]));
  const parts = splitMembers(1, 9, { voters, nonVotings: {}, witnesses: {} });
  assert.ok(parts.length > 5);
  for (const part of parts) assert.ok(newsBytes(part) <= NEWS_MAX_BYTES);
  const views = new ShardViews();
  views.tell({ ...EMPTY, configChangeIndex: 3, voters: { 1: 'old:1' } }, 1);
  for (const part of parts.slice(1)) views.learn(part, 1);
  assert.deepEqual(views.get(1)?.voters, { 1: 'old:1' });
  views.learn(parts[0], 1);
  assert.deepEqual(views.get(1), { ...EMPTY, configChangeIndex: 9, voters });
});

test('views are bounded; what is told in an exchange goes round', () => {
  const views = new ShardViews();
  for (let shardId = 1; shardId <= SHARD_VIEWS_MAX + 10; shardId++)
    views.learn({ kind: 'leader', shardId, leaderId: 1, term: 1 }, 1);
  assert.equal(views.all().length, SHARD_VIEWS_MAX);
  assert.equal(views.ignored, 10);
  const told = new Set<number>();
  for (let count = 0; count < SHARD_VIEWS_MAX; count += 256)
    for (const { shardId } of views.some(256)) told.add(shardId);
  assert.equal(told.size, SHARD_VIEWS_MAX);
});

test('a host without a replica knows who leads a shard and who belongs to it, and hears of every change', async () => {
  const machines = new MemoryMachines(9);
  const { world } = machines;
  const idOf = (number: number): string => `${number}`.repeat(32);
  const hosts: NodeHost[] = [];
  for (const id of [1, 2, 3, 4]) {
    const gossip = { bindAddress: `m${id}:7001`, seeds: ['m1:7001', 'm2:7001'], keys: [new Uint8Array(32)] };
    const env = machines.add(`m${id}`).boot();
    hosts.push(
      await world.settle(NodeHost.open({ dir: 'data', raftAddress: `m${id}:7000`, hostId: idOf(id), env, gossip })),
    );
  }
  const members = { 1: idOf(1), 2: idOf(2), 3: idOf(3) };
  const replica = (replicaId: number) => ({ shardId: 8, replicaId, electionRtt: 12, heartbeatRtt: 2 });
  for (const id of [1, 2, 3])
    await world.settle(hosts[id - 1].startReplica({ ...replica(id), members }, () => new Journal()));
  await world.settle(hosts[0].whenReady(8, { timeoutMs: 60_000 }));
  const spectator = hosts[3];
  const leader = (): number => hosts[0].shardInfo(8).leaderId;
  await world.until(() => spectator.knownShard(8)?.leaderId === leader(), 60_000);
  await world.until(() => Object.keys(spectator.knownShard(8)!.voters).length === 3, 60_000);
  const { term } = hosts[0].shardInfo(8);
  const first = spectator.knownShard(8)!;
  assert.deepEqual(first, { ...EMPTY, shardId: 8, leaderId: leader(), term, voters: members });
  assert.deepEqual(spectator.knownShards(), [first]);
  assert.equal(spectator.knownShard(9), undefined);

  const next = [1, 2, 3].find((id) => id !== leader())!;
  await world.settle(hosts[leader() - 1].transferLeader(8, next, { timeoutMs: 30_000 }));
  await world.until(() => spectator.knownShard(8)?.leaderId === next, 60_000);
  assert.ok(spectator.knownShard(8)!.term > term);
  const { configChangeIndex } = await world.settle(
    hosts[next - 1].addReplica(8, 44, idOf(4), { role: 'non-voting', timeoutMs: 30_000 }),
  );
  await world.until(() => spectator.knownShard(8)?.configChangeIndex === configChangeIndex, 60_000);
  assert.deepEqual(spectator.knownShard(8)!.nonVotings, { 44: idOf(4) });
  for (const host of hosts) await world.settle(host.close());
});

test('without gossip a host knows the shards that it runs', async () => {
  const machines = new MemoryMachines(2);
  const { world } = machines;
  const host = await world.settle(
    NodeHost.open({ dir: 'data', raftAddress: 'm1:7000', env: machines.add('m1').boot() }),
  );
  assert.deepEqual(host.knownShards(), []);
  await world.settle(host.startReplica({ shardId: 1, replicaId: 1, members: { 1: 'm1:7000' } }, () => new Journal()));
  await world.settle(host.whenReady(1));
  const { term } = host.shardInfo(1);
  assert.deepEqual(host.knownShards(), [{ ...EMPTY, leaderId: 1, term, voters: { 1: 'm1:7000' } }]);
  assert.equal(host.knownShard(2), undefined);
  await world.settle(host.close());
});
