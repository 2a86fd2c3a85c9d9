/**
 * Format numbers: one for everything that crosses the wire or the disk, so that a release is told by the formats it reads. A frame, a
 * segment and a directory carry the number of the format they are in.
 *
 *     format 1   what docs/protocol.md and docs/wal-format.md describe
 *
 * A release reads all from `FORMAT_OLDEST` to `FORMAT_NEWEST`, and writes none newer than the one that is enabled in its directory
 * (design §7.8, `engine/formats.ts`): until then the release before it can still take the directory over.
 */

/** The oldest format that is read, and what a new directory writes until a newer one is enabled. */
export const FORMAT_OLDEST = 1;
/** The newest format that this release reads. */
export const FORMAT_NEWEST = 1;
/**
 * A format that no release has: format `FORMAT_NEWEST` under another number. A host that is told to know it is a release to come, as far
 * as all others can tell, so that an upgrade can be rehearsed before there is one.
 */
export const FORMAT_REHEARSAL = 255;

/** What a host may read and write. */
export interface FormatRange {
  /** The newest format that it reads. */
  readonly newest: number;
  /** The newest format that may stand in its directory. Never lower than it was. */
  readonly enabled: number;
}

export const FIRST_FORMATS: FormatRange = { newest: FORMAT_NEWEST, enabled: FORMAT_OLDEST };
