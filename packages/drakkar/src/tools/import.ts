/**
 * Offline repair of a shard that lost its majority for good: this host's replica of it begins again from an exported snapshot, with new
 * members. What was acknowledged after the export is lost; that is what is decided by calling this.
 *
 * Atomic: the new image lies beside what is there, and one record in the log makes it count (`Snapshotter.stageImport`). A crash at any
 * point leaves the replica as it was or as it is to be.
 */
import type { NodeHostOptions } from '../config.ts';
import {
  check,
  isAddress,
  isCodecs,
  isFunction,
  isInteger,
  isMembers,
  isObject,
  isText,
  required,
} from '../option-rules.ts';
import { openDirectory, readIdentity, type DirectoryOwner } from '../engine/directory.ts';
import { DrakkarError, diskErrorOf } from '../errors.ts';
import { IMAGE_IMPORTED, encodeImage, encodeSection } from '../rsm/image.ts';
import { codecNamed, codecsOf } from '../rsm/codec.ts';
import { exportedPayload, verifyExport, type ExportedSnapshot } from '../rsm/export.ts';
import { Snapshotter } from '../rsm/snapshotter.ts';
import { isHostId } from '../transport/target.ts';
import type { LogDb, ShardState } from '../wal/logdb.ts';
import { openWal } from '../wal/open.ts';
import { encodeMembership, type Membership } from '../wire/membership.ts';
import { SlabPool } from '../wire/slab.ts';
import { envOf, type ToolOptions } from './tool-env.ts';

export interface ImportOptions extends ToolOptions {
  /** This host's directory; the host must be stopped. Made when missing, for a host that is new. */
  readonly dir: string;
  /** As in `NodeHost.open`. Default: where the directory's logs are. */
  readonly walDir?: string;
  /** The exported snapshot: the same on every host. */
  readonly from: string;
  /** This host's replica of the shard; one of `members`. */
  readonly replicaId: number;
  /** All members from now on, the same on every host: replica ids and addresses. */
  readonly members: Readonly<Record<number, string>>;
  /** For a new directory when `members` are host ids: as in `NodeHost.open`. */
  readonly raftAddress?: string;
  /** As in `NodeHost.open`. Default 1. */
  readonly deploymentId?: number;
  /** As in `NodeHost.open`. */
  readonly logDb?: NodeHostOptions['logDb'];
}

export interface ImportedShard {
  readonly shardId: number;
  readonly replicaId: number;
  /** The log begins behind it. */
  readonly index: number;
  readonly term: number;
  readonly members: Readonly<Record<string, string>>;
  /** Replica ids of the shard that are gone for ever. */
  readonly removed: readonly number[];
  /** Highest index that the directory held of this replica before, 0 for none. */
  readonly replacedIndex: number;
}

const RULES = {
  dir: required(isText),
  walDir: isText,
  from: required(isText),
  replicaId: required(isInteger(1, Number.MAX_SAFE_INTEGER)),
  members: required(isMembers),
  raftAddress: isAddress,
  deploymentId: isInteger(1, Number.MAX_SAFE_INTEGER),
  logDb: isFunction,
  env: isObject,
  snapshotCodecs: isCodecs,
};

/**
 * Makes this host's replica begin anew from the snapshot in `from`. To be done on every host of the new membership, all of them stopped,
 * with the same snapshot and the same members; hosts of the old one that are not among them must never run the shard again.
 *
 * @throws ERR_INVALID_OPTION, ERR_SNAPSHOT_CORRUPT, ERR_DIR_LOCKED, ERR_DIR_FOREIGN, ERR_DIR_FORMAT, ERR_DIR_PERMISSIONS, ERR_DIR_CORRUPT,
 * ERR_SHARD_MISMATCH, ERR_LOG_CORRUPT, ERR_DISK_FULL, ERR_DISK_FAILED
 */
export async function importSnapshot(options: ImportOptions): Promise<ImportedShard> {
  check('importSnapshot', options, RULES);
  const address = options.members[options.replicaId];
  if (address === undefined) {
    throw invalid(
      `replicaId is ${options.replicaId}; expected one of members (${Object.keys(options.members).join(', ')})`,
    );
  }
  const env = envOf(options);
  const codecs = codecsOf(options.snapshotCodecs);
  const exported = await verifyExport(env.fs, options.from, codecs);
  const membership = newMembership(exported, options.members);
  try {
    const directory = await openDirectory(env, options.dir, await ownerOf(options, address));
    try {
      const logs: LogDb[] = [];
      const formats = { newest: directory.identity.newestFormat, enabled: directory.format };
      try {
        for (const { walDir } of directory.engines)
          logs.push(await (options.logDb ?? openWal)({ env, dir: walDir, pool: new SlabPool(), formats }));
        const at = engineOf(logs, exported.shardId);
        const { snapshotsDir } = directory.engines[at];
        const snapshotter = new Snapshotter(env.fs, snapshotsDir, exported.shardId, codecs);
        return await replace(options, exported, membership, logs[at], snapshotter);
      } finally {
        for (const log of logs) await log.close();
      }
    } finally {
      await directory.release();
    }
  } catch (error) {
    throw diskErrorOf(error, `the directory ${options.dir}`);
  }
}

/** Where the shard lives. One that no log mentions may have been in a damaged one; else it begins in engine 0. */
function engineOf(logs: readonly LogDb[], shardId: number): number {
  const known = logs.findIndex((log) => log.recovered.has(shardId));
  return known >= 0
    ? known
    : Math.max(
        0,
        logs.findIndex((log) => log.damage !== undefined),
      );
}

/** The member's address is this host's, or its id. */
async function ownerOf(options: ImportOptions, address: string): Promise<DirectoryOwner> {
  const known = await readIdentity(envOf(options).fs, options.dir);
  const { deploymentId = 1, walDir = known?.walDir, raftAddress = known?.raftAddress } = options;
  if (!isHostId(address)) return { deploymentId, raftAddress: address, hostId: undefined, mayMove: false, walDir };
  if (raftAddress === undefined) {
    throw invalid(`${options.dir} is new and members are host ids; raftAddress is needed, too`);
  }
  return { deploymentId, raftAddress, hostId: address, mayMove: true, walDir };
}

async function replace(
  options: ImportOptions,
  exported: ExportedSnapshot,
  membership: Membership,
  log: LogDb,
  snapshotter: Snapshotter,
): Promise<ImportedShard> {
  if (log.damage !== undefined) {
    throw new DrakkarError(
      'ERR_LOG_CORRUPT',
      `${log.damage.message}; a damaged log takes no import: use an empty directory`,
      { cause: log.damage },
    );
  }
  const { shardId, index, term } = exported;
  const { replicaId } = options;
  const known = log.recovered.get(shardId);
  if (known !== undefined && known.state.replicaId !== replicaId && known.state.replicaId !== 0) {
    throw new DrakkarError(
      'ERR_SHARD_MISMATCH',
      `${options.dir} holds replica ${known.state.replicaId} of shard ${shardId}, not ${replicaId}; import as that one`,
    );
  }
  const bootstrap = encodeMembership(membership);
  // An import that a crash cut off ends or goes first: two must not wait for their record.
  await snapshotter.processOrphans(known?.state.snapshotIndex ?? 0, known?.state.bootstrap);
  const flags = (exported.flags ?? 0) | IMAGE_IMPORTED;
  const codecs = codecsOf(options.snapshotCodecs);
  const payload = exportedPayload(envOf(options).fs, options.from, encodeSection(bootstrap), codecs);
  // As compressed as it was.
  const codec = exported.codec === undefined ? undefined : codecNamed(codecs, exported.codec);
  await snapshotter.stageImport(index, bootstrap, encodeImage({ shardId, index, term, flags }, payload, { codec }));
  await writeState(log, shardId, {
    shardId,
    replicaId,
    // A term in which nothing was promised here, under the old members.
    term: known === undefined ? term : Math.max(term, known.state.term + 1),
    vote: 0,
    commitIndex: index,
    snapshotIndex: index,
    snapshotTerm: term,
    compactedIndex: index,
    compactedTerm: term,
    bootstrap,
    pins: [],
  });
  await snapshotter.processOrphans(index, bootstrap);
  return {
    shardId,
    replicaId,
    index,
    term,
    members: Object.fromEntries(membership.voters),
    removed: [...membership.removed],
    replacedIndex: known === undefined ? 0 : (known.blocks.at(-1)?.lastIndex ?? known.state.snapshotIndex),
  };
}

/** One durable record that makes all that the log had of the shard void: the moment at which the import counts. */
function writeState(log: LogDb, shardId: number, state: ShardState): Promise<void> {
  let isAppended = false;
  let isDurable = false;
  return new Promise((resolve, reject) => {
    log.start(
      {
        blockDurable() {},
        stateDurable(durable) {
          isDurable ||= durable === shardId;
        },
        groupDurable() {
          if (isDurable) resolve();
        },
        diskFull: reject,
        roomAgain() {},
        failed: reject,
      },
      // Void from the append on, as in the engine: a block that is moved behind the record would come back. No segment goes before it is durable.
      (id) => (isAppended && id === shardId ? [] : (log.recovered.get(id)?.blocks ?? [])),
    );
    isAppended = true;
    log.appendState(state, true);
    log.flush();
  });
}

/** Ids keep what they meant: none comes back, moves or changes its role. */
function newMembership(exported: ExportedSnapshot, members: Readonly<Record<number, string>>): Membership {
  const voters = new Map(Object.entries(members).map(([id, address]) => [Number(id), address] as const));
  const removed = new Set(exported.removed);
  for (const [id, address] of voters) {
    if (removed.has(id))
      throw invalid(`replica ${id} was removed from the shard and can never come back; choose another id`);
    if (String(id) in exported.nonVotings || String(id) in exported.witnesses)
      throw invalid(`replica ${id} was no voter of the shard; a replica does not change its role: choose another id`);
    const before = exported.voters[id];
    if (before !== undefined && before !== address)
      throw invalid(`replica ${id} lived at ${before}, not ${address}; a replica does not move: choose another id`);
  }
  for (const before of [exported.voters, exported.nonVotings, exported.witnesses]) {
    for (const id of Object.keys(before)) if (!voters.has(Number(id))) removed.add(Number(id));
  }
  const ascending = [...voters].sort((a, b) => a[0] - b[0]);
  return {
    configChangeIndex: exported.index,
    voters: new Map(ascending),
    nonVotings: new Map(),
    witnesses: new Map(),
    autoPromoted: new Set(),
    removed,
  };
}

function invalid(why: string): DrakkarError {
  return new DrakkarError('ERR_INVALID_OPTION', `importSnapshot: ${why}`);
}
