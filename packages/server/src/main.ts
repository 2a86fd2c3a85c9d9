#!/usr/bin/env node
/** The program: flags, logs, signals. Exit codes: 0 stopped as asked, 1 failed, 2 a wrong flag. */
import { DrakkarError } from 'drakkar';
import { pino } from 'pino';
import { readOptions } from './options.ts';
import { startServer } from './server.ts';

const options = readOptions(process.argv.slice(2));
const logger = pino({ level: options.logLevel, base: { replicaId: options.replicaId } });

try {
  const server = await startServer(options, logger);
  logger.info({ url: server.url, dir: options.dir, shards: options.shards }, 'serving');
  server.host.on('hostFailed', ({ error }) => {
    logger.fatal({ err: error }, 'the host failed');
    process.exitCode = 1;
    void server.close().finally(() => process.exit(1));
  });
  // A parent that forked this process learns the address without parsing logs.
  process.send?.({ ready: true, url: server.url });
  const asked = new Set<string>();
  const stop = (signal: string): void => {
    if (asked.has(signal)) process.exit(130); // asked twice: at once
    asked.add(signal);
    if (asked.size > 1) return; // a terminal and a parent process may both ask
    logger.info({ signal }, 'stopping');
    server.close().then(
      () => process.exit(0),
      (error: unknown) => {
        logger.fatal({ err: error }, 'stopping failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGHUP', () => {
    // Files are looked at every minute anyway; this is for whoever does not want to wait.
    if (options.tlsCert === undefined) return;
    server.host.reloadTls().catch((error: unknown) => logger.error({ err: error }, 'certificates stay as they were'));
  });
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.on('disconnect', () => stop('parent gone'));
} catch (error) {
  const known = DrakkarError.is(error) ? `${error.code}: ${error.message}` : String(error);
  logger.fatal({ err: error }, 'cannot start');
  process.stderr.write(`drakkar-server: ${known}\n`);
  process.exit(1);
}
