/**
 * The simulator: whole hosts in one process on a virtual clock, disk and network, every choice drawn from one seed. `simulate` runs one
 * seed with a state machine and a workload of your own; docs/testing.md shows how.
 */
export { CRASHES, crashPoints, type Crash, type CrashPointOptions, type CrashPointReport } from './crash-points.ts';
export { damagePoints, type DamagePointOptions, type DamagePointReport } from './damage-points.ts';
export { Dice } from './dice.ts';
export { FAULTS, FAULT_KINDS, type FaultKind } from './faults.ts';
export type { Plan, PlanOptions, ShardPlan } from './plan.ts';
export { shrink, type ShrinkOptions, type Shrunk } from './shrink.ts';
export { simulate, type SimulationFailure, type SimulationOptions, type SimulationReport } from './simulate.ts';
export { ConcurrentStore, DiskStore } from './disk-store.ts';
export { Store, type StoreCommand } from './store.ts';
export { StoreWorkload } from './store-workload.ts';
export { Violation, type ViolationKind } from './violation.ts';
export type { CallOutcome, MachinePlace, Workload, WorkloadCall } from './workload.ts';
export * from './linearizability/index.ts';
