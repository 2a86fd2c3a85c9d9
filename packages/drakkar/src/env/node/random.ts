/** Random numbers of the system, fetched in pages. */
import { randomFillSync } from 'node:crypto';
import type { Random } from '../env.ts';

const PAGE_WORDS = 256;

export function createNodeRandom(): Random {
  const page = new Uint32Array(PAGE_WORDS);
  let used = PAGE_WORDS;
  return {
    u32() {
      if (used === PAGE_WORDS) {
        randomFillSync(page);
        used = 0;
      }
      return page[used++];
    },
  };
}
