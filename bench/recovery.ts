/**
 * How long a log takes to open: writes entries of many shards to a log of its own, closes it, and times the opening.
 *
 *     npm run bench:recovery -- --entries 10000000 [--shards 48] [--block 100] [--payload 16] [--dir DIR] [--json]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createNodeEnv } from '../packages/drakkar/src/env/node/index.ts';
import { BLOCK_HEADER_WORDS, BlockHeader, writeBlockHeader } from '../packages/drakkar/src/wire/block.ts';
import { EntryType, putEntry } from '../packages/drakkar/src/wire/entry.ts';
import { FRAME_HEADER_WORDS, FrameType, sealFrame } from '../packages/drakkar/src/wire/frame.ts';
import { Slab, SlabPool } from '../packages/drakkar/src/wire/slab.ts';
import { openWal, type Wal } from '../packages/drakkar/src/wal/wal.ts';

const { values } = parseArgs({
  options: {
    entries: { type: 'string', default: '10000000' },
    shards: { type: 'string', default: '48' },
    block: { type: 'string', default: '100' },
    payload: { type: 'string', default: '16' },
    rounds: { type: 'string', default: '3' },
    dir: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const entries = Number(values.entries);
const shards = Number(values.shards);
const block = Number(values.block);
const payload = new Uint8Array(Number(values.payload));

const env = createNodeEnv({});
const dir = mkdtempSync(join(values.dir, 'drakkar-recovery-'));
const open = (): Promise<Wal> => openWal({ env, dir, pool: new SlabPool() });

/** One frame with the next block of every shard. */
function frame(slab: Slab, firstIndex: number): number {
  const header = new BlockHeader();
  let word = FRAME_HEADER_WORDS;
  for (let shardId = 1; shardId <= shards; shardId++) {
    const start = word;
    word += BLOCK_HEADER_WORDS;
    for (let i = 0; i < block; i++)
      word = putEntry(slab.u8, slab.u32, word, EntryType.Command, firstIndex + i, 7, payload);
    header.lengthBytes = (word - start) << 2;
    header.count = block;
    header.shardId = shardId;
    header.term = header.senderTerm = 1;
    header.prevTerm = firstIndex === 1 ? 0 : 1;
    header.firstIndex = firstIndex;
    header.commitIndex = firstIndex - 1;
    header.senderId = 1;
    header.flags = 0;
    writeBlockHeader(slab.u32, start, header);
  }
  sealFrame(slab.u8, slab.u32, 0, word << 2, FrameType.Blocks, shards);
  return word << 2;
}

async function fill(): Promise<void> {
  const wal = await open();
  wal.start(
    { blockDurable() {}, stateDurable() {}, groupDurable() {}, diskFull() {}, roomAgain() {}, failed() {} },
    () => [],
  );
  // Nothing is freed: every entry counts.
  wal.liveBlocks = () => [];
  for (let shardId = 1; shardId <= shards; shardId++) {
    const none = { snapshotIndex: 0, snapshotTerm: 0, compactedIndex: 0, compactedTerm: 0 };
    wal.appendState(
      { shardId, replicaId: 1, term: 1, vote: 1, commitIndex: 0, ...none, bootstrap: new Uint8Array(0), pins: [] },
      false,
    );
  }
  // Held by a reader, the oldest segment stays, and all behind it.
  for (const segment of wal.segments) segment.readers++;
  const slab = new Slab(shards * (BLOCK_HEADER_WORDS * 4 + block * (16 + payload.length + 4)) + 64);
  for (let done = 0; done < entries; done += shards * block) {
    const lengthBytes = frame(slab, done / shards + 1);
    wal.appendFrame(slab, 0, lengthBytes);
    await wal.allWritten();
  }
  await wal.close();
}

try {
  await fill();
  const times: number[] = [];
  let blocks = 0;
  for (let round = 0; round < Number(values.rounds); round++) {
    globalThis.gc?.();
    const from = performance.now();
    const wal = await open();
    times.push(performance.now() - from);
    blocks = 0;
    for (const { blocks: live } of wal.recovered.values()) blocks += live.length;
    await wal.close();
  }
  const ms = times.sort((a, b) => a - b)[times.length >>> 1];
  const result = {
    entries: blocks * block,
    blocks,
    ms: Math.round(ms),
    entriesPerSecond: Math.round((blocks * block) / (ms / 1000)),
  };
  console.log(
    `${result.entries} entries in ${blocks} blocks: ${result.ms} ms, ${(result.entriesPerSecond / 1e6).toFixed(1)} million entries/s`,
  );
  if (values.json) console.log(JSON.stringify(result));
} finally {
  rmSync(dir, { recursive: true, force: true });
}
