/** Metrics as Prometheus text, gathered from counters that are kept anyway. Series of single shards are bounded. */
import type { Engine } from './engine/engine.ts';

/** Above this only sums over all shards are given. */
const SHARD_SERIES_MAX = 1000;

type Sample = readonly [labels: string, value: number];

function metric(
  lines: string[],
  name: string,
  type: 'counter' | 'gauge',
  help: string,
  samples: readonly Sample[],
): void {
  lines.push(`# HELP drakkar_${name} ${help}`, `# TYPE drakkar_${name} ${type}`);
  for (const [labels, value] of samples) lines.push(`drakkar_${name}${labels} ${value}`);
}

export function renderMetrics(engine: Engine): string {
  const lines: string[] = [];
  const replicas = [...engine.replicas.values()];
  const { counters } = engine.transport;
  const one = (value: number): Sample[] => [['', value]];
  metric(lines, 'shards', 'gauge', 'Replicas on this host.', one(replicas.length));
  metric(
    lines,
    'shards_failed',
    'gauge',
    'Replicas that failed.',
    one(replicas.filter((r) => r.status === 'failed').length),
  );
  metric(lines, 'shards_leading', 'gauge', 'Replicas that lead.', one(replicas.filter((r) => r.raft.isLeader).length));
  metric(
    lines,
    'shards_without_leader',
    'gauge',
    'Replicas that know no leader.',
    one(replicas.filter((r) => r.raft.leaderId === 0).length),
  );
  metric(lines, 'engine_turns_total', 'counter', 'Turns of the engine.', one(engine.counters.turns));
  metric(
    lines,
    'forwards_dropped_total',
    'counter',
    'Forwarded proposals that could not be taken.',
    one(engine.counters.forwardsDropped),
  );
  metric(
    lines,
    'messages_refused_total',
    'counter',
    'Messages of hosts that may not speak for the replica.',
    one(engine.counters.messagesRefused),
  );
  metric(
    lines,
    'snapshots_failed_total',
    'counter',
    'Snapshots that could not be taken or sent.',
    one(engine.counters.snapshotsFailed),
  );
  metric(lines, 'slabs_pinned_bytes', 'gauge', 'Bytes of buffers in use.', one(engine.pool.pinnedBytes));
  metric(lines, 'log_pending_bytes', 'gauge', 'Bytes that wait for the log.', one(engine.log.pendingBytes));
  metric(lines, 'log_full', 'gauge', '1 while the disk is full.', one(engine.log.isFull ? 1 : 0));
  for (const [name, value] of Object.entries(engine.log.counters)) {
    const isGauge = name.startsWith('last');
    metric(
      lines,
      `log_${snake(name)}${isGauge ? '' : '_total'}`,
      isGauge ? 'gauge' : 'counter',
      'Of the log database.',
      one(value),
    );
  }
  for (const [name, value] of Object.entries(counters)) {
    if (typeof value === 'number')
      metric(lines, `transport_${snake(name)}_total`, 'counter', 'Of the transport.', one(value));
  }
  const refused = [...counters.refused].map(([reason, count]): Sample => [`{reason="${reason}"}`, count]);
  metric(lines, 'transport_refused_total', 'counter', 'Connections refused or dropped, by reason.', refused);
  if (replicas.length <= SHARD_SERIES_MAX) {
    const each = (pick: (replica: (typeof replicas)[number]) => number): Sample[] =>
      replicas.map((replica) => [`{shard="${replica.shardId}",replica="${replica.replicaId}"}`, pick(replica)]);
    metric(
      lines,
      'raft_term',
      'gauge',
      'Current term.',
      each((r) => r.raft.term),
    );
    metric(
      lines,
      'raft_leader',
      'gauge',
      '1 on the leader.',
      each((r) => (r.raft.isLeader ? 1 : 0)),
    );
    metric(
      lines,
      'raft_commit_index',
      'gauge',
      'Commit index.',
      each((r) => r.raft.commitIndex),
    );
    metric(
      lines,
      'raft_applied_index',
      'gauge',
      'Applied index.',
      each((r) => r.raft.appliedIndex),
    );
    metric(
      lines,
      'raft_durable_index',
      'gauge',
      'Durable index.',
      each((r) => r.raft.durableIndex),
    );
    metric(
      lines,
      'pending_proposals',
      'gauge',
      'Proposals that wait for their answers.',
      each((r) => r.pending.count),
    );
    metric(
      lines,
      'pending_reads',
      'gauge',
      'Reads that wait for their answers.',
      each((r) => r.reads.count),
    );
  }
  return `${lines.join('\n')}\n`;
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
