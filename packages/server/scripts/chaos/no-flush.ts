/**
 * For the control of the power suite, loaded into a server before anything else: a file system that promises to flush and does not. With
 * it a power cut must lose what was acknowledged; if it did not, the suite would prove nothing.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { O_SYNC } = fs.constants;
const files = fs as unknown as Record<'open' | 'fsync', (...args: unknown[]) => unknown>;
const handles = fs.promises as unknown as { open: (...args: unknown[]) => Promise<{ sync: unknown }> };
const { open } = files;
const { open: openHandle } = handles;

// O_SYNC holds the bit of O_DSYNC.
files.open = (path, flags, ...rest) => open(path, typeof flags === 'number' ? flags & ~O_SYNC : flags, ...rest);
files.fsync = (_fd, done) => setImmediate(done as (error: null) => void, null);
handles.open = async (...args) => {
  const handle = await openHandle(...args);
  handle.sync = () => Promise.resolve();
  return handle;
};
syncBuiltinESMExports();
