/** `drakkar snapshot guide`: refuses where a repair would lose what need not be lost, and says what to do where it is needed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { AddressInfo } from 'node:net';
import { planRepair, type Survivor } from '../src/cli/guide.ts';

const CLI = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
const VOTERS = { 1: '10.0.0.1:7000', 2: '10.0.0.2:7000', 3: '10.0.0.3:7000' };
const MEMBERSHIP = { configChangeIndex: 0, voters: VOTERS, nonVotings: {}, witnesses: {}, removed: [] as number[] };

type Shard = NonNullable<Survivor['shard']>;

function survivor(replicaId: number, fields: Partial<Shard> = {}): Survivor {
  const shard = {
    replicaId,
    state: 'running',
    leaderId: 0,
    appliedIndex: 10,
    membership: MEMBERSHIP,
    ...fields,
  } as Shard;
  return { url: `http://${replicaId}`, raftAddress: `10.0.0.${replicaId}:7000`, shard };
}

test('one of three is left: it is the one to export from, and the member that stays', () => {
  const plan = planRepair([survivor(2)], undefined);
  assert.equal(plan.refusal, undefined);
  assert.deepEqual([plan.votesUp, plan.votes, plan.members], [1, 3, { 2: VOTERS[2] }]);
});

test('of several survivors the one that has applied most counts, also one that does not vote', () => {
  const membership = {
    ...MEMBERSHIP,
    configChangeIndex: 7,
    voters: { ...VOTERS, 4: 'd:1', 5: 'e:1' },
    nonVotings: { 6: 'f:1' },
  };
  const survivors = [
    survivor(1),
    survivor(4, { appliedIndex: 12, membership }),
    survivor(6, { appliedIndex: 30, membership }),
  ];
  const plan = planRepair(survivors, undefined);
  assert.equal(plan.refusal, undefined);
  assert.equal(plan.best, survivors[2]);
  assert.deepEqual([plan.votesUp, plan.votes, plan.members], [2, 5, { 1: VOTERS[1], 4: 'd:1' }]);
});

const WITNESSED = { ...MEMBERSHIP, voters: { 1: 'a:1', 2: 'b:1' }, witnesses: { 9: 'w:1' } };

const REFUSED: readonly (readonly [string, readonly Survivor[], Record<number, string> | undefined, RegExp])[] = [
  ['a majority is up', [survivor(1), survivor(2)], undefined, /2 of 3 members that vote are up, which is a majority/],
  [
    'a witness counts',
    [survivor(1, { membership: WITNESSED }), survivor(9, { membership: WITNESSED })],
    undefined,
    /majority/,
  ],
  ['a leader is known', [survivor(1, { leaderId: 3 })], undefined, /knows a leader, replica 3/],
  [
    'nobody runs',
    [survivor(1, { state: 'failed' }), { ...survivor(2), shard: undefined }],
    undefined,
    /no replica of the shard runs/,
  ],
  [
    'an id that was removed',
    [survivor(1, { membership: { ...MEMBERSHIP, removed: [4] } })],
    { 1: VOTERS[1], 4: 'x:1' },
    /4 was removed/,
  ],
  ['a member that moved', [survivor(1)], { 1: 'elsewhere:1' }, /replica 1 lives at 10\.0\.0\.1:7000/],
  [
    'a witness made a voter',
    [survivor(1, { membership: { ...MEMBERSHIP, witnesses: { 9: 'w:1' } } })],
    { 9: 'w:1' },
    /9 was no voter/,
  ],
  [
    'only a witness is left',
    [survivor(9, { membership: { ...MEMBERSHIP, witnesses: { 9: 'w:1' } } })],
    undefined,
    /only witnesses are left/,
  ],
  [
    'no voter is left',
    [survivor(6, { membership: { ...MEMBERSHIP, nonVotings: { 6: 'f:1' } } })],
    undefined,
    /name the new members/,
  ],
];

for (const [what, survivors, wanted, message] of REFUSED) {
  test(`refused: ${what}`, () => assert.match(planRepair(survivors, wanted).refusal ?? 'not refused', message));
}

async function serve(replicaId: number, exports: string[]): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    if (request.method === 'POST') exports.push(request.url ?? '');
    const { raftAddress, shard } = survivor(replicaId, { appliedIndex: replicaId });
    const body =
      request.method === 'POST' ? { dir: '/exports/1', index: 2 } : { raftAddress, shards: [{ shardId: 1, ...shard }] };
    response.end(JSON.stringify(body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

async function run(...args: string[]): Promise<{ code: number; stdout: string }> {
  const child = spawn(process.execPath, ['--conditions=drakkar-source', CLI, 'snapshot', 'guide', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let stdout = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, stdout };
}

test('the command changes nothing without --yes, then exports once and says what comes next', async () => {
  const exports: string[] = [];
  const { server, url } = await serve(2, exports);
  try {
    const args = ['--shard', '1', '--url', `${url},http://127.0.0.1:1`, '--members', '2=10.0.0.2:7000,4=d:1'];
    const asked = await run(...args);
    assert.equal(asked.code, 1);
    assert.match(asked.stdout, /1 of 3 members that vote are up: no majority[\s\S]*with --yes/);
    assert.deepEqual(exports, []);
    const done = await run(...args, '--yes');
    assert.equal(done.code, 0);
    assert.equal(exports.length, 1);
    for (const replicaId of [2, 4])
      assert.match(
        done.stdout,
        new RegExp(`import /exports/1 --dir .* --replica-id ${replicaId} --members 2=10.0.0.2:7000,4=d:1 --yes`),
      );
  } finally {
    server.close();
  }
});
