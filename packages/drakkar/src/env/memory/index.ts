/**
 * Machines in memory: each has a disk of its own and runs one process at a time; all share a network, a clock and a seed. What runs
 * here cannot tell it from a real machine.
 */
import { silentLogger, type Env, type Logger } from '../env.ts';
import { MemoryDisk, type DiskOptions } from './disk.ts';
import { MemoryNetwork } from './network.ts';
import { ProcessScheduler, World } from './world.ts';

export { MemoryDisk, systemError, type DiskFault, type DiskOperation, type DiskOptions } from './disk.ts';
export { MemoryNetwork } from './network.ts';
export { World, seededRandom } from './world.ts';

export class MemoryMachine {
  readonly name: string;
  readonly disk: MemoryDisk;
  private readonly world: World;
  private readonly network: MemoryNetwork;
  private running: { scheduler: ProcessScheduler; isAlive: boolean } | undefined;

  constructor(world: World, network: MemoryNetwork, name: string, options: DiskOptions) {
    this.world = world;
    this.network = network;
    this.name = name;
    this.disk = new MemoryDisk(world, options);
  }

  /** The env of a new process on this machine. */
  boot(logger: Logger = silentLogger): Env {
    const alive = { scheduler: new ProcessScheduler(this.world), isAlive: true };
    this.running = alive;
    return {
      clock: this.world,
      scheduler: alive.scheduler,
      random: this.world.random,
      fs: this.disk.mount(() => alive.isAlive),
      network: this.network.attach(this.name),
      logger,
    };
  }

  /** SIGKILL: the process is gone, what it wrote is there. */
  kill(): void {
    if (this.running === undefined) return;
    this.running.isAlive = false;
    this.running.scheduler.end();
    this.running = undefined;
    this.network.detach(this.name);
    this.disk.releaseLocks();
  }

  /** As `kill`, and what was not durable is gone, sector by sector as `keep` says. */
  losePower(keep?: () => boolean): void {
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
