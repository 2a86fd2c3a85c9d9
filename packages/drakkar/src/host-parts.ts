/**
 * What a host is made of, opened in order, and closed in the reverse one. A thread's part has the same parts, but for what the
 * whole host has: the directory and the registry are its host's, and it knows them by what it is told.
 */
import { DEFAULTS, type NodeHostOptions } from './config.ts';
import { checkHostOptions, checkThreads } from './config-checks.ts';
import { openDirectory, type HostDirectory } from './engine/directory.ts';
import { Trace } from './engine/trace.ts';
import { EngineThreads } from './engine-threads.ts';
import type { Env } from './env/env.ts';
import { diskErrorOf, type DrakkarError } from './errors.ts';
import { HostEvents } from './events.ts';
import { LocalEngines } from './local-engines.ts';
import { createRegistry } from './registry/index.ts';
import type { Registry } from './registry/registry.ts';
import { serveThread, type ServedHost, type ThreadOpening } from './threads/server.ts';
import { TransportSecurity } from './transport/security.ts';
import type { Waiter } from './within.ts';

export interface HostParts {
  readonly options: NodeHostOptions;
  readonly directory: HostDirectory;
  readonly registry: Registry;
  readonly security: TransportSecurity | undefined;
  readonly events: HostEvents;
  readonly waiter: Waiter;
  /** Those of this thread; none when they run in threads of their own. */
  readonly engines: LocalEngines;
  /** What runs in threads: shards are there, and calls go there. */
  readonly threads: EngineThreads | undefined;
  /** Those in threads that are simulated; for `inspect.ts`. */
  readonly simulated: readonly LocalEngines[];
}

/** What a simulated thread is given and a real one cannot be told. */
export interface OwnOptions extends Pick<NodeHostOptions, 'logDb' | 'transport' | 'snapshotCodecs'> {
  readonly simulated: LocalEngines[];
}
export type OpenPart = (opening: ThreadOpening, own: OwnOptions) => Promise<ServedHost>;

type Assembled = Omit<HostParts, 'threads'> & Pick<OwnOptions, 'simulated'>;

function assemble(
  env: Env,
  options: NodeHostOptions,
  directory: HostDirectory,
  registry: Registry,
  security: TransportSecurity | undefined,
  tap?: ThreadOpening['onEvent'],
): Assembled {
  const { rttMs: tickMs = DEFAULTS.rttMs, timeoutMs = DEFAULTS.timeoutMs } = options;
  const trace = new Trace(env.tracing, options.raftAddress);
  const events = new HostEvents(env, trace, tap);
  const isPart = tap !== undefined;
  const engines = new LocalEngines({ env, options, directory, registry, security, events, trace, tickMs, isPart });
  return { options, directory, registry, security, events, waiter: { env, tickMs, timeoutMs }, engines, simulated: [] };
}

/** See `NodeHost.open`. `openPart` is what a thread runs, where threads are simulated. */
export async function openParts(env: Env, options: NodeHostOptions, openPart: OpenPart): Promise<HostParts> {
  checkHostOptions(options);
  checkThreads(options, env.threads);
  const { deploymentId = DEFAULTS.deploymentId, engines = DEFAULTS.engines, dir } = options;
  const { raftAddress, hostId, newestFormat, walDir } = options;
  const mayMove = options.gossip !== undefined || options.registry !== undefined;
  let security: TransportSecurity | undefined;
  try {
    if (options.tls !== undefined) security = await TransportSecurity.open(env, options.tls, deploymentId);
    const owner = { deploymentId, raftAddress, hostId, mayMove, newestFormat, walDir };
    const directory = await openDirectory(env, dir, owner, engines);
    try {
      // Where hosts may move, they are known by their ids.
      security?.start([mayMove ? directory.identity.hostId : raftAddress], directory.identity);
      const registry = createRegistry(options, { env, identity: directory.identity });
      return await openEngines(assemble(env, options, directory, registry, security), engines, openPart);
    } catch (error) {
      await directory.release();
      throw error;
    }
  } catch (error) {
    security?.close();
    throw diskErrorOf(error, `the directory ${dir}`);
  }
}

async function openEngines(parts: Assembled, count: number, openPart: OpenPart): Promise<HostParts> {
  const { engines, registry } = parts;
  let threads: EngineThreads | undefined;
  await registry.start((target) => (threads ?? engines).addressChanged(target));
  try {
    if (count === 1) await engines.open();
    else threads = await openThreads(parts, count, openPart);
    return { ...parts, threads };
  } catch (error) {
    await registry.close();
    throw error;
  }
}

function openThreads(parts: Assembled, count: number, openPart: OpenPart): Promise<EngineThreads> {
  const { options, directory, registry, events, waiter, simulated } = parts;
  const { env, tickMs } = waiter;
  parts.security?.close(); // here they were only checked: every thread reads its certificates itself
  const { logDb, transport, snapshotCodecs } = options;
  const own: OwnOptions = {
    simulated,
    ...(logDb === undefined ? {} : { logDb }),
    ...(transport === undefined ? {} : { transport }),
    ...(snapshotCodecs === undefined ? {} : { snapshotCodecs }),
  };
  return EngineThreads.open({
    env,
    host: options,
    directory,
    registry,
    events,
    tickMs,
    count,
    run: (side, threadEnv) => serveThread(side, threadEnv, (opening) => openPart(opening, own)),
  });
}

/** For a thread. */
export async function openThreadParts(opening: ThreadOpening, own?: OwnOptions): Promise<HostParts> {
  const { env, directory, registry, mayMove, onEvent } = opening;
  const { simulated, ...others } = own ?? { simulated: [] };
  const options = { ...opening.options, ...others } as NodeHostOptions;
  const { identity } = directory;
  const security = options.tls && (await TransportSecurity.open(env, options.tls, identity.deploymentId));
  try {
    security?.start([mayMove ? identity.hostId : options.raftAddress], identity);
    const parts = assemble(env, options, directory, registry, security, onEvent);
    simulated.push(parts.engines);
    return await openEngines(parts, 1, () => Promise.reject(new Error('a part has no threads')));
  } catch (error) {
    security?.close();
    throw diskErrorOf(error, `the directory ${options.dir}`);
  }
}

/** Stops all replicas, waits until what they wrote is durable, and gives the directory free. */
export async function closeParts(parts: HostParts, error: DrakkarError): Promise<void> {
  await parts.engines.close(error);
  await parts.threads?.close();
  await parts.registry.close();
  parts.security?.close();
  await parts.directory.release();
}
