/** `drakkar info`: a running server as it tells of itself, or the directory of a stopped host. */
import type { Command } from 'commander';
import type { ShardInfo } from 'drakkar';
import { describeDirectory, type DirectoryInfo, type LogsOptions } from 'drakkar/tools';
import { WAL_DIR, whereOf } from './log-place.ts';
import { answer, bytes, table, type Answer, type OutputFlags } from './output.ts';

/** What `GET /status` of a server gives, as far as it is shown. */
interface Status {
  readonly hostId: string;
  readonly raftAddress: string;
  readonly failure?: string;
  readonly uptimeMs: number;
  readonly shards: readonly (Omit<ShardInfo, 'failure'> & { readonly failure?: string })[];
  readonly peers: readonly { readonly address: string; readonly connected: boolean; readonly queuedBytes: number }[];
}

const TIMEOUT_MS = 10_000;

export function addInfo(program: Command): void {
  program
    .command('info')
    .description('a running server (its URL), or the directory of a stopped host or a copy of one')
    .argument('<url or dir>')
    .option('--wal-dir <dir>', WAL_DIR)
    .option('--json', 'as JSON')
    .action((target: string, flags: OutputFlags & { readonly walDir?: string }) =>
      answer(flags, () => (/^https?:\/\//.test(target) ? ofServer(target) : ofDirectory(whereOf(target, flags)))),
    );
}

async function ofServer(url: string): Promise<Answer> {
  const response = await fetch(new URL('/status', url), { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`${url} answers ${response.status}; is it a drakkar-server?`);
  const status = (await response.json()) as Status;
  const isFine = (shard: Status['shards'][number]): boolean => shard.state === 'running' && shard.leaderId !== 0;
  const lines = [
    `host ${status.hostId} at ${status.raftAddress}, up ${Math.round(status.uptimeMs / 1000)} s${status.failure === undefined ? '' : `, FAILED: ${status.failure}`}`,
    '',
    ...table([
      ['shard', 'replica', 'state', 'role', 'leader', 'term', 'commit', 'applied', 'first', 'snapshot', 'members'],
      ...status.shards.map((shard) => [
        shard.shardId,
        shard.replicaId,
        shard.failure === undefined ? shard.state : `${shard.state}: ${shard.failure}`,
        shard.role,
        shard.leaderId === 0 ? 'none' : shard.leaderId,
        shard.term,
        shard.commitIndex,
        shard.appliedIndex,
        shard.firstIndex,
        shard.snapshotIndex,
        Object.keys(shard.members).join(' '),
      ]),
    ]),
    '',
    ...table([
      ['peer', 'connected', 'queued'],
      ...status.peers.map(({ address, connected, queuedBytes }) => [
        address,
        connected ? 'yes' : 'no',
        bytes(queuedBytes),
      ]),
    ]),
  ];
  return { ok: status.failure === undefined && status.shards.every(isFine), value: status, lines };
}

async function ofDirectory(where: LogsOptions): Promise<Answer> {
  const info = await describeDirectory(where);
  return { ok: info.ok, value: info, lines: [...ownerLines(info), ...logLines(info)] };
}

function ownerLines({ dir, owner, ownerProblem }: DirectoryInfo): string[] {
  if (ownerProblem !== undefined) return [`${dir}: ${ownerProblem.code}: ${ownerProblem.message}`];
  if (owner === undefined) return [`${dir}: a log, no host's directory`];
  const rolledBack = owner.isRolledBack ? ', ROLLED BACK: of no use any more' : '';
  return [
    `${dir}: host ${owner.hostId} at ${owner.raftAddress}, deployment ${owner.deploymentId}, started ${owner.startCounter} times${owner.walDir === undefined ? '' : `, log in ${owner.walDir}`}${rolledBack}`,
  ];
}

/** For `wal verify`, too. */
export function logLines({ logs }: Pick<DirectoryInfo, 'logs'>): string[] {
  const lines: string[] = [];
  for (const log of logs) {
    const used = log.segments.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
    lines.push(
      `engine ${log.engine}: ${log.segments.length} segments, ${bytes(used)}, ${log.blocks} blocks with ${log.entries} entries, ${log.stateRecords} state records`,
    );
    if (log.damage !== undefined) lines.push(`DAMAGED: ${log.damage.message}`);
    lines.push(
      '',
      ...table([
        ['shard', 'replica', 'term', 'commit', 'first', 'last', 'snapshot', 'members'],
        ...log.shards.map((shard) => [
          shard.shardId,
          shard.replicaId,
          shard.term,
          shard.commitIndex,
          shard.firstIndex,
          shard.lastIndex,
          shard.snapshotIndex,
          Object.entries(shard.members)
            .map(([replicaId, address]) => `${replicaId}=${address}`)
            .join(' '),
        ]),
      ]),
    );
    for (const { shardId, problems } of log.shards)
      for (const { code, message } of problems) lines.push(`shard ${shardId}: ${code}: ${message}`);
  }
  return lines;
}
