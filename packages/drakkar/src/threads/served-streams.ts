/**
 * The thread's end of the streams that are iterated in the host's thread. Nothing is sent unasked: one batch for each question, so that a
 * consumer that dawdles is waited for here, by the watch itself.
 */

/** What a consumer wants to iterate. `fromIndex` and `bufferBytes` are of the log only. */
export interface StreamOpening {
  readonly shardId: number;
  readonly of: 'log' | 'leader';
  readonly fromIndex?: number;
  readonly bufferBytes?: number;
}

/** Begins to iterate; throws `ERR_SHARD_NOT_FOUND` and the like. */
export type OpenStream = (opening: StreamOpening) => AsyncIterator<readonly unknown[]>;

export class ServedStreams {
  private readonly open: OpenStream;
  /** By the number that the host gave them. Bounded by the watches that each shard may have. */
  private readonly streams = new Map<number, AsyncIterator<readonly unknown[]>>();

  constructor(open: OpenStream) {
    this.open = open;
  }

  get size(): number {
    return this.streams.size;
  }

  /** For the host, by name. */
  methods(): Record<string, (...args: any[]) => unknown> {
    return {
      streamNext: (id: number, opening: StreamOpening | undefined) => this.next(id, opening),
      streamEnd: (id: number) => this.end(id),
    };
  }

  /** The next batch; undefined when there is none any more. The first question of a stream brings its opening. */
  private async next(id: number, opening: StreamOpening | undefined): Promise<readonly unknown[] | undefined> {
    if (opening !== undefined) this.streams.set(id, this.open(opening));
    const stream = this.streams.get(id);
    if (stream === undefined) return undefined; // it ended while the question was on its way
    try {
      const { done, value } = await stream.next();
      if (done !== true) return value;
      this.streams.delete(id);
      return undefined;
    } catch (error) {
      this.streams.delete(id);
      throw error;
    }
  }

  /** Nobody iterates it any more. */
  private async end(id: number): Promise<void> {
    const stream = this.streams.get(id);
    this.streams.delete(id);
    await stream?.return?.();
  }
}
