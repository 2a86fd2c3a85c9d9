/**
 * For tests of programs that use Drakkar: machines in memory under a virtual clock. `NodeHost.open` takes a machine's env and cannot tell
 * it from a real one.
 */
export {
  MemoryDisk,
  MemoryMachine,
  MemoryMachines,
  MemoryNetwork,
  MemoryThread,
  Process,
  SECTOR_BYTES,
  SimulatedAuthority,
  World,
  seededRandom,
  systemError,
} from './env/memory/index.ts';
export { MemoryHub, type MemoryTransportOptions } from './transport/memory.ts';
export type { CertificateRequest, DiskFault, DiskOperation, DiskOptions, Keep } from './env/memory/index.ts';
