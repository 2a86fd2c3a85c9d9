/**
 * What hosts gossip, as bytes. JSON, since it is rare and small, and a person can read it; every field is checked. A datagram was
 * authenticated before it comes here.
 */
import { isHostId } from '../transport/target.ts';
import { ADDRESS_MAX_BYTES } from '../wire/limits.ts';
import { DATAGRAM_MAX_BYTES, META_MAX_BYTES } from './limits.ts';

export type HostState = 'alive' | 'suspect' | 'dead';

/** What is said of a host. Of two rumours the one with the higher incarnation counts, then the worse one (SWIM §4.2). */
export interface Rumour {
  readonly hostId: string;
  readonly state: HostState;
  /** Raised by the host itself only: at every start, and to contradict that it is suspect. */
  readonly incarnation: number;
  readonly raftAddress: string;
  readonly gossipAddress: string;
  readonly meta: string;
}

/**
 * `ping` wants an `ack` with its number; `relay` asks to ping `target` and to pass its ack on; `sync` asks for all that is known, which
 * comes in as many `rumours` as it takes.
 */
export type GossipKind = 'ping' | 'ack' | 'relay' | 'sync' | 'rumours';

export interface Gossip {
  readonly kind: GossipKind;
  readonly number: number;
  /** Gossip address to ping, for `relay`. */
  readonly target: string;
  readonly rumours: readonly Rumour[];
}

const KINDS: readonly string[] = ['ping', 'ack', 'relay', 'sync', 'rumours'];
const STATES: readonly string[] = ['alive', 'suspect', 'dead'];

type RumourFields = [string, number, number, string, string, string];

const fieldsOf = (rumour: Rumour): RumourFields => [
  rumour.hostId,
  STATES.indexOf(rumour.state),
  rumour.incarnation,
  rumour.raftAddress,
  rumour.gossipAddress,
  rumour.meta,
];

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** Bytes that a rumour takes in a datagram. */
export function rumourBytes(rumour: Rumour): number {
  return encoder.encode(JSON.stringify(fieldsOf(rumour))).length + 1;
}

/** What is left for rumours in a datagram of the longest kind and target. */
export const RUMOURS_MAX_BYTES = DATAGRAM_MAX_BYTES - ADDRESS_MAX_BYTES - 64;

export function encodeGossip({ kind, number, target, rumours }: Gossip): Uint8Array {
  return encoder.encode(JSON.stringify([KINDS.indexOf(kind), number, target, rumours.map(fieldsOf)]));
}

/** Undefined for anything that is not gossip of this version. */
export function decodeGossip(bytes: Uint8Array): Gossip | undefined {
  if (bytes.length > DATAGRAM_MAX_BYTES) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch {
    return undefined;
  }
  if (!Array.isArray(value) || value.length !== 4) return undefined;
  const [kind, number, target, list] = value as unknown[];
  if (!isIndexOf(KINDS, kind) || !isCount(number) || !isAddressText(target) || !Array.isArray(list)) return undefined;
  const rumours: Rumour[] = [];
  for (const fields of list) {
    const rumour = decodeRumour(fields);
    if (rumour === undefined) return undefined;
    rumours.push(rumour);
  }
  return { kind: KINDS[kind] as GossipKind, number, target, rumours };
}

function decodeRumour(fields: unknown): Rumour | undefined {
  if (!Array.isArray(fields) || fields.length !== 6) return undefined;
  const [hostId, state, incarnation, raftAddress, gossipAddress, meta] = fields as unknown[];
  if (typeof hostId !== 'string' || !isHostId(hostId) || !isIndexOf(STATES, state) || !isCount(incarnation))
    return undefined;
  if (!isAddressText(raftAddress) || !isAddressText(gossipAddress)) return undefined;
  if (typeof meta !== 'string' || encoder.encode(meta).length > META_MAX_BYTES) return undefined;
  return { hostId, state: STATES[state] as HostState, incarnation, raftAddress, gossipAddress, meta };
}

function isIndexOf(list: readonly string[], value: unknown): value is number {
  return isCount(value) && value < list.length;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isAddressText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= ADDRESS_MAX_BYTES;
}
