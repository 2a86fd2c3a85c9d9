/**
 * The contract of `LogDb` as cases that any implementation can run: what was told durable is found again, whatever crashes; the order is
 * kept; nothing is acknowledged after a failed write. The log under test lives on a machine in memory whose power is cut.
 */
import { DrakkarError } from '../errors.ts';
import { systemError } from '../env/memory/index.ts';
import { BLOCK_TRUNCATES, blockFirstIndex, blockShardId } from '../wire/block.ts';
import { expect, expectCode, expectEqual, type ComplianceCase } from './cases.ts';
import { LogDbBench, stateOf, type CreateLogDb } from './logdb-bench.ts';

export type { CreateLogDb, LogDbContext } from './logdb-bench.ts';

type Run = (bench: LogDbBench) => Promise<void>;

const CASES: Record<string, Run> = {
  'a new directory holds nothing': async (bench) => {
    expectEqual((await bench.open()).size, 0, 'shards');
    expect(bench.log.damage === undefined, 'a new log is damaged');
  },

  'what is durable is told in the order of the appends, group by group': async (bench) => {
    await bench.open();
    bench.log.appendState(stateOf(), false);
    bench.append({ firstIndex: 1 }, { shardId: 2, firstIndex: 1, count: 3 }).release();
    bench.log.appendState(stateOf({ shardId: 2 }), false);
    bench.append({ firstIndex: 2 }).release();
    expectEqual(bench.told, [], 'told before a flush');
    await bench.drain();
    expectEqual(bench.told, ['1:state', '1:1+1', '2:1+3', '2:state', '1:2+1'], 'told');
    expect(bench.groups > 0, 'groupDurable was never called');
    expectEqual(bench.log.pendingBytes, 0, 'pendingBytes');
  },

  'a slab is held until its bytes were copied, and then given back': async (bench) => {
    await bench.open();
    const slab = bench.append({ firstIndex: 1 });
    expectEqual(slab.holderCount, 2, 'holders while it waits');
    await bench.drain();
    expectEqual(slab.holderCount, 1, 'holders afterwards');
  },

  'what was told durable is there after a power cut': async (bench) => {
    await bench.open();
    await bench.writeState();
    await bench.writeState({ shardId: 2, term: 4, vote: 3, bootstrap: Uint8Array.of(9) });
    await bench.write({ firstIndex: 1, count: 3 }, { shardId: 2, firstIndex: 1, term: 4 });
    await bench.write({ firstIndex: 4, term: 2, prevTerm: 1 });
    bench.machine.losePower();
    const recovered = await bench.open();
    expectEqual(bench.found(1), '1-3@1 4-4@2', 'shard 1');
    expectEqual(bench.found(2), '1-1@4', 'shard 2');
    const { state } = recovered.get(2)!;
    expectEqual([state.term, state.vote, [...state.bootstrap]], [4, 3, [9]], 'the state of shard 2');
  },

  'the newest state record counts, with its pins': async (bench) => {
    await bench.open();
    const pins = [{ replicaId: 2, directoryHigh: 5, directoryLow: 6, startCounter: 7 }];
    for (let term = 1; term <= 5; term++) await bench.writeState({ term, vote: term % 3, pins });
    bench.machine.losePower();
    const { state } = (await bench.open()).get(1)!;
    expectEqual([state.term, state.vote, state.pins], [5, 2, pins], 'the state');
  },

  'the greatest commit index of blocks and records is found': async (bench) => {
    await bench.open();
    await bench.writeState({ commitIndex: 1 });
    await bench.write({ firstIndex: 1, count: 4 });
    await bench.write({ firstIndex: 5, commitIndex: 3 });
    bench.machine.losePower();
    expectEqual((await bench.open()).get(1)!.commitIndex, 3, 'commitIndex');
  },

  'a truncating block replaces what it covers, also in part of a block': async (bench) => {
    await bench.open();
    await bench.writeState();
    await bench.write({ firstIndex: 1, count: 5 });
    await bench.write({ firstIndex: 4, term: 2, prevTerm: 1, flags: BLOCK_TRUNCATES });
    bench.machine.losePower();
    await bench.open();
    expectEqual(bench.found(), '1-3@1 4-4@2', 'the log');
  },

  'a record that resets the log voids what came before it': async (bench) => {
    await bench.open();
    await bench.writeState();
    await bench.write({ firstIndex: 1, count: 95 });
    const snapshot = { snapshotIndex: 90, snapshotTerm: 3, compactedIndex: 90, compactedTerm: 3 };
    await bench.writeState({ term: 3, ...snapshot }, true);
    bench.live.set(1, []);
    await bench.write({ firstIndex: 91, term: 3 });
    bench.machine.losePower();
    await bench.open();
    expectEqual(bench.found(), '91-91@3', 'the log');
  },

  'compacted entries may go; those above are there': async (bench) => {
    await bench.open();
    await bench.writeState();
    for (let index = 1; index <= 20; index++) await bench.write({ firstIndex: index });
    await bench.writeState({ snapshotIndex: 15, snapshotTerm: 1, compactedIndex: 12, compactedTerm: 1 });
    bench.live.set(
      1,
      bench.live.get(1)!.filter((ref) => ref.lastIndex > 12),
    );
    bench.machine.losePower();
    const { blocks } = (await bench.open()).get(1)!;
    expectEqual([blocks[0].firstIndex <= 13, blocks.at(-1)!.lastIndex], [true, 20], 'the log');
  },

  'a removed shard stays removed; the others stay': async (bench) => {
    await bench.open();
    await bench.writeState();
    await bench.writeState({ shardId: 2 });
    await bench.write({ firstIndex: 1 }, { shardId: 2, firstIndex: 1 });
    bench.live.delete(2);
    await bench.machines.world.settle(bench.log.removeShard(2));
    bench.machine.losePower();
    await bench.open();
    expectEqual([bench.found(1), bench.found(2)], ['1-1@1', 'nothing'], 'shards');
  },

  'frames are read back, before and after a restart': async (bench) => {
    await bench.open();
    await bench.writeState();
    await bench.writeState({ shardId: 2 });
    await bench.write({ firstIndex: 1 }, { shardId: 2, firstIndex: 1 });
    await bench.write({ shardId: 2, firstIndex: 2 });
    for (const when of ['before', 'after']) {
      for (const [at, ref] of bench.live.get(2)!.entries()) {
        const place = ref.place!;
        const slab = await bench.machines.world.settle(bench.log.readFrame(place));
        const word = place.blockOffset >>> 2;
        const read = [blockShardId(slab.u32, word), blockFirstIndex(slab.u32, word)];
        expectEqual(read, [2, at + 1], `the block read ${when} a restart`);
        expectEqual(slab.usedBytes, place.frameBytes, 'usedBytes of what was read');
        slab.release();
      }
      bench.machine.losePower();
      await bench.open();
    }
  },

  'closing waits for what is pending': async (bench) => {
    await bench.open();
    await bench.writeState();
    for (let index = 1; index <= 20; index++) bench.append({ firstIndex: index }).release();
    await bench.machines.world.settle(bench.log.close());
    bench.machine.losePower();
    await bench.open();
    expectEqual((await bench.open()).get(1)!.blocks.at(-1)!.lastIndex, 20, 'the last index');
  },

  'after a failed write nothing more is acknowledged, and what was acknowledged is there': async (bench) => {
    await bench.open();
    await bench.writeState();
    await bench.write({ firstIndex: 1 });
    const { disk } = bench.machine;
    disk.fault = (operation, path) => (operation === 'write' ? systemError('EIO', path) : undefined);
    bench.append({ firstIndex: 2 }).release();
    await bench.drain();
    expect(bench.failure !== undefined, 'the failure was not told');
    expectCode(bench.failure, 'ERR_DISK_FAILED', 'the failure');
    disk.fault = () => undefined;
    const told = bench.told.length;
    bench.append({ firstIndex: 3 }).release();
    bench.log.flush();
    await bench.machines.world.run(5000);
    expectEqual(bench.told.length, told, 'acknowledgements after the failure');
    bench.machine.losePower();
    await bench.open();
    const found = bench.found();
    expect(found === '1-1@1' || found === '1-1@1 2-2@1', `found ${found}`);
  },

  'a frame that is too large is refused, and breaks nothing': async (bench) => {
    await bench.open();
    await bench.writeState();
    let error: unknown;
    const huge = bench.append({ firstIndex: 1 });
    try {
      bench.log.appendFrame(huge, 0, 2 ** 30);
    } catch (cause) {
      error = cause;
    }
    expect(DrakkarError.is(error), `a frame of a gibibyte was not refused with an error of ours: ${String(error)}`);
    await bench.drain();
    expectEqual(bench.told.at(-1), '1:1+1', 'what was told last');
  },
};

/** A crash at any moment, with any part of what was not flushed surviving. */
function crashCase(create: CreateLogDb, seed: number): ComplianceCase {
  return {
    name: `a crash at a random moment keeps what was told durable, in order (seed ${seed})`,
    run: async () => {
      const bench = new LogDbBench(create, seed);
      const { random } = bench.machines.world;
      const chance = (percent: number): boolean => random.u32() % 100 < percent;
      await bench.open();
      await bench.writeState();
      let next = 1;
      for (let life = 1; life <= 8; life++) {
        let acknowledged = next - 1;
        const steps = 1 + (random.u32() % 12);
        for (let step = 0; step < steps; step++) {
          const count = 1 + (random.u32() % 4);
          bench.append({ firstIndex: next, count, term: life, prevTerm: termBefore(bench, next, life) }).release();
          next += count;
          if (chance(30)) bench.log.appendState(stateOf({ term: life }), false);
          bench.log.flush();
          if (chance(60)) await bench.machines.world.run(random.u32() % 3);
        }
        for (const line of bench.told) {
          const match = /^1:(\d+)\+(\d+)$/.exec(line);
          if (match !== null) acknowledged = Math.max(acknowledged, Number(match[1]) + Number(match[2]) - 1);
        }
        const keep = random.u32() % 101;
        bench.machine.losePower(() => chance(keep));
        await bench.open();
        bench.found();
        const last = bench.log.recovered.get(1)!.blocks.at(-1)?.lastIndex ?? 0;
        expect(last >= acknowledged, `life ${life}: ${acknowledged} was told durable, the log ends at ${last}`);
        expect(last < next, `life ${life}: the log ends at ${last}, though ${next - 1} was the last index written`);
        next = last + 1;
      }
    },
  };
}

/** The term of the entry before `index`: what this life wrote, or what was found. */
function termBefore(bench: LogDbBench, index: number, life: number): number {
  if (index === 1) return 0;
  const last = bench.log.recovered.get(1)?.blocks.at(-1);
  return last !== undefined && last.lastIndex === index - 1 ? last.term : life;
}

/** All cases for a log that `create` opens. */
export function logDbCompliance(create: CreateLogDb): ComplianceCase[] {
  const cases = Object.entries(CASES).map(([name, run]) => ({ name, run: () => run(new LogDbBench(create)) }));
  for (let seed = 1; seed <= 20; seed++) cases.push(crashCase(create, seed));
  return cases;
}
