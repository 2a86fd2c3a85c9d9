/** CPU time of processes and of the whole machine, from /proc. Linux only; elsewhere it says null. */
import { existsSync, readFileSync } from 'node:fs';

const STAT = '/proc/stat';
/** USER_HZ, which the kernel fixes for what it shows. */
export const TICKS_PER_SECOND = 100;

export interface MachineReading {
  readonly pids: readonly number[];
  readonly timeMs: number;
  /** CPU seconds of everybody since boot. */
  readonly all: number;
  /** CPU seconds of `pids`. */
  readonly own: number;
}

/** CPU time that everybody used since boot, in ticks. */
export function parseBusyTicks(stat: string): number {
  const fields = stat.split('\n', 1)[0].trim().split(/\s+/).slice(1).map(Number);
  // user, nice, system, irq, softirq: not idle, iowait or what the hypervisor took
  return fields[0] + fields[1] + fields[2] + fields[5] + fields[6];
}

/** User and system time in a line of /proc/<pid>/stat, in ticks. The name in brackets may hold anything. */
export function parseProcessTicks(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

export const hasProc = existsSync(STAT);

export function busySeconds(): number {
  return parseBusyTicks(readFileSync(STAT, 'utf8')) / TICKS_PER_SECOND;
}

/** CPU seconds that a process used until now; 0 when it is gone. */
export function processSeconds(pid: number): number {
  try {
    return parseProcessTicks(readFileSync(`/proc/${pid}/stat`, 'utf8')) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}

/** Resident bytes of a process; 0 when it is gone. */
export function residentBytes(pid: number): number {
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return kib === null ? 0 : Number(kib[1]) * 1024;
  } catch {
    return 0;
  }
}

export function readMachine(pids: readonly number[]): MachineReading | undefined {
  if (!hasProc) return undefined;
  const own = pids.reduce((total, pid) => total + processSeconds(pid), 0);
  return { pids, timeMs: performance.now(), all: busySeconds(), own };
}

/** Cores that programs other than those of `before` took since then. */
export function foreignCpuSince(before: MachineReading | undefined): number | null {
  if (before === undefined) return null;
  const after = readMachine(before.pids)!;
  const seconds = (after.timeMs - before.timeMs) / 1000;
  return Math.max(0, (after.all - before.all - (after.own - before.own)) / seconds);
}
