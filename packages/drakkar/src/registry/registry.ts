/**
 * Where hosts are. A membership names each member's host by a target: an address that never changes, or a host id whose address a
 * registry knows. A registry is a hint, never a proof: who answers at an address says in its HELLO who it is, and is refused
 * when it is somebody else.
 */
import type { Env } from '../env/env.ts';
import { isHostId } from '../transport/target.ts';
import type { HostIdentity } from '../transport/transport.ts';
import type { ShardView } from './shard-views.ts';

export interface Registry {
  /** `host:port` to dial for a target; undefined while it is not known. Called at every try. */
  resolve(target: string): string | undefined;
  /** Begins to learn. `onChange` tells of a target whose address is known now, or is another one. */
  start(onChange: (target: string) => void): Promise<void>;
  /** Hosts as they are known here, this one included. */
  hosts(): readonly KnownHost[];
  /** For registries that spread what hosts know of shards: this host's own word, whenever it changes. Never of a replica that knows no members. */
  tellShard?(view: ShardView): void;
  /** With `tellShard`: what is known of a shard, or of all; a hint, as everything here. */
  shard?(shardId: number): ShardView | undefined;
  shards?(): readonly ShardView[];
  close(): Promise<void>;
}

export interface KnownHost {
  readonly hostId: string;
  readonly raftAddress: string;
  /** `suspect`: it did not answer lately. */
  readonly state: 'alive' | 'suspect' | 'dead';
  /** Free text that the host tells of itself. */
  readonly meta: string;
}

export interface RegistryContext {
  readonly env: Env;
  readonly identity: HostIdentity;
}

/** The registry of deployments whose addresses never change: a target is its own address. */
export function createStaticRegistry({ identity }: RegistryContext): Registry {
  const self: KnownHost = { hostId: identity.hostId, raftAddress: identity.raftAddress, state: 'alive', meta: '' };
  return {
    resolve: (target) => (isHostId(target) ? undefined : target),
    start: () => Promise.resolve(),
    hosts: () => [self],
    close: () => Promise.resolve(),
  };
}
