/** What clients do in a run: given by whoever tests a state machine. */
import type { StateMachineFactory } from '../rsm/state-machine.ts';
import type { Dice } from './dice.ts';

/** How a call ended. `unknown`: it may have been applied. */
export type CallOutcome = 'ok' | 'not-applied' | 'unknown';

export interface Workload {
  /** Makes the state machine under test; deterministic, as always. A `hash` method makes differences of state visible. */
  readonly createStateMachine: StateMachineFactory;
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
