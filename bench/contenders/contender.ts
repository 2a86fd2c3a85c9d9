/** What takes part in a comparison: the library in one of its forms, or a peer. */
import { DEFAULT_OPTIONS, type BenchOptions, type BenchResult } from '../options.ts';

/** A refusal of work that asks for one of `names`, for contenders that only know plain closed-loop writes. */
export function refuseAll(options: BenchOptions, names: readonly (keyof BenchOptions)[]): string | undefined {
  const asked = names.filter((name) => options[name] !== DEFAULT_OPTIONS[name]);
  return asked.length === 0 ? undefined : `it does not know ${asked.join(', ')}`;
}

export interface Contender {
  /** As `--against` names it. */
  readonly name: string;
  /** Version and settings that count, for the report; known once prepared. */
  describe(): string;
  /** Builds or finds what is needed; gives the reason when this machine cannot run it. */
  prepare(): Promise<string | undefined>;
  /** Why it cannot do this work, or undefined. Without it, it can do all. */
  refuses?(options: BenchOptions): string | undefined;
  run(options: BenchOptions): Promise<BenchResult>;
}
