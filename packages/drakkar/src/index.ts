/** The face of the library. What is not exported here is nobody's to rely on. */
export { NodeHost } from './nodehost.ts';
export type {
  AddReplicaOptions,
  CallOptions,
  LeaderWatchOptions,
  LogQueryOptions,
  MembershipOptions,
  NodeHostOptions,
  ProposeOptions,
  RemoveDataOptions,
  ReplicaOptions,
  SnapshotOptions,
  WatchOptions,
} from './config.ts';
export type { MembershipInfo } from './engine/membership.ts';
export type { MemberRole } from './wire/config-change.ts';
export { DrakkarError, ERROR_TABLE, type AvailableRange, type ErrorCode, type Outcome } from './errors.ts';
export { HOST_EVENTS, type HostEventMap, type HostEventName, type HostListener } from './events.ts';
export type {
  FormatInfo,
  HostInfo,
  MemberProgress,
  PeerInfo,
  ShardInfo,
  SnapshotTraffic,
  StoppedShardInfo,
} from './info.ts';
export { TRACE_CHANNELS, type TraceMessages } from './engine/trace.ts';
export type { Leadership } from './engine/leader-watch.ts';
export type { LogEntry, LogEntryKind } from './engine/log-entries.ts';
export type { LogQueryResult } from './engine/onlookers.ts';
export type { ProposeCallback } from './engine/pending-ring.ts';
export { Entry } from './rsm/state-machine.ts';
export type {
  AnyStateMachine,
  ConcurrentStateMachine,
  DiskBatch,
  DiskRecoveryContext,
  EntryCursor,
  OnDiskStateMachine,
  OpenedState,
  RecoveryContext,
  Result,
  SessionChange,
  SnapshotContext,
  SnapshotFile,
  StateMachine,
  StateMachineFactory,
  StateMachineKind,
} from './rsm/state-machine.ts';
export type { SnapshotCodec } from './rsm/codec.ts';
export { Session } from './session.ts';
export { ShardHandle } from './shard-handle.ts';
export type {
  Clock,
  Env,
  FileSystem,
  Logger,
  Modules,
  Network,
  Random,
  Scheduler,
  Thread,
  ThreadMain,
  ThreadPort,
  ThreadSide,
  ThreadStart,
  Threads,
  TraceChannel,
  Tracing,
} from './env/env.ts';
export type { StateMachineModule, StateMachineSource } from './machine-module.ts';
export type { LogDb, LogSink, RecoveredShard, ReplicaPin, ShardState } from './wal/logdb.ts';
export { openWal, type WalOptions } from './wal/open.ts';
export type {
  HostIdentity,
  ImageFrom,
  InboundSession,
  Peer,
  Resolve,
  SnapshotHeader,
  Transport,
  TransportContext,
  TransportCounters,
  TransportHandlers,
} from './transport/transport.ts';
export { FrameReceiver } from './transport/frame-receiver.ts';
export { meansHost } from './transport/target.ts';
export type { Slab, SlabPool } from './wire/slab.ts';
export type { GossipOptions } from './registry/gossip.ts';
export { createGossipRegistry } from './registry/gossip.ts';
export type { KnownHost, Registry, RegistryContext } from './registry/registry.ts';
export type { ShardView } from './registry/shard-views.ts';
export { FORMAT_NEWEST, FORMAT_OLDEST, FORMAT_REHEARSAL, type FormatRange } from './wire/formats.ts';
export type { ReloadTlsOptions, TlsFiles, TlsOptions, TransportSecurity } from './transport/security.ts';
export { createTcpTransport, type TcpTransportOptions } from './transport/tcp.ts';
