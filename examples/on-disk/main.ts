/**
 * A replicated counter that keeps its state in a database of its own: `node examples/on-disk/main.ts sqlite|level 1`, and the same with 2
 * and 3. Kill one with `kill -9` and start it again: it goes on from what it has stored, without an image and without counting twice.
 */
import { once } from 'node:events';
import { NodeHost } from 'drakkar';
import { encodeAdd } from './lines.ts';

const [, , store = 'sqlite', idText = '1'] = process.argv;
const id = Number(idText) as 1 | 2 | 3;
const create =
  store === 'level'
    ? (await import('./level-counters.ts')).LevelCounters
    : (await import('./sqlite-counters.ts')).SqliteCounters;
const stopped = once(process, 'SIGINT');
const members = { 1: '127.0.0.1:25201', 2: '127.0.0.1:25202', 3: '127.0.0.1:25203' };
const dir = `data/${store}-${id}`;
const host = await NodeHost.open({ dir, raftAddress: members[id] });
await host.startReplica({ shardId: 1, replicaId: id, members }, () => new create(`${dir}-store`));
await host.whenReady(1, { timeoutMs: 60_000 });
await using session = await host.openSession(1); // at most once, also when this process dies in the middle
console.log('added:', await session.propose(encodeAdd({ key: 'starts', by: 1 })));
console.log('read:', await host.read(1, 'starts'));
await stopped;
await host.close();
