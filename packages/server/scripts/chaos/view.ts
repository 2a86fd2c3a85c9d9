/**
 * What the chaos suites see of a cluster from outside: who leads, whether every shard takes writes, whether the replicas agree.
 */
import { shardOfKey } from '../../src/kv.ts';
import type { Cluster, ClusterHost } from '../cluster.ts';
import { getJson, send } from '../http-client.ts';
import { pause, until } from './suite.ts';

const STATUS_TIMEOUT_MS = 1000;
const PROBE_EVERY_MS = 25;
const PROBE_TIMEOUT_MS = 1000;
const SETTLE_TIMEOUT_MS = 60_000;

export interface Status {
  readonly shardCount: number;
  readonly shards: readonly {
    readonly shardId: number;
    readonly leaderId: number;
    readonly digest?: { readonly appliedIndex: number; readonly hash: number; readonly sessionHash: number };
  }[];
}

/** The host that leads most shards; undefined while nobody leads or nobody can tell. */
export async function findLeader(cluster: Cluster): Promise<ClusterHost | undefined> {
  for (const asked of cluster.hosts) {
    if (!asked.isUp) continue;
    const answer = await send('GET', `${asked.url}/status`, undefined, STATUS_TIMEOUT_MS).catch(() => undefined);
    if (answer?.status !== 200) continue;
    const { shards } = JSON.parse(answer.body) as Status;
    const ledBy = ({ id }: ClusterHost): number => shards.filter(({ leaderId }) => leaderId === id).length;
    const [host] = cluster.hosts.filter(({ isUp }) => isUp).sort((a, b) => ledBy(b) - ledBy(a));
    if (host !== undefined && ledBy(host) > 0) return host;
  }
  return undefined;
}

/** Waits until every shard acknowledges a write through one of the hosts; gives the milliseconds that took. */
export async function untilWritable(
  hosts: readonly ClusterHost[],
  shardCount: number,
  timeoutMs = SETTLE_TIMEOUT_MS,
): Promise<number> {
  const start = performance.now();
  const keys = Array.from({ length: shardCount }, (_, i) => keyInShard(i + 1, shardCount));
  await Promise.all(keys.map((key) => writable(hosts, key, timeoutMs)));
  return performance.now() - start;
}

/** A new request every few milliseconds: one that hangs must not hide that others get through. */
async function writable(hosts: readonly ClusterHost[], key: string, timeoutMs: number): Promise<void> {
  let isWritten = false;
  let attempt = 0;
  const knock = (): boolean => {
    const up = hosts.filter((host) => host.isUp);
    if (isWritten || up.length === 0) return isWritten;
    const url = `${up[attempt++ % up.length].url}/kv/${key}?timeoutMs=${PROBE_TIMEOUT_MS}`;
    send('PUT', url, 'x', PROBE_TIMEOUT_MS).then(
      ({ status }) => {
        isWritten ||= status === 200;
      },
      () => {}, // the next one may get through
    );
    return false;
  };
  await until(`a write of ${key}`, knock, timeoutMs, PROBE_EVERY_MS);
}

function keyInShard(shardId: number, shardCount: number): string {
  for (let i = 0; ; i++) if (shardOfKey(`probe-${i}`, shardCount) === shardId) return `probe-${i}`;
}

/** Waits until every host says that all its shards have a leader. */
export async function untilHealthy(cluster: Cluster): Promise<void> {
  const isHealthy = async (host: ClusterHost): Promise<boolean> => {
    const answer = await send('GET', `${host.url}/healthz`, undefined, STATUS_TIMEOUT_MS).catch(() => undefined);
    return answer?.status === 200;
  };
  const areHealthy = async (): Promise<boolean> => (await Promise.all(cluster.hosts.map(isHealthy))).every(Boolean);
  await until('healthy on every host', areHealthy, SETTLE_TIMEOUT_MS);
}

/** Compares digests at equal applied indexes, per shard and host. */
export async function digestsAgree(cluster: Cluster): Promise<boolean> {
  const end = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    const statuses = await Promise.all(cluster.hosts.map((host) => getJson<Status>(`${host.url}/status`)));
    const lines = statuses.map(({ shards }) => shards.map(({ shardId, digest }) => ({ shardId, ...digest })));
    const indexes = lines.map((line) => line.map(({ appliedIndex }) => appliedIndex).join());
    if (indexes.every((text) => text === indexes[0])) {
      const texts = lines.map((line) => JSON.stringify(line));
      return lines[0].every(({ hash }) => hash !== undefined) && texts.every((text) => text === texts[0]);
    }
    if (performance.now() > end) throw new Error(`the replicas do not reach the same index: ${indexes.join(' | ')}`);
    await pause(100);
  }
}
