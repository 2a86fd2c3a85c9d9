/**
 * The outside world as small interfaces. Everything above this folder gets time, timers, randomness, files and sockets
 * through an `Env` only, so that the same code runs on a real machine (`env/node/`) and in memory (`env/memory/`).
 *
 * Contract for every implementation: callbacks run on the event loop, never inside the call that registered them.
 */

export interface Clock {
  /** Monotonic milliseconds with an arbitrary origin. Never wall-clock time. */
  nowMs(): number;
}

export interface Timer {
  cancel(): void;
}

export interface Scheduler {
  /** Runs `task` once after the input that is already waiting was handled (`setImmediate`). */
  defer(task: () => void): void;
  /** Runs `task` once, `delayMs` or more from now. Does not keep the process alive. */
  after(delayMs: number, task: () => void): Timer;
}

export interface Random {
  /** Uniform in [0, 2^32). */
  u32(): number;
}

/** Any pino-shaped logger fits. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** How a file is opened. `create` fails when it exists, `write` when it does not. All are readable. */
export type OpenMode = 'read' | 'write' | 'create';

export interface OpenOptions {
  /** Every `write` is durable when it is acknowledged (`O_DSYNC`). Default false. */
  readonly dataSync?: boolean;
  /**
   * For a file of its own pages that nobody reads soon: writes of whole pages (4096 bytes, at such a position) out of memory from
   * `FileSystem.allocate` go past the system's cache where it lets them. All other writes, and reads, are as ever. Default false.
   */
  readonly direct?: boolean;
}

/**
 * Errors of files carry the system's `code` (`ENOSPC`, `EIO`, `ENOENT`, `EEXIST`, …) as Node's do; a quota that is
 * used up is reported as `ENOSPC`, too (Node names EDQUOT `UNKNOWN`).
 */
export interface File {
  /**
   * Writes `buffer[offset, offset + length)` at `position`, continuing after short writes. `buffer` must not change until
   * `done`. On an error nothing may be assumed about the range.
   */
  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
    done: (error: Error | null) => void,
  ): void;
  /** Reads up to `length` bytes; gives the number read, fewer only at the end of the file. */
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  /** Makes the file's contents durable (`fsync`). After a failure the file must not be trusted or synced again. */
  sync(): Promise<void>;
  /** Cuts, or grows by zeros that may take no room on the disk until they are written. */
  truncate(sizeBytes: number): Promise<void>;
  sizeBytes(): Promise<number>;
  close(): Promise<void>;
}

export interface FileStat {
  readonly sizeBytes: number;
  readonly isDirectory: boolean;
  /** Permission bits, e.g. 0o600. */
  readonly mode: number;
}

/** Held while a process owns a directory; `release` gives it free. */
export interface DirectoryLock {
  release(): Promise<void>;
}

/** Paths are joined with '/'. Files are created 0600, directories 0700. */
export interface FileSystem {
  open(path: string, mode: OpenMode, options?: OpenOptions): Promise<File>;
  /** Zeros in memory that `direct` files take as it is. For few and long-lived buffers. */
  allocate(sizeBytes: number): ArrayBuffer;
  /** Creates the directory and its missing parents, each made durable in its parent; fine when it exists. */
  makeDirectory(path: string): Promise<void>;
  /** Names in the directory, sorted. */
  list(path: string): Promise<string[]>;
  /** Undefined when there is nothing at `path`. */
  stat(path: string): Promise<FileStat | undefined>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file, or a directory with all that is in it. Fine when there is nothing. */
  remove(path: string): Promise<void>;
  /** Makes creations, renames and removals in this directory durable. */
  syncDirectory(path: string): Promise<void>;
  /**
   * Takes the directory for this process (fault F18). Rejects with code `ELOCKED` and the owner's description in
   * the message when a living process holds it; the lock of a dead process is taken over.
   */
  lockDirectory(path: string): Promise<DirectoryLock>;
}

/** Keys and certificates as PEM text. */
export interface SecurityMaterial {
  /** Authorities whose signatures count; nobody else's do. */
  readonly ca: string;
  /** The own certificate, and whatever leads from it to one of the peers' authorities. */
  readonly cert: string;
  readonly key: string;
  /** Lists of revoked certificates. Where there is one, every authority needs one. */
  readonly crl: string | undefined;
}

/** What a certificate says of its holder. Names are in lower case; IPv6 addresses have no brackets and are in their shortest form. */
export interface Certificate {
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly uris: readonly string[];
  /** SHA-256 in hex; for logs. */
  readonly fingerprint: string;
  /** Until it expires, from the moment it was read. */
  readonly validForMs: number;
}

/** Material that was checked; only the network that made it can use it. */
export interface Security {
  readonly certificate: Certificate;
}

export interface SocketHandlers {
  /** The connection is up: a dialled one always tells, an accepted one when it has a handshake to wait for. */
  onOpen?(): void;
  /** Bytes `buffer[offset, offset + length)`; valid only during the call. */
  onData(buffer: Uint8Array, offset: number, length: number): void;
  /** The write buffer is empty again after `write` returned false. */
  onDrain?(): void;
  /** Exactly once, at the end of the socket's life, whatever ended it. */
  onClose(error: Error | undefined): void;
}

export interface Socket {
  /** Set by the owner, synchronously after `connect` or in the accept callback. */
  handlers: SocketHandlers;
  /** `host:port` of the other end, for logs and limits per address. */
  readonly remoteAddress: string;
  /** Bytes given to `write` and not yet taken by the system. */
  readonly queuedBytes: number;
  /** What the other end has proven to be, from `onOpen` on; undefined on a plain connection. */
  readonly certificate: Certificate | undefined;
  /**
   * Sends `buffer[offset, offset + length)`; false asks to wait for `onDrain`. The range must not change until `written`,
   * which runs exactly once, also when the socket fails. After `destroy` nothing is sent, `written` still runs.
   */
  write(buffer: Uint8Array, offset: number, length: number, written?: (error: Error | null) => void): boolean;
  pause(): void;
  resume(): void;
  /** Ends at once; `onClose` follows. */
  destroy(error?: Error): void;
  /** Sends what was written, then ends. */
  end(): void;
}

export interface Listener {
  /** `host:port` bound; differs from the one asked for when its port was 0. */
  readonly address: string;
  /** Handshakes from now on use this; connections that are up stay as they are. Only where there was a security before. */
  secure(security: Security): void;
  close(): Promise<void>;
}

/** Datagrams that are sealed with a shared key: what was not sealed with one of the keys is dropped unseen. */
export interface DatagramSocket {
  /** `host:port` bound. */
  readonly address: string;
  /** May be lost; errors are not told. */
  send(toAddress: string, bytes: Uint8Array): void;
  /** Datagrams that were dropped because no key opened them. */
  readonly refused: number;
  close(): Promise<void>;
}

/** 32 bytes. */
export type DatagramKey = Uint8Array;

export interface Network {
  /**
   * Binds a datagram socket. The first of `keys` seals what is sent, each of them opens what comes. Rejects with the system's code.
   * `bytes` are valid only during the call.
   */
  bindDatagrams(
    address: string,
    keys: readonly DatagramKey[],
    onDatagram: (fromAddress: string, bytes: Uint8Array) => void,
  ): Promise<DatagramSocket>;
  /**
   * Rejects with the system's code (`EADDRINUSE`, …). `onConnection` sets the socket's handlers before it returns, and runs before any
   * handshake, so that its caller can count and end what never finishes one.
   */
  listen(address: string, onConnection: (socket: Socket) => void, security?: Security): Promise<Listener>;
  /** Dials; `onOpen` or `onClose` follows. */
  connect(address: string, handlers: SocketHandlers, security?: Security): Socket;
  /**
   * Makes material ready. A connection with it is opened only if both ends prove, by TLS 1.3 and without resumption, to hold a key that an
   * authority has signed and not revoked; whom it was signed for is the caller's to judge. Throws an error whose message says what is wrong.
   */
  prepare(material: SecurityMaterial): Security;
}

/** One named stream of trace messages. */
export interface TraceChannel {
  /** Asked before a message is made. */
  readonly hasSubscribers: boolean;
  publish(message: object): void;
}

/** Where traces go: on a real machine to `node:diagnostics_channel`, in memory nowhere. */
export interface Tracing {
  /** The same name gives the same channel. */
  channel(name: string): TraceChannel;
}

/** One end of the channel between a thread and whoever started it. Messages arrive whole and in order. */
export interface ThreadPort {
  /** Set by the owner, synchronously when it gets the port. */
  onMessage: (message: unknown) => void;
  /** Sends a structured clone; the buffers in `transfer` move and are empty here afterwards. Throws what cannot be cloned. */
  post(message: unknown, transfer?: readonly ArrayBuffer[]): void;
}

/** A thread as the one who started it sees it. */
export interface Thread extends ThreadPort {
  /**
   * Asks and stands still until the thread has answered, between two of its turns; undefined when it has not within `timeoutMs`. For
   * rare questions with small answers.
   */
  ask(question: unknown, timeoutMs: number): unknown;
  /** Set by the owner. Exactly once, at the end of the thread, whatever ended it; nothing arrives after it. */
  onExit: (error: Error | undefined) => void;
  /** Ends it at once; resolves when it has ended. */
  terminate(): Promise<void>;
}

/** The same channel inside the thread. */
export interface ThreadSide extends ThreadPort {
  /** Answers `ask`. */
  onAsk: (question: unknown) => unknown;
}

export type ThreadMain = (side: ThreadSide, env: Env) => void;

export interface ThreadStart {
  readonly name: string;
  /** A module that exports `run`, for threads that share no memory with this one. */
  readonly module: URL;
  /** The same function, for threads that are simulated in this one. */
  readonly run: ThreadMain;
}

export interface Threads {
  /** Simulated in this thread: functions can be handed over through `run`. */
  readonly isInProcess: boolean;
  start(start: ThreadStart): Thread;
}

/** Modules that users name by URL. */
export interface Modules {
  load(url: string): Promise<Readonly<Record<string, unknown>>>;
}

export interface Env {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly fs: FileSystem;
  readonly network: Network;
  readonly logger: Logger;
  /** Absent where a host can have one engine only. */
  readonly threads?: Threads;
  /** Absent where state machines are given as functions only. */
  readonly modules?: Modules;
  readonly tracing: Tracing;
  /** Bytes of a buffer for what comes and goes; default `SLAB_BYTES`. Smaller where hosts live for moments only. */
  readonly slabBytes?: number;
}

const nobody: TraceChannel = { hasSubscribers: false, publish() {} };

/** Nobody listens. */
export const silentTracing: Tracing = { channel: () => nobody };

/** Discards everything. */
export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
};
