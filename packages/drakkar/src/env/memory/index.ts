/**
 * Machines in memory: each has a disk of its own and runs one process at a time; all share a network, a clock and a seed. What runs
 * here cannot tell it from a real machine.
 */
import { silentLogger, silentTracing, type Env, type Logger, type Random } from '../env.ts';
import { MemoryDisk, type DiskOptions } from './disk.ts';
import type { Keep } from './image.ts';
import { MemoryNetwork } from './network.ts';
import { Process } from './process.ts';
import { memoryThreads, type MemoryThread } from './threads.ts';
import { World } from './world.ts';

export { MemoryDisk, systemError, type DiskFault, type DiskOperation, type DiskOptions } from './disk.ts';
export { SECTOR_BYTES, type Keep } from './image.ts';
export { MemoryNetwork } from './network.ts';
export { Process } from './process.ts';
export { SimulatedAuthority, type CertificateRequest } from './security.ts';
export { MemoryThread } from './threads.ts';
export { World, seededRandom } from './world.ts';

/** Of hosts in memory, which are many and die soon. */
const MEMORY_SLAB_BYTES = 64 * 1024;

type Exports = Readonly<Record<string, unknown>>;

export class MemoryMachine {
  readonly name: string;
  disk: MemoryDisk;
  /** The process that runs here, if one does. */
  process: Process | undefined;
  /** All that this process has started. */
  threads: MemoryThread[] = [];
  /** What `modules.load` finds, by URL: exports, or what makes them for a thread with this env. */
  readonly modules: Map<string, Exports | ((env: Env) => Exports)> = new Map();
  private readonly world: World;
  private readonly network: MemoryNetwork;

  constructor(world: World, network: MemoryNetwork, name: string, options: DiskOptions = {}) {
    this.world = world;
    this.network = network;
    this.name = name;
    this.disk = new MemoryDisk(options);
  }

  /** The env of a new process on this machine. */
  boot(logger: Logger = silentLogger, random: Random = this.world.random): Env {
    const started = new Process(this.world);
    this.process = started;
    this.threads = [];
    const bootEnv = (owner: Process): Env => {
      const env: Env = {
        clock: owner,
        scheduler: owner,
        random,
        fs: this.disk.mount(owner),
        network: this.network.attach(this.name, owner),
        logger,
        tracing: silentTracing,
        slabBytes: MEMORY_SLAB_BYTES,
        modules: { load: (url) => this.load(url, env) },
      };
      return env;
    };
    return { ...bootEnv(started), threads: memoryThreads(started, this.network, bootEnv, this.threads) };
  }

  private async load(url: string, env: Env): Promise<Exports> {
    const known = this.modules.get(url);
    if (known === undefined) throw new Error(`no module ${url} on ${this.name}; put it into its modules`);
    return typeof known === 'function' ? known(env) : known;
  }

  /** SIGKILL: the process is gone, what it wrote is there. */
  kill(): void {
    if (this.process === undefined) return;
    this.process.end();
    this.process = undefined;
    this.network.detach(this.name);
    this.disk.releaseLocks();
  }

  /** As `kill`, and what was not durable is gone, but for what `keep` lets through. */
  losePower(keep?: Keep): void {
    this.kill();
    this.disk.losePower(keep);
  }
}

export class MemoryMachines {
  readonly world: World;
  readonly network: MemoryNetwork;

  constructor(seed = 1) {
    this.world = new World(seed);
    this.network = new MemoryNetwork(this.world);
  }

  add(name: string, options: DiskOptions = {}): MemoryMachine {
    return new MemoryMachine(this.world, this.network, name, options);
  }
}
