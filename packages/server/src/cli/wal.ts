/** `drakkar wal`: the log of a stopped host, looked at and never changed. */
import type { Command } from 'commander';
import { dumpLog, verifyLog, type LogItem } from 'drakkar/tools';
import { id } from './arguments.ts';
import { logLines } from './info.ts';
import { WAL_DIR, whereOf } from './log-place.ts';
import { answer, guard, write, type OutputFlags } from './output.ts';

interface LogFlags extends OutputFlags {
  readonly walDir?: string;
}

interface DumpFlags extends LogFlags {
  readonly shard?: number;
  readonly entries?: boolean;
  readonly data?: boolean;
}

const DIR = 'directory of a stopped host, a copy of one, or the directory of a log';

export function addWal(program: Command): void {
  const wal = program.command('wal').description('reads the log of a stopped host; changes nothing');
  wal
    .command('verify')
    .description('reads everything; exit code 1 when anything is damaged')
    .argument('<dir>', DIR)
    .option('--wal-dir <dir>', WAL_DIR)
    .option('--no-images', 'leaves out the snapshot images')
    .option('--json', 'as JSON')
    .action((dir: string, flags: LogFlags & { readonly images: boolean }) =>
      answer(flags, async () => {
        const report = await verifyLog({ ...whereOf(dir, flags), images: flags.images });
        const lines = [...logLines(report), report.ok ? 'all is well' : 'DAMAGED: see above; delete nothing'];
        return { ok: report.ok, value: report, lines };
      }),
    );
  wal
    .command('dump')
    .description('shows what stands in the log, in the order it was written')
    .argument('<dir>', DIR)
    .option('--wal-dir <dir>', WAL_DIR)
    .option('--shard <id>', 'only of this shard', id)
    .option('--entries', 'each entry on a line of its own')
    .option('--data', 'with the commands as base64')
    .option('--json', 'one JSON document for each line')
    .action((dir: string, flags: DumpFlags) => guard(flags, () => dump(dir, flags)));
}

async function dump(dir: string, flags: DumpFlags): Promise<void> {
  const { shard, data = false } = flags;
  const entries = flags.entries === true || data;
  for await (const item of dumpLog({
    ...whereOf(dir, flags),
    entries,
    data,
    ...(shard === undefined ? {} : { shardId: shard }),
  })) {
    if (item.kind === 'damage') process.exitCode = 1;
    await write(flags.json === true ? JSON.stringify(item) : lineOf(item));
  }
}

function lineOf(item: LogItem): string {
  switch (item.kind) {
    case 'segment':
      return `segment ${item.epoch}  ${item.path}`;
    case 'block': {
      const flags = `${item.truncates ? ' truncates' : ''}${item.isMoved ? ' moved' : ''}`;
      return `${at(item)}  block  shard ${item.shardId}  ${item.firstIndex}..${item.lastIndex}  term ${item.term}  after term ${item.prevTerm}  commit ${item.commitIndex}  from ${item.senderId}  ${item.sizeBytes} bytes${flags}`;
    }
    case 'entry': {
      const session =
        item.session === undefined ? '' : `  session ${item.session.client} series ${item.session.series}`;
      const data = item.dataBase64 === undefined ? '' : `  ${item.dataBase64}`;
      return `    ${item.index}  ${item.type}  ${item.lengthBytes} bytes${session}${data}`;
    }
    case 'state': {
      const flags = `${item.resetsLog ? ' resets the log' : ''}${item.removed ? ' removed' : ''}`;
      return `${at(item)}  state  shard ${item.shardId}  replica ${item.replicaId}  term ${item.term}  vote ${item.vote}  commit ${item.commitIndex}  snapshot ${item.snapshotIndex}  compacted ${item.compactedIndex}${flags}`;
    }
    case 'end':
      return `end at ${item.epoch}:${item.offset}, group ${item.group}`;
    case 'damage':
      return `DAMAGED: ${item.message}`;
  }
}

const at = ({ epoch, offset }: { readonly epoch: number; readonly offset: number }): string => `${epoch}:${offset}`;
