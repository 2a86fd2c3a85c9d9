/** One benchmark run of the library: three hosts in their own processes over TCP, each with its own log on disk. */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runHosts } from './hosts.ts';
import type { BenchOptions, BenchResult, HostSample } from './options.ts';

const HOST = fileURLToPath(new URL('host.ts', import.meta.url));
/** What whoever wants speed starts Node with (docs/performance.md). */
export const HEAP_FLAGS: readonly string[] = ['--min-semi-space-size=64', '--max-semi-space-size=64'];
const FLAGS = ['--conditions=drakkar-source', ...HEAP_FLAGS];

export function run(options: BenchOptions, onSamples?: (samples: readonly HostSample[]) => void): Promise<BenchResult> {
  const { profile } = options;
  if (profile !== '') mkdirSync(profile, { recursive: true });
  const profileFlags = (replicaId: number): string[] =>
    profile === '' ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=host-${replicaId}.cpuprofile`];
  return runHosts(
    { command: process.execPath, args: (replicaId) => [...FLAGS, ...profileFlags(replicaId), HOST] },
    options,
    onSamples,
  );
}
