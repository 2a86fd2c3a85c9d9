/** A log on a disk in memory, its sink, and blocks to put into it. */
import { MemoryMachines, type MemoryMachine } from 'drakkar/testing';
import type { DrakkarError } from 'drakkar';
import { frameOf as sealedFrame, stateOf, type BlockSpec } from '../../src/compliance/logdb-bench.ts';
import { BlockRef, type BlockPlace } from '../../src/wire/block-ref.ts';
import { SlabPool, type Slab } from '../../src/wire/slab.ts';
import type { LogSink, RecoveredShard, ShardState } from '../../src/wal/logdb.ts';
import { openWal } from '../../src/wal/open.ts';
import type { Wal } from '../../src/wal/wal.ts';

export { stateOf, type BlockSpec };

export const DIR = 'log';
export const SEGMENT_BYTES = 128 * 1024;

/** A sealed frame with the blocks. */
export function frameOf(...specs: readonly BlockSpec[]): { slab: Slab; lengthBytes: number } {
  const slab = sealedFrame(specs);
  return { slab, lengthBytes: slab.usedBytes };
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
