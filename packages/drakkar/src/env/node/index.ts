/** This machine as an `Env`: the only place that touches its clock, timers, randomness, files, sockets and threads. */
import { silentLogger, type Env, type Logger } from '../env.ts';
import { nodeClock } from './clock.ts';
import { nodeModules } from './modules.ts';
import { nodeFileSystem } from './file-system.ts';
import { nodeNetwork } from './network.ts';
import { createNodeRandom } from './random.ts';
import { nodeScheduler } from './scheduler.ts';
import { nodeThreads } from './threads.ts';
import { nodeTracing } from './tracing.ts';

export function createNodeEnv(options: { logger?: Logger } = {}): Env {
  return {
    clock: nodeClock,
    scheduler: nodeScheduler,
    random: createNodeRandom(),
    fs: nodeFileSystem,
    network: nodeNetwork,
    logger: options.logger ?? silentLogger,
    threads: nodeThreads,
    modules: nodeModules,
    tracing: nodeTracing,
  };
}
