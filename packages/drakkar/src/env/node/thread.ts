/** The first module of a worker thread: brings up the channel and runs what it was started for. */
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import type { ThreadMain, ThreadSide } from '../env.ts';
import { createNodeEnv } from './index.ts';
import type { ThreadData } from './threads.ts';

const { module, questions, answered } = workerData as ThreadData;
const counter = new Int32Array(answered);
const port = questions as MessagePort;
const parent = parentPort!;

const side: ThreadSide = {
  onMessage() {},
  onAsk: () => undefined,
  post(message, transfer = []) {
    parent.postMessage(message, [...transfer]);
  },
};
port.on('message', ({ number, question }: { number: number; question: unknown }) => {
  port.postMessage({ number, value: side.onAsk(question) });
  Atomics.add(counter, 0, 1);
  Atomics.notify(counter, 0);
});
const { run } = (await import(module)) as { run: ThreadMain };
run(side, createNodeEnv());
parent.on('message', (message: unknown) => side.onMessage(message));
