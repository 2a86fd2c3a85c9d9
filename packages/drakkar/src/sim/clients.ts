/**
 * The clients of a run: each does one call after the other on a host of its choice, in every way the library offers, and holds what it
 * hears against the truth. A call whose host dies is lost: its outcome stays unknown.
 */
import { DrakkarError } from '../errors.ts';
import { replicaOf } from '../inspect.ts';
import type { NodeHost } from '../nodehost.ts';
import type { Result } from '../rsm/state-machine.ts';
import type { Session } from '../session.ts';
import type { World } from '../testing.ts';
import type { Dice } from './dice.ts';
import { checkExport } from './exports.ts';
import type { SimHost } from './host.ts';
import { withToken, type WatchedAnswer } from './machine.ts';
import type { Plan } from './plan.ts';
import type { Trace } from './trace.ts';
import type { ShardTruth } from './truth.ts';
import { Violation, holds } from './violation.ts';
import type { CallOutcome, Workload, WorkloadCall } from './workload.ts';

export interface ClientsOwner {
  readonly plan: Plan;
  readonly world: World;
  readonly hosts: readonly SimHost[];
  readonly truths: ReadonlyMap<number, ShardTruth>;
  readonly workload: Workload;
  readonly trace: Trace;
  count(name: string): void;
  /** For what goes wrong where nobody waits. */
  readonly fail: (error: unknown) => void;
}

/** A session, and the process that it lives in. */
interface HeldSession {
  readonly session: Session;
  readonly generation: number;
}

const FLOOD_PROPOSALS = 300;
/** More than a shard keeps, so that the oldest are evicted. */
const FLOOD_SESSIONS = 4200;
const FLOOD_STEP = 100;
/** Of the snapshots that operators ask for. */
const EXPORT_SHARE = 0.3;

export class Clients {
  private readonly owner: ClientsOwner;
  private readonly dice: Dice;
  private operationsLeft: number;
  private callCount = 0;
  private exportCount = 0;
  /** All clients hold still until then. */
  private lullUntilMs = 0;
  /** Calls that certainly were not applied, with their shards. */
  private readonly refused: { readonly token: number; readonly truth: ShardTruth }[] = [];
  /** Calls that were told to be committed, and where. */
  private readonly noticed: { readonly token: number; readonly truth: ShardTruth; readonly index: number }[] = [];
  private readonly sessions = new Map<string, HeldSession>();

  constructor(owner: ClientsOwner, dice: Dice) {
    this.owner = owner;
    this.dice = dice;
    this.operationsLeft = owner.plan.operations;
  }

  /** Until all operations were begun and have ended. */
  async run(): Promise<void> {
    const { clientCount } = this.owner.plan;
    await Promise.all(Array.from({ length: clientCount }, (_, i) => this.runClient(i + 1)));
  }

  stop(): void {
    this.operationsLeft = 0;
  }

  leaderOf(shardId: number): SimHost | undefined {
    return this.owner.hosts.find(({ host, isUp }) => {
      return isUp && host !== undefined && replicaOf(host, shardId)?.role === 'leader';
    });
  }

  private async runClient(client: number): Promise<void> {
    const dice = this.dice.stream(`client ${client}`);
    const { plan, workload, hosts, world } = this.owner;
    while (this.operationsLeft > 0) {
      await this.sleep(dice.exponential(plan.thinkMs));
      if (world.nowMs() < this.lullUntilMs) await this.sleep(this.lullUntilMs - world.nowMs());
      const { shardId } = dice.pick(plan.shards);
      const up = hosts.filter((host) => host.isUp && host.serves(shardId));
      if (up.length === 0) continue;
      const leader = this.leaderOf(shardId);
      const host = leader !== undefined && dice.chance(0.5) ? leader : dice.pick(up);
      this.operationsLeft--;
      if (plan.lullEvery > 0 && this.operationsLeft % plan.lullEvery === 0)
        this.lullUntilMs = world.nowMs() + plan.lullMs;
      if (workload.query !== undefined && dice.chance(0.35)) await this.read(dice, client, host, shardId);
      else if (dice.chance(0.25)) await this.proposeInSession(dice, client, host, shardId);
      else if (dice.chance(0.1)) await this.proposeBatch(dice, client, host, shardId);
      else await this.propose(dice, client, host, shardId);
    }
  }

  private sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.owner.world.schedule(delayMs, resolve));
  }

  // Calls.

  private begin(client: number, shardId: number, isRead: boolean, input: unknown): WorkloadCall {
    const id = ++this.callCount;
    const call: WorkloadCall = { id, client, shardId, isRead, input, startMs: this.owner.world.nowMs() };
    this.owner.workload.onCall?.(call);
    return call;
  }

  private async propose(dice: Dice, client: number, host: SimHost, shardId: number): Promise<void> {
    const command = this.owner.workload.command(dice, client);
    const call = this.begin(client, shardId, false, command);
    const timeoutMs = dice.pick([200, 600, 2000]);
    const useCallback = dice.chance(0.15);
    const wantsNotice = dice.chance(0.2);
    await this.write([call], host, async (node) => {
      const bytes = withToken(call.id, command);
      if (wantsNotice) return [await this.proposeNoticed(node, call.id, shardId, bytes, timeoutMs)];
      if (!useCallback) return [await node.propose(shardId, bytes, { timeoutMs })];
      return new Promise((resolve, reject) => {
        node.proposeCallback(shardId, bytes, (error, result) => (error === null ? resolve([result]) : reject(error)));
      });
    });
  }

  /** Hears of the commit before the answer. */
  private async proposeNoticed(
    node: NodeHost,
    token: number,
    shardId: number,
    bytes: Uint8Array,
    timeoutMs: number,
  ): Promise<Result> {
    const truth = this.owner.truths.get(shardId)!;
    let heard = 0;
    const onCommit = (index: number): void => {
      if (heard !== 0) this.owner.fail(new Violation('safety', 'a commit is told once', `call ${token}`));
      heard = index;
      this.noticed.push({ token, truth, index });
      this.owner.count('commitsNoticed');
    };
    const result = await node.propose(shardId, bytes, { timeoutMs, onCommit });
    holds(heard > 0, 'a commit is told before the answer', () => `call ${token} of shard ${shardId}`);
    return result;
  }

  private async proposeBatch(dice: Dice, client: number, host: SimHost, shardId: number): Promise<void> {
    const commands = Array.from({ length: dice.between(2, 6) }, () => this.owner.workload.command(dice, client));
    const calls = commands.map((command) => this.begin(client, shardId, false, command));
    const bytes = commands.map((command, i) => withToken(calls[i].id, command));
    await this.write(calls, host, (node) => node.proposeBatch(shardId, bytes, { timeoutMs: 2000 }));
  }

  private async proposeInSession(dice: Dice, client: number, host: SimHost, shardId: number): Promise<void> {
    const session = await this.sessionOf(client, host, shardId);
    if (session === undefined) return;
    const command = this.owner.workload.command(dice, client);
    const call = this.begin(client, shardId, false, command);
    const timeoutMs = dice.pick([500, 1500, 4000]);
    await this.write([call], host, async () => [await session.propose(withToken(call.id, command), { timeoutMs })]);
  }

  private async sessionOf(client: number, host: SimHost, shardId: number): Promise<Session | undefined> {
    const key = `${client}/${host.id}/${shardId}`;
    const known = this.sessions.get(key);
    if (known?.generation === host.generation) return known.session;
    const { generation } = host;
    try {
      const session = await host.call((node) => node.openSession(shardId, { timeoutMs: 2000 }));
      if (session === 'lost' || generation !== host.generation) return undefined;
      this.sessions.set(key, { session, generation });
      this.owner.count('sessionsOpened');
      return session;
    } catch (error) {
      this.expect(error);
      return undefined;
    }
  }

  /** Writes; `calls` are answered in order. */
  private async write(
    calls: readonly WorkloadCall[],
    host: SimHost,
    begin: (node: NodeHost) => Promise<readonly Result[]>,
  ): Promise<void> {
    const truth = this.owner.truths.get(calls[0].shardId)!;
    const floor = truth.acknowledgedIndex;
    this.owner.trace.note(host.name, 'is asked to write', calls[0].id, calls.length);
    try {
      const results = await host.call(begin);
      if (results === 'lost') {
        for (const call of calls) this.end(call, 'unknown', undefined);
        return;
      }
      for (const [i, call] of calls.entries()) {
        const index = truth.acknowledges(call.id, floor);
        this.owner.trace.note(host.name, 'answers write', call.id, 'applied at', index);
        this.owner.count('writesAcknowledged');
        this.end(call, 'ok', results[i]);
      }
    } catch (error) {
      const { outcome } = this.expect(error);
      for (const call of calls) {
        // A batch fails with its first error: what it says holds for that command alone.
        const isCertain = outcome === 'not-applied' && calls.length === 1;
        if (isCertain) this.refused.push({ token: call.id, truth });
        this.owner.trace.note(host.name, 'fails write', call.id, isCertain ? 'not applied' : 'unknown');
        this.end(call, isCertain ? 'not-applied' : 'unknown', undefined);
      }
    }
  }

  private async read(dice: Dice, client: number, host: SimHost, shardId: number): Promise<void> {
    const truth = this.owner.truths.get(shardId)!;
    const query = this.owner.workload.query!(dice, client);
    const call = this.begin(client, shardId, true, query);
    const floor = truth.acknowledgedIndex;
    const timeoutMs = dice.pick([200, 600, 2000]);
    try {
      const answer = await host.call((node) => node.read(shardId, query, { timeoutMs }) as Promise<WatchedAnswer>);
      if (answer === 'lost') {
        this.end(call, 'unknown', undefined);
        return;
      }
      truth.reads(answer.appliedIndex, floor);
      // Whatever begins after this must see as much.
      const seen = truth.lastCommandAt(answer.appliedIndex);
      if (seen > truth.acknowledgedIndex) truth.acknowledgedIndex = seen;
      this.owner.trace.note(host.name, 'answers read', call.id, 'at', answer.appliedIndex);
      this.owner.count('readsAnswered');
      this.end(call, 'ok', answer.value);
    } catch (error) {
      this.expect(error);
      this.end(call, 'unknown', undefined);
    }
  }

  private end(call: WorkloadCall, outcome: CallOutcome, answer: unknown): void {
    this.owner.workload.onEnd?.(call, outcome, answer, this.owner.world.nowMs());
  }

  /** Every error that reaches a caller is of the table. */
  private expect(error: unknown): DrakkarError {
    if (error instanceof Violation) throw error;
    if (!DrakkarError.is(error)) throw new Violation('crash', 'errors have codes', String(error));
    this.owner.count(`error ${error.code}`);
    if (error.code === 'ERR_SYSTEM_BUSY' && /replica \d+ cannot|its leader/.test(error.message))
      this.owner.count('proposalsHeldBack');
    if (error.code === 'ERR_INVARIANT') throw new Violation('crash', 'invariants hold', error.message);
    return error;
  }

  // What operators do.

  transferLeader(): void {
    const { shardId, memberIds } = this.dice.pick(this.owner.plan.shards);
    const leader = this.leaderOf(shardId);
    const target = this.dice.pick(memberIds);
    if (leader === undefined) return;
    this.inBackground(leader, 'transfersDone', 'transfersAborted', (node) => node.transferLeader(shardId, target));
  }

  forceSnapshot(): void {
    const host = this.dice.pick(this.owner.hosts);
    const shard = this.dice.pick(this.owner.plan.shards);
    if (!host.isUp || !host.serves(shard.shardId)) return;
    const number = ++this.exportCount;
    if (this.dice.stream(`export ${number}`).chance(EXPORT_SHARE)) this.exportSnapshot(host, shard.shardId, number);
    else this.inBackground(host, 'snapshotsForced', 'snapshotsRefused', (node) => node.requestSnapshot(shard.shardId));
  }

  private exportSnapshot(host: SimHost, shardId: number, number: number): void {
    const { owner } = this;
    const dir = `export-${number}`;
    this.inBackground(host, 'snapshotsExported', 'exportsRefused', async (node) => {
      const { index } = await node.requestSnapshot(shardId, { exportTo: dir });
      const truth = owner.truths.get(shardId)!;
      const exported = { host, shardId, truth, workload: owner.workload, dir, index };
      // As an event of its own: a world inside of this one needs promises to settle.
      owner.world.schedule(0, () => {
        try {
          checkExport(exported);
          owner.count('exportsImported');
        } catch (error) {
          owner.fail(error);
        }
      });
    });
  }

  private inBackground(host: SimHost, done: string, failed: string, begin: (node: NodeHost) => Promise<unknown>): void {
    const run = async (): Promise<void> => {
      try {
        if ((await host.call(async (node) => begin(node))) !== 'lost') this.owner.count(done);
      } catch (error) {
        this.expect(error);
        this.owner.count(failed);
      }
    };
    run().catch(this.owner.fail);
  }

  floodProposals(): void {
    const { shardId } = this.dice.pick(this.owner.plan.shards);
    const host = this.leaderOf(shardId);
    if (host === undefined) return;
    const dice = this.dice.stream(`flood ${this.callCount}`);
    for (let i = 0; i < FLOOD_PROPOSALS; i++) this.propose(dice, 0, host, shardId).catch(this.owner.fail);
  }

  floodSessions(): void {
    const { shardId } = this.dice.pick(this.owner.plan.shards);
    const host = this.leaderOf(shardId);
    if (host === undefined) return;
    this.flood(host, shardId).catch(this.owner.fail);
  }

  private async flood(host: SimHost, shardId: number): Promise<void> {
    for (let opened = 0; opened < FLOOD_SESSIONS && host.isUp; opened += FLOOD_STEP) {
      await host.call((node) => {
        const open = (): Promise<unknown> => node.openSession(shardId, { timeoutMs: 2000 }).catch(() => {});
        return Promise.all(Array.from({ length: FLOOD_STEP }, open));
      });
    }
  }

  // The end.

  /** Tries to write and to read on `host` until the deadline; false when it never answered. */
  async answerOnce(host: SimHost, shardId: number, deadlineMs: number): Promise<boolean> {
    const dice = this.dice.stream(`end ${host.id} ${shardId}`);
    const truth = this.owner.truths.get(shardId)!;
    while (this.owner.world.nowMs() < deadlineMs && host.serves(shardId)) {
      if (!host.isUp) {
        await this.sleep(50);
        continue;
      }
      const command = this.owner.workload.command(dice, 0);
      const call = this.begin(0, shardId, false, command);
      const floor = truth.acknowledgedIndex;
      try {
        const bytes = withToken(call.id, command);
        const written = await host.call((node) => node.propose(shardId, bytes, { timeoutMs: 2000 }));
        if (written === 'lost') continue;
        truth.acknowledges(call.id, floor);
        this.end(call, 'ok', written);
        const query = this.owner.workload.query?.(dice, 0);
        const answer = await host.call(
          (node) => node.read(shardId, query, { timeoutMs: 2000 }) as Promise<WatchedAnswer>,
        );
        if (answer === 'lost') continue;
        truth.reads(answer.appliedIndex, truth.indexOf.get(call.id)!);
        return true;
      } catch (error) {
        this.expect(error);
        await this.sleep(50);
      }
    }
    return false;
  }

  /** What was refused for certain was never applied; what was told to be committed was, and there. */
  checkEnd(isHealed: boolean): void {
    for (const { token, truth, index } of isHealed ? this.noticed : []) {
      holds(truth.indexOf.get(token) === index, 'a commit that was told is kept', () => {
        return `call ${token} of shard ${truth.shardId} was told to be committed at ${index}, and stands at ${truth.indexOf.get(token)}`;
      });
    }
    for (const { token, truth } of this.refused) {
      const index = truth.indexOf.get(token);
      holds(index === undefined, 'a definite failure means not applied', () => {
        return `call ${token} of shard ${truth.shardId} failed as not applied, and stands at ${index}`;
      });
    }
  }
}
