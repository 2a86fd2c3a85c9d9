/** What clients do in a run: given by whoever tests a state machine. */
import type { Env } from '../env/env.ts';
import type { AnyStateMachine, StateMachineKind } from '../rsm/state-machine.ts';
import type { Dice } from './dice.ts';

/** How a call ended. `unknown`: it may have been applied. */
export type CallOutcome = 'ok' | 'not-applied' | 'unknown';

/** Where a state machine of a run lives. */
export interface MachinePlace {
  /** The kind that the run would like for this shard: for those who have several. */
  readonly kind: StateMachineKind;
  /** Its outside world: an on-disk state machine keeps its files on this disk, which crashes and loses power with its host. */
  readonly env: Env;
  /** A directory for it alone, the same after a restart. Not there at first. */
  readonly dir: string;
}

export interface Workload {
  /** Makes the state machine under test; deterministic, as always. A `hash` method makes differences of state visible. */
  createStateMachine(shardId: number, replicaId: number, place: MachinePlace): AnyStateMachine;
  /** The next command of a client. */
  command(dice: Dice, client: number): Uint8Array;
  /** The next query of a client; without it no client reads. */
  query?(dice: Dice, client: number): unknown;
  /** Called when a call begins, with its number, and when it ends. */
  onCall?(call: WorkloadCall): void;
  onEnd?(call: WorkloadCall, outcome: CallOutcome, answer: unknown, nowMs: number): void;
  /** At the end of a run: throws when something is wrong. `appliedAt` gives the log index of a write, undefined when it never happened. */
  check?(appliedAt: (call: WorkloadCall) => number | undefined): void;
}

export interface WorkloadCall {
  readonly id: number;
  readonly client: number;
  readonly shardId: number;
  readonly isRead: boolean;
  /** The command, or the query. */
  readonly input: unknown;
  readonly startMs: number;
}
