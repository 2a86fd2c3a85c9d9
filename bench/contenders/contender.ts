/** What takes part in a comparison: the library in one of its forms, or a peer. */
import type { BenchOptions, BenchResult } from '../options.ts';

export interface Contender {
  /** As `--against` names it. */
  readonly name: string;
  /** Version and settings that count, for the report; known once prepared. */
  describe(): string;
  /** Builds or finds what is needed; gives the reason when this machine cannot run it. */
  prepare(): Promise<string | undefined>;
  run(options: BenchOptions): Promise<BenchResult>;
}
