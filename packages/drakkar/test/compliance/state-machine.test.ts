/** The suite for state machines: the project's own pass it, ones with a mistake do not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AnyStateMachine, DiskBatch, Entry } from 'drakkar';
import { stateMachineCompliance, type StateMachineSuite } from 'drakkar/compliance';
import { ConcurrentStore, DiskStore, Store } from 'drakkar/sim';
import { text } from '../support.ts';

const suiteOf = (create: StateMachineSuite['create'], more: Partial<StateMachineSuite> = {}): StateMachineSuite => ({
  create,
  command: (n) => text(JSON.stringify({ f: n % 5 === 4 ? 'delete' : 'put', key: `k${n % 7}`, value: n })),
  queries: Array.from({ length: 7 }, (_, key) => `k${key}`),
  ...more,
});

const KINDS: Record<string, StateMachineSuite['create']> = {
  regular: () => new Store(),
  concurrent: (place) => new ConcurrentStore({ ...place, kind: 'concurrent' }),
  'on-disk': (place) => new DiskStore({ ...place, kind: 'on-disk' }),
};

for (const [kind, create] of Object.entries(KINDS)) {
  for (const { name, run } of stateMachineCompliance(suiteOf(create))) test(`${kind}: ${name}`, run);
}

/** Names of the cases that a state machine does not pass. */
async function failed(create: StateMachineSuite['create']): Promise<string> {
  const names: string[] = [];
  for (const { name, run } of stateMachineCompliance(suiteOf(create, { commands: 25 }))) {
    await run().catch(() => names.push(name));
  }
  return names.join('; ');
}

test('a state machine with a mistake does not pass', async () => {
  class Counting extends Store {
    private updates = 0;

    override update(entries: readonly Entry[]): void {
      super.update(entries);
      this.updates++;
      for (const entry of entries) entry.result = this.updates;
    }
  }
  assert.match(await failed(() => new Counting()), /however they are cut/);

  class Adding extends Store {
    override async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
      const before = this.all();
      await super.recoverFromSnapshot(image);
      this.load([...before, ...this.all()]);
    }
  }
  assert.match(await failed(() => new Adding()), /in place of what was there/);

  class Late extends ConcurrentStore {
    override saveSnapshot(): AsyncIterable<Uint8Array> {
      return super.saveSnapshot(this.prepareSnapshot());
    }
  }
  assert.match(await failed((place) => new Late({ ...place, kind: 'concurrent' })), /of the moment it was prepared/);

  class Unsynced extends DiskStore {
    override async sync(): Promise<void> {}
  }
  assert.match(
    await failed((place): AnyStateMachine => new Unsynced({ ...place, kind: 'on-disk' })),
    /nothing that sync/,
  );

  /** The sessions come with the next batch only. */
  class Behind extends DiskStore {
    private readonly late: ReturnType<DiskBatch['sessionChanges']>[] = [[]];

    override update(entries: readonly Entry[], batch: DiskBatch): Promise<void> {
      const { index } = batch;
      const sessionChanges = (): ReturnType<DiskBatch['sessionChanges']> => {
        this.late.push(batch.sessionChanges());
        return this.late.shift()!;
      };
      return super.update(entries, { index, sessionChanges });
    }
  }
  assert.match(await failed((place) => new Behind({ ...place, kind: 'on-disk' })), /leaves a prefix/);
});
