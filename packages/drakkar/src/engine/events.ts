/** What the engine tells the world: names and payloads of all events. The face gives them to listeners. */
import type { DrakkarError } from '../errors.ts';

export interface ReplicaRef {
  readonly shardId: number;
  readonly replicaId: number;
}

export interface HostEventMap {
  /** `leaderId` 0: none known. */
  leaderChanged: ReplicaRef & { readonly leaderId: number; readonly term: number };
  replicaReady: ReplicaRef;
  replicaStopped: ReplicaRef;
  replicaFailed: ReplicaRef & { readonly error: DrakkarError };
  /** A member is not listened to any more: it lost what it had promised (wiped or rolled-back disk). */
  memberRefused: ReplicaRef & { readonly memberId: number; readonly reason: string };
  snapshotCreated: ReplicaRef & { readonly index: number };
  snapshotReceived: ReplicaRef & { readonly index: number };
  snapshotRecovered: ReplicaRef & { readonly index: number };
  logCompacted: ReplicaRef & { readonly index: number };
  peerUp: { readonly address: string };
  peerDown: { readonly address: string };
  diskFull: { readonly error: DrakkarError };
  diskRoom: { readonly dir: string };
  /** The log cannot be written any more: the host has stopped all its shards. */
  hostFailed: { readonly error: DrakkarError };
}

export interface EventSink {
  emit<K extends keyof HostEventMap>(name: K, payload: HostEventMap[K]): void;
}
