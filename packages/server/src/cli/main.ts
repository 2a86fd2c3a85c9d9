#!/usr/bin/env node
/**
 * `drakkar`: looks at hosts and their directories, repairs and measures them. Exit codes: 0 all is well and done, 1 something is wrong or
 * failed, 2 a wrong flag.
 */
import { Command } from 'commander';
import { addFormat } from './format.ts';
import { addInfo } from './info.ts';
import { addMeasurements } from './measure.ts';
import { addMember } from './member.ts';
import { addSnapshot } from './snapshot.ts';
import { addWal } from './wal.ts';

// Whoever reads no further, as `head`, ends the program.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

const program = new Command('drakkar')
  .description('Looks at Drakkar hosts and their directories, repairs and measures them.')
  .showHelpAfterError('(add --help for what there is)')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
for (const add of [addInfo, addMember, addFormat, addWal, addSnapshot, addMeasurements]) add(program);
await program.parseAsync();
