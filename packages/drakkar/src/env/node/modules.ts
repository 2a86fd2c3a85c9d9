/** Modules of this machine. */
import type { Modules } from '../env.ts';

export const nodeModules: Modules = {
  async load(url) {
    return (await import(url)) as Record<string, unknown>;
  },
};
