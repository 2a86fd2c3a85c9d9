/** What a membership names a member's host by: an address that never changes, or a host id whose address a registry knows. */
import type { HostIdentity } from './transport.ts';

/** 128 bits as 32 hex digits, as a host's id is written. */
export function isHostId(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}

/** Whether a target means this host. */
export function meansHost(target: string, identity: HostIdentity): boolean {
  return target === identity.raftAddress || target === identity.hostId;
}
