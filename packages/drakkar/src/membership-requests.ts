/** What callers ask of a shard's membership, checked and put as the change that travels. */
import type { AddReplicaOptions, CallOptions, MembershipOptions } from './config.ts';
import { checkAddOptions, checkMembershipOptions, checkReplicaId, checkTarget } from './config-checks.ts';
import { describeMembership, type MembershipInfo } from './engine/membership.ts';
import type { Replica } from './engine/replica.ts';
import type { ShardHandle } from './shard-handle.ts';
import type { ConfigChange } from './wire/config-change.ts';
import { within, type Waiter } from './within.ts';

const NO_ADDRESS = { address: '', role: 'voter', autoPromote: false } as const;

/** See `NodeHost.addReplica`. */
export function additionOf(replicaId: number, address: string, options: AddReplicaOptions): ConfigChange {
  checkReplicaId('addReplica', replicaId);
  checkTarget('addReplica', address);
  checkAddOptions(options);
  const { role = 'voter', autoPromote = false, configChangeIndex = 0 } = options;
  return { kind: 'add', replicaId, address, role, autoPromote, configChangeIndex };
}

/** See `NodeHost.removeReplica`. */
export function removalOf(replicaId: number, options: MembershipOptions): ConfigChange {
  checkReplicaId('removeReplica', replicaId);
  checkMembershipOptions('removeReplica', options);
  return { ...NO_ADDRESS, kind: 'remove', replicaId, configChangeIndex: options.configChangeIndex ?? 0 };
}

/** See `NodeHost.promote`. */
export function promotionOf(replicaId: number, options: MembershipOptions): ConfigChange {
  checkReplicaId('promote', replicaId);
  checkMembershipOptions('promote', options);
  return { ...NO_ADDRESS, kind: 'promote', replicaId, configChangeIndex: options.configChangeIndex ?? 0 };
}

/** See `NodeHost.membership`. */
export async function readMembership(
  replica: Replica,
  handle: ShardHandle,
  options: CallOptions,
  waiter: Waiter,
): Promise<MembershipInfo> {
  const barrier = handle.barrier(options.timeoutMs ?? waiter.timeoutMs);
  await within(waiter, barrier, options, 'nothing was changed');
  return describeMembership(replica.membership);
}
