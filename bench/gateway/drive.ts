/** Puts the generator at running servers and makes a result of what it measured. */
import { fileURLToPath } from 'node:url';
import { startHost } from '../hosts.ts';
import { foreignCpuSince, readMachine } from '../machine.ts';
import type { BenchOptions, BenchResult } from '../options.ts';
import { round } from '../statistics.ts';
import { summarise } from '../summary.ts';
import type { GeneratorSample, GeneratorSettings } from './generator.ts';

const GENERATOR = fileURLToPath(new URL('generator.ts', import.meta.url));

/** What the servers say about their data: the same everywhere, and how many puts it took. */
export interface Inspection {
  readonly digestsEqual: boolean;
  readonly puts: number;
  /** So many of them may have been entries of another kind. */
  readonly others: number;
}

export async function drive(
  options: BenchOptions,
  servers: Pick<GeneratorSettings, 'protocol' | 'targets' | 'pids'>,
  inspect: () => Promise<Inspection>,
): Promise<BenchResult> {
  const { inflight, payload, warmMs, durationMs } = options;
  const settings: GeneratorSettings = { ...servers, inflight, payload, warmMs, durationMs };
  const generator = startHost(process.execPath, ['--conditions=drakkar-source', GENERATOR, JSON.stringify(settings)]);
  try {
    const before = readMachine([...servers.pids, generator.pid]);
    const sample = (await generator.ask('measure')) as GeneratorSample;
    const foreignCpu = foreignCpuSince(before);
    const { digestsEqual, puts, others } = await inspect();
    const isSum = sample.acknowledged <= puts && sample.acknowledged >= puts - others;
    const result = summarise([sample], digestsEqual, isSum, foreignCpu);
    return { ...result, generatorCpuSeconds: round(sample.generatorCpuSeconds, 2) };
  } finally {
    await generator.stop();
  }
}
