/**
 * A fixed piece of work that knows nothing of the library: what a machine does of it in a CPU-second says how fast the machine is at the
 * moment. Never change it, or record the guard's ratio anew.
 */
import { crc32 } from 'node:zlib';

const SLAB_BYTES = 1 << 20;
const COMMAND_BYTES = 32;
const KEYS = 10_000;
/** Units between two looks at the clock. */
const CHUNK = 20_000;

/** Units per CPU-second over `durationMs`: a copy, a map, a promise for each, a checksum for each slab. */
export async function syntheticUnitsPerCpuSecond(durationMs: number): Promise<number> {
  const slab = new Uint8Array(SLAB_BYTES);
  const command = new Uint8Array(COMMAND_BYTES).fill(7);
  const values = new Map<number, number>();
  const start = performance.now();
  const before = process.cpuUsage();
  let units = 0;
  let at = 0;
  let state = 1;
  while (performance.now() - start < durationMs) {
    for (let i = 0; i < CHUNK; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      slab.set(command, at);
      values.set(state % KEYS, state);
      at += COMMAND_BYTES;
      if (at === SLAB_BYTES) {
        state ^= crc32(slab);
        at = 0;
      }
      await Promise.resolve(i);
    }
    units += CHUNK;
  }
  const { user, system } = process.cpuUsage(before);
  return units / ((user + system) / 1e6);
}
