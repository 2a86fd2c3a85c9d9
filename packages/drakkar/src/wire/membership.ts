/** Who belongs to a shard. A plain value: every change makes a new one. Part of the bootstrap record and of every snapshot. */
import { DrakkarError } from '../errors.ts';
import { ADDRESS_MAX_BYTES, MEMBERS_MAX } from './limits.ts';

export interface Membership {
  /** Index of the config change that made it; 0 for the initial one. */
  readonly configChangeIndex: number;
  /** Replica id to address, of those that vote, ascending by id. */
  readonly voters: ReadonlyMap<number, string>;
  readonly nonVotings: ReadonlyMap<number, string>;
  readonly witnesses: ReadonlyMap<number, string>;
  /** Ids that were removed and can never come back. */
  readonly removed: ReadonlySet<number>;
}

export function initialMembership(voters: Iterable<readonly [number, string]>): Membership {
  return {
    configChangeIndex: 0,
    voters: new Map([...voters].sort((a, b) => a[0] - b[0])),
    nonVotings: new Map(),
    witnesses: new Map(),
    removed: new Set(),
  };
}

type MembershipImage = {
  c: number;
  v: [number, string][];
  n: [number, string][];
  w: [number, string][];
  r: number[];
};

/** JSON, as UTF-8: small, rare, and readable in a dump of the log. */
export function encodeMembership(membership: Membership): Uint8Array {
  const image: MembershipImage = {
    c: membership.configChangeIndex,
    v: [...membership.voters],
    n: [...membership.nonVotings],
    w: [...membership.witnesses],
    r: [...membership.removed].sort((a, b) => a - b),
  };
  return new TextEncoder().encode(JSON.stringify(image));
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
  let image: Partial<Record<keyof MembershipImage, unknown>>;
  try {
    image = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new DrakkarError('ERR_FRAME', 'a membership record is not readable', { cause });
  }
  if (typeof image !== 'object' || image === null) throw malformed();
  if (!Number.isSafeInteger(image.c) || (image.c as number) < 0) throw malformed();
  if (!Array.isArray(image.r) || !image.r.every(isId)) throw malformed();
  return {
    configChangeIndex: image.c as number,
    voters: readMembers(image.v),
    nonVotings: readMembers(image.n),
    witnesses: readMembers(image.w),
    removed: new Set(image.r),
  };
}
