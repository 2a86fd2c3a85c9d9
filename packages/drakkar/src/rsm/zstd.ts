/** zstd as Node has it from 22.15 on: pure functions. */
import * as zlib from 'node:zlib';
import type { SnapshotCodec } from './codec.ts';

/** Quick: the network is what snapshots wait for, and the event loop waits for this. */
const LEVEL = 1;

export const zstd: SnapshotCodec | undefined =
  typeof (zlib.zstdCompressSync as unknown) !== 'function'
    ? undefined
    : {
        name: 'zstd',
        compress: (bytes) =>
          zlib.zstdCompressSync(bytes, { params: { [zlib.constants.ZSTD_c_compressionLevel]: LEVEL } }),
        // A block that claims to become larger is none (a bomb).
        uncompress: (bytes, sizeBytes) => zlib.zstdDecompressSync(bytes, { maxOutputLength: sizeBytes }),
      };
