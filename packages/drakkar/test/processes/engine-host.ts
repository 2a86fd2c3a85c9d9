/** One host in a process of its own, for `engines.test.ts`: opens, then does what its parent orders. */
import { NodeHost } from 'drakkar';
import { text } from '../support.ts';

interface Setup {
  readonly id: number;
  readonly dir: string;
  readonly members: Readonly<Record<number, string>>;
  readonly engines: number;
  readonly shardIds: readonly number[];
}

type Order =
  | { readonly kind: 'write'; readonly shardId: number; readonly lines: readonly string[] }
  | { readonly kind: 'read'; readonly shardId: number; readonly query: string }
  /** The shard's change stream from its first entry on: so many commands, in order, and then no more. */
  | { readonly kind: 'follow'; readonly shardId: number; readonly count: number }
  /** What ends the stream becomes an event. */
  | { readonly kind: 'follow-to-the-end'; readonly shardId: number }
  | { readonly kind: 'infos' | 'close' };

const LANES = 20;
const PATIENCE = { timeoutMs: 60_000 };

const { id, dir, members, engines, shardIds } = JSON.parse(process.argv[2]) as Setup;
const journals = new URL('./journal.ts', import.meta.url);
const host = await NodeHost.open({ dir, raftAddress: members[id], engines, timeoutMs: 20_000 });
const events: string[] = [];
host.on('engineFailed', ({ engine, error }) => events.push(`engine ${engine} ${error.code}`));
host.on('hostFailed', ({ error }) => events.push(`host ${error.code}`));
for (const shardId of shardIds) {
  const mortal = { module: journals, export: 'createMortal', args: { lastWord: 'die' } };
  await host.startReplica({ shardId, replicaId: id, members }, shardId === 1 ? journals : mortal);
}
for (const shardId of shardIds) await host.whenReady(shardId, { timeoutMs: 60_000 });

/** In sessions: a busy machine may have elections at any time. */
async function write(shardId: number, lines: readonly string[]): Promise<void> {
  const lanes = Array.from({ length: LANES }, async (_, lane) => {
    const mine = lines.filter((_line, i) => i % LANES === lane);
    if (mine.length === 0) return;
    const session = await host.openSession(shardId, PATIENCE);
    for (const line of mine) await session.propose(text(line), PATIENCE);
  });
  await Promise.all(lanes);
}

async function follow(shardId: number, count: number): Promise<string[]> {
  const lines: string[] = [];
  const retries = new Set<string>();
  let next = 1;
  for await (const { index, kind, bytes, session } of host.watch(shardId, { fromIndex: next, bufferBytes: 4096 })) {
    if (index !== next++) throw new Error(`entry ${index} where ${next - 1} comes next`);
    const command = JSON.stringify(session);
    if (kind !== 'command' || retries.has(command)) continue;
    if (session !== undefined) retries.add(command);
    if (lines.push(new TextDecoder().decode(bytes)) === count) break;
  }
  return lines;
}

async function obey(order: Order): Promise<unknown> {
  if (order.kind === 'write') return write(order.shardId, order.lines);
  if (order.kind === 'read') {
    await host.whenReady(order.shardId, PATIENCE);
    return host.read(order.shardId, order.query);
  }
  if (order.kind === 'follow') return follow(order.shardId, order.count);
  if (order.kind === 'follow-to-the-end') {
    follow(order.shardId, Number.POSITIVE_INFINITY).then(
      () => events.push('the stream ended'),
      (error: { code?: string }) => events.push(`stream ${error.code}`),
    );
    return undefined;
  }
  if (order.kind === 'close') {
    await host.close();
    return undefined;
  }
  return { shards: host.info().shards.map(({ shardId, engine, state }) => ({ shardId, engine, state })), events };
}

process.on('message', (order: Order) => {
  obey(order).then(
    (value) => process.send!({ value }, () => order.kind === 'close' && process.disconnect()),
    (error: { code?: string; message: string }) => process.send!({ error: error.code ?? error.message }),
  );
});
process.send!({ value: 'ready' });
