/** `drakkar format`: which formats a running server reads and writes, and the end of an upgrade. */
import type { Command } from 'commander';
import type { FormatInfo, PeerInfo } from 'drakkar';
import { httpUrl } from './arguments.ts';
import { answer, table, type Answer, type OutputFlags } from './output.ts';

interface FormatFlags extends OutputFlags {
  readonly enable?: boolean;
}

interface Status {
  readonly formats: FormatInfo;
  readonly peers: readonly PeerInfo[];
}

const REQUEST_TIMEOUT_MS = 10_000;

export function addFormat(program: Command): void {
  program
    .command('format')
    .description('the formats of a running server and of those it talks to; with --enable ends an upgrade, for good')
    .argument('<url>', 'of a server', httpUrl)
    .option('--enable', 'enables the newest format that the server reads; the others follow; it needs --admin')
    .option('--json', 'as JSON')
    .action((url: string, flags: FormatFlags) => answer(flags, () => run(url, flags.enable === true)));
}

async function run(url: string, enables: boolean): Promise<Answer> {
  if (enables) await ask(url, '/format', 'POST');
  const { formats, peers } = (await ask(url, '/status', 'GET')) as unknown as Status;
  const rows: (string | number | undefined)[][] = [['host', 'reads to', 'enabled', 'writes']];
  rows.push(['this one', formats.newest, formats.enabled, formats.written]);
  for (const { address, newestFormat, enabledFormat } of peers)
    rows.push([address, newestFormat, enabledFormat, undefined]);
  const others = peers.map(({ address, newestFormat, enabledFormat }) => ({ address, newestFormat, enabledFormat }));
  return { ok: true, value: { ok: true, formats, peers: others }, lines: table(rows) };
}

async function ask(url: string, path: string, method: string): Promise<Record<string, unknown>> {
  const response = await fetch(new URL(path, url), { method, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  const body = (await response.json()) as Record<string, unknown>;
  if (response.ok) return body;
  if (body['code'] === 'ERR_METHOD') throw new Error(`${url} does not end upgrades; start it with --admin`);
  throw Object.assign(new Error(String(body['message'])), { code: body['code'] });
}
