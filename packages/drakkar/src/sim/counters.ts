/** What a host has counted by its end, added to the counters of the run. */
import { enginesOf } from '../inspect.ts';
import type { NodeHost } from '../nodehost.ts';

const STORE_COUNTERS = ['snapshotsWithoutState', 'imagesStreamed', 'imagesShrunk', 'snapshotsResumed'] as const;

export function reportCounters(host: NodeHost, count: (name: string, by: number) => void): void {
  for (const { log, counters, snapshots, arrivals } of enginesOf(host)) {
    count('snapshotsThatWaited', snapshots.sends.waited + arrivals.places.waited);
    count('diskStalls', counters.diskStalls);
    for (const name of STORE_COUNTERS) count(name, counters[name]);
    for (const name of ['segmentsFreed', 'blocksMoved', 'groups']) count(name, log.counters[name] ?? 0);
    count('quiesced', counters.quiesced);
    for (const [cause, times] of Object.entries(counters.woken)) count(`woken by ${cause}`, times);
  }
}
