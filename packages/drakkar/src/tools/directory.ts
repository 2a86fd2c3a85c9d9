/** Whose a directory is, and what is in it. */
import { readIdentity } from '../engine/directory.ts';
import { countOf } from '../engine/incarnation.ts';
import { problemOf, type Problem } from './problem.ts';
import { envOf } from './tool-env.ts';
import { verifyLog, type DirectoryReport, type VerifyOptions } from './wal-verify.ts';

export interface DirectoryOwnerInfo {
  readonly hostId: string;
  readonly deploymentId: number;
  readonly raftAddress: string;
  /** How often the directory was started. */
  readonly startCounter: number;
  /** Where its logs are, when they are not in it. */
  readonly walDir?: string;
  /** A peer knew of a start that the directory does not remember: it is of no use any more. */
  readonly isRolledBack: boolean;
}

export interface DirectoryInfo extends DirectoryReport {
  /** Undefined when it is a bare log, or when it cannot be read: then `ownerProblem` says why. */
  readonly owner: DirectoryOwnerInfo | undefined;
  readonly ownerProblem: Problem | undefined;
}

/** What a stopped host's directory, or a copy of one, holds. Throws as `verifyLog`; snapshot images are listed, and read on demand. */
export async function describeDirectory(options: VerifyOptions): Promise<DirectoryInfo> {
  const report = await verifyLog({ images: false, ...options });
  let owner: DirectoryOwnerInfo | undefined;
  let ownerProblem: Problem | undefined;
  try {
    const identity = await readIdentity(envOf(options).fs, options.dir);
    owner = identity && {
      hostId: identity.hostId,
      deploymentId: identity.deploymentId,
      raftAddress: identity.raftAddress,
      startCounter: countOf(identity.startCounter),
      ...(identity.walDir === undefined ? {} : { walDir: identity.walDir }),
      isRolledBack: identity.rolledBackFrom > 0,
    };
  } catch (error) {
    ownerProblem = problemOf(error);
  }
  return {
    ...report,
    ok: report.ok && ownerProblem === undefined && owner?.isRolledBack !== true,
    owner,
    ownerProblem,
  };
}
