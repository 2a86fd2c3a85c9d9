/** Programs for operators, exported as `drakkar/tools`; the `drakkar` command of the server package is made of them. */
export { runBench, type BenchOptions, type BenchResult } from './bench.ts';
export { checkDisk, type CheckDiskOptions, type CheckDiskResult, type FlushResult } from './checkdisk.ts';
export {
  exportStopped,
  verifySnapshot,
  type ExportedSnapshot,
  type OfflineExportOptions,
  type VerifySnapshotOptions,
} from './export.ts';
export { describeDirectory, type DirectoryInfo, type DirectoryOwnerInfo } from './directory.ts';
export type { ImageReport } from './images.ts';
export { importSnapshot, type ImportOptions, type ImportedShard } from './import.ts';
export type { LogsOptions } from './log-files.ts';
export type { LatencySummary } from './latency.ts';
export type { Problem } from './problem.ts';
export type { ToolOptions } from './tool-env.ts';
export { dumpLog, type DumpOptions, type LogItem } from './wal-dump.ts';
export { verifyLog, type DirectoryReport, type LogReport, type ShardReport, type VerifyOptions } from './wal-verify.ts';
