/**
 * What a state machine promises, as cases: equal commands give equal states and answers, images bring the whole state over, and an on-disk
 * one has after any crash a prefix of what it was given, with the session table that belongs to it.
 */
import { MemoryMachines, type MemoryDisk } from '../env/memory/index.ts';
import type { Rsm } from '../rsm/rsm.ts';
import type { AnyStateMachine } from '../rsm/state-machine.ts';
import { capture } from '../rsm/captures.ts';
import { expect, expectEqual, type ComplianceCase } from './cases.ts';
import { CommandLog, collect, imageOf, never, recover, start, type StateMachinePlace } from './machine-bench.ts';

export interface StateMachineSuite {
  /** A state machine at `place`: a new one, or, on-disk, one that goes on from what another has stored in `place.dir`. */
  create(place: StateMachinePlace): AnyStateMachine;
  /** The command with the number `n`, from 0 on; the same for the same number. */
  command(n: number): Uint8Array;
  /** Queries whose answers tell equal states from different ones. With a `hash` method none are needed. */
  readonly queries?: readonly unknown[];
  /** Commands of a case. Default 60. */
  readonly commands?: number;
  /**
   * Where an on-disk state machine keeps its state. `env` (default): in files of `place.env`, a simulated disk that is cut off at every
   * operation. `real`: on this machine, in a place of its own for each `place.dir`; then crashes are for a test with real processes.
   */
  readonly storage?: 'env' | 'real';
}

/** Cuts of the log into batches. */
const STEPS = [1, 7, 1000];
const IMAGE_PIECES = [1, 7919];
const CRASHES = ['dropped', 'kept', 'torn'] as const;

/** One case: a machine with a disk of its own. */
class Stage {
  readonly suite: StateMachineSuite;
  readonly log: CommandLog;
  private readonly name: string;
  readonly machines = new MemoryMachines(1);
  readonly machine = this.machines.add('host1');
  env = this.machine.boot();

  constructor(suite: StateMachineSuite, name: string) {
    this.suite = suite;
    this.name = name.replaceAll(/\W+/g, '-');
    this.log = new CommandLog((n) => suite.command(n), suite.commands ?? 60);
  }

  place(store: string): StateMachinePlace {
    return { env: this.env, dir: `${this.name}/${store}` };
  }

  open(store: string): Promise<Rsm> {
    return start(this.suite.create(this.place(store)));
  }

  async applied(store: string, toIndex: number = this.log.lastIndex, step = 7): Promise<Rsm> {
    const rsm = await this.open(store);
    await this.log.apply(rsm, toIndex, step);
    return rsm;
  }

  /** All that can be seen of a state. */
  async look(rsm: Rsm): Promise<unknown> {
    const answers: unknown[] = [];
    for (const query of this.suite.queries ?? []) answers.push(await rsm.lookup(query));
    return { hash: rsm.hash(), answers, sessions: rsm.keepsSessions ? rsm.sessionHash() : 0 };
  }
}

export function stateMachineCompliance(suite: StateMachineSuite): ComplianceCase[] {
  const cases: ComplianceCase[] = [];
  const isReal = suite.storage === 'real';
  const add = (name: string, run: (stage: Stage) => Promise<void>): void => {
    cases.push({
      name,
      run: () => {
        const stage = new Stage(suite, name);
        // On a simulated disk time is virtual.
        return isReal ? run(stage) : stage.machines.world.settle(run(stage), Number.MAX_SAFE_INTEGER);
      },
    });
  };
  const probe = suite.create(new Stage(suite, 'kind').place('probe'));
  const kind = probe.kind ?? 'regular';
  if ((suite.queries ?? []).length === 0 && probe.hash === undefined) {
    throw new TypeError(
      'stateMachineCompliance: give queries, or the state machine a hash method: else nothing is compared',
    );
  }

  add('equal commands give equal answers and states, however they are cut into batches', async (stage) => {
    const { log } = stage;
    let first: { answers: unknown; state: unknown } | undefined;
    for (const step of STEPS) {
      const rsm = await stage.open(`step${step}`);
      const answers = [...(await log.apply(rsm, log.lastIndex, step))].sort(([a], [b]) => a - b);
      const seen = { answers, state: await stage.look(rsm) };
      first ??= seen;
      expectEqual(seen, first, `batches of ${step}`);
      await rsm.close();
    }
  });

  add('an image brings the whole state over in place of what was there, and saving changes nothing', async (stage) => {
    const half = Math.floor(stage.log.lastIndex / 2);
    const from = await stage.applied('from', half);
    const state = await stage.look(from);
    const image = await imageOf(from);
    expectEqual(await stage.look(from), state, 'after saving');
    for (const size of IMAGE_PIECES) {
      const to = await stage.applied(`to${size}`, Math.floor(half / 3));
      await recover(to, image, size);
      expectEqual(await stage.look(to), state, `recovered from pieces of ${size} bytes`);
      await stage.log.apply(to, stage.log.lastIndex, 7);
      const whole = await stage.applied(`whole${size}`);
      expectEqual(await stage.look(to), await stage.look(whole), 'going on from the image');
      await to.close();
      await whole.close();
    }
    await from.close();
  });

  add('an image that nobody reads to its end does no harm', async (stage) => {
    const rsm = await stage.applied('store', 10);
    const image = capture(rsm, never);
    for await (const chunk of image.chunks) {
      expect(chunk.length > 0, 'an image has empty pieces');
      break;
    }
    await image.release();
    await capture(rsm, never).release();
    await stage.log.apply(rsm, stage.log.lastIndex, 7);
    const whole = await stage.applied('whole');
    expectEqual(await stage.look(rsm), await stage.look(whole), 'going on after it');
    await rsm.close();
    await whole.close();
  });

  if (kind !== 'regular') {
    add('an image is of the moment it was prepared, whatever is applied while it is saved', async (stage) => {
      const half = Math.floor(stage.log.lastIndex / 2);
      const rsm = await stage.applied('store', half);
      const state = await stage.look(rsm);
      const image = capture(rsm, never);
      await stage.log.apply(rsm, stage.log.lastIndex, 7);
      const chunks = await collect(image);
      const to = await stage.open('to');
      await recover(to, chunks, 100);
      expectEqual(await stage.look(to), state, 'recovered');
      await rsm.close();
      await to.close();
    });
  }
  if (kind === 'on-disk') addOnDisk(add, isReal);
  return cases;
}

type Add = (name: string, run: (stage: Stage) => Promise<void>) => void;

function addOnDisk(add: Add, isReal: boolean): void {
  add('a new store begins at index 0; one that was closed gives back index, state and sessions', async (stage) => {
    const fresh = await stage.open('fresh');
    expectEqual(fresh.openIndex, 0, 'index of a new store');
    await fresh.close();
    const half = Math.floor(stage.log.lastIndex / 2);
    const rsm = await stage.applied('store', half, 5);
    await rsm.storeIndex();
    const state = await stage.look(rsm);
    await rsm.close();
    const again = await stage.open('store');
    expectEqual(again.openIndex, half, 'index');
    await stage.log.apply(again, half, 1000);
    expectEqual(await stage.look(again), state, 'state and sessions');
    await stage.log.apply(again, stage.log.lastIndex, 1000);
    const whole = await stage.applied('whole');
    expectEqual(await stage.look(again), await stage.look(whole), 'going on from the store');
    await again.close();
    await whole.close();
  });

  add('a state that came as an image is stored with its index and sessions', async (stage) => {
    const from = await stage.applied('from');
    const to = await stage.applied('to', 5);
    await recover(to, await imageOf(from), 1000);
    await to.close();
    const again = await stage.open('to');
    expectEqual(again.openIndex, stage.log.lastIndex, 'index');
    expectEqual(await stage.look(again), await stage.look(from), 'state and sessions');
    await from.close();
    await again.close();
  });

  if (isReal) return;
  add(
    'a crash at any operation of the disk leaves a prefix, and nothing that sync made durable is missing',
    async (stage) => {
      const states = await statesByIndex(stage);
      const crashes = new Crashes(stage);
      const rsm = await stage.open('store');
      for (let index = 0; index < stage.log.lastIndex; index = rsm.appliedIndex) {
        crashes.atMost = Math.min(index + 5, stage.log.lastIndex);
        await stage.log.apply(rsm, crashes.atMost, 5);
        if (index % 3 !== 0) continue;
        await rsm.storeIndex();
        if (rsm.stateMachine.kind === 'on-disk') await rsm.stateMachine.sync?.();
        crashes.atLeast = rsm.appliedIndex;
      }
      crashes.stop();
      await rsm.close();
      await crashes.check('store', states);
    },
  );

  add('a crash while an image is taken over leaves an index below it, or all of it', async (stage) => {
    const states = await statesByIndex(stage);
    const from = await stage.applied('from');
    const image = await imageOf(from);
    await from.close();
    const rsm = await stage.applied('store', 10);
    const crashes = new Crashes(stage);
    crashes.atMost = stage.log.lastIndex;
    await recover(rsm, image, 100);
    crashes.stop();
    await rsm.close();
    await crashes.check('store', states, image);
  });
}

/** What the state is with everything up to each index applied. */
async function statesByIndex(stage: Stage): Promise<unknown[]> {
  const states: unknown[] = [];
  const rsm = await stage.open('reference');
  for (let index = 0; index <= stage.log.lastIndex; index++) {
    await stage.log.apply(rsm, index, 1);
    states.push(await stage.look(rsm));
  }
  await rsm.close();
  return states;
}

/** What a crash at each operation would have left of the disk. */
class Crashes {
  /** Indexes that a store may give: at least what was synced, at most what it was given. */
  atLeast = 0;
  atMost = 0;
  private readonly stage: Stage;
  private readonly left: { disk: MemoryDisk; crash: string; atLeast: number; atMost: number }[] = [];
  private random = 1;

  constructor(stage: Stage) {
    this.stage = stage;
    const { disk } = stage.machine;
    disk.fault = () => {
      for (const crash of CRASHES) {
        const copy = disk.clone();
        copy.fault = () => undefined;
        copy.losePower(() => crash === 'kept' || (crash === 'torn' && this.flip()));
        this.left.push({ disk: copy, crash, atLeast: this.atLeast, atMost: this.atMost });
      }
      return undefined;
    };
  }

  private flip(): boolean {
    this.random = (Math.imul(this.random, 1103515245) + 12345) & 0x7fffffff;
    return (this.random & 0x10000) !== 0;
  }

  stop(): void {
    this.stage.machine.disk.fault = () => undefined;
  }

  /** With an image, an index below it means that it is handed over again. */
  async check(store: string, states: readonly unknown[], image?: readonly Uint8Array[]): Promise<void> {
    const { stage } = this;
    expect(this.left.length > 0, 'the state machine keeps nothing in place.env: give storage: "real"');
    for (const [at, { disk, crash, atLeast, atMost }] of this.left.entries()) {
      const what = `operation ${Math.floor(at / CRASHES.length) + 1}, ${crash}`;
      stage.machine.disk = disk;
      stage.env = stage.machine.boot();
      const rsm = await stage.open(store);
      const index = rsm.openIndex;
      expect(index >= atLeast && index <= atMost, `${what}: index ${index}, expected ${atLeast} to ${atMost}`);
      if (image !== undefined && index < atMost) await recover(rsm, image, 1000);
      else {
        await stage.log.apply(rsm, index, 1000);
        expectEqual(await stage.look(rsm), states[index], `${what}: state at index ${index}`);
        await stage.log.apply(rsm, states.length - 1, 1000);
      }
      expectEqual(await stage.look(rsm), states.at(-1), `${what}: state in the end`);
      await rsm.close();
    }
  }
}
