/** Views of shards: this host's own, and those that its registry has heard of; and when the registry is told. */
import { describeMembership } from './engine/membership.ts';
import type { Replica } from './engine/replica.ts';
import type { HostEvents } from './events.ts';
import type { Registry } from './registry/registry.ts';
import type { ShardView } from './registry/shard-views.ts';
import { isKnown } from './wire/membership.ts';

/** Where this host's replicas are. */
export interface OwnReplicas {
  find(shardId: number): Replica | undefined;
  replicas(): Iterable<Replica>;
}

export function tellRegistry(registry: Registry, own: OwnReplicas, events: HostEvents): void {
  if (registry.tellShard === undefined) return;
  const tell = ({ shardId }: { readonly shardId: number }): void => {
    const view = ownView(own.find(shardId));
    if (view !== undefined) registry.tellShard!(view);
  };
  for (const event of ['replicaReady', 'leaderChanged', 'membershipChanged'] as const) events.on(event, tell);
}

function ownView(replica: Replica | undefined): ShardView | undefined {
  if (replica === undefined || replica.status !== 'running' || !isKnown(replica.membership)) return undefined;
  const { removed: _, ...membership } = describeMembership(replica.membership);
  const { leaderId, term } = replica.raft;
  // The term of no leader is nobody's.
  return { shardId: replica.shardId, leaderId, term: leaderId === 0 ? 0 : term, ...membership };
}

export function shardView(registry: Registry, own: OwnReplicas, shardId: number): ShardView | undefined {
  return registry.shard === undefined ? ownView(own.find(shardId)) : registry.shard(shardId);
}

export function shardViews(registry: Registry, own: OwnReplicas): readonly ShardView[] {
  if (registry.shards !== undefined) return registry.shards();
  return [...own.replicas()].map(ownView).filter((view) => view !== undefined);
}
