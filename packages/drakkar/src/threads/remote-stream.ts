/**
 * A stream of a shard that lives in another thread, as its consumer here iterates it. Asks for one batch after the other, of a change
 * stream for the next one while this one is consumed: no more than two are ever on their way or here.
 */
import type { Leadership } from '../engine/leader-watch.ts';
import type { LogEntry } from '../engine/log-entries.ts';
import { Wait, iterable } from '../engine/wait.ts';
import { DrakkarError } from '../errors.ts';
import type { ThreadClient } from './client.ts';
import type { RemoteShard } from './remote-shard.ts';
import type { StreamOpening } from './served-streams.ts';

/** `WatchOptions` of `config.ts`. */
export interface StreamOptions {
  readonly fromIndex?: number;
  readonly bufferBytes?: number;
  readonly signal?: AbortSignal;
}

/** See `NodeHost.watch`. */
export function watchRemote(
  shard: RemoteShard,
  { fromIndex, bufferBytes, signal }: StreamOptions,
): AsyncIterable<LogEntry> {
  // Asked now and not when the iteration begins: what is proposed behind this call is in the stream.
  const from = fromIndex === undefined ? nextIndexOf(shard) : Promise.resolve(fromIndex);
  const { shardId } = shard;
  const opening = async (): Promise<StreamOpening> => {
    const first = { shardId, of: 'log', fromIndex: await from } as const;
    return bufferBytes === undefined ? first : { ...first, bufferBytes };
  };
  return stream(shard, opening, true, signal);
}

/** See `NodeHost.watchLeader`. Never asks ahead: what its consumer is told is what is. */
export function watchLeaderRemote(shard: RemoteShard, { signal }: StreamOptions): AsyncIterable<Leadership> {
  const { shardId } = shard;
  return stream(shard, async () => ({ shardId, of: 'leader' }), false, signal);
}

function nextIndexOf({ client, shardId }: RemoteShard): Promise<number> {
  const index = client.call('nextLogIndex', [shardId]) as Promise<number>;
  index.catch(() => {}); // whoever iterates hears of it
  return index;
}

function stream<T>(
  shard: RemoteShard,
  opening: () => Promise<StreamOpening>,
  asksAhead: boolean,
  signal: AbortSignal | undefined,
): AsyncIterable<T> {
  return iterable(
    () => {
      if (shard.ended !== undefined) throw shard.ended;
      return new RemoteStream<T>(shard.client, opening, asksAhead);
    },
    (remote) => remote.values(),
    (remote) => remote.finish(),
    signal,
    () => {
      const message = `the watch of shard ${shard.shardId} was aborted`;
      return new DrakkarError('ERR_ABORTED', message, { cause: signal?.reason, outcome: 'not-applied' });
    },
  );
}

type Batch<T> = readonly T[] | undefined;

class RemoteStream<T> extends Wait {
  private readonly client: ThreadClient;
  private readonly opening: () => Promise<StreamOpening>;
  private readonly asksAhead: boolean;
  private readonly id: number;
  private hasBegun = false;
  /** The thread has nothing of it any more. */
  private isOver = false;

  constructor(client: ThreadClient, opening: () => Promise<StreamOpening>, asksAhead: boolean) {
    super();
    this.client = client;
    this.opening = opening;
    this.asksAhead = asksAhead;
    this.id = client.newStreamId();
  }

  async *values(): AsyncGenerator<T, void, void> {
    let asked: Promise<Batch<T>> | undefined;
    while (!this.isEnded) {
      asked ??= this.ask();
      const batch = await Promise.race([asked, this.next()]);
      if (this.isEnded) break;
      if (batch === undefined) return;
      asked = this.asksAhead ? this.ask() : undefined;
      for (const value of batch) {
        if (this.isEnded) break;
        yield value;
      }
    }
    if (this.error !== undefined) throw this.error;
  }

  private ask(): Promise<Batch<T>> {
    const asked = this.askThread();
    asked.catch(() => {}); // whoever comes for it hears of it
    return asked;
  }

  private async askThread(): Promise<Batch<T>> {
    let opening: StreamOpening | undefined;
    if (!this.hasBegun) {
      opening = await this.opening();
      if (this.isEnded) return undefined;
      this.hasBegun = true;
    }
    try {
      const batch = (await this.client.call('streamNext', [this.id, opening])) as Batch<T>;
      if (batch === undefined) this.isOver = true;
      return batch;
    } catch (error) {
      this.isOver = true;
      throw error;
    }
  }

  finish(): void {
    if (!this.hasBegun || this.isOver) return;
    this.isOver = true;
    this.client.call('streamEnd', [this.id]).catch(() => {}); // the thread is gone, and the stream with it
  }
}
