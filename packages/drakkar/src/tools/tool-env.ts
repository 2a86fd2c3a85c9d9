/** The outside world of the tools: this machine, unless they are told otherwise. */
import { createNodeEnv } from '../env/node/index.ts';
import type { Env } from '../env/env.ts';
import type { SnapshotCodec } from '../rsm/codec.ts';

export interface ToolOptions {
  /** For tests. Default: this machine. */
  readonly env?: Env;
  /** As in `NodeHost.open`: codecs of snapshots besides zstd. */
  readonly snapshotCodecs?: readonly SnapshotCodec[];
}

export function envOf(options: ToolOptions): Env {
  return options.env ?? createNodeEnv();
}
