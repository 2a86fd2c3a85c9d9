/**
 * What stands in a witness's place where others have a state machine. A witness votes and acknowledges terms and indexes (design §2), and
 * sees no command; it knows who belongs to the shard, and its snapshots hold no more than that.
 */
import { decodeMembership, encodeMembership } from '../wire/membership.ts';
import type { Codecs } from './codec.ts';
import { ImageReader, SectionReader, encodeImage, encodeSection } from './image.ts';
import { Sessions } from './sessions.ts';
import type { OpenedImage } from './snapshotter.ts';
import type { StateMachine } from './state-machine.ts';

export function createWitnessMachine(): StateMachine {
  return {
    update() {},
    lookup: () => undefined,
    *saveSnapshot() {},
    async recoverFromSnapshot(image) {
      for await (const piece of image) void piece;
    },
  };
}

/** The dummy snapshot for a witness: header and membership of the image, and nothing of its state. */
export async function imageForWitness(
  chunks: AsyncIterable<Uint8Array>,
  codecs: Codecs,
): Promise<Pick<OpenedImage, 'sizeBytes' | 'chunks'>> {
  const reader = new ImageReader(chunks, codecs);
  const info = await reader.header();
  const payload = reader.payload();
  const membership = decodeMembership(await new SectionReader(payload).section());
  await payload.return(undefined);
  const sections = [encodeSection(encodeMembership(membership)), encodeSection(new Sessions(1).encode())];
  const pieces: Uint8Array[] = [];
  for await (const piece of encodeImage({ ...info, flags: 0 }, sections)) pieces.push(piece);
  const sizeBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return { sizeBytes, chunks: each(pieces) };
}

async function* each(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}
