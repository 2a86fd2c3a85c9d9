/**
 * News of shards as bytes: datagrams of their own, of a kind that is none of `swim-codec.ts`, so that hosts that know nothing of it pass
 * over it. JSON as there; every field is checked.
 */
import { ADDRESS_MAX_BYTES, MEMBERS_MAX } from '../wire/limits.ts';
import { DATAGRAM_MAX_BYTES } from './limits.ts';

export interface LeaderNews {
  readonly kind: 'leader';
  readonly shardId: number;
  readonly leaderId: number;
  readonly term: number;
}

/** Role: 0 voter, 1 non-voting, 2 witness. */
export type MemberFields = readonly [replicaId: number, role: number, target: string];

/** One of several parts of a membership: all of them do not always fit into a datagram. */
export interface MembersNews {
  readonly kind: 'members';
  readonly shardId: number;
  readonly configChangeIndex: number;
  readonly part: number;
  readonly parts: number;
  readonly members: readonly MemberFields[];
}

export type ShardNews = LeaderNews | MembersNews;

const SHARDS_KIND = 64;
/** Bytes around the list of news. */
const FRAME_BYTES = 8;
export const NEWS_MAX_BYTES = DATAGRAM_MAX_BYTES - FRAME_BYTES;
/** Of the fields of a part beside its members. */
const PART_BYTES = 80;
const ROLES = 3;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

const fieldsOf = (news: ShardNews): unknown[] =>
  news.kind === 'leader'
    ? [news.shardId, news.leaderId, news.term]
    : [news.shardId, news.configChangeIndex, news.part, news.parts, news.members];

const bytesOf = (value: unknown): number => encoder.encode(JSON.stringify(value)).length + 1;

export const newsBytes = (news: ShardNews): number => bytesOf(fieldsOf(news));

type Members = Readonly<Record<'voters' | 'nonVotings' | 'witnesses', Readonly<Record<number, string>>>>;

/** A membership as news, each of which fits into a datagram; none of one that is not known. */
export function splitMembers(shardId: number, configChangeIndex: number, members: Members): MembersNews[] {
  const all = [members.voters, members.nonVotings, members.witnesses].flatMap((of, role) =>
    Object.entries(of).map(([id, target]): MemberFields => [Number(id), role, target]),
  );
  const parts: MemberFields[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const member of all) {
    const more = bytesOf(member);
    if (bytes + more > NEWS_MAX_BYTES - PART_BYTES) {
      parts.push([]);
      bytes = 0;
    }
    bytes += more;
    parts[parts.length - 1].push(member);
  }
  return parts.map((part, number) => ({
    kind: 'members',
    shardId,
    configChangeIndex,
    part: number,
    parts: parts.length,
    members: part,
  }));
}

/** As few datagrams as it takes. */
export function encodeNews(news: readonly ShardNews[]): Uint8Array[] {
  const datagrams: Uint8Array[] = [];
  let fields: unknown[] = [];
  let bytes = 0;
  const seal = (): void => {
    if (fields.length > 0) datagrams.push(encoder.encode(JSON.stringify([SHARDS_KIND, fields])));
    fields = [];
    bytes = 0;
  };
  for (const item of news) {
    const more = newsBytes(item);
    if (bytes + more > NEWS_MAX_BYTES) seal();
    fields.push(fieldsOf(item));
    bytes += more;
  }
  seal();
  return datagrams;
}

/** Undefined for anything that is not news of shards. */
export function decodeNews(bytes: Uint8Array): ShardNews[] | undefined {
  if (bytes.length > DATAGRAM_MAX_BYTES) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch {
    return undefined;
  }
  if (!Array.isArray(value) || value.length !== 2 || value[0] !== SHARDS_KIND || !Array.isArray(value[1]))
    return undefined;
  const news: ShardNews[] = [];
  for (const fields of value[1] as unknown[]) {
    const item = Array.isArray(fields) ? decodeFields(fields) : undefined;
    if (item === undefined) return undefined;
    news.push(item);
  }
  return news;
}

function decodeFields(fields: readonly unknown[]): ShardNews | undefined {
  const [shardId, second, third, parts, members] = fields;
  if (!isCount(shardId) || shardId === 0 || !isCount(second) || !isCount(third)) return undefined;
  if (fields.length === 3) return second === 0 ? undefined : { kind: 'leader', shardId, leaderId: second, term: third };
  if (fields.length !== 5 || !isCount(parts) || parts > MEMBERS_MAX || third >= parts) return undefined;
  if (!Array.isArray(members) || members.length === 0 || members.length > MEMBERS_MAX) return undefined;
  if (!members.every(isMember)) return undefined;
  return { kind: 'members', shardId, configChangeIndex: second, part: third, parts, members };
}

function isMember(fields: unknown): fields is MemberFields {
  if (!Array.isArray(fields) || fields.length !== 3) return false;
  const [replicaId, role, target] = fields as unknown[];
  const isTarget = typeof target === 'string' && target.length <= ADDRESS_MAX_BYTES;
  return isCount(replicaId) && replicaId > 0 && isCount(role) && role < ROLES && isTarget;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
