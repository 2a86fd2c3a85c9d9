/**
 * Another log database, as small as one can be: a single file that only grows, a group of frames for each flush, everything read at the
 * opening. Shows that `LogDb` is enough of a contract; not meant for use.
 *
 *     group   word 0 length of the frames in bytes, word 1 number of the group, word 2 checksum of words 0, 1 and the frames, word 3 zero
 */
import { DrakkarError, type LogDb, type LogSink, type RecoveredShard, type ShardState } from 'drakkar';
import type { LogDbContext } from 'drakkar/compliance';
import type { File } from '../../src/env/env.ts';
import { BLOCK_TRUNCATES, BlockHeader, readBlockHeader } from '../../src/wire/block.ts';
import { BlockRef, type BlockPlace } from '../../src/wire/block-ref.ts';
import { checksum } from '../../src/wire/checksum.ts';
import {
  FRAME_HEADER_BYTES,
  FRAME_HEADER_WORDS,
  FrameType,
  checkFrame,
  frameCount,
  frameType,
  sealFrame,
} from '../../src/wire/frame.ts';
import { FRAME_MAX_BYTES } from '../../src/wire/limits.ts';
import { Slab } from '../../src/wire/slab.ts';
import {
  RECORD_REMOVED,
  RECORD_RESETS_LOG,
  readRecord,
  recordBytes,
  recordFlags,
  writeRecord,
} from '../../src/wal/records.ts';

const GROUP_BYTES = 16;
const DISK_FAILED = 'writing failed';

interface Waiting {
  readonly bytes: Uint8Array;
  readonly slab: Slab | undefined;
  readonly done: (() => void) | undefined;
}

interface Shard {
  state: ShardState | undefined;
  blocks: BlockRef[];
  commitIndex: number;
}

export async function openSingleFileLog({ env, dir }: LogDbContext): Promise<LogDb> {
  await env.fs.makeDirectory(dir);
  const path = `${dir}/log`;
  const isThere = (await env.fs.stat(path)) !== undefined;
  const file = await env.fs.open(path, isThere ? 'write' : 'create', { dataSync: true });
  if (!isThere) await env.fs.syncDirectory(dir);
  const log = new SingleFileLog(file, path);
  await log.recover();
  return log;
}

class SingleFileLog implements LogDb {
  readonly name = 'single-file';
  readonly isFull = false;
  readonly counters = {};
  readonly damage = undefined;
  readonly recovered = new Map<number, RecoveredShard>();
  pendingBytes = 0;
  private readonly file: File;
  private readonly path: string;
  private readonly shards = new Map<number, Shard>();
  private sink: LogSink | undefined;
  private waiting: Waiting[] = [];
  private writing: Waiting[] = [];
  private end = 0;
  private groupNumber = 0;
  private failure: DrakkarError | undefined;
  private wake: (() => void) | undefined;

  constructor(file: File, path: string) {
    this.file = file;
    this.path = path;
  }

  start(sink: LogSink): void {
    this.sink = sink;
  }

  // Opening.

  async recover(): Promise<void> {
    const bytes = new Uint8Array(await this.file.sizeBytes());
    await this.file.read(bytes, 0, bytes.length, 0);
    let lastGroup = 0;
    for (;;) {
      const group = groupAt(bytes, this.end, this.groupNumber + 1);
      if (group === undefined) break;
      const from = this.end + GROUP_BYTES;
      const slab = new Slab(group);
      slab.u8.set(bytes.subarray(from, from + group));
      this.walk(slab, group, from, (shardId, ref, header) => this.addBlock(shardId, ref, header));
      lastGroup = this.end;
      this.end = from + group;
      this.groupNumber++;
    }
    // What was read may never have reached the disk.
    if (this.end > 0) await this.put(bytes.slice(lastGroup, this.end), lastGroup);
    for (const [shardId, { state, blocks, commitIndex }] of this.shards) {
      if (state === undefined) continue;
      const live = blocks.filter((ref) => ref.lastIndex > state.compactedIndex);
      const commit = Math.max(commitIndex, state.commitIndex);
      this.recovered.set(shardId, { state, blocks: live, commitIndex: commit, failure: undefined });
    }
  }

  private put(bytes: Uint8Array, position: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.file.write(bytes, 0, bytes.length, position, (error) => (error === null ? resolve() : reject(error)));
    });
  }

  private shardOf(shardId: number): Shard {
    let shard = this.shards.get(shardId);
    if (shard === undefined) this.shards.set(shardId, (shard = { state: undefined, blocks: [], commitIndex: 0 }));
    return shard;
  }

  private addBlock(shardId: number, ref: BlockRef, header: BlockHeader): void {
    const shard = this.shardOf(shardId);
    if ((header.flags & BLOCK_TRUNCATES) !== 0) {
      shard.blocks = shard.blocks.filter(({ firstIndex }) => firstIndex < ref.firstIndex);
      const last = shard.blocks.at(-1);
      if (last !== undefined && last.lastIndex >= ref.firstIndex) last.count = ref.firstIndex - last.firstIndex;
    }
    shard.blocks.push(ref);
    shard.commitIndex = Math.max(shard.commitIndex, Math.min(header.commitIndex, ref.lastIndex));
  }

  /** Walks the frames of a group: states are taken over, blocks given to `visit`. */
  private walk(
    slab: Slab,
    length: number,
    position: number,
    visit: (shardId: number, ref: BlockRef, header: BlockHeader) => void,
  ): void {
    const { u8, u32 } = slab;
    for (let at = 0; at < length; at += (u32[at >>> 2] + 3) & ~3) {
      const word = at >>> 2;
      const frameBytes = u32[word];
      let w = word + FRAME_HEADER_WORDS;
      if (frameType(u32, word) === FrameType.Records) {
        this.takeState(readRecord(u8, u32, w, (at + frameBytes) >>> 2), recordFlags(u32, w));
        continue;
      }
      for (let left = frameCount(u32, word); left > 0; left--) {
        const header = new BlockHeader();
        readBlockHeader(u32, w, header);
        const { firstIndex, count, term, prevTerm } = header;
        const ref = new BlockRef(firstIndex, count, term, prevTerm, undefined, 0, 0);
        const blockOffset = (w - word) << 2;
        const order = { orderEpoch: 1, orderOffset: position + at + blockOffset };
        ref.place = { segmentEpoch: 1, frameOffset: position + at, frameBytes, blockOffset, ...order };
        visit(header.shardId, ref, header);
        w += header.lengthBytes >>> 2;
      }
    }
  }

  private takeState(state: ShardState, flags: number): void {
    if ((flags & RECORD_REMOVED) !== 0) {
      this.shards.delete(state.shardId);
      return;
    }
    const shard = this.shardOf(state.shardId);
    if ((flags & RECORD_RESETS_LOG) !== 0) shard.blocks = [];
    shard.state = state;
  }

  // Appending.

  appendFrame(slab: Slab, offset: number, lengthBytes: number): void {
    if (lengthBytes > FRAME_MAX_BYTES)
      throw new DrakkarError('ERR_PAYLOAD_TOO_BIG', `a frame of ${lengthBytes} bytes exceeds ${FRAME_MAX_BYTES}`);
    slab.retain();
    this.push({ bytes: slab.u8.subarray(offset, offset + lengthBytes), slab, done: undefined });
  }

  appendState(state: ShardState, resetsLog: boolean): void {
    this.pushState(state, resetsLog ? RECORD_RESETS_LOG : 0, undefined);
  }

  private pushState(state: ShardState, flags: number, done: (() => void) | undefined): void {
    const length = FRAME_HEADER_BYTES + recordBytes(state);
    const slab = new Slab(length);
    writeRecord(slab.u8, slab.u32, FRAME_HEADER_WORDS, state, flags);
    sealFrame(slab.u8, slab.u32, 0, length, FrameType.Records, 1);
    this.push({ bytes: slab.u8.subarray(0, length), slab, done });
  }

  private push(item: Waiting): void {
    if (this.failure !== undefined) {
      item.slab?.release();
      return;
    }
    this.pendingBytes += item.bytes.length;
    this.waiting.push(item);
  }

  flush(): void {
    if (this.writing.length > 0 || this.waiting.length === 0 || this.failure !== undefined) return;
    this.writing = this.waiting;
    this.waiting = [];
    const length = this.writing.reduce((sum, { bytes }) => sum + ((bytes.length + 3) & ~3), 0);
    const group = new Slab(GROUP_BYTES + length);
    let at = GROUP_BYTES;
    for (const { bytes, slab } of this.writing) {
      group.u8.set(bytes, at);
      slab?.release();
      at += (bytes.length + 3) & ~3;
    }
    group.u32[0] = length;
    group.u32[1] = this.groupNumber + 1;
    group.u32[2] = sumOf(group.u8, length);
    this.file.write(group.u8, 0, GROUP_BYTES + length, this.end, (error) => this.written(group, length, error));
  }

  private written(group: Slab, length: number, error: Error | null): void {
    if (error !== null) {
      this.failure = new DrakkarError('ERR_DISK_FAILED', `${DISK_FAILED} at ${this.path}`, { cause: error });
      for (const { slab } of this.waiting.splice(0)) slab?.release();
      this.pendingBytes = 0;
      this.sink?.failed(this.failure);
      this.wake?.();
      return;
    }
    const position = this.end + GROUP_BYTES;
    this.end = position + length;
    this.groupNumber++;
    const content = new Slab(length);
    content.u8.set(group.u8.subarray(GROUP_BYTES, GROUP_BYTES + length));
    const done = this.writing;
    this.writing = [];
    this.tell(content, length, position);
    for (const { bytes, done: call } of done) {
      this.pendingBytes -= bytes.length;
      call?.();
    }
    this.sink?.groupDurable();
    this.flush();
    this.wake?.();
  }

  private tell(content: Slab, length: number, position: number): void {
    const { u8, u32 } = content;
    for (let at = 0; at < length; at += (u32[at >>> 2] + 3) & ~3) {
      const word = at >>> 2;
      const frame = new Slab(u32[word]);
      frame.u8.set(u8.subarray(at, at + u32[word]));
      if (frameType(u32, word) === FrameType.Records) {
        const w = word + FRAME_HEADER_WORDS;
        const state = readRecord(u8, u32, w, (at + u32[word]) >>> 2);
        if ((recordFlags(u32, w) & RECORD_REMOVED) === 0) this.sink?.stateDurable(state.shardId);
      } else {
        this.walk(frame, u32[word], position + at, (shardId, ref) => {
          this.sink?.blockDurable(shardId, ref.place!, ref.firstIndex, ref.count);
        });
      }
    }
  }

  // The rest.

  async readFrame(place: BlockPlace): Promise<Slab> {
    const slab = new Slab(place.frameBytes);
    await this.file.read(slab.u8, 0, place.frameBytes, place.frameOffset);
    slab.usedBytes = place.frameBytes;
    try {
      checkFrame(slab.u8, slab.u32, 0, place.frameBytes, FRAME_MAX_BYTES);
    } catch (cause) {
      throw new DrakkarError('ERR_LOG_CORRUPT', `${this.path} is damaged at byte ${place.frameOffset}`, { cause });
    }
    return slab;
  }

  removeShard(shardId: number): Promise<void> {
    const state = this.shards.get(shardId)?.state ?? this.recovered.get(shardId)?.state;
    const empty = { replicaId: 0, term: 0, vote: 0, commitIndex: 0, snapshotIndex: 0, snapshotTerm: 0 };
    const record = state ?? {
      shardId,
      ...empty,
      compactedIndex: 0,
      compactedTerm: 0,
      bootstrap: new Uint8Array(0),
      pins: [],
    };
    return new Promise((resolve) => {
      this.pushState(record, RECORD_REMOVED, resolve);
      this.flush();
    });
  }

  async close(): Promise<void> {
    while (this.pendingBytes > 0 && this.failure === undefined) {
      this.flush();
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    await this.file.close();
  }
}

function sumOf(group: Uint8Array, length: number): number {
  return checksum(group.subarray(GROUP_BYTES, GROUP_BYTES + length), checksum(group.subarray(0, 8)));
}

/** Length of the group that stands at `at`, if one with that number does. */
function groupAt(bytes: Uint8Array, at: number, number: number): number | undefined {
  if (at + GROUP_BYTES > bytes.length) return undefined;
  const group = bytes.slice(at);
  const [length, found, sum] = new Uint32Array(group.buffer, 0, 3);
  if (length === 0 || at + GROUP_BYTES + length > bytes.length || found !== number) return undefined;
  return sumOf(group, length) === sum ? length : undefined;
}
