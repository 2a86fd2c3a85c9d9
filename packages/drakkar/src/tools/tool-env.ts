/** The outside world of the tools: this machine, unless they are told otherwise. */
import { createNodeEnv } from '../env/node/index.ts';
import type { Env } from '../env/env.ts';

export interface ToolOptions {
  /** For tests. Default: this machine. */
  readonly env?: Env;
}

export function envOf(options: ToolOptions): Env {
  return options.env ?? createNodeEnv();
}
