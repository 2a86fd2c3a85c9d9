/**
 * What must hold when nobody asks for anything: an idle shard falls silent if it may, and the death of a leader is noticed all the same,
 * before any client comes.
 */
import type { MemoryMachines } from '../testing.ts';
import type { Dice } from './dice.ts';
import type { SimHost } from './host.ts';
import type { Observer } from './observer.ts';
import type { Plan, ShardPlan } from './plan.ts';
import { Violation } from './violation.ts';

export interface SilenceOwner {
  readonly plan: Plan;
  readonly machines: MemoryMachines;
  readonly hosts: readonly SimHost[];
  readonly observer: Observer;
  readonly idleDice: Dice;
  count(name: string): void;
  note(host: SimHost, what: string, ...details: (number | string)[]): void;
}

const SILENT_MS = 60_000;
const ELECTION_MS = 60_000;

/** Nobody asks a healed cluster for anything any more; then the host of the shard's leader is lost, in one way or another. */
export async function staysAlive(owner: SilenceOwner, { shardId }: ShardPlan): Promise<void> {
  const { observer, plan } = owner;
  const { world } = owner.machines;
  const replicas = observer.running(shardId);
  const { voters = {}, nonVotings = {}, witnesses = {} } = observer.truths.get(shardId)!.newestMembership ?? {};
  const counting = Object.keys({ ...voters, ...witnesses });
  const ids = replicas.map(({ view }) => String(view.replicaId));
  // Without the leader there must be a majority, and somebody who may lead it.
  if (ids.filter((id) => counting.includes(id)).length - 1 <= counting.length / 2) return;
  if (ids.filter((id) => id in voters).length < 2) return;
  if (plan.quiesce && replicas.length === counting.length + Object.keys(nonVotings).length) {
    const areSilent = (): boolean => observer.running(shardId).every(({ view }) => view.isQuiesced);
    await reached(owner, areSilent, SILENT_MS, 'an idle shard falls silent', `shard ${shardId}`);
    owner.count('shardsSilent');
  }
  const leader = observer
    .running(shardId)
    .filter(({ view }) => view.role === 'leader')
    .sort((a, b) => b.view.term - a.view.term)[0];
  // The leader may live on a damaged disk: such a host is lost in other ways.
  if (leader === undefined || observer.running(shardId).some(({ view }) => view.leaderId !== leader.view.replicaId))
    return;
  const host = owner.hosts.find(({ id }) => id === leader.owner.id)!;
  const { term, replicaId } = leader.view;
  const way = owner.idleDice.pick(['kill', 'stop', 'cut'] as const);
  owner.note(host, 'is lost with the leader of shard', shardId, way);
  const heal = lose(owner, host, way);
  const isNoticed = (): boolean =>
    observer
      .running(shardId)
      .some(({ view }) => view.term > term && view.leaderId !== 0 && view.leaderId !== replicaId);
  await reached(owner, isNoticed, ELECTION_MS, 'the loss of a leader is noticed', `shard ${shardId}, ${way}`);
  heal();
  await world.until(() => host.isUp, ELECTION_MS);
}

function lose({ machines, hosts }: SilenceOwner, host: SimHost, way: 'kill' | 'stop' | 'cut'): () => void {
  if (way === 'kill') {
    host.kill();
    return () => host.start();
  }
  if (way === 'stop') {
    const { process } = host.machine;
    process?.stop();
    return () => process?.continue();
  }
  for (const other of hosts) if (other !== host) machines.network.cut(host.name, other.name);
  return () => machines.network.heal();
}

async function reached(
  { machines }: SilenceOwner,
  holds: () => boolean,
  limitMs: number,
  rule: string,
  what: string,
): Promise<void> {
  await machines.world.until(holds, limitMs).catch((error: unknown) => {
    if (error instanceof Violation) throw error;
    throw new Violation('liveness', rule, `${what}: not within ${limitMs} virtual ms`);
  });
}
