/**
 * What this machine lets a suite do. Every probe tries the thing itself, in namespaces of its own, and says in words what is missing.
 */
import { spawnSync } from 'node:child_process';

/** Where tools of the administrator are, though not every PATH says so. */
const SYSTEM_PATHS = '/usr/local/sbin:/usr/sbin:/sbin';
const PROBE_TIMEOUT_MS = 20_000;

export type Sandbox = 'none' | 'mounts' | 'network';

export interface Ended {
  readonly status: number | null;
  readonly output: string;
}

export const systemEnvironment = { ...process.env, PATH: `${process.env.PATH ?? ''}:${SYSTEM_PATHS}` };

export function run(program: string, args: readonly string[], input = ''): Ended {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    encoding: 'utf8',
    env: systemEnvironment,
    input,
    timeout: PROBE_TIMEOUT_MS,
  });
  return { status, output: error === undefined ? stdout + stderr : error.message };
}

/** Throws with what the program said unless it ends with 0. */
export function must(program: string, args: readonly string[], input = ''): string {
  const { status, output } = run(program, args, input);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${output.trim()}`);
  return output;
}

export function missingCommands(...names: string[]): string | undefined {
  if (process.platform !== 'linux') return 'not Linux';
  const missing = names.filter((name) => run('sh', ['-c', `command -v ${name}`]).status !== 0);
  return missing.length === 0 ? undefined : `no ${missing.join(', ')} here`;
}

export function missingRoot(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'mounting a disk needs root';
}

/** The command that puts another into namespaces of its own; without root through a user namespace, where the kernel allows that. */
export function sandboxCommand(sandbox: Sandbox): readonly string[] {
  if (sandbox === 'none') return [];
  const asRoot = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  return ['unshare', ...asRoot, '--mount', ...(sandbox === 'network' ? ['--net'] : [])];
}

/** Runs a script of `sh` in a sandbox; undefined when it works, otherwise the last thing it said. */
export function missingInSandbox(sandbox: Sandbox, what: string, script: string): string | undefined {
  const [program, ...args] = sandboxCommand(sandbox);
  const { status, output } = run(program, [...args, 'sh', '-ec', script]);
  return status === 0 ? undefined : `${what} does not work here: ${output.trim().split('\n').at(-1) ?? ''}`;
}
