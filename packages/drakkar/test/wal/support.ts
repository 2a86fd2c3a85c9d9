/** A log on a disk in memory, its sink, and blocks to put into it. */
import { MemoryMachines, type MemoryMachine } from 'drakkar/testing';
import type { DrakkarError } from 'drakkar';
import { BLOCK_HEADER_WORDS, BlockHeader, writeBlockHeader } from '../../src/wire/block.ts';
import { BlockRef, type BlockPlace } from '../../src/wire/block-ref.ts';
import { EntryType, putEntry } from '../../src/wire/entry.ts';
import { FRAME_HEADER_WORDS, FrameType, sealFrame } from '../../src/wire/frame.ts';
import { Slab, SlabPool } from '../../src/wire/slab.ts';
import type { LogSink, RecoveredShard, ShardState } from '../../src/wal/logdb.ts';
import { openWal, type Wal } from '../../src/wal/wal.ts';

export const DIR = 'log';
export const SEGMENT_BYTES = 128 * 1024;

export interface BlockSpec {
  readonly shardId?: number;
  readonly firstIndex: number;
  readonly count?: number;
  readonly term?: number;
  readonly prevTerm?: number;
  readonly commitIndex?: number;
  readonly flags?: number;
  /** Bytes of each payload. */
  readonly payloadBytes?: number;
}

/** A sealed frame with the blocks. */
export function frameOf(...specs: readonly BlockSpec[]): { slab: Slab; lengthBytes: number } {
  const total = specs.reduce((sum, spec) => sum + 256 + (spec.count ?? 1) * (64 + (spec.payloadBytes ?? 16)), 64);
  const slab = new Slab((total + 3) & ~3);
  let word = FRAME_HEADER_WORDS;
  for (const spec of specs) {
    const start = word;
    const count = spec.count ?? 1;
    word += BLOCK_HEADER_WORDS;
    for (let i = 0; i < count; i++) {
      const payload = new Uint8Array(spec.payloadBytes ?? 16).fill(spec.firstIndex + i);
      word = putEntry(slab.u8, slab.u32, word, EntryType.Command, spec.firstIndex + i, 7, payload);
    }
    const header = new BlockHeader();
    header.lengthBytes = (word - start) << 2;
    header.count = count;
    header.shardId = spec.shardId ?? 1;
    header.term = spec.term ?? 1;
    header.prevTerm = spec.prevTerm ?? (spec.firstIndex === 1 ? 0 : (spec.term ?? 1));
    header.firstIndex = spec.firstIndex;
    header.commitIndex = spec.commitIndex ?? 0;
    header.senderId = 1;
    header.senderTerm = spec.term ?? 1;
    header.flags = spec.flags ?? 0;
    writeBlockHeader(slab.u32, start, header);
  }
  sealFrame(slab.u8, slab.u32, 0, word << 2, FrameType.Blocks, specs.length);
  slab.usedBytes = word << 2;
  return { slab, lengthBytes: word << 2 };
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
    bootstrap: new Uint8Array([1, 2, 3]),
    pins: [],
    ...fields,
  };
}

/** Remembers what the log said, and keeps the live blocks as an engine would. */
export class RecordingSink implements LogSink {
  readonly durable: string[] = [];
  readonly live = new Map<number, BlockRef[]>();
  groups = 0;
  failure: DrakkarError | undefined;
  fullCount = 0;
  roomCount = 0;

  blockDurable(shardId: number, place: BlockPlace, firstIndex: number, count: number): void {
    this.durable.push(`${shardId}:${firstIndex}+${count}`);
    const ref = new BlockRef(firstIndex, count, 1, 1, undefined, 0, 0);
    ref.sizeBytes = place.frameBytes;
    ref.place = place;
    const list = this.live.get(shardId) ?? [];
    list.push(ref);
    this.live.set(shardId, list);
  }

  stateDurable(shardId: number): void {
    this.durable.push(`${shardId}:state`);
  }

  groupDurable(): void {
    this.groups++;
  }

  diskFull(): void {
    this.fullCount++;
  }

  roomAgain(): void {
    this.roomCount++;
  }

  failed(error: DrakkarError): void {
    this.failure = error;
  }

  /** The shard is compacted up to `index`. */
  compact(shardId: number, index: number): void {
    this.live.set(
      shardId,
      (this.live.get(shardId) ?? []).filter((ref) => ref.lastIndex > index),
    );
  }
}

export class TestLog {
  readonly machines: MemoryMachines;
  readonly machine: MemoryMachine;
  readonly segmentBytes: number;
  sink = new RecordingSink();
  wal!: Wal;

  constructor(seed = 1, segmentBytes: number = SEGMENT_BYTES) {
    this.machines = new MemoryMachines(seed);
    this.machine = this.machines.add('disk');
    this.segmentBytes = segmentBytes;
  }

  async open(): Promise<ReadonlyMap<number, RecoveredShard>> {
    const env = this.machine.boot();
    this.sink = new RecordingSink();
    const wal = await this.machines.world.settle(
      openWal({ env, dir: DIR, pool: new SlabPool(), segmentBytes: this.segmentBytes }),
    );
    this.wal = wal;
    for (const [shardId, { blocks }] of wal.recovered) this.sink.live.set(shardId, [...blocks]);
    const { sink } = this;
    wal.start(sink, (shardId) => sink.live.get(shardId) ?? []);
    return wal.recovered;
  }

  append(...specs: readonly BlockSpec[]): void {
    const { slab, lengthBytes } = frameOf(...specs);
    this.wal.appendFrame(slab, 0, lengthBytes);
    slab.release();
  }

  /** Appends and waits until it is durable. */
  async write(...specs: readonly BlockSpec[]): Promise<void> {
    this.append(...specs);
    await this.drain();
  }

  async writeState(fields: Partial<ShardState> = {}, resetsLog = false): Promise<void> {
    this.wal.appendState(stateOf(fields), resetsLog);
    await this.drain();
  }

  async drain(): Promise<void> {
    this.wal.flush();
    await this.machines.world.until(() => this.wal.pendingBytes === 0 || this.sink.failure !== undefined);
  }

  losePower(keep?: () => boolean): void {
    this.machine.losePower(keep);
  }

  segments(): string[] {
    return this.machine.disk.paths().filter((path) => path.endsWith('.wal'));
  }
}

/** `first-last@term` of each block. */
export function describe(shard: RecoveredShard | undefined): string {
  if (shard === undefined) return 'nothing';
  return shard.blocks.map((ref) => `${ref.firstIndex}-${ref.lastIndex}@${ref.term}`).join(' ');
}
