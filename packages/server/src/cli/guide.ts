/**
 * `drakkar snapshot guide`: repair of a shard that lost its majority, as far as it can be prepared while the survivors run. Looks whether the majority is
 * lost at all, which survivor has most, and whether the new members can be; takes the export; says what is to be done next, on which host.
 */
import type { Command } from 'commander';
import type { MembershipInfo, ShardInfo } from 'drakkar';
import { httpUrl, id, members } from './arguments.ts';
import { answer, table, type Answer, type OutputFlags } from './output.ts';

const TIMEOUT_MS = 60_000;
const STATUS_TIMEOUT_MS = 10_000;

/** What a server says of its replica of the shard. */
export interface Survivor {
  readonly url: string;
  readonly raftAddress: string;
  /** Undefined when the shard does not run there, or nobody answers. */
  readonly shard: Pick<ShardInfo, 'replicaId' | 'state' | 'leaderId' | 'appliedIndex' | 'membership'> | undefined;
  /** Why there is no answer. */
  readonly silent?: string;
}

export interface RepairPlan {
  /** Undefined when the shard can be repaired; else why it must not. */
  readonly refusal: string | undefined;
  /** Who has most. */
  readonly best: Survivor | undefined;
  /** Votes of members that run, and all of them. */
  readonly votesUp: number;
  readonly votes: number;
  readonly members: Readonly<Record<number, string>>;
}

/** What follows from what the survivors say. `wanted`: the new members; without them, the survivors among the voters. */
export function planRepair(
  survivors: readonly Survivor[],
  wanted: Readonly<Record<number, string>> | undefined,
): RepairPlan {
  const running = survivors.filter(({ shard }) => shard?.state === 'running');
  const newest = running.reduce<MembershipInfo | undefined>((known, { shard }) => {
    const { membership } = shard!;
    return known === undefined || membership.configChangeIndex > known.configChangeIndex ? membership : known;
  }, undefined);
  if (newest === undefined) {
    const refusal =
      'no replica of the shard runs on any of these servers; a stopped host’s snapshot can be exported with --dir';
    return { refusal, best: undefined, votesUp: 0, votes: 0, members: wanted ?? {} };
  }
  const voting = { ...newest.voters, ...newest.witnesses };
  const votes = Object.keys(voting).length;
  const up = new Set(running.map(({ shard }) => shard!.replicaId).filter((replicaId) => replicaId in voting));
  const survivingVoters = Object.entries(newest.voters).filter(([replicaId]) => up.has(Number(replicaId)));
  // A witness has nothing to export.
  const full = running.filter(({ shard }) => !(shard!.replicaId in newest.witnesses));
  const plan = {
    best: full.reduce<Survivor | undefined>(
      (a, b) => (a === undefined || b.shard!.appliedIndex > a.shard!.appliedIndex ? b : a),
      undefined,
    ),
    votesUp: up.size,
    votes,
    members: wanted ?? Object.fromEntries(survivingVoters),
  };
  return { ...plan, refusal: refusalOf(running, newest, plan) };
}

function refusalOf(
  running: readonly Survivor[],
  newest: MembershipInfo,
  { best, votesUp, votes, members: wanted }: Omit<RepairPlan, 'refusal'>,
): string | undefined {
  const led = running.find(({ shard }) => shard!.leaderId !== 0);
  if (led !== undefined)
    return `${led.url} knows a leader, replica ${led.shard!.leaderId}: the shard works, change its members with drakkar member`;
  if (votesUp > votes >>> 1)
    return `${votesUp} of ${votes} members that vote are up, which is a majority: it needs a connection among them, not a repair`;
  if (best === undefined) return 'only witnesses are left, which hold no state; use the newest backup';
  if (Object.keys(wanted).length === 0) return 'no voter is left: name the new members with --members';
  for (const [replicaId, address] of Object.entries(wanted)) {
    if (newest.removed.includes(Number(replicaId)))
      return `replica ${replicaId} was removed from the shard and can never come back; choose another id`;
    if (replicaId in newest.nonVotings || replicaId in newest.witnesses)
      return `replica ${replicaId} was no voter; a replica does not change its role: choose another id`;
    const before = newest.voters[Number(replicaId)];
    if (before !== undefined && before !== address)
      return `replica ${replicaId} lives at ${before}, not ${address}; a replica does not move: choose another id`;
  }
  return undefined;
}

interface GuideFlags extends OutputFlags {
  readonly shard: number;
  readonly url: string[];
  readonly members?: Record<number, string>;
  readonly yes?: boolean;
}

export function addGuide(snapshot: Command): void {
  snapshot
    .command('guide')
    .description('a lost majority, while the survivors still run: what can be saved, and what to do next')
    .requiredOption('--shard <id>', 'which shard', id)
    .requiredOption('--url <list>', 'all servers that still answer: http://a:8080,http://b:8080', urls)
    .option(
      '--members <list>',
      'all members from then on: 1=host:port,4=host:port; default: the voters that are left',
      members,
    )
    .option('--yes', 'takes the export on the server that has most (it needs --export-dir)')
    .option('--json', 'as JSON')
    .action((flags: GuideFlags) => answer(flags, () => guide(flags)));
}

const urls = (text: string): string[] => text.split(',').map((url) => httpUrl(url.trim()));

async function guide(flags: GuideFlags): Promise<Answer> {
  const survivors = await Promise.all(flags.url.map((url) => ask(url, flags.shard)));
  const plan = planRepair(survivors, flags.members);
  const seen = table([
    ['server', 'replica', 'state', 'leader', 'applied'],
    ...survivors.map(({ url, shard, silent }) =>
      shard === undefined
        ? [url, undefined, silent ?? 'not here', undefined, undefined]
        : [url, shard.replicaId, shard.state, shard.leaderId || 'none', shard.appliedIndex],
    ),
  ]);
  const value = { ok: false, shard: flags.shard, survivors, ...plan };
  if (plan.refusal !== undefined || plan.best === undefined)
    return { ok: false, value, lines: [...seen, '', `nothing to be done: ${plan.refusal}`] };
  const { best } = plan;
  const lost = `${plan.votesUp} of ${plan.votes} members that vote are up: no majority. ${best.url} has most, up to ${best.shard!.appliedIndex}.`;
  if (flags.yes !== true) {
    const next =
      'If the others may come back, wait: that loses nothing. Otherwise give the same command with --yes: it takes an export there.';
    return { ok: false, value, lines: [...seen, '', lost, next] };
  }
  const exported = await exportAt(best.url, flags.shard);
  const list = Object.entries(plan.members).map(([replicaId, address]) => `${replicaId}=${address}`);
  const lines = [
    ...seen,
    '',
    lost,
    `1. exported at ${exported.index} into ${exported.dir}, on the machine of ${best.raftAddress}. Copy it to every host of: ${list.join(' ')}`,
    '2. wipe the disks of the members that are gone, or make sure that they never run this shard again',
    '3. stop every host of the new membership; on each of them, with its own directory:',
    ...Object.keys(plan.members).map(
      (replicaId) =>
        `     drakkar snapshot import ${exported.dir} --dir <its directory> --replica-id ${replicaId} --members ${list.join(',')} --yes`,
    ),
    '4. start all of them with the new members',
  ];
  return { ok: true, value: { ...value, ok: true, export: exported }, lines };
}

async function ask(url: string, shardId: number): Promise<Survivor> {
  try {
    const response = await fetch(new URL('/status', url), { signal: AbortSignal.timeout(STATUS_TIMEOUT_MS) });
    if (!response.ok) throw new Error(`it answers ${response.status}`);
    const { raftAddress, shards } = (await response.json()) as { raftAddress: string; shards: ShardInfo[] };
    const info = shards.find((shard) => shard.shardId === shardId);
    if (info === undefined) return { url, raftAddress, shard: undefined };
    const { replicaId, state, leaderId, appliedIndex, membership } = info;
    return { url, raftAddress, shard: { replicaId, state, leaderId, appliedIndex, membership } };
  } catch (error) {
    return { url, raftAddress: '', shard: undefined, silent: error instanceof Error ? error.message : String(error) };
  }
}

async function exportAt(url: string, shardId: number): Promise<{ dir: string; index: number }> {
  const target = new URL(`/export?shard=${shardId}&timeoutMs=${TIMEOUT_MS}`, url);
  const response = await fetch(target, { method: 'POST', signal: AbortSignal.timeout(TIMEOUT_MS + 5000) });
  const body = (await response.json()) as { code?: string; message?: string; dir: string; index: number };
  if (!response.ok) throw Object.assign(new Error(body.message), { code: body.code });
  return { dir: body.dir, index: body.index };
}
