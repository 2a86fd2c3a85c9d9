/** The directory of a stopped host, and where its log is. */
import type { LogsOptions } from 'drakkar/tools';

export const WAL_DIR =
  "where the host's log is that has a directory of its own; default: where it was at the last start";

export const whereOf = (dir: string, { walDir }: { readonly walDir?: string }): LogsOptions =>
  walDir === undefined ? { dir } : { dir, walDir };
