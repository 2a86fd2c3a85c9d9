/**
 * What hosts tell one another of shards: who leads, in which term, and who belongs to them. News of two kinds, each newest by a number of its
 * own: the term, or the index of the config change. A hint for those who look for a shard, and for nobody's vote. Pure, and bounded:
 * so many shards, so many bytes at a time.
 */
import { SHARD_VIEWS_MAX } from './limits.ts';
import { newsBytes, splitMembers, type LeaderNews, type MembersNews, type ShardNews } from './shard-codec.ts';

/** A shard as it is known here, from its own hosts or by hearsay. */
export interface ShardView {
  readonly shardId: number;
  /** The newest leader that was heard of, and its term; 0, 0 for none. It may be none any more. */
  readonly leaderId: number;
  readonly term: number;
  /** Of the membership. */
  readonly configChangeIndex: number;
  /** Replica id to what its host is reached by; empty while only a leader was heard of. */
  readonly voters: Readonly<Record<number, string>>;
  readonly nonVotings: Readonly<Record<number, string>>;
  readonly witnesses: Readonly<Record<number, string>>;
}

class Known {
  leader: LeaderNews | undefined;
  /** All parts of the newest membership that is here whole. */
  members: readonly MembersNews[] = [];
  /** A newer one of which parts are missing. */
  coming: (MembersNews | undefined)[] = [];
}

export class ShardViews {
  private readonly known = new Map<number, Known>();
  /** What is still to be told, by what it is of, and how often; what was told least lately comes first. */
  private readonly fresh = new Map<string, { readonly news: ShardNews; readonly tellings: number }>();
  /** Where `some` goes on. */
  private cursor = 0;
  /** Shards that did not fit into the table. */
  ignored = 0;

  get(shardId: number): ShardView | undefined {
    const known = this.known.get(shardId);
    return known === undefined ? undefined : viewOf(shardId, known);
  }

  all(): ShardView[] {
    return [...this.known].map(([shardId, known]) => viewOf(shardId, known));
  }

  /** What this host knows of a shard itself; to be told `tellings` times where it is news. */
  tell({ shardId, leaderId, term, configChangeIndex, ...members }: ShardView, tellings: number): void {
    if (leaderId !== 0) this.learn({ kind: 'leader', shardId, leaderId, term }, tellings);
    for (const part of splitMembers(shardId, configChangeIndex, members)) this.learn(part, tellings);
  }

  learn(news: ShardNews, tellings: number): void {
    const known = this.of(news.shardId);
    if (known === undefined) return;
    const isNew = news.kind === 'leader' ? learnLeader(known, news) : learnMembers(known, news);
    if (isNew) this.fresh.set(keyOf(news), { news, tellings });
  }

  private of(shardId: number): Known | undefined {
    let known = this.known.get(shardId);
    if (known !== undefined) return known;
    if (this.known.size >= SHARD_VIEWS_MAX) {
      this.ignored++;
      return undefined;
    }
    known = new Known();
    this.known.set(shardId, known);
    return known;
  }

  /** News for one datagram, what was told least lately first; empty when everything was told often enough. */
  takeFresh(maxBytes: number): ShardNews[] {
    const taken: (readonly [key: string, news: ShardNews, tellings: number])[] = [];
    let bytes = 0;
    for (const [key, { news, tellings }] of this.fresh) {
      bytes += newsBytes(news);
      if (bytes > maxBytes) break;
      taken.push([key, news, tellings]);
    }
    for (const [key, news, tellings] of taken) {
      this.fresh.delete(key);
      if (tellings > 1) this.fresh.set(key, { news, tellings: tellings - 1 }); // behind all others
    }
    return taken.map(([, news]) => news);
  }

  /** What is known of the next `count` shards; goes round. */
  some(count: number): ShardNews[] {
    const ids = [...this.known.keys()];
    const taken: ShardNews[] = [];
    for (let left = Math.min(count, ids.length); left > 0; left--) {
      const { leader, members } = this.known.get(ids[this.cursor++ % ids.length])!;
      if (leader !== undefined) taken.push(leader);
      taken.push(...members);
    }
    return taken;
  }
}

const keyOf = (news: ShardNews): string =>
  news.kind === 'leader' ? `${news.shardId}` : `${news.shardId}/${news.part}`;

function learnLeader(known: Known, news: LeaderNews): boolean {
  if (known.leader !== undefined && news.term <= known.leader.term) return false;
  known.leader = news;
  return true;
}

/** A part counts at once for telling it on, and with its whole for knowing it. */
function learnMembers(known: Known, news: MembersNews): boolean {
  const index = known.members[0]?.configChangeIndex ?? -1;
  const comingIndex = known.coming.find((part) => part !== undefined)?.configChangeIndex ?? index;
  if (news.configChangeIndex <= index || news.configChangeIndex < comingIndex) return false;
  if (news.configChangeIndex > comingIndex || known.coming.length !== news.parts) {
    known.coming = Array.from({ length: news.parts }, () => undefined);
  }
  if (known.coming[news.part] !== undefined) return false;
  known.coming[news.part] = news;
  if (!known.coming.includes(undefined)) {
    known.members = known.coming as MembersNews[];
    known.coming = [];
  }
  return true;
}

function viewOf(shardId: number, { leader, members }: Known): ShardView {
  const of = (role: number): Record<number, string> =>
    Object.fromEntries(
      members.flatMap((part) => part.members.filter((member) => member[1] === role).map(([id, , to]) => [id, to])),
    );
  return {
    shardId,
    leaderId: leader?.leaderId ?? 0,
    term: leader?.term ?? 0,
    configChangeIndex: members[0]?.configChangeIndex ?? 0,
    voters: of(0),
    nonVotings: of(1),
    witnesses: of(2),
  };
}
