/** A slice of the simulator, and the simulator itself: it must be deterministic, find what is wrong, and leave alone what is right. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Store, StoreWorkload, crashPoints, shrink, simulate, type Workload } from 'drakkar/sim';
import type { Entry } from 'drakkar';
import { PLANTS } from '../../scripts/sim/plants.ts';

test('forty seeds hold every invariant and make progress', async () => {
  const reached: Record<string, number> = {};
  for (let seed = 1; seed <= 40; seed++) {
    const { failure, counters } = await simulate({ seed, workload: new StoreWorkload() });
    assert.equal(failure, undefined, `npm run sim -- --seed ${seed}`);
    for (const [name, value] of Object.entries(counters)) reached[name] = (reached[name] ?? 0) + value;
  }
  for (const name of [
    'elections',
    'truncations',
    'snapshotsInstalled',
    'recoveries',
    'sectorsTorn',
    'transfersDone',
    'quiesced',
    'woken by host-lost',
    'woken by proposal',
    'shardsSilent',
  ])
    assert.ok(reached[name] > 0, `${name} was never reached`);
});

/** What each of these seeds found once; the run behind a seed changes with the code, the mistake it names must not come back. */
const REGRESSIONS: readonly (readonly [seed: number, was: string])[] = [
  [8, 'a damaged log began a shard anew that it did not mention any more'],
  [33, 'a damaged log was opened as a sound one the second time'],
  [39, 'a full disk at opening was reported without a code'],
  [115, 'a garbled frame length made a connection wait for bytes that never came'],
  [323, 'a read error at opening was reported without a code'],
  [1066, 'what a failed flush had left in the page cache was taken for durable at the next start'],
  [1564, 'a flipped bit in identity.json made another host of this one'],
  [10827, 'a read error while a snapshot was installed was called a broken invariant'],
  [20328, 'segments were freed before the record that made their entries void was durable'],
  [21352, 'a host whose disk was rolled back was believed again after enough starts'],
  [
    2069772155,
    'a host whose disk was rolled back climbed past its peers with starts that failed before they were heard of',
  ],
  [30889, 'a leader installed a snapshot of a newer one without following it'],
  [1553359443, 'a leader that held proposals back fell silent, and its followers refused them for ever'],
  [53, 'a leader that had just lost its leadership offered a snapshot in the term of its successor'],
  [2418, 'the checks took an acknowledgement for a lie while a snapshot replaced the log'],
  [80700791, 'a replica began on a host whose engine 0 had died, and nobody ever found it there'],
  [80701124, 'the checks missed what a store had kept of an update in which its process died'],
  [1698334480, 'a late block for a witness that had been on the host before failed the replica that took its place'],
];

for (const [seed, was] of REGRESSIONS) {
  test(`seed ${seed}: ${was}`, async () => {
    const { failure } = await simulate({ seed, workload: new StoreWorkload() });
    assert.equal(failure, undefined, `npm run sim -- --seed ${seed}`);
  });
}

test('the same seed gives the same run, another seed another one', async () => {
  const hashOf = async (seed: number): Promise<string> =>
    (await simulate({ seed, workload: new StoreWorkload(), operations: 150 })).traceHash;
  for (let seed = 51; seed <= 56; seed++) assert.equal(await hashOf(seed), await hashOf(seed), `seed ${seed}`);
  assert.notEqual(await hashOf(51), await hashOf(52));
});

test('a trace does not change the run, and a person can read it', async () => {
  const options = { seed: 7, operations: 100 };
  const plain = await simulate({ ...options, workload: new StoreWorkload() });
  const traced = await simulate({ ...options, workload: new StoreWorkload(), trace: true });
  assert.equal(traced.traceHash, plain.traceHash);
  assert.deepEqual(plain.trace, []);
  assert.ok(traced.trace.some((line) => /host\d +shard 1 leader term \d/.test(line)));
  assert.ok(traced.trace.some((line) => /answers write \d+ applied at \d+/.test(line)));
});

/** Answers differently on one replica. */
class Biased extends Store {
  private readonly isOdd: boolean;

  constructor(replicaId: number) {
    super();
    this.isOdd = replicaId === 2;
  }

  override update(entries: readonly Entry[]): void {
    super.update(entries);
    if (this.isOdd) for (const entry of entries) entry.result = 1;
  }
}

/** Forgets everything with a snapshot. */
class Forgetful extends Store {
  override *saveSnapshot(): Iterable<Uint8Array> {
    yield new TextEncoder().encode('[]');
  }
}

function workloadOf(create: (replicaId: number) => Store): () => Workload {
  return () =>
    Object.assign(new StoreWorkload(), { createStateMachine: (_: number, replicaId: number) => create(replicaId) });
}

test('a state machine that answers differently on one replica is found, and the run made small', async () => {
  const workload = workloadOf((replicaId) => new Biased(replicaId));
  const options = { seed: 1, faults: ['crash', 'pause', 'clog'] as const };
  const report = await simulate({ ...options, workload: workload() });
  assert.equal(report.failure?.rule, 'state machines agree on answers');
  const small = await shrink({ ...options, workload }, report);
  assert.deepEqual(small.faults, [], 'no fault is needed for it');
  assert.ok(small.operations < 100, `${small.operations} calls`);
  assert.equal(small.report.failure?.rule, 'state machines agree on answers');
  assert.ok(small.report.trace.length > 0);
});

test('a snapshot that leaves something out is found', async () => {
  const found: string[] = [];
  for (let seed = 1; seed <= 30 && found.length === 0; seed++) {
    const { failure } = await simulate({ seed, operations: 300, workload: workloadOf(() => new Forgetful())() });
    if (failure !== undefined) found.push(failure.rule);
  }
  assert.match(found[0] ?? 'nothing', /state machines agree/);
});

test('most disks lost: what is left acknowledges nothing more and answers nothing wrong', async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const { failure, counters } = await simulate({ seed, losesMajority: true, workload: new StoreWorkload() });
    assert.equal(failure, undefined, `seed ${seed}`);
    assert.equal(counters['majoritiesLost'], 1);
    assert.ok(counters['damagedHostsHalted'] > 0);
  }
});

test('a crash at file operations of a run is recovered from', async () => {
  const { failure, states } = await crashPoints({
    seed: 3,
    operations: 60,
    every: 3,
    workload: () => new StoreWorkload(),
  });
  assert.equal(failure, undefined);
  assert.ok(states > 200, `${states} states`);
});

test('every planted bug still has its text, once, and a name of its own', () => {
  for (const { name, file, from, to } of PLANTS) {
    const source = readFileSync(new URL(`../../src/${file}`, import.meta.url), 'utf8');
    assert.equal(source.split(from).length - 1, 1, `${name} in ${file}`);
    assert.notEqual(from, to);
  }
  assert.equal(new Set(PLANTS.map(({ name }) => name)).size, PLANTS.length);
  assert.ok(PLANTS.length >= 30);
});
