/**
 * Memory that starts at a page of the machine, which a write past the system's cache must come from. Node has none to give;
 * WebAssembly's memories begin at one, whatever they are used for.
 */
interface Pages {
  readonly buffer: ArrayBuffer;
}
interface Assembly {
  readonly Memory: new (size: { initial: number; maximum: number }) => Pages;
}

const PAGE_BYTES = 4096;
const WASM_PAGE_BYTES = 65_536;
const aligned = new WeakSet<ArrayBufferLike>();

export function allocatePages(sizeBytes: number): ArrayBuffer {
  const pages = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
  try {
    // Not there with --jitless.
    const { Memory } = (globalThis as unknown as { WebAssembly: Assembly }).WebAssembly;
    const { buffer } = new Memory({ initial: pages, maximum: pages });
    aligned.add(buffer);
    return buffer;
  } catch {
    return new ArrayBuffer(sizeBytes); // or no address space for it: then through the cache
  }
}

export function isWholePages(buffer: Uint8Array, offset: number, length: number, position: number): boolean {
  if (!aligned.has(buffer.buffer)) return false;
  return (buffer.byteOffset + offset) % PAGE_BYTES === 0 && length % PAGE_BYTES === 0 && position % PAGE_BYTES === 0;
}
