/**
 * The load generator for key-value servers, in its own process: a closed loop over some connections, each with several puts under way.
 * It reads the servers' CPU time itself, at the moments it measures between. Obeys `measure` and `close`, as a host does.
 */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { makeRandom, newLoad, quantilesMs, record, TIMED_EVERY } from '../load.ts';
import { processSeconds } from '../machine.ts';
import { KEYS, type HostSample } from '../options.ts';
import { grpc } from './grpc.ts';
import { http1 } from './http1.ts';

export interface GeneratorSettings {
  readonly protocol: 'http1' | 'grpc';
  /** `host:port` of the servers; connections are spread over them. */
  readonly targets: readonly string[];
  /** Processes whose CPU time counts. */
  readonly pids: readonly number[];
  readonly inflight: number;
  readonly payload: number;
  readonly warmMs: number;
  readonly durationMs: number;
}

export interface GeneratorSample extends HostSample {
  /** CPU seconds of the generator itself, which count for nobody. */
  readonly generatorCpuSeconds: number;
}

const CONNECTIONS_MAX = 48;
const settings = JSON.parse(process.argv[2]) as GeneratorSettings;
const load = newLoad();
const random = makeRandom(12345);
const sockets: Socket[] = [];
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One connection with `depth` puts under way; resolves when the last is answered. */
function run(target: string, depth: number): Promise<void> {
  const [name, port] = target.split(':');
  const protocol = settings.protocol === 'grpc' ? grpc(target) : http1(target);
  const value = Buffer.alloc(settings.payload, 'v');
  const starts = new Map<number, number>();
  let sent = 0;
  let answered = 0;
  return new Promise((resolve, reject) => {
    const socket = connect({ host: name, port: Number(port), noDelay: true });
    sockets.push(socket);
    const fill = (): void => {
      const pieces: Buffer[] = [];
      while (!load.isStopped && sent - answered < depth) {
        const put = protocol.put(`k${random() % KEYS}`, value);
        if (put === undefined) break;
        if (sent % TIMED_EVERY === 0) starts.set(sent, performance.now());
        sent++;
        pieces.push(put);
      }
      const reply = protocol.takeReply();
      if (reply.length > 0) pieces.push(reply);
      if (pieces.length > 0) socket.write(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces));
      if (load.isStopped && sent === answered) resolve();
    };
    const onAnswer = (sequence: number): void => {
      answered++;
      load.writes++;
      const start = starts.get(sequence);
      if (start === undefined) return;
      starts.delete(sequence);
      record(load, start);
    };
    socket.on('connect', () => {
      const hello = protocol.hello();
      if (hello.length > 0) socket.write(hello);
      fill();
    });
    socket.on('data', (chunk) => {
      try {
        protocol.receive(chunk, onAnswer);
        fill();
      } catch (error) {
        reject(error);
      }
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${target} closed the connection`)));
  });
}

const cpuSeconds = (): number => settings.pids.reduce((total, pid) => total + processSeconds(pid), 0);

interface Reading {
  readonly writes: number;
  readonly cpu: number;
  readonly own: NodeJS.CpuUsage;
  readonly timeMs: number;
}
const read = (): Reading => ({
  writes: load.writes,
  cpu: cpuSeconds(),
  own: process.cpuUsage(),
  timeMs: performance.now(),
});

async function measure(): Promise<GeneratorSample> {
  const { targets, inflight } = settings;
  const connections = Math.min(CONNECTIONS_MAX, inflight);
  load.drained = Promise.all(
    Array.from({ length: connections }, (_, i) =>
      run(targets[i % targets.length], Math.floor((inflight + i) / connections)),
    ),
  );
  load.drained.catch(fail);
  await pause(settings.warmMs);
  load.samples = 0;
  const before = read();
  await pause(settings.durationMs);
  const after = read();
  const latenciesMs = quantilesMs(load, [0.5, 0.99, 0.999]);
  load.isStopped = true;
  await load.drained;
  const own = after.own.user + after.own.system - before.own.user - before.own.system;
  return {
    writes: after.writes - before.writes,
    reads: 0,
    seconds: (after.timeMs - before.timeMs) / 1000,
    cpuSeconds: after.cpu - before.cpu,
    flushes: null,
    latenciesMs,
    acknowledged: load.writes,
    unknown: 0,
    generatorCpuSeconds: own / 1e6,
  };
}

function fail(error: unknown): void {
  console.error(error);
  process.exit(1);
}

createInterface({ input: process.stdin }).on('line', (order) => {
  if (order === 'close') {
    for (const socket of sockets) socket.removeAllListeners('close').destroy();
    process.stdin.destroy();
  } else measure().then((sample) => process.stdout.write(`${JSON.stringify(sample)}\n`), fail);
});
