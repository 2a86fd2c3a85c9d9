/**
 * One host with one replica on one of the example stores: adds 1 to a counter again and again, and tells each acknowledgement. Killed by
 * `on-disk.test.ts` whenever that likes. The session survives the process: its client and its next series are given.
 */
import { NodeHost } from 'drakkar';
import { LevelCounters } from '../examples/on-disk/level-counters.ts';
import { encodeAdd } from '../examples/on-disk/lines.ts';
import { SqliteCounters } from '../examples/on-disk/sqlite-counters.ts';
import { EntryType } from '../packages/drakkar/src/wire/entry.ts';

const [, , store, dir, port, firstSeries] = process.argv as unknown as [string, string, string, string, string, string];
const raftAddress = `127.0.0.1:${port}`;
const client = { clientHigh: 7, clientLow: 9 };
const host = await NodeHost.open({ dir: `${dir}/host`, raftAddress });
await host.startReplica(
  { shardId: 1, replicaId: 1, members: { 1: raftAddress }, snapshotEntries: 40, compactionOverhead: 5 },
  () => (store === 'level' ? new LevelCounters(`${dir}/store`) : new SqliteCounters(`${dir}/store`)),
);
await host.whenReady(1, { timeoutMs: 60_000 });
const shard = host.shard(1);
const nothing = new Uint8Array(0);
await shard.proposeSession(EntryType.SessionRegister, { ...client, series: 0, respondedTo: 0 }, nothing, 10_000);
console.log('open', await host.read(1, 'plain'), await host.read(1, 'once'));

async function plain(): Promise<never> {
  for (;;) console.log('plain', await host.propose(1, encodeAdd({ key: 'plain', by: 1 })));
}

async function once(): Promise<never> {
  for (let series = Number(firstSeries); ; series++) {
    const fields = { ...client, series, respondedTo: series - 1 };
    const command = encodeAdd({ key: 'once', by: 1 });
    console.log('once', series, await shard.proposeSession(EntryType.SessionCommand, fields, command, 10_000));
  }
}

await Promise.all([plain(), once()]);
