/**
 * Those who read the log of each shard in a run: a change stream that moves from host to host and must be exactly what is committed, in
 * order; queries of ranges; a watch of the leader. What they see is held against the truth of the shard and against each other.
 */
import { DrakkarError } from '../errors.ts';
import type { LogEntry } from '../index.ts';
import type { NodeHost } from '../nodehost.ts';
import type { World } from '../testing.ts';
import type { Dice } from './dice.ts';
import type { SimHost } from './host.ts';
import { DAMAGE_CODES } from './refusals.ts';
import { TOKEN_BYTES } from './machine.ts';
import type { Plan, ShardPlan } from './plan.ts';
import type { Trace } from './trace.ts';
import type { ShardTruth } from './truth.ts';
import { Violation, holds } from './violation.ts';

export interface ReadersOwner {
  readonly plan: Plan;
  readonly world: World;
  readonly hosts: readonly SimHost[];
  readonly truths: ReadonlyMap<number, ShardTruth>;
  readonly trace: Trace;
  count(name: string): void;
  /** For what goes wrong where nobody waits. */
  readonly fail: (error: unknown) => void;
}

/** Without an entry for so long a stream moves to another host. */
const PATIENCE_MS = 400;
/** Mean virtual time between two queries. */
const QUERY_MS = 120;
/** Mean number of entries after which a stream moves, or dawdles. */
const STAY_ENTRIES = 60;

/** What a host may answer besides entries; the rest is a mistake. */
const EXPECTED: ReadonlySet<string> = new Set([
  'ERR_SHARD_NOT_FOUND',
  'ERR_SHARD_STOPPED',
  'ERR_REPLICA_REMOVED',
  'ERR_SHARD_FAILED',
  'ERR_SYSTEM_BUSY',
  'ERR_TIMEOUT',
  'ERR_CLOSED',
  'ERR_DISK_FAILED',
  'ERR_ENGINE_FAILED',
]);

export class Readers {
  private readonly owner: ReadersOwner;
  private readonly dice: Dice;
  private isStopped = false;
  /** Nobody moves or dawdles any more: the rest of the log may be long. */
  private isHurried = false;
  /** By shard: index of the entry that its stream gives next. */
  private readonly positions = new Map<number, number>();

  constructor(owner: ReadersOwner, dice: Dice) {
    this.owner = owner;
    this.dice = dice;
  }

  start(): void {
    for (const shard of this.owner.plan.shards) {
      this.positions.set(shard.shardId, 1);
      this.streams(shard).catch(this.owner.fail);
      this.queries(shard).catch(this.owner.fail);
      this.leaders(shard).catch(this.owner.fail);
    }
  }

  stop(): void {
    this.isStopped = true;
  }

  /** From now on the streams read as fast as they are given. */
  hurry(): void {
    this.isHurried = true;
  }

  /** Index of the entry that the stream of the shard gives next. */
  position(shardId: number): number {
    return this.positions.get(shardId)!;
  }

  /** Whether the stream of the shard has given all that was committed. */
  hasRead(shardId: number): boolean {
    return this.position(shardId) > this.owner.truths.get(shardId)!.commitIndex;
  }

  private hostOf(dice: Dice, { shardId }: ShardPlan): SimHost | undefined {
    const up = this.owner.hosts.filter((host) => host.isUp && !host.isForgetful && host.serves(shardId));
    return up.length === 0 ? undefined : dice.pick(up);
  }

  private sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.owner.world.schedule(delayMs, resolve));
  }

  /** Throws what no fault of `host` explains. */
  private expect(error: unknown, host: SimHost, hadReadFaults: boolean): DrakkarError {
    if (error instanceof Violation) throw error;
    if (!DrakkarError.is(error)) throw new Violation('crash', 'errors have codes', String(error));
    this.owner.count(`error ${error.code}`);
    const isExplained = (hadReadFaults || host.hasReadFaults || host.isDamaged) && DAMAGE_CODES.has(error.code);
    if (!isExplained && !EXPECTED.has(error.code)) {
      throw new Violation(
        'crash',
        'reading the log fails for a reason',
        `${host.name}: ${error.code} ${error.message}`,
      );
    }
    return error;
  }

  // The change stream.

  private async streams(shard: ShardPlan): Promise<void> {
    const dice = this.dice.stream(`stream ${shard.shardId}`);
    while (!this.isStopped) {
      const host = this.hostOf(dice, shard);
      if (host === undefined) await this.sleep(50);
      else await this.stream(dice, shard.shardId, host);
      await this.sleep(dice.exponential(20));
    }
  }

  /** One iteration on one host. */
  private async stream(dice: Dice, shardId: number, host: SimHost): Promise<void> {
    const { hasReadFaults } = host;
    const from = this.positions.get(shardId)!;
    this.owner.count('streamsBegun');
    this.owner.trace.note(host.name, 'streams shard', shardId, 'from', from);
    try {
      const options = { fromIndex: from, bufferBytes: dice.pick([1024, 8192, 1024 * 1024]) };
      const iterator = host.host!.watch(shardId, options)[Symbol.asyncIterator]();
      const stay = dice.exponential(STAY_ENTRIES);
      for (let seen = 0; (seen < stay || this.isHurried) && !this.isStopped; seen++) {
        const result = await this.within(host.call(() => iterator.next()));
        if (result === 'lost') return;
        if (result === 'late' || result.done === true) break;
        this.took(shardId, result.value, host);
        if (!this.isHurried && dice.chance(1 / STAY_ENTRIES)) await this.sleep(dice.exponential(300));
      }
      await this.within(host.call(async () => iterator.return?.()));
    } catch (error) {
      if (DrakkarError.is(error, 'ERR_LOG_COMPACTED')) {
        this.skip(shardId, error, host);
        return;
      }
      this.expect(error, host, hasReadFaults);
    }
  }

  private took(shardId: number, entry: LogEntry, host: SimHost): void {
    const expected = this.positions.get(shardId)!;
    holds(entry.index === expected, 'a stream is the log, in order', () => {
      return `${host.name} gave entry ${entry.index} of shard ${shardId} where ${expected} comes next`;
    });
    this.holdsEntry(shardId, entry);
    this.positions.set(shardId, expected + 1);
    this.owner.count('entriesStreamed');
  }

  private skip(shardId: number, error: DrakkarError, host: SimHost): void {
    const expected = this.positions.get(shardId)!;
    const first = error.available?.firstIndex ?? 0;
    holds(first > expected, 'what is called compacted is', () => {
      return `${host.name} has entries of shard ${shardId} from ${first} on and refuses ${expected}`;
    });
    this.owner.count('streamsOvertaken');
    this.positions.set(shardId, first);
  }

  private within<T>(work: Promise<T>): Promise<T | 'late'> {
    return Promise.race([work, this.sleep(PATIENCE_MS).then(() => 'late' as const)]);
  }

  private holdsEntry(shardId: number, { index, term, kind, bytes, session }: LogEntry): void {
    const isCommand = kind === 'command';
    const token = isCommand ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) : 0;
    const command = isCommand ? bytes.subarray(TOKEN_BYTES) : bytes;
    this.owner.truths
      .get(shardId)!
      .readsEntry({ index, term, kind, token, isRetryable: session !== undefined }, command);
  }

  // Queries.

  private async queries(shard: ShardPlan): Promise<void> {
    const dice = this.dice.stream(`queries ${shard.shardId}`);
    while (!this.isStopped) {
      await this.sleep(dice.exponential(QUERY_MS));
      const host = this.hostOf(dice, shard);
      if (host !== undefined) await this.query(dice, shard.shardId, host);
    }
  }

  private async query(dice: Dice, shardId: number, host: SimHost): Promise<void> {
    const { hasReadFaults } = host;
    const truth = this.owner.truths.get(shardId)!;
    const firstIndex = 1 + dice.below(truth.commitIndex + 2);
    const lastIndex = dice.chance(0.5) ? firstIndex + dice.below(40) : undefined;
    const maxEntries = dice.pick([1, 7, 1000]);
    const range = { firstIndex, maxEntries, timeoutMs: 2000, ...(lastIndex === undefined ? {} : { lastIndex }) };
    try {
      const answer = await host.call((node) => node.queryLog(shardId, range));
      if (answer === 'lost') return;
      const { entries, nextIndex } = answer;
      const isRight =
        entries.length > 0 &&
        entries.length <= maxEntries &&
        nextIndex === firstIndex + entries.length &&
        nextIndex <= (lastIndex ?? Number.POSITIVE_INFINITY) + 1;
      holds(isRight, 'a query gives the range asked for', () => {
        return `${host.name} gave ${entries.length} entries of shard ${shardId} up to ${nextIndex} for ${JSON.stringify(range)}`;
      });
      for (const [at, entry] of entries.entries()) {
        holds(entry.index === firstIndex + at, 'a query gives the range asked for', () => `entry ${entry.index}`);
        this.holdsEntry(shardId, entry);
      }
      this.owner.count('queriesAnswered');
    } catch (error) {
      const isCompacted = DrakkarError.is(error, 'ERR_LOG_COMPACTED');
      if (!isCompacted && !DrakkarError.is(error, 'ERR_LOG_OUT_OF_RANGE')) {
        this.expect(error, host, hasReadFaults);
        return;
      }
      const available = error.available!;
      const isTrue = isCompacted
        ? available.firstIndex > firstIndex
        : available.lastIndex < Math.max(firstIndex, lastIndex ?? 0);
      holds(isTrue, 'a query is refused for what is not there', () => {
        return `${host.name} refuses ${JSON.stringify(range)} of shard ${shardId} having ${JSON.stringify(available)}`;
      });
      this.owner.count(isCompacted ? 'queriesTooLate' : 'queriesTooEarly');
    }
  }

  // Leaders.

  private async leaders(shard: ShardPlan): Promise<void> {
    const dice = this.dice.stream(`leaders ${shard.shardId}`);
    while (!this.isStopped) {
      const host = this.hostOf(dice, shard);
      if (host !== undefined) await this.watchLeader(shard.shardId, host, host.host!);
      await this.sleep(dice.exponential(100));
    }
  }

  private async watchLeader(shardId: number, host: SimHost, node: NodeHost): Promise<void> {
    const truth = this.owner.truths.get(shardId)!;
    try {
      const standstills = host.machine.process?.standstills ?? 0;
      const iterator = node.watchLeader(shardId)[Symbol.asyncIterator]();
      let newest = 0;
      for (let isFirst = true; !this.isStopped; isFirst = false) {
        const result = await this.within(host.call(() => iterator.next()));
        // A process that stands still tells nothing.
        const stoodStill = standstills !== host.machine.process?.standstills || standstills % 2 === 1;
        holds(result !== 'late' || !isFirst || stoodStill, 'the leader of now is told at once', () => host.name);
        if (result === 'lost') return;
        if (result === 'late' || result.done === true) break;
        const { leaderId, term } = result.value;
        holds(term >= newest, 'a watch goes forward', () => `${host.name}: term ${term} after ${newest}`);
        newest = term;
        if (leaderId !== 0 && !host.isForgetful) truth.leads(term, leaderId);
        this.owner.count('leadersWatched');
      }
      await this.within(host.call(async () => iterator.return?.()));
    } catch (error) {
      this.expect(error, host, false);
    }
  }
}
