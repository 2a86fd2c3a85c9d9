/** A state machine that is as big as it was told to be; for snapshots. Its commands say by how many MiB it grows. */
import type { Entry, StateMachine } from 'drakkar';

const MIB = 1 << 20;

export class BlobStore implements StateMachine {
  applied = 0;
  private chunks: Uint8Array[] = [];

  static grow(mib: number): Uint8Array {
    return new Uint8Array(Uint32Array.of(mib).buffer);
  }

  update(entries: readonly Entry[]): void {
    for (const entry of entries) {
      this.applied++;
      const mib = new DataView(entry.command.buffer).getUint32(0, true);
      for (let i = 0; i < mib; i++) this.chunks.push(new Uint8Array(MIB).fill(this.chunks.length + 1));
    }
  }

  lookup(): number {
    return this.chunks.length;
  }

  *saveSnapshot(): Iterable<Uint8Array> {
    yield new Uint8Array(Float64Array.of(this.applied).buffer);
    yield* this.chunks;
  }

  /** Pieces come in any size; they are put together again as they were. */
  async recoverFromSnapshot(image: AsyncIterable<Uint8Array>): Promise<void> {
    const head = new Uint8Array(8);
    let at = 0;
    this.chunks = [];
    for await (const piece of image) {
      for (let from = 0; from < piece.length; ) {
        const [target, offset] = at < head.length ? [head, at] : this.chunkAt(at - head.length);
        const count = Math.min(target.length - offset, piece.length - from);
        target.set(piece.subarray(from, from + count), offset);
        at += count;
        from += count;
      }
    }
    this.applied = new DataView(head.buffer).getFloat64(0, true);
  }

  private chunkAt(at: number): [Uint8Array, number] {
    const index = Math.floor(at / MIB);
    if (index === this.chunks.length) this.chunks.push(new Uint8Array(MIB));
    return [this.chunks[index], at % MIB];
  }

  /** The first and the last byte of every chunk, and how many there are. */
  hash(): number {
    let hash = this.chunks.length;
    for (const chunk of this.chunks) hash = (Math.imul(hash, 31) + chunk[0] * 257 + chunk[MIB - 1]) >>> 0;
    return hash;
  }
}
