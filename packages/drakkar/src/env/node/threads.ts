/**
 * Worker threads of this process. Beside the channel for messages each has one for questions: who asks sleeps on a shared counter until
 * the thread has raised it, and finds the answer in the port.
 */
import { MessageChannel, Worker, receiveMessageOnPort } from 'node:worker_threads';
import type { Thread, ThreadStart, Threads } from '../env.ts';

/** What a new thread is given; read by `thread.ts`. */
export interface ThreadData {
  readonly module: string;
  /** Where questions arrive. */
  readonly questions: unknown;
  /** One counter: the last question that was answered. */
  readonly answered: SharedArrayBuffer;
}

const SUFFIX = import.meta.url.slice(import.meta.url.lastIndexOf('.'));

function start({ name, module }: ThreadStart): Thread {
  const { port1: questions, port2 } = new MessageChannel();
  const answered = new Int32Array(new SharedArrayBuffer(4));
  const data: ThreadData = { module: module.href, questions: port2, answered: answered.buffer };
  const worker = new Worker(new URL(`thread${SUFFIX}`, import.meta.url), {
    name,
    workerData: data,
    transferList: [port2],
  });
  questions.unref();
  let asked = 0;
  let failure: Error | undefined;
  const thread: Thread = {
    onMessage() {},
    onExit() {},
    post(message, transfer = []) {
      worker.postMessage(message, [...transfer]);
    },
    ask(question, timeoutMs) {
      const number = ++asked;
      questions.postMessage({ number, question });
      const end = performance.now() + timeoutMs;
      for (;;) {
        const before = Atomics.load(answered, 0);
        for (let got = receiveMessageOnPort(questions); got !== undefined; got = receiveMessageOnPort(questions)) {
          const answer = got.message as { number: number; value: unknown };
          // One that came too late for its own question is passed over.
          if (answer.number === number) return answer.value;
        }
        const leftMs = end - performance.now();
        if (leftMs <= 0) return undefined;
        Atomics.wait(answered, 0, before, leftMs);
      }
    },
    async terminate() {
      await worker.terminate();
    },
  };
  worker.on('message', (message: unknown) => thread.onMessage(message));
  worker.on('messageerror', (error) => {
    failure ??= error;
    void worker.terminate();
  });
  worker.on('error', (error: unknown) => {
    failure ??= error instanceof Error ? error : new Error(String(error));
  });
  worker.on('exit', (code) => {
    questions.close();
    thread.onExit(failure ?? (code === 0 ? undefined : new Error(`the thread ended with code ${code}`)));
  });
  return thread;
}

export const nodeThreads: Threads = { isInProcess: false, start };
