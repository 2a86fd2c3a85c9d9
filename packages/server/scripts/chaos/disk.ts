/**
 * System calls of a host that fail, as on a broken or full disk: a tracer makes them. A failed write of the log must end the host, at
 * once, with no acknowledgement behind it. Other calls may end it, or it goes on and serves when the fault is gone; a host that
 * cannot start says so, and starts when the fault is gone. Nothing that was acknowledged may be missing in any case.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterHost } from '../cluster.ts';
import { missingCommands, run } from './probes.ts';
import { pause, roundsFor, until, type Suite } from './suite.ts';
import { runTrial, type Trial } from './trial.ts';

const KILLS_PER_ROUND = 20;
const LEADER_SHARE = 0.7;
const ATTACH_TIMEOUT_MS = 10_000;
/** How long calls fail that need not end the host. */
const FAULT_MS = 2500;
/** From the first failed write of the log to the end of the process; it answers what is under way first. */
const END_MAX_MS = 5000;
/** An answer that was on its way when the write failed. */
const ANSWER_GRACE_MS = 250;
const REQUESTS_BETWEEN = 100;

interface Fault {
  readonly call: string;
  /** As the tracer says it: `error=EIO`, `delay_enter=...`. */
  readonly harm: string;
  /** `log`: it hits the log and must end the host; `run`: anything while it serves; `start`: one call while it starts. */
  readonly when: 'log' | 'run' | 'start';
}

/** The log is written by `pwrite64` on a file opened with O_DSYNC; `fsync` is for new files and directories. */
const FAULTS: readonly Fault[] = [
  { call: 'pwrite64', harm: 'error=EIO', when: 'log' },
  { call: 'fsync', harm: 'error=EIO', when: 'start' },
  { call: 'pwrite64', harm: 'error=ENOSPC', when: 'run' },
  { call: 'fsync', harm: 'error=EIO', when: 'run' },
  { call: 'pread64', harm: 'error=EIO', when: 'start' },
  { call: 'pwrite64', harm: 'delay_enter=50000', when: 'run' },
  { call: 'pwrite64', harm: 'error=EDQUOT', when: 'run' },
  { call: 'fsync', harm: 'error=ENOSPC', when: 'run' },
  { call: 'pwrite64', harm: 'error=EIO', when: 'start' },
  { call: 'openat', harm: 'error=EMFILE', when: 'run' },
  { call: 'pwrite64', harm: 'error=EROFS', when: 'log' },
  { call: 'rename', harm: 'error=EIO', when: 'run' },
  { call: 'rename', harm: 'error=ENOSPC', when: 'start' },
  { call: 'unlink', harm: 'error=EIO', when: 'run' },
  { call: 'getdents64', harm: 'error=EIO', when: 'start' },
];

function tracer({ call, harm }: Fault, logFile: string, nth?: number): string[] {
  const when = nth === undefined ? '' : `:when=${nth}`;
  return ['strace', '-f', '-qq', '-ttt', '-o', logFile, '-e', `trace=${call}`, '-e', `inject=${call}:${harm}${when}`];
}

/** When the calls failed, in milliseconds of the wall clock. */
function injectedAt(logFile: string): number[] {
  if (!existsSync(logFile)) return [];
  const lines = readFileSync(logFile, 'utf8').split('\n');
  return lines
    .filter((line) => line.includes('(INJECTED)') || line.includes('(DELAYED)'))
    .map((line) => {
      return Number(/\d+\.\d+/.exec(line)?.[0]) * 1000;
    });
}

class DiskHarm {
  readonly trial: Trial;
  private readonly lastAcknowledged = new Map<ClusterHost, number>();
  private hits = 0;
  private ended = 0;
  private refusedStarts = 0;
  private endMs = 0;

  constructor(trial: Trial) {
    this.trial = trial;
    trial.workload.onAcknowledged = (host) => this.lastAcknowledged.set(host, Date.now());
  }

  async run(): Promise<void> {
    const { trial } = this;
    const { cluster, dice, figures } = trial;
    const rounds = roundsFor(trial.context.kills, KILLS_PER_ROUND, FAULTS.length);
    for (const [round, fault] of FAULTS.slice(0, rounds).entries()) {
      const host = dice.chance(LEADER_SHARE) ? await trial.findLeader() : dice.pick(cluster.hosts);
      const logFile = join(trial.dir, `strace-${round}.log`);
      trial.mayEnd.add(host);
      if (fault.when === 'start') await this.starting(host, fault, logFile);
      else await this.serving(host, fault, logFile);
      trial.mayEnd.delete(host);
      const hits = injectedAt(logFile).length;
      this.hits += hits;
      trial.log(
        `${fault.call}, ${fault.harm}, ${fault.when}: ${hits} calls, host ${host.id} ${host.isUp ? 'is up' : 'ended'}`,
      );
      if (hits === 0) trial.shortfalls.push(`${fault.call}, ${fault.harm}, ${fault.when}: no call met the fault`);
      if (!host.isUp) await cluster.startHost(host);
      await trial.untilWritable([host]);
      await trial.untilMoreSucceed(REQUESTS_BETWEEN);
    }
    Object.assign(figures, { faults: rounds, 'calls failed': this.hits, 'hosts ended': this.ended });
    Object.assign(figures, { 'starts refused': this.refusedStarts, 'ended after ms, max': Math.round(this.endMs) });
  }

  /** Attaches the tracer to a host under load. */
  private async serving(host: ClusterHost, fault: Fault, logFile: string): Promise<void> {
    const { trial } = this;
    const [program, ...args] = tracer(fault, logFile);
    const pid = host.process!.pid!;
    const child = spawn(program, [...args, '-p', String(pid)], { stdio: 'ignore' });
    const detach = trial.context.cleanup.add('the tracer', () => child.kill('SIGTERM'));
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    await until(`tracing host ${host.id}`, () => !host.isUp || isTraced(pid), ATTACH_TIMEOUT_MS);
    const endMs = fault.when === 'log' ? END_MAX_MS : FAULT_MS;
    const end = host.exited.then(() => Date.now());
    const endedAt = await Promise.race([end, pause(endMs)]);
    await detach();
    await gone; // a traced process that ends takes the tracer along
    if (endedAt !== undefined) this.ended++;
    if (fault.when === 'log') this.checkEnd(host, fault, injectedAt(logFile)[0] ?? 0, endedAt);
  }

  private checkEnd(host: ClusterHost, { harm }: Fault, failedAt: number, endedAt: number | void): void {
    const { shortfalls } = this.trial;
    if (endedAt === undefined) shortfalls.push(`host ${host.id} goes on after a write of its log failed (${harm})`);
    else this.endMs = Math.max(this.endMs, endedAt - failedAt);
    const late = (this.lastAcknowledged.get(host) ?? 0) - failedAt;
    if (late > ANSWER_GRACE_MS) {
      shortfalls.push(`host ${host.id} acknowledged ${Math.round(late)} ms after a write of its log failed (${harm})`);
    }
  }

  /** Stops the host and starts it under the tracer, which lets one call fail. */
  private async starting(host: ClusterHost, fault: Fault, logFile: string): Promise<void> {
    const { cluster } = this.trial;
    await cluster.kill(host);
    // One thread for the file system: the tracer counts calls per thread.
    host.launcher = ['env', 'UV_THREADPOOL_SIZE=1', ...tracer(fault, logFile, 1), '-D'];
    try {
      await cluster.startHost(host);
      await pause(FAULT_MS);
    } catch {
      this.refusedStarts++;
      if (host.process?.exitCode === 0)
        this.trial.shortfalls.push(`host ${host.id} ended with 0 though ${fault.call} failed`);
    } finally {
      host.launcher = [];
    }
    // Its tracer goes with it.
    await cluster.kill(host);
  }
}

function isTraced(pid: number): boolean {
  try {
    return !/^TracerPid:\t0$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Attaches to a process that runs. */
const ATTACH_PROBE = `
sleep 10 & slept=$!
strace -qq -o /dev/null -p $slept & tracer=$!
traced() { ! grep -q '^TracerPid:[[:space:]]*0$' /proc/$slept/status; }
for i in 1 2 3 4 5 6 7 8 9 10; do if traced; then break; fi; sleep 0.1; done
if traced; then answer=0; else answer=1; fi
kill $slept
exit $answer
`;

function missing(): string | undefined {
  const reason = missingCommands('strace', 'env', 'sleep', 'sync');
  if (reason !== undefined) return reason;
  // `sync` of one file calls fsync, and says that it failed.
  const [program, ...args] = tracer({ call: 'fsync', harm: 'error=EIO', when: 'run' }, '/dev/null');
  const failing = run(program, [...args, 'sync', '/']);
  if (!failing.output.includes('Input/output error')) return `strace does not inject here: ${failing.output.trim()}`;
  const attached = run('sh', ['-c', ATTACH_PROBE]);
  return attached.status === 0 ? undefined : `strace may not attach here: ${attached.output.trim()}`;
}

export const disk: Suite = {
  name: 'disk',
  what: 'writes, flushes, renames and reads of a host that fail with EIO, ENOSPC, EDQUOT, EROFS, EMFILE, or take long',
  sandbox: 'none',
  missing,
  run: (context) => runTrial(context, 'disk', {}, (trial) => new DiskHarm(trial).run()),
};
