/** The receiving end of a snapshot stream: hands the chunks to the engine, as fast as it takes them, and answers with the outcome. */
import { withEither } from '../env/abort.ts';
import { DrakkarError } from '../errors.ts';
import type { Socket, Timer } from '../env/env.ts';
import { FrameType, frameType } from '../wire/frame.ts';
import type { Slab } from '../wire/slab.ts';
import { SNAPSHOT_ALIVE_MS, SNAPSHOT_IDLE_MS, SNAPSHOT_QUEUE_CHUNKS, SNAPSHOT_TAKE_MS } from './limits.ts';
import { checkEnd, decodeChunk, decodeSnapshotHeader, encodeProgress, encodeStatus } from './snapshot-frames.ts';
import type { TcpTransport } from './tcp.ts';
import { SIZE_UNKNOWN, type HostIdentity, type SnapshotHeader } from './transport.ts';

export class SnapshotInbound {
  private readonly transport: TcpTransport;
  private readonly socket: Socket;
  private readonly from: HostIdentity;
  private header: SnapshotHeader | undefined;
  private readonly queue: Uint8Array[] = [];
  private wake: (() => void) | undefined;
  private received = 0;
  private chunkCount = 0;
  private isWhole = false;
  private failure: DrakkarError | undefined;
  private isPaused = false;
  /** Byte of the image that the stream begins at; undefined while its receiver has not said that it wants it. */
  private offsetBytes: number | undefined;
  private lastTakenMs = 0;
  private alive: Timer | undefined;
  private timer: Timer | undefined;
  private readonly aborting = new AbortController();

  constructor(transport: TcpTransport, socket: Socket, from: HostIdentity) {
    this.transport = transport;
    this.socket = socket;
    this.from = from;
    transport.inboundSnapshots++;
    this.armIdle();
  }

  /** Throws `ERR_FRAME` when the stream is not one. */
  onFrame(slab: Slab, offset: number, lengthBytes: number): void {
    const type = frameType(slab.u32, offset >>> 2);
    this.armIdle();
    if (this.header === undefined) {
      if (type !== FrameType.SnapshotHeader)
        throw new DrakkarError('ERR_FRAME', 'a snapshot stream began without a header');
      this.begin(decodeSnapshotHeader(slab.u32, offset, lengthBytes));
    } else if (this.offsetBytes === undefined) {
      throw new DrakkarError('ERR_FRAME', 'a snapshot was sent that nobody had asked for yet');
    } else if (type === FrameType.SnapshotChunk && !this.isWhole) {
      const chunk = decodeChunk(slab.u8, slab.u32, offset, lengthBytes, this.chunkCount++);
      this.received += chunk.length;
      if (this.offsetBytes + this.received > (this.header.imageBytes || Number.MAX_SAFE_INTEGER))
        throw new DrakkarError('ERR_FRAME', 'a snapshot is longer than announced');
      this.queue.push(chunk);
      if (this.queue.length >= SNAPSHOT_QUEUE_CHUNKS && !this.isPaused) {
        this.isPaused = true;
        this.socket.pause();
      }
    } else if (type === FrameType.SnapshotEnd && !this.isWhole) {
      checkEnd(slab.u32, offset, lengthBytes, this.received, this.chunkCount);
      if (this.header.imageBytes !== SIZE_UNKNOWN && this.offsetBytes + this.received !== this.header.imageBytes)
        throw new DrakkarError('ERR_FRAME', 'a snapshot is shorter than announced');
      this.isWhole = true;
      this.timer?.cancel(); // installing may take its time
    } else throw new DrakkarError('ERR_FRAME', 'a snapshot stream holds another frame');
    this.wake?.();
  }

  private begin(header: SnapshotHeader): void {
    this.header = header;
    this.took();
    this.tellAlive();
    const { handlers, closingSignal } = this.transport;
    withEither([this.aborting.signal, closingSignal], (signal) =>
      handlers!.onSnapshot(this.from, header, this.chunks(), signal, this.askFrom),
    ).then(
      () => {
        this.transport.counters.snapshotsReceived++;
        this.answer('');
      },
      (error: unknown) => {
        this.transport.counters.snapshotsFailed++;
        this.answer(
          error instanceof Error ? `${(error as { code?: string }).code ?? 'ERR'}: ${error.message}` : String(error),
        );
      },
    );
  }

  /** The receiver wants the image from there on. */
  private readonly askFrom = (offsetBytes: number): void => {
    if (this.offsetBytes !== undefined) return;
    this.offsetBytes = offsetBytes;
    this.tell(offsetBytes);
    this.armIdle();
  };

  private tell(offsetBytes: number | undefined): void {
    const progress = encodeProgress(offsetBytes);
    this.socket.write(progress.u8, 0, progress.usedBytes);
  }

  /** The sender waits for its turn here, for room, or for the end: none of it is a reason to give up. */
  private tellAlive(): void {
    const { scheduler, clock } = this.transport.env;
    this.alive = scheduler.after(SNAPSHOT_ALIVE_MS, () => {
      if (clock.nowMs() - this.lastTakenMs < SNAPSHOT_TAKE_MS) this.tell(undefined);
      this.tellAlive();
    });
  }

  private took(): void {
    this.lastTakenMs = this.transport.env.clock.nowMs();
  }

  private answer(refusal: string): void {
    this.timer?.cancel();
    this.alive?.cancel();
    if (this.isPaused) this.socket.resume();
    const status = encodeStatus(refusal);
    this.socket.write(status.u8, 0, status.usedBytes);
    this.socket.end();
  }

  private async *chunks(): AsyncGenerator<Uint8Array> {
    this.askFrom(0);
    for (;;) {
      const chunk = this.queue.shift();
      if (chunk !== undefined) {
        if (this.isPaused && this.queue.length === 0) {
          this.isPaused = false;
          this.socket.resume();
          this.armIdle();
        }
        this.took();
        yield chunk;
      } else if (this.isWhole) return;
      else if (this.failure !== undefined) throw this.failure;
      else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
        this.wake = undefined;
      }
    }
  }

  private armIdle(): void {
    this.timer?.cancel();
    this.timer = this.transport.env.scheduler.after(SNAPSHOT_IDLE_MS, () => {
      // Paused by its own receiver is not idle, nor is it while that has not asked for anything.
      if (this.isPaused || (this.header !== undefined && this.offsetBytes === undefined)) this.armIdle();
      else this.socket.destroy(new Error('the snapshot stream stands still'));
    });
  }

  onClose(): void {
    this.timer?.cancel();
    this.alive?.cancel();
    this.transport.inboundSnapshots--;
    if (!this.isWhole) {
      this.failure = new DrakkarError('ERR_UNREACHABLE', 'the connection broke in the middle of a snapshot');
      this.aborting.abort(this.failure);
      this.wake?.();
    }
  }
}
