/** What the checkers know of a host: no more than its name, its process and what has become of its disk. */
import { replicaOf, type ReplicaView } from '../inspect.ts';
import type { NodeHost } from '../nodehost.ts';

/** A host as far as it is observed. */
export interface ObservedHost {
  readonly id: number;
  readonly name: string;
  readonly address: string;
  /** Set while its process runs. */
  readonly host: NodeHost | undefined;
  /** Whether its process did anything since the last question. */
  takeRun(): boolean;
  /** Its disk was damaged for good: it need not come back, but if it does nothing is missing. */
  readonly isDamaged: boolean;
  /** Its disk was lost or rolled back: it forgot what it had promised, and its peers must refuse it. */
  readonly isForgetful: boolean;
  /** What it is told to run, by shard. */
  readonly placements: ReadonlyMap<number, { readonly replicaId: number }>;
}

/** The replica of the shard that runs there. */
export function viewOf({ host }: ObservedHost, shardId: number): ReplicaView | undefined {
  return host === undefined ? undefined : replicaOf(host, shardId);
}
