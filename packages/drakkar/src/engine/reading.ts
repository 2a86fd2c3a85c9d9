/**
 * Reads on their way through the turn: all that were asked for since the last one share a question to the leader, and are answered when the
 * index it names is applied here. Promises that nobody is answered before that, and that a question that may be lost is asked again.
 *
 * Must not know how an index is confirmed (`raft/reading.ts`), nor keep reads itself (`pending-reads.ts`).
 */
import { DrakkarError } from '../errors.ts';
import { reasonNotToRead } from './pressure.ts';
import type { Replica } from './replica.ts';
import { traceRead } from './trace.ts';

export function askReads(replica: Replica): void {
  const context = replica.reads.close(replica.engine.inputMs);
  const reason = replica.raft.maySpeak ? undefined : reasonNotToRead(replica);
  // Its term cannot become durable, so that it cannot even ask.
  if (reason !== undefined) replica.reads.drop(context, reason);
  else if (!replica.raft.readIndex(context)) {
    replica.reads.drop(
      context,
      new DrakkarError('ERR_NO_LEADER', `shard ${replica.shardId} has no leader at the moment; try again`),
    );
  }
}

/** A connection that breaks takes questions and answers with it; an index that is told later is as good (thesis §6.4). */
export function askAgain(replica: Replica, tickCount: number): void {
  for (const context of replica.reads.unanswered(tickCount, replica.settings.electionTicks))
    replica.raft.askAgain(context);
}

export function serveReads(replica: Replica): void {
  const { appliedIndex } = replica.raft;
  if (!replica.reads.isServable(appliedIndex)) return;
  const startedMs = replica.reads.serve(appliedIndex, replica);
  if (startedMs < 0) return;
  const sinceMs = replica.engine.env.clock.nowMs() - startedMs;
  replica.engine.stages.read.observe(sinceMs);
  traceRead(replica, sinceMs);
}
