/**
 * Bytes of logs, snapshots and identities damaged one by one at moments of a run: each disk that comes of it is opened by a host of its
 * own, which finds everything it had promised, or says that it cannot.
 */
import { DAMAGES, damageDisk } from './damage.ts';
import { Dice } from './dice.ts';
import { recover } from './recover.ts';
import { REFERENCE_FAULTS, simulate, type SimulationReport } from './simulate.ts';
import type { Workload } from './workload.ts';

/** File operations between two moments, and damaged copies at each. */
const EVERY = 60;
const COPIES = 40;

export interface DamagePointOptions {
  readonly seed: number;
  readonly workload: () => Workload;
  readonly operations?: number;
}

export interface DamagePointReport extends SimulationReport {
  readonly damages: number;
  /** Of these, how many were noticed at the opening; the others hit nothing that is needed. */
  readonly refused: number;
}

export async function damagePoints(options: DamagePointOptions): Promise<DamagePointReport> {
  const { seed, workload } = options;
  const dice = new Dice(seed, 'damage points');
  let damages = 0;
  let refused = 0;
  let operations = 0;
  const report = await simulate({
    seed,
    workload: workload(),
    operations: options.operations ?? 200,
    faults: REFERENCE_FAULTS,
    onDiskOperation(host, observer) {
      if (++operations % EVERY !== 0) return;
      for (let copy = 0; copy < COPIES; copy++) {
        const disk = host.machine.disk.clone();
        disk.losePower();
        const kind = dice.pick(DAMAGES);
        if (!damageDisk(kind, { disk, lastLogWrites: host.lastLogWrites, older: undefined }, dice)) return;
        damages++;
        if (!recover({ host, observer, disk, workload: workload(), isDamaged: true }, kind)) refused++;
      }
    },
  });
  return { ...report, damages, refused };
}
