/** Threads keep one contract, in memory and for real. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryMachines } from 'drakkar/testing';
import type { Thread, Threads } from '../../src/env/env.ts';
import { nodeThreads } from '../../src/env/node/threads.ts';
import { run } from './echo-thread.ts';

const start = { name: 'echo', module: new URL('./echo-thread.ts', import.meta.url), run };

interface Bench {
  readonly threads: Threads;
  readonly settle: <T>(promise: Promise<T>) => Promise<T>;
}

const benches: Record<string, () => Bench> = {
  memory() {
    const machines = new MemoryMachines();
    const { threads } = machines.add('host').boot();
    return { threads: threads!, settle: (promise) => machines.world.settle(promise) };
  },
  node: () => ({ threads: nodeThreads, settle: (promise) => promise }),
};

const messages = (thread: Thread, count: number): Promise<unknown[]> =>
  new Promise((resolve) => {
    const got: unknown[] = [];
    thread.onMessage = (message) => {
      if (got.push(message) === count) resolve(got);
    };
  });
const exit = (thread: Thread): Promise<Error | undefined> =>
  new Promise((resolve) => {
    thread.onExit = resolve;
  });

for (const [name, make] of Object.entries(benches)) {
  test(`${name}: messages arrive in order as copies, and buffers move`, async () => {
    const { threads, settle } = make();
    const thread = threads.start(start);
    const buffer = Uint32Array.of(1, 2, 3).buffer;
    const answers = messages(thread, 3);
    thread.post({ number: 1 });
    thread.post(buffer, [buffer]);
    thread.post('last');
    assert.equal(buffer.byteLength, 0);
    const [first, second, last] = await settle(answers);
    assert.deepEqual(first, { number: 1 });
    assert.deepEqual(new Uint32Array(second as ArrayBuffer), Uint32Array.of(1, 2, 3));
    assert.equal(last, 'last');
    assert.throws(() => thread.post(() => 1));
    const ended = exit(thread);
    await settle(thread.terminate());
    await settle(ended);
  });

  test(`${name}: a question is answered while who asks stands still; one that is not answered is given up`, async () => {
    const { threads, settle } = make();
    const thread = threads.start(start);
    const ready = messages(thread, 1);
    thread.post('are you there?');
    await settle(ready);
    for (let i = 0; i < 100; i++) assert.deepEqual(thread.ask({ i }, 5000), { answer: { i } });
    const ended = exit(thread);
    await settle(thread.terminate());
    await settle(ended);
    assert.equal(thread.ask('anybody?', 10), undefined);
  });

  test(`${name}: a thread that throws ends with its error, and nothing arrives after it`, async () => {
    const { threads, settle } = make();
    const thread = threads.start(start);
    const ended = exit(thread);
    const ready = messages(thread, 1);
    thread.post('are you there?');
    await settle(ready);
    if (name === 'node') thread.post('throw');
    else (thread as unknown as { crash(error: Error): void }).crash(new Error('as it was told'));
    assert.match(String(await settle(ended)), /as it was told/);
  });
}

test('memory: the threads of a stopped process stand still with it, and go on with it', async () => {
  const machines = new MemoryMachines();
  const machine = machines.add('host');
  const { threads, scheduler } = machine.boot();
  const done: string[] = [];
  const thread = threads!.start({
    ...start,
    run(side, env) {
      side.onMessage = (message) => done.push(`got ${String(message)}`);
      const tick = (): void => {
        done.push('tick');
        env.scheduler.after(100, tick);
      };
      env.scheduler.after(100, tick);
    },
  });
  await machines.world.run(250);
  assert.deepEqual(done, ['tick', 'tick']);
  thread.post('one');
  machine.process!.stop();
  scheduler.after(10, () => done.push('of the process'));
  await machines.world.run(1000);
  assert.deepEqual(done, ['tick', 'tick'], 'a thread ran while its process was stopped');
  machine.process!.continue();
  await machines.world.run(1);
  assert.deepEqual(done, ['tick', 'tick', 'got one', 'of the process', 'tick']);
  await machines.world.run(100);
  assert.equal(done.length, 6);
  machine.kill();
  await machines.world.run(1000);
  assert.equal(done.length, 6, 'a thread outlived its process');
});

test('node: a module that cannot be loaded ends the thread with the reason', async () => {
  const thread = nodeThreads.start({ ...start, module: new URL('./no-such-module.ts', import.meta.url) });
  assert.match(String(await exit(thread)), /no-such-module/);
});
