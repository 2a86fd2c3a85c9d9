/** The contract of `Registry` as cases: two hosts of it on machines in memory find each other, and nobody else. */
import { MemoryMachines } from '../env/memory/index.ts';
import type { Registry, RegistryContext } from '../registry/registry.ts';
import { FORMAT_NEWEST } from '../wire/formats.ts';
import type { HostIdentity } from '../transport/transport.ts';
import { expect, expectEqual, type ComplianceCase } from './cases.ts';

/** Makes the registry of host `number` (1 or 2), whose raft address is `host<number>:7000`. */
export type CreateRegistry = (context: RegistryContext, number: number) => Registry;

const hostIdOf = (number: number): string => number.toString(16).padStart(32, '0');

function identityOf(number: number, startCounter: number): HostIdentity {
  return {
    deploymentId: 1,
    hostId: hostIdOf(number),
    raftAddress: `host${number}:7000`,
    directoryHigh: number,
    directoryLow: number,
    startCounter,
    earlierStarts: [],
    newestFormat: FORMAT_NEWEST,
  };
}

/** `findsIds`: whether host ids are resolved, or addresses only. */
export function registryCompliance(create: CreateRegistry, findsIds: boolean): ComplianceCase[] {
  const pair = async (): Promise<{ machines: MemoryMachines; registries: Registry[]; changes: string[][] }> => {
    const machines = new MemoryMachines(1);
    const changes: string[][] = [[], []];
    const registries = [1, 2].map((number) => {
      const env = machines.add(`host${number}`).boot();
      return create({ env, identity: identityOf(number, 1) }, number);
    });
    for (const [at, registry] of registries.entries())
      await machines.world.settle(registry.start((target) => changes[at].push(target)));
    return { machines, registries, changes };
  };
  return [
    {
      name: 'an address that never changes is its own',
      run: async () => {
        const { machines, registries } = await pair();
        expectEqual(registries[0].resolve('elsewhere:1'), 'elsewhere:1', 'an address');
        for (const registry of registries) await machines.world.settle(registry.close());
      },
    },
    {
      name: 'an id that nobody has is not known, and never throws',
      run: async () => {
        const { machines, registries } = await pair();
        expectEqual(registries[0].resolve('f'.repeat(32)), undefined, 'an unknown id');
        for (const registry of registries) await machines.world.settle(registry.close());
      },
    },
    {
      name: 'a host knows itself',
      run: async () => {
        const { machines, registries } = await pair();
        const own = registries[0].hosts().find(({ hostId }) => hostId === hostIdOf(1));
        expectEqual([own?.raftAddress, own?.state], ['host1:7000', 'alive'], 'itself');
        for (const registry of registries) await machines.world.settle(registry.close());
      },
    },
    ...(findsIds
      ? [
          {
            name: 'hosts find each other by id, and tell when they did',
            run: async (): Promise<void> => {
              const { machines, registries, changes } = await pair();
              await machines.world.until(() => registries[0].resolve(hostIdOf(2)) !== undefined);
              expectEqual(registries[0].resolve(hostIdOf(2)), 'host2:7000', 'the address of the other');
              expect(changes[0].includes(hostIdOf(2)), 'the change was not told');
              for (const registry of registries) await machines.world.settle(registry.close());
            },
          },
        ]
      : []),
    {
      name: 'what a host tells of a shard is known to all that spread it, and older news change nothing',
      run: async () => {
        const { machines, registries } = await pair();
        const [one, two] = registries;
        if (one.tellShard !== undefined) {
          expect(
            one.shard !== undefined && one.shards !== undefined,
            'a registry that is told of shards tells of them',
          );
          const none = { shardId: 7, leaderId: 0, term: 0, configChangeIndex: 5, nonVotings: {}, witnesses: {} };
          const newer = { ...none, leaderId: 2, term: 9, voters: { 2: 'elsewhere:1' } };
          one.tellShard(newer);
          await machines.world.until(() => two.shard!(7)?.leaderId === 2 && two.shard!(7)?.configChangeIndex === 5);
          two.tellShard!({ ...newer, leaderId: 1, term: 8, configChangeIndex: 4, voters: { 1: 'elsewhere:2' } });
          await machines.world.run(30_000);
          for (const registry of registries) {
            const { leaderId, term, configChangeIndex, voters } = registry.shard!(7)!;
            expectEqual([leaderId, term, configChangeIndex, voters], [2, 9, 5, newer.voters], 'the shard');
            expectEqual(registry.shards!().length, 1, 'shards');
          }
        }
        for (const registry of registries) await machines.world.settle(registry.close());
      },
    },
    {
      name: 'a closed registry is closed once and stays quiet',
      run: async () => {
        const { machines, registries, changes } = await pair();
        for (const registry of registries) await machines.world.settle(registry.close());
        const before = changes.flat().length;
        await machines.world.run(60_000);
        expectEqual(changes.flat().length, before, 'changes after closing');
      },
    },
  ];
}
