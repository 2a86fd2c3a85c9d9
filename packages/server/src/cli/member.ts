/** `drakkar member`: who belongs to the shards of running servers, and changes of it, shard by shard. Doing one again does no harm. */
import { InvalidArgumentError, type Command } from 'commander';
import type { ShardInfo } from 'drakkar';
import { httpUrl, id } from './arguments.ts';
import { answer, table, type Answer, type OutputFlags } from './output.ts';

type Shard = Pick<ShardInfo, 'shardId' | 'leaderId' | 'membership' | 'progress'>;

interface ChangeFlags extends OutputFlags {
  readonly url: string;
  readonly replicaId: number;
  readonly shard?: number;
  readonly address?: string;
  readonly role?: string;
  readonly autoPromote?: boolean;
  readonly waitMs: number;
}

/** Of one request; what is refused for the moment is asked for again. */
const REQUEST_TIMEOUT_MS = 10_000;
const RETRY_MS = 250;
const WAIT_MS = 60_000;
const ROLES = ['voter', 'non-voting', 'witness'];

export function addMember(program: Command): void {
  const member = program
    .command('member')
    .description('who belongs to the shards of running servers, and changes of it');
  member
    .command('list')
    .description('the members of each shard, and how far they are')
    .argument('<url>', 'of a server; the leader of a shard knows how far its members are', httpUrl)
    .option('--json', 'as JSON')
    .action((url: string, flags: OutputFlags) => answer(flags, () => list(url)));
  const change = (name: string, description: string): Command =>
    member
      .command(name)
      .description(description)
      .requiredOption('--url <url>', 'of a server with --admin, one of the shards', httpUrl)
      .requiredOption('--replica-id <id>', 'which replica', id)
      .option('--shard <id>', 'of this shard alone; otherwise of each shard of the server', id)
      .option('--wait-ms <n>', 'how long to try while a change cannot be made yet', id, WAIT_MS)
      .option('--json', 'as JSON')
      .action((flags: ChangeFlags) => answer(flags, () => changeAll(name, flags)));
  change('remove', 'removes a replica, for ever: its id cannot come back');
  change('promote', 'makes a non-voting replica a voter, once it has caught up');
  change('add', 'adds a replica; its server is started with --join, before or after')
    .requiredOption('--address <host:port>', 'what the others reach it at')
    .option('--role <role>', ROLES.join(', '), role)
    .option('--auto-promote', 'does not vote at first, and becomes a voter by itself once it has caught up');
}

function role(text: string): string {
  if (!ROLES.includes(text)) throw new InvalidArgumentError(`Expected one of ${ROLES.join(', ')}.`);
  return text;
}

async function shardsOf(url: string): Promise<readonly Shard[]> {
  const response = await fetch(new URL('/status', url), { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  if (!response.ok) throw new Error(`${url} answers ${response.status}; is it a drakkar-server?`);
  return ((await response.json()) as { shards: Shard[] }).shards;
}

async function list(url: string): Promise<Answer> {
  const shards = await shardsOf(url);
  const rows: (string | number)[][] = [['shard', 'replica', 'address', 'role', 'lag']];
  for (const { shardId, leaderId, membership, progress } of shards) {
    const kinds = [
      ['voter', membership.voters],
      ['non-voting', membership.nonVotings],
      ['witness', membership.witnesses],
    ] as const;
    for (const [kind, members] of kinds) {
      for (const [replicaId, address] of Object.entries(members)) {
        const known = progress.find((one) => one.replicaId === Number(replicaId));
        const lag = known === undefined ? '-' : `${known.lagEntries}${known.isActive ? '' : ', away'}`;
        rows.push([shardId, replicaId, address, Number(replicaId) === leaderId ? `${kind}, leads` : kind, lag]);
      }
    }
  }
  const value = shards.map(({ shardId, leaderId, membership }) => ({ shardId, leaderId, ...membership }));
  return { ok: true, value: { ok: true, shards: value }, lines: table(rows) };
}

async function changeAll(action: string, flags: ChangeFlags): Promise<Answer> {
  const shards = (await shardsOf(flags.url)).filter(({ shardId }) => [undefined, shardId].includes(flags.shard));
  if (shards.length === 0) throw new Error(`${flags.url} has no such shard`);
  const lines: string[] = [];
  const done: object[] = [];
  for (const { shardId, membership } of shards) {
    const isThere = isAsWanted(action, flags, membership);
    const index = isThere ? membership.configChangeIndex : await changeOne(action, flags, shardId);
    done.push({ shardId, configChangeIndex: index, changed: !isThere });
    lines.push(`shard ${shardId}: ${isThere ? 'so it is already' : `done, membership ${index}`}`);
  }
  return { ok: true, value: { ok: true, shards: done }, lines };
}

/** So that a command that ended in the middle can be given again. */
function isAsWanted(action: string, { replicaId, address }: ChangeFlags, membership: Shard['membership']): boolean {
  const { voters, nonVotings, witnesses, removed } = membership;
  if (action === 'remove') return removed.includes(replicaId);
  if (action === 'promote') return replicaId in voters;
  return [voters, nonVotings, witnesses].some((members) => members[replicaId] === address);
}

async function changeOne(action: string, flags: ChangeFlags, shardId: number): Promise<number> {
  const { url, replicaId, address, autoPromote, waitMs } = flags;
  const kind = autoPromote === true ? 'non-voting' : flags.role;
  const query = new URLSearchParams({
    action,
    shard: String(shardId),
    replica: String(replicaId),
    timeoutMs: String(REQUEST_TIMEOUT_MS),
    ...(address === undefined ? {} : { address }),
    ...(kind === undefined ? {} : { role: kind }),
    ...(autoPromote === true ? { autoPromote: 'true' } : {}),
  });
  const untilMs = performance.now() + waitMs;
  for (;;) {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS + 5000);
    const response = await fetch(new URL(`/members?${query.toString()}`, url), { method: 'POST', signal });
    const body = (await response.json()) as Record<string, unknown>;
    if (response.ok) return body['configChangeIndex'] as number;
    if (body['code'] === 'ERR_METHOD') {
      throw new Error(`${url} does not change members; start it with --admin`);
    }
    // Nothing was changed, and it may work in a moment: no leader, another change, not caught up.
    const mayTryAgain = body['retryable'] === true && body['outcome'] === 'not-applied';
    if (!mayTryAgain || performance.now() > untilMs) {
      throw Object.assign(new Error(`shard ${shardId}: ${String(body['message'])}`), { code: body['code'] });
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
