/** `POST /members`: one change of one shard's membership. The host checks what is asked for; this reads it from the URL. */
import type { AddReplicaOptions, MemberRole, NodeHost } from 'drakkar';

export const MEMBER_ACTIONS = ['add', 'remove', 'promote'] as const;
export type MemberAction = (typeof MEMBER_ACTIONS)[number];

export interface MemberChange {
  readonly action: MemberAction;
  readonly shardId: number;
  readonly replicaId: number;
  readonly timeoutMs: number;
  /** Of `add`: `address`, `role`, `autoPromote`. */
  readonly params: URLSearchParams;
}

export function changeMembers(host: NodeHost, change: MemberChange): Promise<{ configChangeIndex: number }> {
  const { action, shardId, replicaId, timeoutMs, params } = change;
  if (action === 'remove') return host.removeReplica(shardId, replicaId, { timeoutMs });
  if (action === 'promote') return host.promote(shardId, replicaId, { timeoutMs });
  const role = params.get('role');
  const options: AddReplicaOptions = {
    timeoutMs,
    autoPromote: params.get('autoPromote') === 'true',
    ...(role === null ? {} : { role: role as MemberRole }),
  };
  return host.addReplica(shardId, replicaId, params.get('address') ?? '', options);
}
