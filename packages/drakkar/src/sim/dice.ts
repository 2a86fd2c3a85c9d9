/** Choices drawn from a seed, one stream for each purpose, so that a new choice in one does not change those of another. */
import type { Random } from '../env/env.ts';
import { seededRandom } from '../testing.ts';

export class Dice implements Random {
  private readonly source: Random;
  private readonly seed: number;
  private readonly name: string;

  constructor(seed: number, name: string) {
    this.seed = seed;
    this.name = name;
    let mixed = (seed ^ 0x5bd1e995) >>> 0;
    for (let i = 0; i < name.length; i++) mixed = Math.imul(mixed ^ name.charCodeAt(i), 0x01000193) >>> 0;
    this.source = seededRandom(mixed);
  }

  /** A stream of its own. */
  stream(name: string): Dice {
    return new Dice(this.seed, `${this.name}/${name}`);
  }

  u32(): number {
    return this.source.u32();
  }

  /** Uniform in [0, 1). */
  unit(): number {
    return this.source.u32() / 0x1_0000_0000;
  }

  chance(probability: number): boolean {
    return this.unit() < probability;
  }

  /** A whole number in [0, end). */
  below(end: number): number {
    return Math.floor(this.unit() * end);
  }

  /** A whole number in [first, last]. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** Exponentially distributed, at most twenty times the mean. */
  exponential(mean: number): number {
    return Math.min(20, -Math.log(1 - this.unit())) * mean;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }

  /** A copy in random order. */
  shuffle<T>(list: readonly T[]): T[] {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  }
}
