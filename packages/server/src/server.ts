/** Puts host, shards and HTTP together, and takes them down in order. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { NodeHost, type TlsOptions } from 'drakkar';
import type { Logger } from 'pino';
import { openFastLane, type FastLane } from './fast-lane.ts';
import { createHttpServer } from './http.ts';
import { ShardedStore, TIMEOUT_MS } from './kv.ts';
import type { ServerOptions } from './options.ts';
import { Store } from './store.ts';

/** Time for requests under way, and for handing over leaderships, at a stop. */
const DRAIN_MS = 2000;
const HANDOVER_MS = 1000;

/** Beside this module, in the sources as in the build. */
const STORE_MODULE = new URL(`store${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url);

export interface RunningServer {
  readonly host: NodeHost;
  /** `http://host:port` that is served. */
  readonly url: string;
  close(): Promise<void>;
}

export async function startServer(options: ServerOptions, logger: Logger): Promise<RunningServer> {
  const host = await NodeHost.open({
    dir: options.dir,
    ...(options.walDir === undefined ? {} : { walDir: options.walDir }),
    engines: options.engines,
    raftAddress: options.peers[options.replicaId],
    rttMs: options.rttMs,
    timeoutMs: TIMEOUT_MS,
    logger,
    ...tlsOf(options),
  });
  try {
    for (let shardId = 1; shardId <= options.shards; shardId++) {
      await host.startReplica(
        {
          shardId,
          replicaId: options.replicaId,
          members: options.join === true ? 'join' : options.peers,
          electionRtt: options.electionRtt,
          snapshotEntries: options.snapshotEntries,
        },
        options.engines === 1 ? () => new Store() : STORE_MODULE,
      );
    }
    host.on('leaderChanged', (event) => logger.info(event, 'leader changed'));
    host.on('engineFailed', ({ engine, error }) => logger.error({ engine, err: error }, 'engine failed; restart soon'));
    host.on('replicaFailed', ({ shardId, error }) => logger.error({ shardId, err: error }, 'replica failed'));
    const store = new ShardedStore(host, options.shards);
    const { exportDir } = options;
    const counters = { requests: 0, errors: 0 };
    const http = createHttpServer({
      host,
      store,
      logger,
      counters,
      ...(exportDir === undefined ? {} : { exportDir }),
      isAdmin: options.admin === true,
    });
    const lane = openFastLane(http, {
      store,
      counters,
      onError: (error, { method, key }) => logger.error({ err: error, method, key }, 'request failed'),
    });
    const url = await listen(http, options.http);
    return { host, url, close: () => shutDown(host, http, lane, logger) };
  } catch (error) {
    await host.close();
    throw error;
  }
}

function tlsOf({ tlsCa: ca, tlsCert: cert, tlsKey: key, tlsCrl: crl }: ServerOptions): { tls?: TlsOptions } {
  if (ca === undefined || cert === undefined || key === undefined) return {};
  return { tls: { ca, cert, key, ...(crl === undefined ? {} : { crl }) } };
}

function listen(server: Server, address: string): Promise<string> {
  const at = address.lastIndexOf(':');
  const name = address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(`${address} is in use by another process; choose another --http`)
          : error,
      );
    });
    server.listen(Number(address.slice(at + 1)), name, () => {
      resolve(`http://${address.slice(0, at)}:${(server.address() as AddressInfo).port}`);
    });
  });
}

/** New requests are refused, those under way may end, leaderships move on; then everything is closed. */
async function shutDown(host: NodeHost, http: Server, lane: FastLane, logger: Logger): Promise<void> {
  const drained = new Promise<void>((resolve) => http.close(() => resolve()));
  http.closeIdleConnections();
  lane.close();
  const timer = setTimeout(() => {
    http.closeAllConnections();
    lane.destroy();
  }, DRAIN_MS);
  await Promise.all([drained, handOver(host)]);
  clearTimeout(timer);
  await host.close();
  logger.info({}, 'stopped');
}

/** A leader that leaves politely saves the others an election timeout. */
async function handOver(host: NodeHost): Promise<void> {
  if (host.failed !== undefined) return;
  const led = host.info().shards.filter((shard) => shard.state === 'running' && shard.leaderId === shard.replicaId);
  const connected = new Set(
    host
      .info()
      .peers.filter((peer) => peer.connected)
      .map((peer) => peer.address),
  );
  await Promise.all(
    led.map(async ({ shardId, members }) => {
      const target = Object.entries(members).find(([, address]) => connected.has(address));
      if (target === undefined) return;
      // Not in time, or no longer the leader: the others elect as they would have anyway.
      await host.transferLeader(shardId, Number(target[0]), { timeoutMs: HANDOVER_MS }).catch(() => {});
    }),
  );
}
