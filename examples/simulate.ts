/**
 * Your state machine in the simulator: one that is right, and one with a mistake that unit tests rarely find. Each runs on simulated
 * hosts with crashes, partitions and damaged disks, a thousand different runs. `node examples/simulate.ts [seeds]`
 */
import type { Entry, StateMachine } from 'drakkar';
import { shrink, simulate, type Dice, type Workload } from 'drakkar/sim';

/** Counts withdrawals from an account with a daily limit; answers the balance, or -1 when the limit is reached. */
class Account implements StateMachine<undefined, number> {
  balance = 1_000_000;
  withdrawn = 0;

  update(entries: readonly Entry[]): void {
    for (const entry of entries) {
      const amount = entry.bytes[entry.offset];
      if (this.withdrawn + amount > 5000) entry.result = -1;
      else {
        this.withdrawn += amount;
        this.balance -= amount;
        entry.result = this.balance;
      }
    }
  }

  lookup(): number {
    return this.balance;
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    yield Buffer.from(JSON.stringify({ balance: this.balance, withdrawn: this.withdrawn }));
  }

  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
    const state = JSON.parse(Buffer.concat(await Array.fromAsync(image)).toString()) as Account;
    this.balance = state.balance;
    this.withdrawn = state.withdrawn;
  }
}

/** The mistake: what was withdrawn is not in the snapshot, so that a replica restored from one allows more than the others. */
class ForgetfulAccount extends Account {
  override *saveSnapshot(): Iterable<Uint8Array> {
    yield Buffer.from(JSON.stringify({ balance: this.balance, withdrawn: 0 }));
  }
}

/** Each command withdraws 1 to 50; each query asks for the balance. */
const workloadOf = (Machine: typeof Account) => (): Workload => ({
  createStateMachine: () => new Machine(),
  command: (dice: Dice) => Uint8Array.of(dice.between(1, 50)),
  query: () => undefined,
});

const seeds = Number(process.argv[2] ?? 1000);
const isInteresting = (line: string): boolean => /fault|starts|leader|commits|answers|FAILS/.test(line);

for (const Machine of [Account, ForgetfulAccount]) {
  const workload = workloadOf(Machine);
  let seed = 1;
  let report = await simulate({ seed, operations: 300, workload: workload() });
  while (report.failure === undefined && seed < seeds) {
    report = await simulate({ seed: ++seed, operations: 300, workload: workload() });
  }
  if (report.failure === undefined) {
    console.log(`${Machine.name}: ${seeds} seeds, nothing wrong\n`);
    continue;
  }
  console.log(`${Machine.name}: seed ${seed} finds: ${report.failure.message}`);
  const small = await shrink({ seed, operations: 300, workload }, report);
  console.log(`smallest run: ${small.operations} calls, faults ${small.faults.join(', ') || 'none'}; its end:`);
  for (const line of small.report.trace.filter(isInteresting).slice(-25)) console.log(line);
}
