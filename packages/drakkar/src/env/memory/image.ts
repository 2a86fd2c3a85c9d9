/**
 * One file or directory of a disk in memory: the bytes as processes see them, as a power cut would leave them, and in order what lies
 * between the two. Sectors are written whole or not at all.
 */
export const SECTOR_BYTES = 512;
/** What a file system gives room in. */
const PAGE_BYTES = 4096;

/** A write, or a change of size (no bytes), that is not durable yet. */
export interface Change {
  readonly position: number;
  readonly bytes: Uint8Array | undefined;
}

/** Decides for each sector, name or size whether it reached the disk. */
export type Keep = () => boolean;

/** Bytes with room to grow. Copies share them until one of the two is changed: most files of a disk are not, after a power cut. */
class Growing {
  bytes: Uint8Array = new Uint8Array(0);
  sizeBytes = 0;
  private isShared = false;

  /** `bytes` are not changed afterwards by whoever gave them. */
  put(position: number, bytes: Uint8Array): void {
    const end = position + bytes.length;
    if (this.bytes.length === 0 && position === 0) {
      this.bytes = bytes;
      this.isShared = true;
    } else if (end > this.bytes.length) this.reserve(Math.max(end, this.bytes.length * 2));
    else this.own();
    if (this.bytes !== bytes) this.bytes.set(bytes, position);
    if (end > this.sizeBytes) this.sizeBytes = end;
  }

  resize(sizeBytes: number): void {
    if (sizeBytes > this.bytes.length) this.reserve(sizeBytes);
    else this.own();
    if (sizeBytes < this.sizeBytes) this.bytes.fill(0, sizeBytes, this.sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  /** Before a change. */
  own(): void {
    if (this.isShared) this.reserve(this.bytes.length);
  }

  private reserve(sizeBytes: number): void {
    const larger = new Uint8Array(sizeBytes);
    larger.set(this.bytes);
    this.bytes = larger;
    this.isShared = false;
  }

  copyFrom(other: Growing): void {
    this.bytes = other.bytes;
    this.sizeBytes = other.sizeBytes;
    this.isShared = other.isShared = true;
  }
}

function overlap(a: Change, b: Change): boolean {
  const end = ({ position, bytes }: Change): number =>
    bytes === undefined ? Number.POSITIVE_INFINITY : position + bytes.length;
  return a.position < end(b) && b.position < end(a);
}

function* pagesOf(position: number, lengthBytes: number): Generator<number> {
  for (let page = Math.floor(position / PAGE_BYTES); page * PAGE_BYTES < position + lengthBytes; page++) yield page;
}

export class FileImage {
  readonly isDirectory: boolean;
  mode: number;
  private readonly seen = new Growing();
  private readonly durable = new Growing();
  private pending: Change[] = [];
  /** Pages that a change of size made and nobody has written: they read as zeros and take no room. */
  private holes = new Set<number>();

  constructor(isDirectory: boolean) {
    this.isDirectory = isDirectory;
    this.mode = isDirectory ? 0o700 : 0o600;
  }

  get sizeBytes(): number {
    return this.seen.sizeBytes;
  }

  /** What a process sees; valid until the next change. */
  get bytes(): Uint8Array {
    return this.seen.bytes.subarray(0, this.seen.sizeBytes);
  }

  get pendingChanges(): number {
    return this.pending.length;
  }

  /** Room that it takes on the disk. */
  get usedBytes(): number {
    return Math.max(0, this.sizeBytes - this.holes.size * PAGE_BYTES);
  }

  /** Room that a write there needs anew. */
  roomFor(position: number, lengthBytes: number): number {
    let room = Math.max(0, position + lengthBytes - this.sizeBytes);
    if (this.holes.size > 0)
      for (const page of pagesOf(position, lengthBytes)) if (this.holes.has(page)) room += PAGE_BYTES;
    return room;
  }

  write(position: number, bytes: Uint8Array): Change {
    const change: Change = { position, bytes };
    this.pending.push(change);
    this.seen.put(position, bytes);
    if (this.holes.size > 0) for (const page of pagesOf(position, bytes.length)) this.holes.delete(page);
    return change;
  }

  truncate(sizeBytes: number): void {
    const [from, to] = [this.sizeBytes, sizeBytes].map((bytes) => Math.ceil(bytes / PAGE_BYTES));
    for (let page = from; page < to; page++) this.holes.add(page);
    for (let page = to; page < from; page++) this.holes.delete(page);
    this.pending.push({ position: sizeBytes, bytes: undefined });
    this.seen.resize(sizeBytes);
  }

  /** With what was written to the same bytes before, by a process that is gone maybe. */
  makeDurable(change: Change): void {
    const at = this.pending.indexOf(change);
    if (at < 0) return;
    this.pending = this.pending.filter((earlier, i) => {
      if (i > at || !overlap(earlier, change)) return true;
      this.carryOut(earlier);
      return false;
    });
  }

  sync(): void {
    for (const change of this.pending) this.carryOut(change);
    this.pending = [];
  }

  /**
   * A flush failed: what `keep` lets through is on the disk, the rest never will be, though processes still see it (the page counts as
   * clean; Rebello et al., ATC 2020). Only `change`, or all.
   */
  loseFlush(keep: Keep, change?: Change): void {
    for (const lost of change === undefined ? this.pending : [change]) this.tear(lost, keep);
    this.pending = change === undefined ? [] : this.pending.filter((other) => other !== change);
  }

  losePower(keep: Keep): void {
    this.loseFlush(keep);
    this.seen.copyFrom(this.durable);
  }

  /** What is changed is changed durably, too. */
  edit(change: (bytes: Uint8Array) => void): void {
    this.seen.own();
    change(this.bytes);
    this.pending = [];
    this.durable.copyFrom(this.seen);
  }

  clone(): FileImage {
    const copy = new FileImage(this.isDirectory);
    copy.mode = this.mode;
    copy.seen.copyFrom(this.seen);
    copy.durable.copyFrom(this.durable);
    copy.pending = [...this.pending];
    copy.holes = new Set(this.holes);
    return copy;
  }

  private tear({ position, bytes }: Change, keep: Keep): void {
    if (bytes === undefined) {
      if (keep()) this.durable.resize(position);
      return;
    }
    const end = position + bytes.length;
    for (let at = position; at < end; ) {
      const next = Math.min(end, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
      if (keep()) this.durable.put(at, bytes.subarray(at - position, next - position));
      at = next;
    }
  }

  private carryOut({ position, bytes }: Change): void {
    if (bytes === undefined) this.durable.resize(position);
    else this.durable.put(position, bytes);
  }
}
