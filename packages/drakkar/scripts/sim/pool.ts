/** Worker processes, one for each core, each with one job at a time. */
import { fork, type ChildProcess } from 'node:child_process';
import { availableParallelism } from 'node:os';
import type { Answer, Job, Outcome, Verdict } from './messages.ts';

/** A seed takes a fraction of a second; one that takes this long hangs. */
export const JOB_TIMEOUT_MS = 300_000;
const STDERR_MAX = 4000;

/** The process died, or did not answer. */
export class WorkerFailure extends Error {}

interface Waiting {
  readonly job: Omit<Job, 'id'>;
  readonly resolve: (outcome: Outcome | Verdict) => void;
  readonly reject: (error: unknown) => void;
}

export class Pool {
  private readonly path: string;
  private readonly size: number;
  private readonly timeoutMs: number;
  /** The Node that runs the workers; default: this one. */
  private readonly node: string | undefined;
  private readonly workers = new Set<ChildProcess>();
  private readonly idle: ChildProcess[] = [];
  private readonly waiting: Waiting[] = [];
  private jobCount = 0;

  constructor(path: string, size: number = availableParallelism(), timeoutMs: number = JOB_TIMEOUT_MS, node?: string) {
    this.path = path;
    this.size = size;
    this.timeoutMs = timeoutMs;
    this.node = node;
  }

  run<T extends Verdict = Outcome>(job: Omit<Job, 'id'>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ job, resolve: resolve as Waiting['resolve'], reject });
      this.next();
    });
  }

  /** What waits is given up. */
  close(): void {
    this.waiting.length = 0;
    for (const worker of this.workers) worker.kill('SIGKILL');
  }

  private next(): void {
    if (this.waiting.length === 0) return;
    const worker = this.idle.pop() ?? (this.workers.size < this.size ? this.start() : undefined);
    if (worker === undefined) return;
    this.give(worker, this.waiting.shift()!);
  }

  private start(): ChildProcess {
    const worker = fork(this.path, [], {
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
      // Each worker has a core to itself, and none to spare for a collector's threads.
      execArgv: ['--expose-gc', '--single-threaded-gc'],
      ...(this.node === undefined ? {} : { execPath: this.node }),
    });
    this.workers.add(worker);
    worker.once('exit', () => this.workers.delete(worker));
    return worker;
  }

  private give(worker: ChildProcess, { job, resolve, reject }: Waiting): void {
    const id = ++this.jobCount;
    let stderr = '';
    const onError = (chunk: Buffer): void => {
      stderr = (stderr + chunk.toString()).slice(-STDERR_MAX);
    };
    const end = (): void => {
      clearTimeout(timer);
      worker.stderr?.off('data', onError);
      worker.off('message', onMessage);
      worker.off('exit', onExit);
    };
    const onMessage = (answer: Answer): void => {
      if (answer.id !== id) return;
      end();
      this.idle.push(worker);
      resolve(answer.outcome);
      this.next();
    };
    const onExit = (code: number | null, signal: string | null): void => {
      end();
      this.workers.delete(worker);
      reject(new WorkerFailure(`seed ${job.seed}: the process ended with ${code ?? signal}\n${stderr}`));
      this.next();
    };
    const timer = setTimeout(() => worker.kill('SIGKILL'), this.timeoutMs);
    worker.stderr?.on('data', onError);
    worker.on('message', onMessage);
    worker.on('exit', onExit);
    worker.send({ ...job, id } satisfies Job);
  }
}
