/** A bench for transports: hosts that write down what they are told, in a virtual world or in the real one. */
import type { Env } from '../env/env.ts';
import { MemoryMachines } from '../env/memory/index.ts';
import { createNodeEnv } from '../env/node/index.ts';
import type {
  HostIdentity,
  InboundSession,
  Peer,
  SnapshotHeader,
  Transport,
  TransportContext,
  TransportHandlers,
} from '../transport/transport.ts';
import { FORMAT_NEWEST } from '../wire/formats.ts';
import { FRAME_HEADER_BYTES, FrameType, sealFrame } from '../wire/frame.ts';
import { Slab, SlabPool } from '../wire/slab.ts';

export type CreateTransport = (context: TransportContext) => Transport;

const MIB = 1024 * 1024;
/** Bound of every queue on the bench, and the least that a host may set. */
export const QUEUE_BYTES = 64 * MIB;
/** Between two looks in the real world. */
const LOOK_MS = 2;
/** The real world is quick where nothing is slowed down: what was not seen after a tenth of the virtual time does not come. */
const REAL_SHARE = 0.1;

export function identityOf(name: string, fields: Partial<HostIdentity> = {}): HostIdentity {
  const number = name.charCodeAt(name.length - 1);
  return {
    deploymentId: 1,
    hostId: number.toString(16).padStart(32, '0'),
    raftAddress: `${name}:7000`,
    directoryHigh: number,
    directoryLow: number * 7,
    startCounter: 1,
    earlierStarts: [],
    newestFormat: FORMAT_NEWEST,
    ...fields,
  };
}

/** A sealed frame with `words` words of content that begin with `tag`. */
export function frame(tag: number, words = 1, format?: number): Slab {
  const lengthBytes = FRAME_HEADER_BYTES + words * 4;
  const slab = new Slab(lengthBytes);
  slab.u32[FRAME_HEADER_BYTES >>> 2] = tag;
  sealFrame(slab.u8, slab.u32, 0, lengthBytes, FrameType.Messages, 1, format);
  slab.usedBytes = lengthBytes;
  return slab;
}

/** One host of the bench: its transport, and all that it was told. */
export class BenchHost implements TransportHandlers {
  readonly transport: Transport;
  readonly pool: SlabPool = new SlabPool();
  readonly tags: number[] = [];
  readonly up: string[] = [];
  readonly down: string[] = [];
  readonly sessions: InboundSession[] = [];
  endedSessions = 0;
  /** Shards whose way was told to be another one, as `target shardIds`. */
  readonly rerouted: string[] = [];
  /** Throws in `onFrame` for these tags. */
  readonly badTags: Set<number> = new Set();
  readonly snapshots: { readonly from: string; readonly header: SnapshotHeader; readonly bytes: Uint8Array }[] = [];
  /** Images whose pieces ended with an error. */
  brokenSnapshots = 0;
  snapshotError: Error | undefined;
  /** The byte that it asks for images from. */
  wantsFrom: number | undefined;
  /** Whether the transport let it ask, for each image. */
  readonly couldAsk: boolean[] = [];

  constructor(create: CreateTransport, env: Env, identity: HostIdentity, more: Partial<TransportContext> = {}) {
    this.transport = create({
      env,
      identity,
      listenAddress: identity.raftAddress,
      pool: this.pool,
      resolve: (target) => target,
      maxSendQueueBytes: QUEUE_BYTES,
      engine: 0,
      security: undefined,
      ...more,
    });
  }

  onFrame(from: InboundSession, slab: Slab, offset: number): void {
    if (!this.sessions.includes(from)) this.sessions.push(from);
    const tag = slab.u32[(offset + FRAME_HEADER_BYTES) >>> 2];
    if (this.badTags.has(tag)) throw new Error('a frame that nobody understands');
    this.tags.push(tag);
  }

  onSessionEnd(): void {
    this.endedSessions++;
  }

  onRoutes(target: string, shardIds: readonly number[]): void {
    this.rerouted.push(`${target} ${shardIds.join()}`);
  }

  onPeerUp(peer: Peer): void {
    this.up.push(peer.address);
  }

  onPeerDown(peer: Peer): void {
    this.down.push(peer.address);
  }

  async onSnapshot(
    from: HostIdentity,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    _signal: AbortSignal,
    begin?: (offsetBytes: number) => void,
  ): Promise<void> {
    this.couldAsk.push(begin !== undefined);
    if (this.wantsFrom !== undefined) begin?.(this.wantsFrom);
    const parts: Uint8Array[] = [];
    try {
      for await (const chunk of chunks) parts.push(chunk.slice());
    } catch (error) {
      this.brokenSnapshots++;
      throw error;
    }
    if (this.snapshotError !== undefined) throw this.snapshotError;
    const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    this.snapshots.push({ from: from.raftAddress, header, bytes });
  }
}

/** Hosts of one case, and their time. */
export interface Bench {
  /** A host that listens. `name` ends with a letter of its own. */
  host(name: string, fields?: Partial<HostIdentity>, more?: Partial<TransportContext>): Promise<BenchHost>;
  addressOf(name: string): string;
  /** Waits until it is so; throws when it is not within `limitMs`, 60 s unless told otherwise. */
  until(isSo: () => boolean, limitMs?: number): Promise<void>;
  /** Lets time pass in which nothing is to happen. */
  run(ms: number): Promise<void>;
  settle<T>(promise: Promise<T>): Promise<T>;
  /** Closes what a case left open. */
  end(): Promise<void>;
}

export function sendTag(peer: Peer, tag: number, words = 1, format?: number): boolean {
  const slab = frame(tag, words, format);
  const taken = peer.send(slab, 0, slab.usedBytes);
  slab.release();
  return taken;
}

/** Machines in memory under a virtual clock. */
export class VirtualBench implements Bench {
  readonly machines: MemoryMachines = new MemoryMachines(1);
  readonly create: CreateTransport;
  private readonly hosts: BenchHost[] = [];

  constructor(create: CreateTransport) {
    this.create = create;
  }

  get world(): MemoryMachines['world'] {
    return this.machines.world;
  }

  async host(
    name: string,
    fields: Partial<HostIdentity> = {},
    more: Partial<TransportContext> = {},
  ): Promise<BenchHost> {
    return this.begin(new BenchHost(this.create, this.machines.add(name).boot(), identityOf(name, fields), more));
  }

  async begin(host: BenchHost): Promise<BenchHost> {
    await this.settle(host.transport.start(host));
    this.hosts.push(host);
    return host;
  }

  addressOf(name: string): string {
    return `${name}:7000`;
  }

  async until(isSo: () => boolean, limitMs?: number): Promise<void> {
    await this.world.until(isSo, limitMs);
  }

  async run(ms: number): Promise<void> {
    await this.world.run(ms);
  }

  settle<T>(promise: Promise<T>): Promise<T> {
    return this.world.settle(promise);
  }

  async end(): Promise<void> {
    for (const { transport } of this.hosts.splice(0)) await this.settle(transport.close());
  }
}

/** This machine: for transports that take their connections from elsewhere than `context.env`. */
export class RealBench implements Bench {
  readonly addressOf: (name: string) => string;
  private readonly create: CreateTransport;
  private readonly env: Env = createNodeEnv();
  private readonly hosts: BenchHost[] = [];

  constructor(create: CreateTransport, addressOf: (name: string) => string) {
    this.create = create;
    this.addressOf = addressOf;
  }

  async host(
    name: string,
    fields: Partial<HostIdentity> = {},
    more: Partial<TransportContext> = {},
  ): Promise<BenchHost> {
    const identity = identityOf(name, { raftAddress: this.addressOf(name), ...fields });
    const host = new BenchHost(this.create, this.env, identity, more);
    await host.transport.start(host);
    this.hosts.push(host);
    return host;
  }

  async until(isSo: () => boolean, limitMs = 60_000): Promise<void> {
    const deadline = this.env.clock.nowMs() + limitMs;
    while (!isSo()) {
      if (this.env.clock.nowMs() > deadline) throw new Error(`it did not come about within ${limitMs} ms`);
      await this.pass(LOOK_MS);
    }
  }

  run(ms: number): Promise<void> {
    return this.pass(ms * REAL_SHARE);
  }

  settle<T>(promise: Promise<T>): Promise<T> {
    return promise;
  }

  private pass(ms: number): Promise<void> {
    return new Promise((resolve) => void this.env.scheduler.after(ms, resolve));
  }

  async end(): Promise<void> {
    for (const { transport } of this.hosts.splice(0)) await transport.close();
  }
}
