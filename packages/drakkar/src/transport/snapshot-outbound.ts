/** The sending end of a snapshot stream: dials, says HELLO, streams, and waits for the receiver's word that it is installed. */
import { DrakkarError } from '../errors.ts';
import type { Socket, Timer } from '../env/env.ts';
import { FrameType, frameType } from '../wire/frame.ts';
import type { Slab } from '../wire/slab.ts';
import { FrameReceiver } from './frame-receiver.ts';
import { HelloStatus, Purpose, decodeHello, encodeHello } from './hello.ts';
import { DIAL_TIMEOUT_MS, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_IDLE_MS, SNAPSHOT_STATUS_TIMEOUT_MS } from './limits.ts';
import { decodeProgress, decodeStatus, encodeChunk, encodeEnd, encodeSnapshotHeader } from './snapshot-frames.ts';
import type { TcpTransport } from './tcp.ts';
import type { ImageFrom, SnapshotHeader } from './transport.ts';

/** Something that is awaited from the other end of the connection, with a deadline. */
class Awaited<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {}); // whoever needs it awaits it
  }
}

const NOTHING: readonly Uint8Array[] = [];

function sourceFrom(
  offsetBytes: number,
  chunks: AsyncIterable<Uint8Array>,
  header: SnapshotHeader,
  from: ImageFrom | undefined,
): AsyncIterable<Uint8Array> {
  if (offsetBytes === 0) return chunks;
  if (from !== undefined && header.imageDigest !== undefined && offsetBytes <= header.imageBytes)
    return from(offsetBytes);
  throw new DrakkarError(
    'ERR_FRAME',
    `the receiver wants an image from byte ${offsetBytes} on that was not offered so`,
  );
}

export async function sendSnapshotStream(
  transport: TcpTransport,
  to: { readonly target: string; readonly engine: number; readonly listener: string | undefined },
  header: SnapshotHeader,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  from: ImageFrom | undefined,
): Promise<void> {
  signal.throwIfAborted();
  const { target, listener: address } = to;
  if (address === undefined)
    throw new DrakkarError('ERR_PEER_REFUSED', `the address of host ${target} is not known yet`);
  const accepted = new Awaited<void>();
  /** From which byte on the receiver wants it; or it has refused it before that. */
  const begun = new Awaited<number | undefined>();
  const status = new Awaited<string>();
  let drained = new Awaited<void>();
  let timer: Timer | undefined;
  let armedMs = 0;
  const receiver = new FrameReceiver(transport.pool, (slab: Slab, offset: number, lengthBytes: number) => {
    if (frameType(slab.u32, offset >>> 2) === FrameType.SnapshotStatus) {
      status.resolve(decodeStatus(slab.u8, slab.u32, offset, lengthBytes));
      begun.resolve(undefined);
      return;
    }
    if (frameType(slab.u32, offset >>> 2) === FrameType.SnapshotProgress) {
      const wanted = decodeProgress(slab.u32, offset, lengthBytes);
      if (wanted !== undefined) begun.resolve(wanted);
      arm(armedMs);
      return;
    }
    const hello = decodeHello(slab.u8, slab.u32, offset, lengthBytes, transport.identity.newestFormat);
    const complaint = transport.complaintAboutAnswer(hello, to, socket.certificate);
    if (complaint === undefined) accepted.resolve();
    else
      accepted.reject(
        new DrakkarError('ERR_PEER_REFUSED', `${address} refused the snapshot (${complaint}): ${hello.explanation}`),
      );
  });
  const failAll = (error: unknown): void => {
    accepted.reject(error);
    begun.reject(error);
    status.reject(error);
    drained.reject(error);
  };
  const socket: Socket = transport.env.network.connect(
    address,
    {
      onOpen() {
        const doubt = transport.security?.complaintAboutTarget(socket.certificate, target);
        if (doubt !== undefined) {
          transport.countRefusal(doubt);
          socket.destroy(new Error(`its certificate is not one for it (${doubt})`));
          return;
        }
        const hello = encodeHello({
          purpose: Purpose.Snapshot,
          status: HelloStatus.Ok,
          identity: transport.identity,
          engine: transport.engine,
          target,
          targetEngine: to.engine,
          explanation: '',
        });
        socket.write(hello.u8, 0, hello.usedBytes);
      },
      onData(buffer, offset, length) {
        try {
          receiver.push(buffer, offset, length);
        } catch (error) {
          socket.destroy(error as Error);
        }
      },
      onDrain: () => drained.resolve(),
      onClose(error) {
        receiver.close();
        failAll(
          new DrakkarError('ERR_UNREACHABLE', `the connection to ${address} ended during a snapshot`, { cause: error }),
        );
      },
    },
    transport.security?.current,
  );
  const onAbort = (): void => socket.destroy();
  signal.addEventListener('abort', onAbort, { once: true });
  const arm = (delayMs: number): void => {
    armedMs = delayMs;
    timer?.cancel();
    timer = transport.env.scheduler.after(delayMs, () => socket.destroy(new Error('the receiver stands still')));
  };
  const send = async (slab: Slab): Promise<void> => {
    arm(SNAPSHOT_IDLE_MS);
    drained = new Awaited();
    if (!socket.write(slab.u8, 0, slab.usedBytes)) await Promise.race([drained.promise, status.promise]);
  };
  try {
    arm(DIAL_TIMEOUT_MS);
    await accepted.promise;
    transport.handlers?.onConnection?.(address, true, undefined);
    await send(encodeSnapshotHeader(header));
    arm(SNAPSHOT_STATUS_TIMEOUT_MS);
    const wanted = await begun.promise;
    let number = 0;
    let total = 0;
    for await (const chunk of wanted === undefined ? NOTHING : sourceFrom(wanted, chunks, header, from)) {
      for (let at = 0; at < chunk.length; at += SNAPSHOT_CHUNK_BYTES) {
        const piece = chunk.subarray(at, at + SNAPSHOT_CHUNK_BYTES);
        await send(encodeChunk(number++, piece));
        total += piece.length;
      }
    }
    if (wanted !== undefined) await send(encodeEnd(total, number));
    arm(SNAPSHOT_STATUS_TIMEOUT_MS);
    const refusal = await status.promise;
    if (refusal !== '')
      throw new DrakkarError('ERR_PEER_REFUSED', `${address} did not install the snapshot: ${refusal}`);
  } catch (error) {
    if (signal.aborted) throw new DrakkarError('ERR_ABORTED', 'sending the snapshot was aborted', { cause: error });
    if (DrakkarError.is(error, 'ERR_UNREACHABLE')) transport.handlers?.onConnection?.(address, true, error);
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    timer?.cancel();
    socket.destroy();
  }
}
