/** The library itself. */
import { createRequire } from 'node:module';
import { run } from '../run.ts';
import type { Contender } from './contender.ts';

export function drakkar(): Contender {
  return {
    name: 'drakkar',
    describe: () => `Drakkar ${packageVersion()}, Node ${process.version}`,
    prepare: async () => undefined,
    run,
  };
}

function packageVersion(): string {
  const { version } = createRequire(import.meta.url)('../../packages/drakkar/package.json') as { version: string };
  return version;
}
