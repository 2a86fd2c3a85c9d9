/**
 * A state machine named by the module that makes it. A function cannot be handed to another thread; its module can be loaded there.
 */
import type { ReplicaOptions } from './config.ts';
import type { Env } from './env/env.ts';
import { DrakkarError } from './errors.ts';
import type { AnyStateMachine, StateMachineFactory } from './rsm/state-machine.ts';

/** `new URL('./inventory.ts', import.meta.url)` alone is short for `{ module: … }`. */
export interface StateMachineModule {
  /** The module's URL, usually `new URL('./inventory.ts', import.meta.url)`. */
  readonly module: URL | string;
  /** Name of the export: a function `(shardId, replicaId, args) => stateMachine`. Default: `default`. */
  readonly export?: string;
  /** Third argument of that function; cloned on its way to another thread (structured clone). */
  readonly args?: unknown;
}

/** What `startReplica` takes: a function where there is one engine, a module anywhere. */
export type StateMachineSource = StateMachineFactory | StateMachineModule | URL;

/** As it travels to a thread. */
export interface ModuleSpec {
  readonly module: string;
  readonly export: string;
  readonly args: unknown;
}

/** A witness has no state machine, and everybody else one. */
export function checkMachine(options: ReplicaOptions, source: StateMachineSource | undefined): void {
  if (options.witness !== true) moduleOf(source);
  else if (source !== undefined) {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      'startReplica: a witness has no state machine; expected no second argument',
    );
  }
}

/** Undefined for a function. Throws `ERR_INVALID_OPTION` for what is neither. */
export function moduleOf(source: StateMachineSource | undefined): ModuleSpec | undefined {
  if (typeof source === 'function') return undefined;
  const given = (source instanceof URL ? { module: source } : source) as Partial<StateMachineModule> | null | undefined;
  const module = given?.module instanceof URL ? given.module.href : given?.module;
  const name = given?.export ?? 'default';
  if (typeof module !== 'string' || !/^[a-z][a-z0-9+.-]+:/.test(module) || typeof name !== 'string') {
    throw new DrakkarError(
      'ERR_INVALID_OPTION',
      "startReplica: the second argument makes the state machine; expected a function, or its module as new URL('./machine.ts', import.meta.url) or { module, export, args }",
    );
  }
  return { module, export: name, args: given?.args };
}

/** A function cannot be cloned. */
export function refuseFunction(): never {
  throw new DrakkarError(
    'ERR_INVALID_OPTION',
    "startReplica: with several engines a state machine is named by its module, which is loaded in the engine's thread; expected new URL('./machine.ts', import.meta.url) or { module, export, args }, got a function",
  );
}

/** Loads the module; gives the factory it exports. */
export async function loadFactory(env: Env, spec: ModuleSpec): Promise<StateMachineFactory> {
  if (env.modules === undefined)
    throw new DrakkarError('ERR_INVALID_OPTION', 'startReplica: this env loads no modules; give a function');
  let make: unknown;
  try {
    make = (await env.modules.load(spec.module))[spec.export];
  } catch (cause) {
    throw new DrakkarError('ERR_STATE_MACHINE', `the module ${spec.module} could not be loaded: ${String(cause)}`, {
      cause,
      outcome: 'not-applied',
    });
  }
  if (typeof make !== 'function') {
    throw new DrakkarError(
      'ERR_STATE_MACHINE',
      `${spec.module} exports no function ${spec.export} that makes the state machine; name it with export`,
      { outcome: 'not-applied' },
    );
  }
  const factory = make as (shardId: number, replicaId: number, args: unknown) => AnyStateMachine;
  return (shardId, replicaId) => factory(shardId, replicaId, spec.args);
}
