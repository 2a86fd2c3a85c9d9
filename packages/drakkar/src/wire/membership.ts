/** Who belongs to a shard. A plain value: every change makes a new one. Part of the bootstrap record and of every snapshot. */
import { DrakkarError } from '../errors.ts';
import { ADDRESS_MAX_BYTES, MEMBERS_MAX, REMOVED_MAX } from './limits.ts';

export interface Membership {
  /** Index of the config change that made it; 0 for the initial one. */
  readonly configChangeIndex: number;
  /** Replica id to address, of those that vote, ascending by id. */
  readonly voters: ReadonlyMap<number, string>;
  readonly nonVotings: ReadonlyMap<number, string>;
  readonly witnesses: ReadonlyMap<number, string>;
  /** Those of `nonVotings` that become voters by themselves once they have caught up. */
  readonly autoPromoted: ReadonlySet<number>;
  /** Ids that were removed and can never come back. */
  readonly removed: ReadonlySet<number>;
}

export function initialMembership(voters: Iterable<readonly [number, string]>): Membership {
  return {
    configChangeIndex: 0,
    voters: new Map([...voters].sort((a, b) => a[0] - b[0])),
    nonVotings: new Map(),
    witnesses: new Map(),
    autoPromoted: new Set(),
    removed: new Set(),
  };
}

/** Of a replica that waits to be told who belongs to its shard. */
export const UNKNOWN_MEMBERSHIP: Membership = initialMembership([]);

export function isKnown(membership: Membership): boolean {
  return membership.voters.size > 0;
}

export function addressIn(membership: Membership, replicaId: number): string | undefined {
  return (
    membership.voters.get(replicaId) ?? membership.nonVotings.get(replicaId) ?? membership.witnesses.get(replicaId)
  );
}

/** All members, ascending by id. */
export function memberIds(membership: Membership): number[] {
  const ids = [...membership.voters.keys(), ...membership.nonVotings.keys(), ...membership.witnesses.keys()];
  return ids.sort((a, b) => a - b);
}

/** As it stands in JSON. */
export type MembershipImage = {
  c: number;
  v: [number, string][];
  n: [number, string][];
  w: [number, string][];
  p: number[];
  r: number[];
};

export function imageOf(membership: Membership): MembershipImage {
  return {
    c: membership.configChangeIndex,
    v: [...membership.voters],
    n: [...membership.nonVotings],
    w: [...membership.witnesses],
    p: [...membership.autoPromoted],
    r: [...membership.removed].sort((a, b) => a - b),
  };
}

/** JSON, as UTF-8: small, rare, and readable in a dump of the log. */
export function encodeMembership(membership: Membership): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(imageOf(membership)));
}

const isId = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 1;

function readMembers(value: unknown): Map<number, string> {
  if (!Array.isArray(value) || value.length > MEMBERS_MAX) throw malformed();
  const members = new Map<number, string>();
  for (const pair of value) {
    if (!Array.isArray(pair) || pair.length !== 2 || !isId(pair[0])) throw malformed();
    if (typeof pair[1] !== 'string' || pair[1].length > ADDRESS_MAX_BYTES) throw malformed();
    members.set(pair[0], pair[1]);
  }
  return members;
}

const malformed = () => new DrakkarError('ERR_FRAME', 'a membership record is malformed');

/** Throws `ERR_FRAME` on anything that `encodeMembership` could not have made. */
export function decodeMembership(bytes: Uint8Array): Membership {
  return membershipOf(readJson(bytes));
}

export function readJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new DrakkarError('ERR_FRAME', 'a membership record is not readable', { cause });
  }
}

/** Throws `ERR_FRAME`. */
export function membershipOf(value: unknown): Membership {
  if (typeof value !== 'object' || value === null) throw malformed();
  const image = value as Partial<Record<keyof MembershipImage, unknown>>;
  if (!Number.isSafeInteger(image.c) || (image.c as number) < 0) throw malformed();
  // Absent in records of before there was any promotion.
  const autoPromoted = image.p ?? [];
  if (!Array.isArray(autoPromoted) || !autoPromoted.every(isId)) throw malformed();
  if (!Array.isArray(image.r) || image.r.length > REMOVED_MAX || !image.r.every(isId)) throw malformed();
  return {
    configChangeIndex: image.c as number,
    voters: readMembers(image.v),
    nonVotings: readMembers(image.n),
    witnesses: readMembers(image.w),
    autoPromoted: new Set(autoPromoted),
    removed: new Set(image.r),
  };
}
