/** `npm start`: three hosts of the key-value server on this machine, with their data in ./data, until Ctrl-C. */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Cluster } from './cluster.ts';

const { values } = parseArgs({
  options: { dir: { type: 'string', default: 'data' }, help: { type: 'boolean', short: 'h', default: false } },
});
if (values.help) {
  console.log('npm start -- [--dir <path>]   three hosts with their data in <path> (default ./data), until Ctrl-C');
  process.exit(0);
}

const cluster = new Cluster(resolve(values.dir));
let isStopping = false;

async function stop(exitCode: number): Promise<void> {
  if (isStopping) return;
  isStopping = true;
  console.log('\nStopping the three hosts ...');
  await cluster.stop();
  console.log(`Stopped. The data is in ${cluster.dir}; the next start finds it there.`);
  process.exit(exitCode);
}

// A terminal sends Ctrl-C to the hosts, too; asking them twice is fine.
process.on('SIGINT', () => void stop(0));
process.on('SIGTERM', () => void stop(0));
cluster.onUnexpectedExit = (host) => {
  if (isStopping) return;
  console.error(`Host ${host.id} ended by itself; ${host.logFile} says why.`);
  void stop(1);
};

console.log(`Starting three hosts, data in ${cluster.dir} ...`);
try {
  await cluster.start((host) => console.log(`  host ${host.id}   ${host.url}   raft and log in ${host.dir}`));
  const [first, second, third] = cluster.hosts.map((host) => host.url);
  console.log(`
All three serve. Try, in another terminal:

  curl -X PUT --data 'hello' ${first}/kv/greeting        write through one host
  curl ${second}/kv/greeting                              read through another, linearizably
  curl -X PUT -H 'If-None-Match: *' --data x ${third}/kv/lock   only if it is new (compare-and-swap: If-Match: <version>)
  curl '${first}/kv?prefix=gr'                            list
  curl -X DELETE ${third}/kv/greeting
  curl ${first}/status                                    shards, leaders, digests; also /healthz and /metrics

Ctrl-C stops all three and keeps the data.`);
} catch (error) {
  if (!isStopping) {
    console.error(`Starting failed: ${(error as Error).message}`);
    await stop(1);
  }
}
