/**
 * `drakkar/compliance`: the contracts of what can be plugged in, as cases that any test runner can run.
 *
 *     for (const { name, run } of logDbCompliance(openMyLog)) test(name, run);
 */
export { ComplianceError, type ComplianceCase } from './cases.ts';
export { logDbCompliance, type CreateLogDb, type LogDbContext } from './logdb.ts';
export {
  stateMachineCompliance,
  type StateMachineSuite,
} from './state-machine.ts';
export type { StateMachinePlace } from './machine-bench.ts';
export { registryCompliance, type CreateRegistry } from './registry.ts';
export { transportCompliance, type TransportSuite } from './transport.ts';
export type { CreateTransport } from './transport-bench.ts';
