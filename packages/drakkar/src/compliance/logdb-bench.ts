/** A log under test on a machine in memory: what it is given, what it tells, what is found again. */
import type { DrakkarError } from '../errors.ts';
import type { Env } from '../env/env.ts';
import { MemoryMachines, type MemoryMachine } from '../env/memory/index.ts';
import { BLOCK_HEADER_WORDS, BlockHeader, writeBlockHeader } from '../wire/block.ts';
import { BlockRef, type BlockPlace } from '../wire/block-ref.ts';
import { EntryType, putEntry } from '../wire/entry.ts';
import { FRAME_HEADER_WORDS, FrameType, sealFrame } from '../wire/frame.ts';
import { Slab, SlabPool } from '../wire/slab.ts';
import type { LogDb, LogSink, RecoveredShard, ShardState } from '../wal/logdb.ts';
import { expect } from './cases.ts';

export interface LogDbContext {
  readonly env: Env;
  readonly dir: string;
  readonly pool: SlabPool;
}

/** Opens the log in `dir`, as `NodeHostOptions.logDb` does. */
export type CreateLogDb = (context: LogDbContext) => Promise<LogDb>;

export interface BlockSpec {
  readonly shardId?: number;
  readonly firstIndex: number;
  readonly count?: number;
  readonly term?: number;
  readonly prevTerm?: number;
  readonly commitIndex?: number;
  readonly flags?: number;
  readonly payloadBytes?: number;
}

/** A sealed frame with the blocks, `usedBytes` long. */
export function frameOf(specs: readonly BlockSpec[]): Slab {
  const bytes = specs.reduce((sum, spec) => sum + 256 + (spec.count ?? 1) * (64 + (spec.payloadBytes ?? 16)), 64);
  const slab = new Slab((bytes + 3) & ~3);
  let word = FRAME_HEADER_WORDS;
  for (const spec of specs) {
    const { shardId = 1, firstIndex, count = 1, term = 1, payloadBytes = 16 } = spec;
    const start = word;
    word += BLOCK_HEADER_WORDS;
    for (let i = 0; i < count; i++) {
      const payload = new Uint8Array(payloadBytes).fill(firstIndex + i);
      word = putEntry(slab.u8, slab.u32, word, EntryType.Command, firstIndex + i, 7, payload);
    }
    const header = new BlockHeader();
    Object.assign(header, { lengthBytes: (word - start) << 2, count, shardId, term, firstIndex, senderId: 1 });
    header.prevTerm = spec.prevTerm ?? (firstIndex === 1 ? 0 : term);
    header.commitIndex = spec.commitIndex ?? 0;
    header.senderTerm = term;
    header.flags = spec.flags ?? 0;
    writeBlockHeader(slab.u32, start, header);
  }
  sealFrame(slab.u8, slab.u32, 0, word << 2, FrameType.Blocks, specs.length);
  slab.usedBytes = word << 2;
  return slab;
}

export function stateOf(fields: Partial<ShardState> = {}): ShardState {
  return {
    shardId: 1,
    replicaId: 1,
    term: 1,
    vote: 0,
    commitIndex: 0,
    snapshotIndex: 0,
    snapshotTerm: 0,
    compactedIndex: 0,
    compactedTerm: 0,
    bootstrap: Uint8Array.of(1, 2, 3),
    pins: [],
    ...fields,
  };
}

export class LogDbBench implements LogSink {
  readonly machines: MemoryMachines;
  readonly machine: MemoryMachine;
  private readonly create: CreateLogDb;
  log!: LogDb;
  /** What became durable, in the order in which it was told: `shard:first+count`, `shard:state`. */
  told: string[] = [];
  readonly live = new Map<number, BlockRef[]>();
  groups = 0;
  failure: DrakkarError | undefined;
  isFull = false;

  constructor(create: CreateLogDb, seed = 1) {
    this.create = create;
    this.machines = new MemoryMachines(seed);
    this.machine = this.machines.add('machine');
  }

  async open(): Promise<ReadonlyMap<number, RecoveredShard>> {
    const env = this.machine.boot();
    this.told = [];
    this.live.clear();
    this.failure = undefined;
    this.log = await this.machines.world.settle(this.create({ env, dir: 'log', pool: new SlabPool() }));
    for (const [shardId, { blocks }] of this.log.recovered) this.live.set(shardId, [...blocks]);
    this.log.start(this, (shardId) => this.live.get(shardId) ?? []);
    return this.log.recovered;
  }

  append(...specs: readonly BlockSpec[]): Slab {
    const slab = frameOf(specs);
    this.log.appendFrame(slab, 0, slab.usedBytes);
    return slab;
  }

  /** Appends and waits until it is durable. */
  async write(...specs: readonly BlockSpec[]): Promise<void> {
    this.append(...specs).release();
    await this.drain();
  }

  async writeState(fields: Partial<ShardState> = {}, resetsLog = false): Promise<void> {
    this.log.appendState(stateOf(fields), resetsLog);
    await this.drain();
  }

  async drain(): Promise<void> {
    this.log.flush();
    await this.machines.world.until(() => this.log.pendingBytes === 0 || this.failure !== undefined);
  }

  /** The blocks of a shard that were found, as `first-last@term`. */
  found(shardId = 1): string {
    const shard = this.log.recovered.get(shardId);
    if (shard === undefined) return 'nothing';
    expect(shard.failure === undefined, `shard ${shardId} came back damaged: ${shard.failure?.message}`);
    return shard.blocks.map((ref) => `${ref.firstIndex}-${ref.lastIndex}@${ref.term}`).join(' ');
  }

  // The sink.

  blockDurable(shardId: number, place: BlockPlace, firstIndex: number, count: number): void {
    this.told.push(`${shardId}:${firstIndex}+${count}`);
    const ref = new BlockRef(firstIndex, count, 1, 1, undefined, 0, 0);
    ref.sizeBytes = place.frameBytes;
    ref.place = place;
    this.live.set(shardId, [...(this.live.get(shardId) ?? []), ref]);
  }

  stateDurable(shardId: number): void {
    this.told.push(`${shardId}:state`);
  }

  groupDurable(): void {
    this.groups++;
  }

  diskFull(): void {
    this.isFull = true;
  }

  roomAgain(): void {
    this.isFull = false;
  }

  failed(error: DrakkarError): void {
    this.failure = error;
  }
}
