/** `drakkar snapshot`: exports, their check, and the repair of a shard from one. */
import type { Command } from 'commander';
import { exportStopped, importSnapshot, verifySnapshot, type ExportedSnapshot } from 'drakkar/tools';
import { httpUrl, id, members } from './arguments.ts';
import { WAL_DIR, whereOf } from './log-place.ts';
import { addGuide } from './guide.ts';
import { answer, bytes, type Answer, type OutputFlags } from './output.ts';

interface ExportFlags extends OutputFlags {
  readonly shard: number;
  readonly url?: string;
  readonly dir?: string;
  readonly walDir?: string;
  readonly to?: string;
}

interface ImportFlags extends OutputFlags {
  readonly dir: string;
  readonly walDir?: string;
  readonly replicaId: number;
  readonly members: Record<number, string>;
  readonly raftAddress?: string;
  readonly deploymentId: number;
  readonly yes?: boolean;
}

const TIMEOUT_MS = 60_000;

export function addSnapshot(program: Command): void {
  const snapshot = program
    .command('snapshot')
    .description('exported snapshots: backups, and repair after a lost majority');
  snapshot
    .command('verify')
    .description('reads an exported snapshot to its end')
    .argument('<export>', 'directory that an export made')
    .option('--json', 'as JSON')
    .action((dir: string, flags: OutputFlags) =>
      answer(flags, async () => {
        const exported = await verifySnapshot({ dir });
        return { ok: true, value: { ok: true, dir, ...exported }, lines: linesOf(dir, exported) };
      }),
    );
  const exporting = snapshot
    .command('export')
    .description(
      'from a running server that has --export-dir (--url), or the newest snapshot of a stopped host (--dir and --to)',
    )
    .requiredOption('--shard <id>', 'which shard', id)
    .option('--url <url>', 'of the server', httpUrl)
    .option('--dir <dir>', 'directory of the stopped host')
    .option('--wal-dir <dir>', WAL_DIR)
    .option('--to <export>', 'directory to make, empty or missing')
    .option('--json', 'as JSON')
    .action((flags: ExportFlags) => {
      if ((flags.url === undefined) === (flags.dir === undefined))
        exporting.error('error: give --url, or --dir with --to');
      if ((flags.dir === undefined) !== (flags.to === undefined)) exporting.error('error: --dir and --to go together');
      return answer(flags, () => exportFrom(flags));
    });
  snapshot
    .command('import')
    .description(
      "this stopped host's replica begins again from an exported snapshot; what was written after it is lost",
    )
    .argument('<export>', 'directory that an export made; the same on every host')
    .requiredOption('--dir <dir>', "this host's directory; made when missing")
    .option('--wal-dir <dir>', 'as the host is started with; default: where its log was at the last start')
    .requiredOption('--replica-id <id>', "this host's replica, one of the members", id)
    .requiredOption(
      '--members <list>',
      'all members from now on, the same on every host: 1=host:port,4=host:port',
      members,
    )
    .option('--raft-address <host:port>', 'for a new directory when members are host ids')
    .option('--deployment-id <id>', 'as the host is started with', id, 1)
    .option('--yes', 'does it; without, the snapshot is checked and the plan is shown')
    .option('--json', 'as JSON')
    .action((from: string, flags: ImportFlags) => answer(flags, () => importFrom(from, flags)));
  addGuide(snapshot);
}

async function exportFrom({ url, dir, to, shard, ...flags }: ExportFlags): Promise<Answer> {
  if (url !== undefined) {
    const target = new URL(`/export?shard=${shard}&timeoutMs=${TIMEOUT_MS}`, url);
    const response = await fetch(target, { method: 'POST', signal: AbortSignal.timeout(TIMEOUT_MS + 5000) });
    const body = (await response.json()) as { code?: string; message?: string; dir: string; index: number };
    if (!response.ok) throw Object.assign(new Error(body.message), { code: body.code });
    return {
      ok: true,
      value: { ok: true, ...body },
      lines: [`shard ${shard} at ${body.index} in ${body.dir} on the server's machine`],
    };
  }
  const exported = await exportStopped({ ...whereOf(dir!, flags), shardId: shard, to: to! });
  return { ok: true, value: { ok: true, dir: to, ...exported }, lines: linesOf(to!, exported) };
}

async function importFrom(from: string, flags: ImportFlags): Promise<Answer> {
  const { dir, replicaId, deploymentId, raftAddress } = flags;
  const common = { ...whereOf(dir, flags), from, replicaId, deploymentId, members: flags.members };
  if (flags.yes !== true) {
    const exported = await verifySnapshot({ dir: from });
    const lines = [
      ...linesOf(from, exported),
      `would replace replica ${replicaId} of shard ${exported.shardId} in ${dir}; members from now on: ${shown(flags.members)}`,
      'nothing was changed; stop every host of the new membership, then add --yes, with the same members on each of them',
    ];
    return { ok: false, value: { ok: false, changed: false, snapshot: exported }, lines };
  }
  const imported = await importSnapshot(raftAddress === undefined ? common : { ...common, raftAddress });
  const lines = [
    `replica ${imported.replicaId} of shard ${imported.shardId} in ${dir} begins at ${imported.index}, term ${imported.term}`,
    `members: ${shown(imported.members)}; gone for ever: ${imported.removed.join(' ') || 'none'}`,
    imported.replacedIndex === 0
      ? 'nothing was there before'
      : `replaced what was there, up to ${imported.replacedIndex}`,
  ];
  return { ok: true, value: { ok: true, changed: true, ...imported }, lines };
}

function linesOf(dir: string, exported: ExportedSnapshot): string[] {
  return [
    `${dir}: shard ${exported.shardId} at ${exported.index}, term ${exported.term}, made by replica ${exported.replicaId}, ${bytes(exported.imageBytes)}${exported.codec === undefined ? '' : ` of ${exported.codec}`}, whole`,
    `members: ${shown(exported.voters)}`,
  ];
}

const shown = (list: Readonly<Record<string, string>>): string =>
  Object.entries(list)
    .map(([replicaId, address]) => `${replicaId}=${address}`)
    .join(' ');
