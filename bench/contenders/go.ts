/** Builds the peers that are written in Go. Their modules name their versions; what is built stays outside of the repository. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const PEERS = fileURLToPath(new URL('../peers', import.meta.url));
const BUILT = fileURLToPath(new URL('../../node_modules/.cache/drakkar-bench', import.meta.url));
const BUILD_MS = 600_000;
const call = promisify(execFile);

export type Built = { readonly binary: string } | { readonly reason: string };

/** The program of `peers/<name>`, or why there is none. */
export async function buildGo(name: string): Promise<Built> {
  if (goVersion() === undefined) return { reason: 'there is no go on this machine' };
  mkdirSync(BUILT, { recursive: true });
  const binary = join(BUILT, name);
  try {
    await call('go', ['build', '-trimpath', '-o', binary, '.'], { cwd: join(PEERS, name), timeout: BUILD_MS });
    return { binary };
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    const lines = (stderr ?? message).trim().split('\n');
    return { reason: `go build failed: ${lines.at(-1)}` };
  }
}

let version: string | undefined;

export function goVersion(): string | undefined {
  try {
    version ??= execFileSync('go', ['env', 'GOVERSION'], { encoding: 'utf8' }).trim();
  } catch {
    // none
  }
  return version;
}
