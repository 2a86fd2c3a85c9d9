/**
 * A change of a shard's membership, and the log entry that carries it. The entry holds the membership that the leader changes, too: only
 * one change is under way at a time, so that the leader knows it for certain. A replica that reads the log from its beginning and
 * was never told the first members learns from it who belongs to the shard, and a replica that believes otherwise is found out.
 */
import { DrakkarError } from '../errors.ts';
import { ADDRESS_MAX_BYTES } from './limits.ts';
import { imageOf, membershipOf, readJson, type Membership } from './membership.ts';

export type MemberRole = 'voter' | 'non-voting' | 'witness';

export interface ConfigChange {
  readonly kind: 'add' | 'remove' | 'promote';
  readonly replicaId: number;
  /** Of an added member, `host:port`; empty otherwise. */
  readonly address: string;
  /** Of an added member. */
  readonly role: MemberRole;
  /** Becomes a voter by itself once it has caught up; only for `non-voting`. */
  readonly autoPromote: boolean;
  /** Only when the membership is still the one that this change made; 0 for whatever it is. */
  readonly configChangeIndex: number;
}

export interface ConfigChangeEntry {
  readonly change: ConfigChange;
  readonly base: Membership;
}

const KINDS: readonly unknown[] = ['add', 'remove', 'promote'];
const ROLES: readonly unknown[] = ['voter', 'non-voting', 'witness'];

const malformed = (): DrakkarError => new DrakkarError('ERR_FRAME', 'a config change is malformed');

/** JSON, as UTF-8, like a membership. Without `base` it is a wish on its way to the leader. */
export function encodeConfigChange(change: ConfigChange, base?: Membership): Uint8Array {
  const { kind, replicaId, address, role, autoPromote, configChangeIndex } = change;
  const image = { k: kind, i: replicaId, a: address, l: role, p: autoPromote, c: configChangeIndex };
  const entry = base === undefined ? image : { ...image, b: imageOf(base) };
  return new TextEncoder().encode(JSON.stringify(entry));
}

/** Throws `ERR_FRAME`. */
export function decodeConfigChange(bytes: Uint8Array): ConfigChange {
  return changeOf(readJson(bytes));
}

/** Throws `ERR_FRAME`. */
export function decodeConfigChangeEntry(bytes: Uint8Array): ConfigChangeEntry {
  const image = readJson(bytes);
  return { change: changeOf(image), base: membershipOf((image as { b?: unknown }).b) };
}

function changeOf(value: unknown): ConfigChange {
  if (typeof value !== 'object' || value === null) throw malformed();
  const { k, i, a, l, p, c } = value as Record<string, unknown>;
  if (!KINDS.includes(k) || !ROLES.includes(l) || typeof p !== 'boolean') throw malformed();
  if (!Number.isSafeInteger(i) || (i as number) < 1 || !Number.isSafeInteger(c) || (c as number) < 0) throw malformed();
  if (typeof a !== 'string' || a.length > ADDRESS_MAX_BYTES) throw malformed();
  return {
    kind: k as ConfigChange['kind'],
    replicaId: i as number,
    address: a,
    role: l as MemberRole,
    autoPromote: p,
    configChangeIndex: c as number,
  };
}
