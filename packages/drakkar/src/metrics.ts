/**
 * Metrics as Prometheus text, gathered when they are asked for, from counters that are kept anyway. Everything about the host is one
 * series each; series of single shards are bounded, the sums over all shards are always there. docs/operations.md lists all.
 */
import type { Engine } from './engine/engine.ts';
import { BOUNDS_MS, type Histogram } from './engine/histogram.ts';
import type { Stages } from './engine/stages.ts';
import type { Replica } from './engine/replica.ts';
import type { HostEvents } from './events.ts';

/** Above this many shards only sums over all of them are given: a monitoring system pays for every series. */
export const SHARD_SERIES_MAX = 1000;

type Sample = readonly [suffix: string, value: number];
type MetricType = 'counter' | 'gauge' | 'histogram';

const STAGES: readonly (keyof Stages)[] = ['propose', 'append', 'fsync', 'replicate', 'commit', 'apply', 'read'];

/** Gauges of the host as a whole. */
const HOST_GAUGES: Record<string, readonly [help: string, value: (engine: Engine, replicas: Replica[]) => number]> = {
  shards: ['Replicas on this host.', (_, replicas) => replicas.length],
  shards_failed: ['Replicas that failed.', (_, replicas) => count(replicas, (r) => r.status === 'failed')],
  shards_leading: ['Replicas that lead.', (_, replicas) => count(replicas, (r) => r.raft.isLeader)],
  shards_without_leader: [
    'Replicas that know no leader.',
    (_, replicas) => count(replicas, (r) => r.raft.leaderId === 0),
  ],
  pending_proposals: [
    'Proposals that wait for their answers, of all shards.',
    (_, replicas) => sum(replicas, (r) => r.pending.count),
  ],
  pending_reads: [
    'Reads that wait for their answers, of all shards.',
    (_, replicas) => sum(replicas, (r) => r.reads.count),
  ],
  unsealed_bytes: [
    'Bytes of proposals that wait for the log or a leader.',
    (_, replicas) => sum(replicas, (r) => r.openBlock.pendingBytes),
  ],
  unapplied_bytes: [
    'Bytes in the log that are not applied yet.',
    (_, replicas) => sum(replicas, (r) => r.raft.log.unappliedBytes),
  ],
  held_messages: ['Messages that wait for a write.', (_, replicas) => sum(replicas, (r) => r.held.length)],
  apply_lag_entries: ['Entries committed and not applied here, of all shards.', (_, replicas) => sum(replicas, lagOf)],
  apply_lag_max_entries: [
    'Entries committed and not applied here, of the shard that has most.',
    (_, replicas) => replicas.reduce((most, r) => Math.max(most, lagOf(r)), 0),
  ],
  snapshots_sending: ['Snapshots on their way to others.', (engine) => engine.snapshots.sends.takenCount],
  snapshot_sends_waiting: [
    'Snapshots that wait for their turn to be sent.',
    (engine) => engine.snapshots.sends.waitingCount,
  ],
  snapshots_receiving: ['Snapshots that are received or installed.', (engine) => engine.arrivals.places.takenCount],
  snapshot_receives_waiting: [
    'Offered snapshots that wait for their turn.',
    (engine) => engine.arrivals.places.waitingCount,
  ],
  shards_quiesced: ['Replicas that are silent.', (_, replicas) => count(replicas, (r) => r.raft.isQuiesced)],
  peers: ['Hosts that this one sends to.', (_, replicas) => peersOf(replicas).length],
  peers_connected: ['Of them, those connected.', (_, replicas) => count(peersOf(replicas), (p) => p.connected)],
  peers_queued_bytes: [
    'Bytes that wait for the connections to them.',
    (_, replicas) => sum(peersOf(replicas), (p) => p.queuedBytes),
  ],
  slabs_pinned_bytes: ['Bytes of buffers in use.', (engine) => engine.pool.pinnedBytes],
  log_pending_bytes: ['Bytes that wait for the log.', (engine) => engine.log.pendingBytes],
  log_full: ['1 while the disk is full.', (engine) => (engine.log.isFull ? 1 : 0)],
  format_newest: ['The newest format that this host reads.', (engine) => engine.formats.range.newest],
  format_enabled: ['The newest format that may stand in its directory.', (engine) => engine.formats.range.enabled],
  format_written: ['The format of what is written now.', (engine) => engine.outbound.format],
  failed: ['1 when the log failed and the host has stopped.', (engine) => (engine.failure === undefined ? 0 : 1)],
};

/** Of single shards, with the labels `shard` and `replica`. */
const SHARD_GAUGES: Record<string, readonly [help: string, value: (replica: Replica) => number]> = {
  raft_term: ['Current term.', (r) => r.raft.term],
  raft_leader: ['1 on the leader.', (r) => (r.raft.isLeader ? 1 : 0)],
  raft_commit_index: ['Commit index.', (r) => r.raft.commitIndex],
  raft_applied_index: ['Applied index.', (r) => r.raft.appliedIndex],
  raft_durable_index: ['Durable index.', (r) => r.raft.durableIndex],
  raft_snapshot_index: ['Index of the newest snapshot.', (r) => r.snapshotIndex],
  raft_apply_lag_entries: ['Entries committed and not applied here.', lagOf],
  raft_pending_proposals: ['Proposals that wait for their answers.', (r) => r.pending.count],
  raft_pending_reads: ['Reads that wait for their answers.', (r) => r.reads.count],
};

/** What the counters of log and transport count, by group and name; those of another log are said to be its own. */
const COUNTED: Readonly<Record<string, string>> = {
  'log.groups': 'Durable writes of the log.',
  'log.frames': 'Frames written to the log.',
  'log.bytes': 'Bytes written to the log, without padding.',
  'log.writeMs': 'Time that all durable writes took.',
  'log.lastWriteMs': 'Time that the last durable write took.',
  'log.segmentsMade': 'Segments of the log begun.',
  'log.segmentsFreed': 'Segments of the log freed.',
  'log.blocksMoved': 'Blocks moved out of old segments.',
  'log.statesMoved': 'State records moved out of old segments.',
  'transport.connectionsUp': 'Connections to peers that came up.',
  'transport.connectionsFailed': 'Connections to peers that could not be made.',
  'transport.framesSent': 'Frames given to connections.',
  'transport.framesReceived': 'Frames received.',
  'transport.framesDropped': 'Frames not sent: no connection, or its queue was full.',
  'transport.bytesSent': 'Bytes given to connections.',
  'transport.bytesReceived': 'Bytes received.',
  'transport.snapshotsSent': 'Snapshots sent and installed there.',
  'transport.snapshotsReceived': 'Snapshots received and installed.',
  'transport.snapshotsFailed': 'Snapshots that did not arrive or were not taken.',
};

export function renderMetrics(engine: Engine, events: HostEvents): string {
  const lines: string[] = [];
  const replicas = [...engine.replicas.values()];
  const one = (name: string, type: MetricType, help: string, value: number): void =>
    metric(lines, name, type, help, [['', value]]);
  for (const [name, [help, value]] of Object.entries(HOST_GAUGES)) one(name, 'gauge', help, value(engine, replicas));
  const { turns, forwardsDropped, messagesRefused, snapshotsFailed } = engine.counters;
  one('quiesced_total', 'counter', 'How often a replica fell silent.', engine.counters.quiesced);
  const woken = Object.entries(engine.counters.woken).map(([cause, times]): Sample => [`{cause="${cause}"}`, times]);
  metric(lines, 'woken_total', 'counter', 'How often a silent replica woke, by cause.', woken);
  one('engine_turns_total', 'counter', 'Turns of the engine.', turns);
  one('forwards_dropped_total', 'counter', 'Forwarded proposals that could not be taken.', forwardsDropped);
  one('messages_refused_total', 'counter', 'Messages of hosts that may not speak for the replica.', messagesRefused);
  one(
    'leaders_found_total',
    'counter',
    'How often a replica learned who leads, of all shards.',
    engine.counters.leadersFound,
  );
  one(
    'leaders_lost_total',
    'counter',
    'How often a replica lost its leader, of all shards.',
    engine.counters.leadersLost,
  );
  one(
    'disk_stalls_total',
    'counter',
    'How often writes stood still for an election timeout.',
    engine.counters.diskStalls,
  );
  one('snapshots_failed_total', 'counter', 'Snapshots that could not be taken or sent.', snapshotsFailed);
  const { snapshotsResumed, snapshotBytesNotSentAgain } = engine.counters;
  one('snapshots_resumed_total', 'counter', 'Streams that went on where one had broken off.', snapshotsResumed);
  one(
    'snapshot_bytes_not_sent_again_total',
    'counter',
    'Bytes of snapshots that were here already when their streams went on.',
    snapshotBytesNotSentAgain,
  );
  for (const name of ['snapshotsAborted', 'snapshotsWithoutState', 'imagesStreamed', 'imagesShrunk'] as const) {
    one(`${snake(name)}_total`, 'counter', 'Of snapshots: see docs/state-machines.md.', engine.counters[name]);
  }
  one('events_waiting', 'gauge', 'Events that wait for slow listeners.', events.waitingCount);
  one('events_dropped_total', 'counter', 'Events that no listener got: too many waited.', events.dropped);
  const stages = STAGES.flatMap((stage) => bucketsOf(stage, engine.stages[stage]));
  metric(lines, 'stage_seconds', 'histogram', 'Time that a stage took, sampled.', stages);
  for (const [name, value] of Object.entries(engine.log.counters)) counter(lines, 'log', name, value);
  const { counters } = engine.transport;
  for (const [name, value] of Object.entries(counters)) {
    if (typeof value === 'number') counter(lines, 'transport', name, value);
  }
  const refused = [...counters.refused].map(([reason, value]): Sample => [`{reason="${reason}"}`, value]);
  metric(lines, 'transport_refused_total', 'counter', 'Connections refused or dropped, by reason.', refused);
  if (replicas.length > SHARD_SERIES_MAX) return `${lines.join('\n')}\n`;
  for (const [name, [help, value]] of Object.entries(SHARD_GAUGES)) {
    const samples = replicas.map((r): Sample => [`{shard="${r.shardId}",replica="${r.replicaId}"}`, value(r)]);
    metric(lines, name, 'gauge', help, samples);
  }
  return `${lines.join('\n')}\n`;
}

function metric(lines: string[], name: string, type: MetricType, help: string, samples: readonly Sample[]): void {
  lines.push(`# HELP drakkar_${name} ${help}`, `# TYPE drakkar_${name} ${type}`);
  for (const [suffix, value] of samples) lines.push(`drakkar_${name}${suffix} ${value}`);
}

/** A plain number by its name in the source: milliseconds become seconds, whatever begins with `last` is a gauge. */
function counter(lines: string[], group: string, name: string, value: number): void {
  const help = COUNTED[`${group}.${name}`] ?? `Of the ${group}.`;
  const isGauge = name.startsWith('last');
  const isMs = name.endsWith('Ms');
  const base = snake(isMs ? `${name.slice(0, -2)}Seconds` : name);
  const full = `${group}_${base}${isGauge ? '' : '_total'}`;
  metric(lines, full, isGauge ? 'gauge' : 'counter', help, [['', isMs ? value / 1000 : value]]);
}

function bucketsOf(stage: string, histogram: Histogram): Sample[] {
  const samples: Sample[] = [];
  let below = 0;
  for (const [bucket, boundMs] of BOUNDS_MS.entries()) {
    below += histogram.counts[bucket];
    samples.push([`_bucket{stage="${stage}",le="${boundMs / 1000}"}`, below]);
  }
  samples.push([`_bucket{stage="${stage}",le="+Inf"}`, histogram.count]);
  samples.push([`_sum{stage="${stage}"}`, histogram.sumMs / 1000], [`_count{stage="${stage}"}`, histogram.count]);
  return samples;
}

function lagOf(replica: Replica): number {
  return replica.raft.commitIndex - replica.raft.appliedIndex;
}

function count<T>(items: readonly T[], is: (item: T) => boolean): number {
  return items.reduce((total, item) => total + (is(item) ? 1 : 0), 0);
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

function peersOf(replicas: readonly Replica[]): { readonly connected: boolean; readonly queuedBytes: number }[] {
  const peers = new Set<NonNullable<Replica['peers'][number]>>();
  for (const replica of replicas) for (const peer of replica.peers) if (peer !== undefined) peers.add(peer);
  return [...peers];
}

/** Texts of several engines as one: each sample gets its engine as a label, and each series its head once. */
export function mergeMetrics(texts: ReadonlyMap<number, string>): string {
  const series = new Map<string, string[]>();
  let current: string[] = [];
  for (const [engine, text] of texts) {
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const head = /^# HELP (\S+)/.exec(line);
      if (head !== null) {
        current = series.get(head[1]) ?? [];
        if (current.length > 0) continue;
        series.set(head[1], current);
      }
      if (line.startsWith('#')) {
        if (current.length < 2) current.push(line);
      } else current.push(labelled(line, engine));
    }
  }
  return `${[...series.values()].flat().join('\n')}\n`;
}

/** `name{a="b"} 1` or `name 1`. */
function labelled(sample: string, engine: number): string {
  const brace = sample.indexOf('{');
  if (brace >= 0) return `${sample.slice(0, brace)}{engine="${engine}",${sample.slice(brace + 1)}`;
  const space = sample.indexOf(' ');
  return `${sample.slice(0, space)}{engine="${engine}"}${sample.slice(space)}`;
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
