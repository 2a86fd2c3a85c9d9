/** Which functions allocate, sampled over a measurement, with what the collector has taken meanwhile. */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';

const SAMPLING_INTERVAL_BYTES = 64 * 1024;

interface ProfileNode {
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly selfSize: number;
  readonly children: readonly ProfileNode[];
}

export interface AllocationSampling {
  /** Writes a line for each function: bytes, name, place; the greatest first. */
  stop(path: string): Promise<void>;
}

export async function sampleAllocations(): Promise<AllocationSampling> {
  const session = new Session();
  session.connect();
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: SAMPLING_INTERVAL_BYTES,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  });
  return {
    async stop(path) {
      const { profile } = await session.post('HeapProfiler.stopSampling');
      session.disconnect();
      const bytes = new Map<string, number>();
      const visit = (node: ProfileNode): void => {
        const { functionName, url, lineNumber } = node.callFrame;
        const name = `${functionName || '(anonymous)'} ${url.split('/').slice(-2).join('/')}:${lineNumber + 1}`;
        bytes.set(name, (bytes.get(name) ?? 0) + node.selfSize);
        for (const child of node.children) visit(child);
      };
      visit(profile.head);
      const lines = [...bytes].sort((a, b) => b[1] - a[1]).filter(([, size]) => size > 0);
      writeFileSync(path, lines.map(([name, size]) => `${size}\t${name}\n`).join(''));
    },
  };
}
