/**
 * Three server processes on this machine, for `npm start`, the demo and the chaos suites: starts them, tells when they serve, kills,
 * pauses, restarts and stops them. What they log goes to a file beside each one's directory.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
/** Raft at 7101.., HTTP at 8101... */
const RAFT_PORT = 7100;
const HTTP_PORT = 8100;
const NODE_FLAGS = ['--conditions=drakkar-source', '--min-semi-space-size=64', '--max-semi-space-size=64'];
export const HOST_IDS = [1, 2, 3] as const;
/** A host that does not serve by then has a problem that its log explains. */
const READY_TIMEOUT_MS = 60_000;
const LOG_TAIL_LINES = 12;

export interface ClusterHost {
  readonly id: number;
  readonly url: string;
  readonly dir: string;
  readonly logFile: string;
  /** Program and arguments that node is started through, e.g. a tracer; it must become node, keeping the process id. */
  launcher: readonly string[];
  /** More flags of node, for this host alone. */
  nodeFlags: readonly string[];
  /** False from the moment it is killed until it serves again. */
  isUp: boolean;
  /** Settles when the process is gone. */
  exited: Promise<void>;
  process: ChildProcess | undefined;
}

/** Where the hosts live. Default: side by side on the loopback address, with their data under the cluster's directory. */
export interface ClusterLayout {
  /** Host n listens at this port plus n. */
  readonly raftPort?: number;
  readonly httpPort?: number;
  readonly addressOf?: (id: number) => string;
  readonly dirOf?: (id: number) => string;
}

export class Cluster {
  readonly hosts: readonly ClusterHost[];
  readonly dir: string;
  /** Called when a host ends though nobody asked it to. */
  onUnexpectedExit: (host: ClusterHost) => void = () => {};
  private readonly options: readonly string[];
  private readonly peers: string;
  private isStopping = false;

  /** `options`: more flags for each server. */
  constructor(dir: string, options: readonly string[] = [], layout: ClusterLayout = {}) {
    const { raftPort = RAFT_PORT, httpPort = HTTP_PORT, addressOf = () => '127.0.0.1' } = layout;
    this.dir = dir;
    this.options = options;
    this.peers = HOST_IDS.map((id) => `${id}=${addressOf(id)}:${raftPort + id}`).join(',');
    this.hosts = HOST_IDS.map((id) => ({
      id,
      url: `http://${addressOf(id)}:${httpPort + id}`,
      dir: layout.dirOf?.(id) ?? join(dir, `host-${id}`),
      logFile: join(dir, `host-${id}.log`),
      launcher: [],
      nodeFlags: [],
      isUp: false,
      exited: Promise.resolve(),
      process: undefined,
    }));
  }

  async start(onReady: (host: ClusterHost) => void = () => {}): Promise<void> {
    mkdirSync(this.dir, { recursive: true, mode: 0o700 });
    await Promise.all(
      this.hosts.map(async (host) => {
        await this.startHost(host);
        onReady(host);
      }),
    );
  }

  /** Starts the process and waits until it serves. */
  async startHost(host: ClusterHost): Promise<void> {
    const log = openSync(host.logFile, 'a', 0o600);
    const http = host.url.slice('http://'.length);
    const [program, ...execArgv] = [...host.launcher, process.execPath, ...NODE_FLAGS, ...host.nodeFlags];
    const child = fork(
      MAIN,
      ['--dir', host.dir, '--replica-id', String(host.id), '--peers', this.peers, '--http', http, ...this.options],
      { execPath: program, execArgv, stdio: ['ignore', log, log, 'ipc'] },
    );
    closeSync(log);
    host.process = child;
    host.exited = new Promise((resolve) => {
      child.once('exit', () => {
        const wasUp = host.isUp;
        host.isUp = false;
        resolve();
        if (wasUp && !this.isStopping) this.onUnexpectedExit(host);
      });
    });
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void => {
        reject(new Error(`host ${host.id} ${why}; the end of ${host.logFile}:\n${tailOf(host.logFile)}`));
      };
      const timer = setTimeout(() => fail('does not serve yet'), READY_TIMEOUT_MS);
      child.once('message', () => {
        clearTimeout(timer);
        host.isUp = true;
        resolve();
      });
      child.once('exit', (code, signal) => {
        clearTimeout(timer);
        fail(`ended with ${signal ?? `exit code ${code}`}`);
      });
      child.once('error', (error) => {
        clearTimeout(timer);
        fail(`did not start: ${error.message}`);
      });
    });
  }

  /** SIGKILL: as a power cut for the process. */
  async kill(host: ClusterHost): Promise<void> {
    host.isUp = false;
    host.process?.kill('SIGKILL');
    await host.exited;
  }

  /** SIGSTOP: the process stands still and keeps its connections, as in a long pause of the machine. */
  pause(host: ClusterHost): void {
    host.process?.kill('SIGSTOP');
  }

  resume(host: ClusterHost): void {
    host.process?.kill('SIGCONT');
  }

  /** Ends all at once, paused ones too. */
  async destroy(): Promise<void> {
    this.isStopping = true;
    await Promise.all(this.hosts.map((host) => this.kill(host)));
  }

  /** Asks all to stop and waits until they are gone. */
  async stop(): Promise<void> {
    this.isStopping = true;
    for (const host of this.hosts) host.process?.kill('SIGTERM');
    await Promise.all(this.hosts.map((host) => host.exited));
  }
}

function tailOf(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n');
}
