/** What an engine counts, for `metrics.ts` and `info.ts`. Each is counted where it happens; nothing in the engine may depend on a count. */
import type { WakeCause } from '../raft/quiesce.ts';

export interface EngineCounters {
  turns: number;
  forwardsDropped: number;
  messagesRefused: number;
  snapshotsFailed: number;
  /** Given up by their state machines. */
  snapshotsAborted: number;
  /** Streams that began where an earlier one had broken off, and what they did not need to bring again. */
  snapshotsResumed: number;
  snapshotBytesNotSentAgain: number;
  /** Of on-disk state machines: records without an image, images streamed from a store, images given up once they were taken over. */
  snapshotsWithoutState: number;
  imagesStreamed: number;
  imagesShrunk: number;
  /** Times that a shard's writes stood still for an election timeout. */
  diskStalls: number;
  /** How often a replica learned who leads, itself included, and how often it lost its leader. */
  leadersFound: number;
  leadersLost: number;
  /** How often a replica fell silent, and why it woke. */
  quiesced: number;
  readonly woken: Record<WakeCause, number>;
}

export function newCounters(): EngineCounters {
  return {
    turns: 0,
    forwardsDropped: 0,
    messagesRefused: 0,
    snapshotsFailed: 0,
    snapshotsAborted: 0,
    snapshotsResumed: 0,
    snapshotBytesNotSentAgain: 0,
    snapshotsWithoutState: 0,
    imagesStreamed: 0,
    imagesShrunk: 0,
    diskStalls: 0,
    leadersFound: 0,
    leadersLost: 0,
    quiesced: 0,
    woken: { proposal: 0, read: 0, message: 0, operator: 0, 'host-lost': 0, 'host-back': 0 },
  };
}
