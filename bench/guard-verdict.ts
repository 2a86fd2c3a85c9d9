/** When the guard says that the library has become slower. */
import { roundTo } from './statistics.ts';

/** Below this share of what was recorded, noise is no explanation any more. */
const SHARE = 0.6;

export interface GuardRecord {
  readonly ratio: number;
  readonly date: string;
  readonly machine: string;
}

export interface GuardVerdict {
  readonly ratio: number;
  readonly recorded: number;
  readonly atLeast: number;
  readonly isHeld: boolean;
}

export function judgeGuard(ratio: number, { ratio: recorded }: GuardRecord): GuardVerdict {
  if (!(recorded > 0)) throw new Error('there is no recorded ratio: npm run bench:guard -- --record');
  const atLeast = recorded * SHARE;
  return { ratio, recorded, atLeast: roundTo(atLeast, 4), isHeld: ratio >= atLeast };
}
