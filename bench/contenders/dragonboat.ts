/** Go Dragonboat v3.3.8: a program of its own under peers/dragonboat, built here with the machine's Go. */
import { fileURLToPath } from 'node:url';
import { runHosts } from '../hosts.ts';
import type { BenchOptions } from '../options.ts';
import type { Contender } from './contender.ts';
import { buildGo, goVersion } from './go.ts';

interface DragonboatOptions extends BenchOptions {
  readonly isTuned: boolean;
  /** `concurrent` is handed an array of entries, `regular` one at a time. */
  readonly machine: 'concurrent' | 'regular';
}

/** Dragonboat reads dragonboat-soft-settings.json from where it runs: queues long enough for what is in flight. */
const TUNED = fileURLToPath(new URL('../peers/dragonboat/tuned', import.meta.url));

/**
 * `tuned` is what was the fastest on two cores: one LogDB shard, two workers of each kind and the state machine that takes arrays; other
 * garbage collector settings made no difference. `default` is what its documentation starts with.
 */
export function dragonboat(settings: 'tuned' | 'default'): Contender {
  const isTuned = settings === 'tuned';
  let binary = '';
  return {
    name: isTuned ? 'dragonboat' : 'dragonboat-default',
    describe: () => `Dragonboat v3.3.8 ${settings}, ${goVersion()}`,
    async prepare() {
      const built = await buildGo('dragonboat');
      if ('reason' in built) return built.reason;
      binary = built.binary;
      return undefined;
    },
    run(options) {
      const extended: DragonboatOptions = {
        ...options,
        isTuned,
        machine: isTuned ? 'concurrent' : 'regular',
      };
      return runHosts({ command: binary, args: () => [], ...(isTuned ? { cwd: TUNED } : {}) }, extended);
    },
  };
}
