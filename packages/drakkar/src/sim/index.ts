/**
 * The simulator: whole hosts in one process on a virtual clock, disk and network, every choice drawn from one seed. `simulate` runs one
 * seed with a state machine and a workload of your own; docs/testing.md shows how.
 */
export { Dice } from './dice.ts';
export { FAULTS, FAULT_KINDS, type FaultKind } from './faults.ts';
export type { Plan, PlanOptions, ShardPlan } from './plan.ts';
export { simulate, type SimulationFailure, type SimulationOptions, type SimulationReport } from './simulate.ts';
export { Store, StoreWorkload, type StoreCall, type StoreCommand } from './store.ts';
export { Violation, type ViolationKind } from './violation.ts';
export type { CallOutcome, Workload, WorkloadCall } from './workload.ts';
