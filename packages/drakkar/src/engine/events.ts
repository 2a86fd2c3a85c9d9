/** What the engine tells the world: names and payloads of all events. The face gives them to listeners. */
import type { DrakkarError } from '../errors.ts';
import type { MembershipInfo } from './membership.ts';

export interface ReplicaRef {
  readonly shardId: number;
  readonly replicaId: number;
}

/** A snapshot on its way to another member. */
export interface SnapshotSend extends ReplicaRef {
  /** The member that needs it. */
  readonly to: number;
  readonly index: number;
}

export interface ConnectionRef {
  readonly address: string;
  /** A connection for one snapshot stream, not the one for messages. */
  readonly isSnapshot: boolean;
}

export interface HostEventMap {
  /** `leaderId` 0: none known. */
  leaderChanged: ReplicaRef & { readonly leaderId: number; readonly term: number };
  /** The replica runs; the log behind its snapshot is applied as the shard goes on. */
  replicaReady: ReplicaRef;
  /** The replica is unloaded: its state machine is closed and what it wrote is durable. */
  replicaStopped: ReplicaRef;
  replicaFailed: ReplicaRef & { readonly error: DrakkarError };
  /** A member is not listened to any more: it lost what it had promised (wiped or rolled-back disk). */
  memberRefused: ReplicaRef & { readonly memberId: number; readonly reason: string };
  /** A change was applied here. */
  membershipChanged: ReplicaRef & { readonly membership: MembershipInfo };
  /** This host's replica was removed from its shard and has stopped. */
  replicaRemoved: ReplicaRef;
  /** A snapshot of this replica is durable and recorded. */
  snapshotCreated: ReplicaRef & { readonly index: number };
  /** A copy for elsewhere was made and verified (`requestSnapshot` with `exportTo`). */
  snapshotExported: ReplicaRef & { readonly index: number; readonly dir: string };
  snapshotSendStarted: SnapshotSend;
  /** The member has installed it. */
  snapshotSendCompleted: SnapshotSend;
  /** The member did not get it, or could not take it; it is offered one again. */
  snapshotSendAborted: SnapshotSend & { readonly error: DrakkarError };
  /** A snapshot arrived whole and verified from the member `from`. */
  snapshotReceived: ReplicaRef & { readonly index: number; readonly from: number };
  /** A received snapshot is installed and durable. */
  snapshotRecovered: ReplicaRef & { readonly index: number };
  /** An older image of this replica was removed: a newer one replaced it. */
  snapshotCompacted: ReplicaRef & { readonly index: number };
  /** Entries up to `index` are given up; the room they take is freed later (`logSpaceFreed`). */
  logCompacted: ReplicaRef & { readonly index: number };
  /** Segments of the log hold nothing that is needed and were recycled or removed. */
  logSpaceFreed: { readonly segments: number };
  peerUp: { readonly address: string };
  peerDown: { readonly address: string };
  /** A connection that this host dialled is up. */
  connectionEstablished: ConnectionRef;
  /** A connection that this host dialled could not be made or ended; it is tried again as long as it is needed. */
  connectionFailed: ConnectionRef & { readonly reason: string };
  diskFull: { readonly error: DrakkarError };
  diskRoom: { readonly dir: string };
  /** One of several engines cannot go on: its log failed, or its thread died. Its shards have stopped, the others live on. */
  engineFailed: { readonly engine: number; readonly error: DrakkarError };
  /** No log can be written any more: the host has stopped all its shards. */
  hostFailed: { readonly error: DrakkarError };
  /** What is written may be in this format from now on: an older release cannot take the directory over any more. */
  formatEnabled: { readonly format: number };
  /** `close` was called: replicas stop next. */
  hostClosing: { readonly dir: string };
}

/** Every name there is; the compiler holds it to `HostEventMap`. */
const NAMES: Record<keyof HostEventMap, true> = {
  leaderChanged: true,
  replicaReady: true,
  replicaStopped: true,
  replicaFailed: true,
  memberRefused: true,
  membershipChanged: true,
  replicaRemoved: true,
  snapshotCreated: true,
  snapshotExported: true,
  snapshotSendStarted: true,
  snapshotSendCompleted: true,
  snapshotSendAborted: true,
  snapshotReceived: true,
  snapshotRecovered: true,
  snapshotCompacted: true,
  logCompacted: true,
  logSpaceFreed: true,
  peerUp: true,
  peerDown: true,
  connectionEstablished: true,
  connectionFailed: true,
  diskFull: true,
  diskRoom: true,
  engineFailed: true,
  hostFailed: true,
  formatEnabled: true,
  hostClosing: true,
};
export const HOST_EVENTS: readonly (keyof HostEventMap)[] = Object.keys(NAMES) as (keyof HostEventMap)[];

export interface EventSink {
  emit<K extends keyof HostEventMap>(name: K, payload: HostEventMap[K]): void;
}
