/** Flags of the server, checked: a wrong one is told in one line. */
import { Command, InvalidArgumentError } from 'commander';

export interface ServerOptions {
  readonly dir: string;
  /** Directory for the logs alone. */
  readonly walDir?: string;
  readonly replicaId: number;
  readonly peers: Readonly<Record<number, string>>;
  readonly http: string;
  /** Directory for exported snapshots; without it none are made. */
  readonly exportDir?: string;
  /** Its replicas are added to shards that run already. */
  readonly join?: boolean;
  /** `POST /members` changes who belongs to the shards, `POST /format` ends upgrades. */
  readonly admin?: boolean;
  readonly shards: number;
  readonly engines: number;
  readonly rttMs: number;
  readonly electionRtt: number;
  readonly snapshotEntries: number;
  readonly logLevel: string;
  /** Paths; all three or none. */
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCrl?: string;
}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

function hostPort(text: string): string {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):(\d{1,5})$/.exec(text);
  if (match === null || Number(match[2]) > 65535) throw new InvalidArgumentError('Expected host:port.');
  return text;
}

function peerList(text: string): Record<number, string> {
  const peers: Record<number, string> = {};
  for (const part of text.split(',')) {
    const match = /^\s*([1-9]\d*)=(\S+)\s*$/.exec(part);
    if (match === null)
      throw new InvalidArgumentError('Expected replica ids with addresses, as in 1=host:port,2=host:port.');
    const id = Number(match[1]);
    if (id in peers) throw new InvalidArgumentError(`Replica ${id} is named twice.`);
    peers[id] = hostPort(match[2]);
  }
  return peers;
}

function level(text: string): string {
  if (!LEVELS.includes(text)) throw new InvalidArgumentError(`Expected one of ${LEVELS.join(', ')}.`);
  return text;
}

/** Reads the arguments behind the program's name; on a wrong one, or for --help, prints and exits (2, or 0). */
export function readOptions(args: readonly string[]): ServerOptions {
  const command = new Command('drakkar-server')
    .description('A replicated key-value server: HTTP on top, Raft below.')
    .requiredOption('--dir <path>', 'directory for this host alone; made when missing')
    .option('--wal-dir <path>', 'directory for the log alone, on a disk of its own; decided at the first start')
    .requiredOption('--replica-id <n>', 'which of the peers this host is', wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .requiredOption('--peers <list>', 'all hosts, this one included: 1=host:port,2=host:port,3=host:port', peerList)
    .option('--http <address>', 'where to serve HTTP', hostPort, '127.0.0.1:8080')
    .option('--export-dir <path>', 'where POST /export puts exported snapshots; without it there is no /export')
    .option(
      '--join',
      "this host's replicas are added to running shards (drakkar member add); --peers names this host alone then",
    )
    .option(
      '--admin',
      'serve POST /members and /format: whoever reaches the HTTP address may add and remove hosts, and end upgrades',
    )
    .option('--shards <n>', 'shards that the keys are spread over; must not change later', wholeNumber(1, 1024), 4)
    .option(
      '--engines <n>',
      'threads that the shards are spread over, each with a log and a port of its own; may change at a restart',
      wholeNumber(1, 16),
      1,
    )
    .option('--rtt-ms <n>', 'length of a tick in milliseconds', wholeNumber(1, 10_000), 20)
    .option('--election-rtt <n>', 'ticks without a leader before an election', wholeNumber(11, 100_000), 40)
    .option('--snapshot-entries <n>', 'entries between automatic snapshots, 0 for none', wholeNumber(0, 1e12), 100_000)
    .option(
      '--tls-ca <path>',
      'authorities of the hosts, as PEM; with --tls-cert and --tls-key, Raft connections are mutual TLS',
    )
    .option('--tls-cert <path>', "this host's certificate")
    .option('--tls-key <path>', 'its private key')
    .option('--tls-crl <path>', 'revoked certificates')
    .option('--log-level <level>', LEVELS.join(', '), level, 'info')
    .exitOverride((error) => {
      process.exit(error.exitCode === 0 ? 0 : 2);
    });
  command.parse(args, { from: 'user' });
  const options = command.opts<ServerOptions>();
  if (!(options.replicaId in options.peers)) {
    command.error(`error: --replica-id ${options.replicaId} is not among --peers`);
  }
  const given = [options.tlsCa, options.tlsCert, options.tlsKey].filter((path) => path !== undefined).length;
  if (given % 3 !== 0 || (given === 0 && options.tlsCrl !== undefined)) {
    command.error('error: --tls-ca, --tls-cert and --tls-key belong together');
  }
  return options;
}
