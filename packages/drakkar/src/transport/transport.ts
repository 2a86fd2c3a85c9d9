/**
 * What the engine needs of a transport. A host dials every host it sends to and sends on the connections it dialled; what
 * others send arrives on the connections it accepted. Frames of one connection arrive in order; those that were queued
 * when a connection broke are lost and never sent again (design §7.6).
 */
import type { Env } from '../env/env.ts';
import type { Slab, SlabPool } from '../wire/slab.ts';
import type { TransportSecurity } from './security.ts';

/** Who a host is. Exchanged in HELLO, before anything else. */
export interface HostIdentity {
  readonly deploymentId: number;
  /** 128 random bits as 32 hex digits, made once per directory. */
  readonly hostId: string;
  /** `host:port` that others reach it at. */
  readonly raftAddress: string;
  /** The incarnation (design §7.5): random id of the directory, and a counter raised durably at every start. */
  readonly directoryHigh: number;
  readonly directoryLow: number;
  readonly startCounter: number;
  /** The starts before it that the directory remembers, oldest first. At most `EARLIER_STARTS_MAX`. */
  readonly earlierStarts: readonly number[];
  /** The newest format that the host reads (`wire/formats.ts`). */
  readonly newestFormat: number;
}

/** A connection that a peer dialled and that passed its HELLO. */
export interface InboundSession {
  /** Unique in this process. */
  readonly id: number;
  readonly identity: HostIdentity;
  /** Which engine of its host dialled; absent means 0. */
  readonly engine?: number;
  /** Stops and goes on reading: back-pressure of the receiver. */
  pause(): void;
  resume(): void;
  /** Ends the connection because of what it sent; counted under `reason`. */
  drop(reason: string): void;
}

/** The way to one other host. Lives as long as the transport; reconnects by itself with back-off. */
export interface Peer {
  /** Small, dense, stable for the life of the transport. */
  readonly index: number;
  /** The target that a membership names it by: an address, or a host id. */
  readonly address: string;
  /** Which engine of the host at `address`; absent means 0. */
  readonly engine?: number;
  readonly connected: boolean;
  /** Known while connected. */
  readonly identity: HostIdentity | undefined;
  readonly queuedBytes: number;
  /**
   * Sends the sealed frame at `[offset, offset + lengthBytes)`; false when it was dropped (not connected, or the queue's limit).
   * The slab is held until the bytes have left or the connection has ended.
   */
  send(slab: Slab, offset: number, lengthBytes: number): boolean;
}

export interface SnapshotHeader {
  readonly shardId: number;
  /** Replica ids. */
  readonly from: number;
  readonly to: number;
  /** The sender's term. */
  readonly term: number;
  readonly index: number;
  readonly indexTerm: number;
  /** `SIZE_UNKNOWN` for an image that is made while it is sent. */
  readonly imageBytes: number;
  /**
   * Digest of an image that can be sent again from any byte on: whoever has the beginning of one of this index, term, size and digest needs only the
   * rest. Absent when it cannot.
   */
  readonly imageDigest?: number;
}

/** The bytes of an image from `offsetBytes` on. */
export type ImageFrom = (offsetBytes: number) => AsyncIterable<Uint8Array>;

/** An image is never empty. */
export const SIZE_UNKNOWN = 0;

export interface TransportHandlers {
  /** A frame whose length, checksum and format were checked; what is inside was not. The slab is valid during the call; `retain` it to keep it. */
  onFrame(from: InboundSession, slab: Slab, offset: number, lengthBytes: number): void;
  onSessionEnd(from: InboundSession): void;
  onPeerUp(peer: Peer): void;
  onPeerDown(peer: Peer): void;
  /** These shards turned out to live in another engine of the host at `address`: `peer` gives another way to it now. */
  onRoutes?(address: string, shardIds: readonly number[]): void;
  /** A connection that was dialled is up, or (`error`) was not made or ended; `isSnapshot`: for one snapshot stream. */
  onConnection?(address: string, isSnapshot: boolean, error: Error | undefined): void;
  /**
   * A snapshot arrives; resolving tells the sender that it was installed, rejecting that it was not. `begin`, before any chunk is taken, says from
   * which byte on it is wanted; without it, from the first. A transport that cannot begin elsewhere has no `begin`.
   */
  onSnapshot(
    from: HostIdentity,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    begin?: (offsetBytes: number) => void,
  ): Promise<void>;
}

export interface TransportCounters {
  connectionsUp: number;
  connectionsFailed: number;
  framesSent: number;
  framesReceived: number;
  framesDropped: number;
  bytesSent: number;
  bytesReceived: number;
  snapshotsSent: number;
  snapshotsReceived: number;
  snapshotsFailed: number;
  /** Connections ended because of what came in, by reason (bounded set of names). */
  readonly refused: Map<string, number>;
}

/** `host:port` to dial for a target; undefined while it is not known. */
export type Resolve = (target: string) => string | undefined;

/** What a transport is made with. */
export interface TransportContext {
  /** Clock, timers, randomness and network of the host: what takes the world from here runs in tests and in the simulator, too. */
  readonly env: Env;
  /** To be shown to every host, and theirs to be asked for, before anything else. */
  readonly identity: HostIdentity;
  readonly listenAddress: string;
  /** For what arrives; `FrameReceiver` cuts a stream of bytes into frames with it. */
  readonly pool: SlabPool;
  readonly resolve: Resolve;
  /** The number of the engine that it is for, 0 where a host has one. */
  readonly engine: number;
  /** Bytes that wait for one peer; what comes on top is not taken. */
  readonly maxSendQueueBytes: number;
  /** Certificates, where the host has some: a transport that does not know them must not start. */
  readonly security: TransportSecurity | undefined;
}

export interface Transport {
  readonly name: string;
  /** `host:port` bound; set once started. */
  readonly address: string;
  readonly counters: TransportCounters;
  /** Begins to listen. Rejects with `ERR_ADDRESS_IN_USE` and the like. */
  start(handlers: TransportHandlers): Promise<void>;
  /**
   * The way to the host that `target` names, to the engine there that `shardId` is known to live in (engine 0 until that host says
   * otherwise); made and dialled at the first call.
   */
  peer(target: string, shardId?: number): Peer;
  /** The address behind `target` is known now, or is another one: worth a try at once. */
  addressChanged(target: string): void;
  /**
   * Tells every host that dials, now and later, that these shards of this host live in its engine `engine`, which listens at
   * `address`. Never called on a host with one engine.
   */
  announce?(engine: number, address: string, shardIds: readonly number[]): void;
  /**
   * Ends the way to `target`, to that engine of it (default 0): no member of any shard lives there any more. The peer is void; another one is
   * made when it is asked for.
   */
  release(target: string, engine?: number): void;
  /**
   * Streams an image on a connection of its own; resolves when the receiver has installed it. With `from`, the receiver may have the beginning
   * already and want only the rest: then `chunks` are not touched.
   */
  sendSnapshot(
    target: string,
    header: SnapshotHeader,
    chunks: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    from?: ImageFrom,
  ): Promise<void>;
  close(): Promise<void>;
}
