/** Closed-loop clients inside a host's process: each has one request under way, on shards that this host leads. */
import type { NodeHost, ShardHandle } from 'drakkar';
import {
  clientsOf,
  isRead,
  keysOf,
  makeRandom,
  newCommand,
  newLoad,
  openWriter,
  record,
  TIMED_EVERY,
  type Load,
  type Writer,
} from './load.ts';
import type { BenchOptions } from './options.ts';

/** Starts them all; the load counts at once. */
export async function startClients(
  host: NodeHost,
  handles: readonly ShardHandle[],
  options: BenchOptions,
  seed: number,
): Promise<Load> {
  const load = newLoad();
  if (handles.length === 0) return load;
  const keys = keysOf(options);
  const random = makeRandom(seed);
  const isTimed = (n: number): boolean => n % TIMED_EVERY === 0;

  const writer = async (shard: Writer, n: number): Promise<void> => {
    const { bytes, words } = newCommand(options);
    while (!load.isStopped) {
      words[0] = random() % keys;
      words[1] = n;
      if (isTimed(n++)) {
        const start = performance.now();
        await shard.propose(bytes);
        record(load, start);
      } else await shard.propose(bytes);
      load.writes++;
    }
  };
  const reader = async (shard: ShardHandle, n: number): Promise<void> => {
    while (!load.isStopped) {
      if (isTimed(n++)) {
        const start = performance.now();
        await shard.read(random() % keys);
        record(load, start);
      } else await shard.read(random() % keys);
      load.reads++;
    }
  };
  const mixed = async (shard: ShardHandle, through: Writer, n: number): Promise<void> => {
    const { bytes, words } = newCommand(options);
    for (; !load.isStopped; n++) {
      const start = isTimed(n) ? performance.now() : 0;
      if (isRead(n, options.readPercent)) {
        await shard.read(random() % keys);
        load.reads++;
      } else {
        words[0] = random() % keys;
        words[1] = n;
        await through.propose(bytes);
        load.writes++;
      }
      if (start > 0) record(load, start);
    }
  };
  const callbackWriter = (shard: ShardHandle, n: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const { bytes, words } = newCommand(options);
      const next = (): void => {
        words[0] = random() % keys;
        words[1] = n;
        shard.proposeCallback(bytes, answered, isTimed(n++) ? performance.now() : 0);
      };
      const answered = (error: Error | null, _result: unknown, start: number): void => {
        if (error !== null) return reject(error);
        load.writes++;
        if (start > 0) record(load, start);
        if (load.isStopped) resolve();
        else next();
      };
      next();
    });
  const batchWriter = async (shard: ShardHandle, n: number): Promise<void> => {
    const commands = Array.from({ length: options.batch }, () => newCommand(options));
    const bytes = commands.map((one) => one.bytes);
    while (!load.isStopped) {
      for (const { words } of commands) {
        words[0] = random() % keys;
        words[1] = n++;
      }
      const start = performance.now();
      await shard.proposeBatch(bytes);
      record(load, start);
      load.writes += options.batch;
    }
  };

  const isBatched = options.api === 'batch' && options.readPercent === 0;
  const count = Math.ceil(clientsOf(options, handles.length) / (isBatched ? options.batch : 1));
  const clients = Array.from({ length: count }, (_, c) => ({ shard: handles[c % handles.length], c }));
  const writers = await Promise.all(clients.map(({ shard }) => openWriter(host, shard, options)));
  load.drained = Promise.all(
    clients.map(({ shard, c }) => {
      if (options.readPercent === 100) return reader(shard, c);
      if (options.readPercent > 0) return mixed(shard, writers[c], c);
      if (options.api === 'callback') return callbackWriter(shard, c);
      return isBatched ? batchWriter(shard, c) : writer(writers[c], c);
    }),
  );
  return load;
}
