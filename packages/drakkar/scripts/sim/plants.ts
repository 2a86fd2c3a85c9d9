/** The planted bugs: each replaces a text that stands exactly once in one file of `src/`. */
import type { FaultKind } from '../../src/sim/index.ts';

export interface Plant {
  readonly name: string;
  /** Below `src/`. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** How it is hunted: whole hosts, every file operation, or walks of the cores alone for what needs a rare order of events. */
  readonly kind?: 'seed' | 'crash-points' | 'walk';
  /** Default: a mix by the seed. */
  readonly faults?: readonly FaultKind[];
  /** Default: by the seed. */
  readonly operations?: number;
}

export const PLANTS: readonly Plant[] = [
  // Elections.
  {
    name: 'vote-leaves-before-it-is-durable',
    file: 'raft/sending.ts',
    from: 'raft.outbox.send(message, raft.stateWrite);',
    to: 'raft.outbox.send(message, 0);',
  },
  {
    name: 'votes-twice-in-a-term',
    file: 'raft/election.ts',
    from: 'const isFree = raft.vote === message.from || (raft.vote === 0 && raft.leaderId === 0);',
    to: 'const isFree = true;',
  },
  {
    name: 'votes-for-an-outdated-log',
    file: 'raft/election.ts',
    from: 'return message.logTerm > lastTerm || (message.logTerm === lastTerm && message.logIndex >= lastIndex);',
    to: 'return true;',
  },
  {
    name: 'votes-for-the-longer-log',
    file: 'raft/election.ts',
    from: 'return message.logTerm > lastTerm || (message.logTerm === lastTerm && message.logIndex >= lastIndex);',
    to: 'return message.logIndex >= lastIndex;',
    kind: 'walk',
  },
  {
    name: 'quorum-of-half',
    file: 'raft/quorum.ts',
    from: 'return (voters >>> 1) + 1;',
    to: 'return Math.max(1, voters >>> 1);',
  },
  {
    name: 'a-refusal-counts-as-a-vote',
    file: 'raft/election.ts',
    from: 'raft.votes[slot] ??= !message.rejected;',
    to: 'raft.votes[slot] ??= true;',
  },
  // Commitment.
  {
    name: 'commits-entries-of-older-terms',
    file: 'raft/leading.ts',
    from: 'if (index > raft.commitIndex && raft.termStartIndex > 0 && index >= raft.termStartIndex) raft.commitIndex = index;',
    to: 'if (index > raft.commitIndex) raft.commitIndex = index;',
    kind: 'walk',
  },
  {
    name: 'leader-counts-what-it-has-not-flushed',
    file: 'raft/leading.ts',
    from: 'slot === raft.selfSlot ? raft.writes.durableIndex :',
    to: 'slot === raft.selfSlot ? raft.log.lastIndex :',
  },
  {
    name: 'commit-beyond-what-is-verified',
    file: 'raft/following.ts',
    from: 'const commit = Math.min(commitIndex, raft.verifiedIndex);',
    to: 'const commit = Math.min(commitIndex, raft.log.lastIndex);',
    kind: 'walk',
  },
  {
    name: 'heartbeat-commit-beyond-match',
    file: 'raft/leading.ts',
    from: 'if (!isOther(raft, member)) continue;\n    const commit = Math.min(member.matchIndex, raft.commitIndex);',
    to: 'if (!isOther(raft, member)) continue;\n    const commit = raft.commitIndex;',
  },
  {
    name: 'applies-what-is-not-durable-here',
    file: 'raft/raft.ts',
    from: 'return Math.min(this.commitIndex, this.writes.durableIndex);',
    to: 'return this.commitIndex;',
  },
  // Replication.
  {
    name: 'ack-before-flush',
    file: 'raft/following.ts',
    from: 'const index = Math.min(raft.writes.durableIndex, raft.verifiedIndex);\n  if (index <= raft.ackedIndex',
    to: 'const index = Math.min(raft.log.lastIndex, raft.verifiedIndex);\n  if (index <= raft.ackedIndex',
  },
  {
    name: 'ack-beyond-what-this-leader-verified',
    file: 'raft/following.ts',
    from: 'const index = Math.min(raft.writes.durableIndex, raft.verifiedIndex);\n  if (index <= raft.ackedIndex',
    to: 'const index = raft.writes.durableIndex;\n  if (index <= raft.ackedIndex',
  },
  {
    name: 'heartbeat-ack-beyond-what-was-verified',
    file: 'raft/following.ts',
    from: '    logIndex: Math.min(raft.writes.durableIndex, raft.verifiedIndex),',
    to: '    logIndex: raft.writes.durableIndex,',
  },
  {
    name: 'verified-index-survives-the-term',
    file: 'raft/election.ts',
    from: '    raft.vote = 0;\n    raft.isStateDirty = true;\n    raft.verifiedIndex = raft.commitIndex;',
    to: '    raft.vote = 0;\n    raft.isStateDirty = true;',
  },
  {
    name: 'stale-storage-ack',
    file: 'raft/writes.ts',
    from: '      if (this.indexes[slot] > index) this.indexes[slot] = index;',
    to: '',
    kind: 'walk',
  },
  {
    name: 'truncation-leaves-the-durable-index',
    file: 'raft/writes.ts',
    from: '    if (this.durableIndex > index) this.durableIndex = index;',
    to: '',
    kind: 'walk',
  },
  {
    name: 'previous-term-not-compared',
    file: 'raft/following.ts',
    from: 'if (previous > raft.commitIndex && log.termAt(previous) !== header.prevTerm) {',
    to: 'if (previous > log.lastIndex) {',
  },
  {
    name: 'conflicting-entries-stay',
    file: 'raft/following.ts',
    from: '    if (own.term !== header.term) {',
    to: '    if (own.term > header.term) {',
  },
  {
    name: 'lost-probe-is-never-repeated',
    file: 'raft/leading.ts',
    from: '      member.isWaiting = false;\n      raft.lags = true;\n    }\n  } else if',
    to: '      raft.lags = true;\n    }\n  } else if',
  },
  // Silence.
  {
    name: 'sleepers-ignore-the-loss-of-their-leader',
    file: 'raft/quiesce.ts',
    from: "if (raft.isQuiesced && (raft.role === 'leader' || raft.leaderId === replicaId)) wake",
    to: "if (raft.isQuiesced && raft.role === 'leader') wake",
  },
  {
    name: 'only-broken-connections-count-as-lost-hosts',
    file: 'engine/liveness.ts',
    from: 'if (link.isUp && !isHeard) this.lose(link);',
    to: 'if (link.isUp && !isHeard) link.heardTick = tickCount;',
  },
  {
    name: 'a-silent-leader-leaves-somebody-behind',
    file: 'raft/quiesce.ts',
    from: 'return member.matchIndex === lastIndex && !member.hasRegressed;',
    to: 'return !member.hasRegressed;',
    faults: ['crash', 'clog', 'forced-snapshot'],
  },
  {
    name: 'messages-do-not-wake',
    file: 'raft/step.ts',
    from: "  if (raft.isQuiesced && !quiesce.isPartOfSilence(raft, message)) quiesce.wake(raft, 'message');\n",
    to: '',
  },
  // Reads.
  {
    name: 'reads-before-the-first-commit-of-the-term',
    file: 'raft/reading.ts',
    from: 'if (!raft.reads.hasWaiting || raft.termStartIndex === 0 || raft.commitIndex < raft.termStartIndex) return;',
    to: 'if (!raft.reads.hasWaiting) return;',
  },
  {
    name: 'reads-without-asking-anybody',
    file: 'raft/reading.ts',
    from: '  if (raft.quorum === 1) releaseReads(raft, round);\n  else broadcastHeartbeat(raft);',
    to: '  releaseReads(raft, round);',
  },
  {
    name: 'reads-confirmed-by-older-answers',
    file: 'raft/leading.ts',
    from: 'if (message.hint > 0) confirmRound(raft, member, message.hint);',
    to: 'confirmRound(raft, member, raft.reads.round);',
    kind: 'walk',
  },
  {
    name: 'reads-before-they-are-applied',
    file: 'engine/reading.ts',
    from: 'if (!replica.reads.isServable(appliedIndex)) return;\n  const startedMs = replica.reads.serve(appliedIndex, replica);',
    to: 'const startedMs = replica.reads.serve(Number.MAX_SAFE_INTEGER - 1, replica);',
  },
  // Who reads the log.
  {
    name: 'stream-gives-what-is-not-committed',
    file: 'engine/log-watch.ts',
    from: '    const { log, commitIndex } = this.replica.raft;',
    to: '    const { log } = this.replica.raft;\n    const commitIndex = log.lastIndex;',
  },
  {
    name: 'stream-goes-on-behind-what-was-compacted',
    file: 'engine/log-watch.ts',
    from: '      if (this.nextIndex <= raft.log.compactedIndex) throw compactedError(this.replica, this.nextIndex);',
    to: '      if (this.nextIndex <= raft.log.compactedIndex) this.nextIndex = raft.log.firstIndex;',
  },
  {
    name: 'stream-forgets-what-did-not-fit',
    file: 'engine/log-watch.ts',
    from: '      if (this.nextIndex <= last) break;',
    to: '      this.nextIndex = last + 1;',
  },
  {
    name: 'query-beyond-what-is-committed',
    file: 'engine/onlookers.ts',
    from: '    if (firstIndex > raft.commitIndex || to > raft.commitIndex) {',
    to: '    if (firstIndex > raft.log.lastIndex) {',
  },
  {
    name: 'commit-told-before-it-is-one',
    file: 'engine/commit-notices.ts',
    from: '    const { log, commitIndex } = this.raft;',
    to: '    const { log } = this.raft;\n    const commitIndex = log.lastIndex;',
  },
  {
    name: 'commit-told-after-the-answer',
    file: 'engine/applying.ts',
    from: '  if (replica.knownOnlookers?.wantsCommits === true) replica.knownOnlookers.committed();\n',
    to: '  if (replica.knownOnlookers?.wantsCommits === true) setImmediate(() => replica.onlookers.committed());\n',
  },
  {
    name: 'busy-for-ever',
    file: 'raft/pressure.ts',
    from: 'else if (unappliedBytes <= maxUnappliedBytes * CLEARS_AT) raft.isOverloaded = false;',
    to: 'else if (unappliedBytes < 0) raft.isOverloaded = false;',
  },
  // Sessions and outcomes.
  {
    name: 'session-retry-applied-again',
    file: 'rsm/special-entries.ts',
    from: '  if (known !== undefined) {\n    report(u32, word, index, ApplyStatus.Ok, known, sink);\n    return true;\n  }\n',
    to: '',
  },
  {
    name: 'session-order-differs-after-a-snapshot',
    file: 'rsm/sessions.ts',
    from: 'for (const session of this.byClient.values()) word = putSession',
    to: 'for (const session of [...this.byClient.values()].reverse()) word = putSession',
  },
  {
    name: 'sessions-missing-in-snapshots',
    file: 'rsm/captures.ts',
    from: 'encodeSection(rsm.sessions.encode());',
    to: 'encodeSection(new Sessions(rsm.maxSessions).encode());',
  },
  {
    name: 'a-timeout-is-called-not-applied',
    file: 'errors.ts',
    from: '  ERR_TIMEOUT: unknown,',
    to: '  ERR_TIMEOUT: again,',
  },
  {
    name: 'applies-while-a-snapshot-streams',
    file: 'engine/applying.ts',
    from: 'if (replica.isRestoring || rsm.busy) return false;',
    to: 'if (replica.isRestoring) return false;',
  },
  // The log on disk.
  {
    name: 'goes-on-after-a-failed-write',
    file: 'wal/wal.ts',
    from: '    if (cause !== null) {\n      // The segment may hold',
    to: "    if ((cause as { code?: string } | null)?.code === 'ENOSPC') {\n      // The segment may hold",
    faults: ['write-error', 'power-loss', 'crash'],
  },
  {
    name: 'tail-is-trusted-after-a-failed-flush',
    file: 'wal/open.ts',
    from: '  if (tail !== undefined) await rewrite(tail.segment, tail.offset, tail.sizeBytes);\n',
    to: '',
    faults: ['write-error', 'power-loss', 'crash', 'cluster-power-loss'],
  },
  {
    name: 'segments-without-flush',
    file: 'wal/segments.ts',
    from: "const file = await this.env.fs.open(path, 'write', { dataSync: true, direct: true });\n    return new Segment(epoch, path, file, undefined",
    to: "const file = await this.env.fs.open(path, 'write', { direct: true });\n    return new Segment(epoch, path, file, undefined",
  },
  {
    name: 'segment-name-not-flushed',
    file: 'wal/segments.ts',
    from: '    await this.env.fs.rename(spare, path);\n    await this.env.fs.syncDirectory(this.dir);',
    to: '    await this.env.fs.rename(spare, path);',
  },
  {
    name: 'truncation-not-marked',
    file: 'engine/inbound.ts',
    from: 'flags: truncates ? header.flags | BLOCK_TRUNCATES : header.flags,',
    to: 'flags: header.flags,',
  },
  {
    name: 'refused-block-replayed-at-recovery',
    file: 'engine/inbound.ts',
    from: '    if (verdict !== BlockVerdict.Whole && verdict !== BlockVerdict.Suffix) {\n      this.verbatim = false;\n',
    to: '    if (verdict !== BlockVerdict.Whole && verdict !== BlockVerdict.Suffix) {\n',
  },
  {
    name: 'moved-blocks-out-of-order',
    file: 'wal/replay.ts',
    from: 'const items = shard.hasMoved ? shard.items.sort(byOrder) : shard.items;',
    to: 'const { items } = shard;',
  },
  {
    name: 'reset-of-the-log-not-marked',
    file: 'engine/engine.ts',
    from: 'resetsLog || replica.raft.restoreReset',
    to: 'resetsLog',
    faults: ['isolate-leader', 'proposal-flood', 'forced-snapshot', 'install-crash'],
  },
  {
    name: 'damage-taken-for-a-torn-tail',
    file: 'wal/scan.ts',
    from: 'if (group !== undefined && group.header.groupNumber > end.groupNumber) {',
    to: 'if (group === undefined && probe < 0) {',
    faults: ['bit-rot', 'zeroed-sector', 'crash'],
  },
  {
    name: 'snapshot-not-flushed',
    file: 'rsm/image-file.ts',
    from: '    await file.sync();\n',
    to: '',
    kind: 'crash-points',
  },
  {
    name: 'snapshot-name-not-flushed',
    file: 'rsm/snapshotter.ts',
    from: '      await this.fs.rename(temporary, target);\n      await this.fs.syncDirectory(this.dir);',
    to: '      await this.fs.rename(temporary, target);',
    kind: 'crash-points',
  },
  {
    name: 'compaction-past-an-unfinished-snapshot',
    file: 'engine/snapshots.ts',
    from: '        await replica.snapshotter.save(index, image.chunks);\n        if (replica.status',
    to: '        const saved = replica.snapshotter.save(index, image.chunks);\n        await this.record(replica, index, term);\n        await saved;\n        if (replica.status',
    kind: 'crash-points',
  },
  {
    name: 'rest-of-a-snapshot-over-its-beginning',
    file: 'rsm/image-file.ts',
    from: 'writeChunk(file, chunk, offsetBytes + sizeBytes)',
    to: 'writeChunk(file, chunk, sizeBytes)',
    faults: ['snapshot-break', 'crash', 'forced-snapshot', 'slow-network'],
  },
  {
    name: 'place-of-a-snapshot-not-given-back',
    file: 'engine/arrivals.ts',
    from: '    } finally {\n      leave();\n    }',
    to: '    } finally {\n      void leave;\n    }',
    faults: ['snapshot-break', 'crash', 'forced-snapshot', 'slow-network'],
  },
  {
    name: 'snapshot-offered-in-a-term-not-led',
    file: 'engine/snapshots.ts',
    from: 'header: SnapshotHeader = { shardId, from, to, term,',
    to: 'header: SnapshotHeader = { shardId, from, to, term: Math.max(term, replica.raft.term),',
  },
  // State machines on disk.
  {
    name: 'stored-entries-applied-again',
    file: 'rsm/rsm.ts',
    from: 'const isStored = index <= this.openIndex;',
    to: 'const isStored = false;',
    faults: ['crash', 'restart-storm', 'forced-snapshot'],
  },
  {
    name: 'session-changes-lost',
    file: 'rsm/rsm.ts',
    from: '          changes = this.sessions.takeChanges();',
    to: '          this.sessions.takeChanges();\n          changes = [];',
    faults: ['crash', 'restart-storm', 'forced-snapshot'],
  },
  {
    name: 'index-stored-apart-from-data',
    file: 'sim/disk-store.ts',
    from: '    this.take(record);\n    await this.append(record);',
    to: '    this.take(record);\n    await this.append({ ...record, index: batch.index - Math.max(1, entries.length) });\n    await this.append(record);',
    faults: ['crash', 'power-loss', 'restart-storm'],
  },
  {
    name: 'log-goes-before-the-store-is-synced',
    file: 'engine/snapshots.ts',
    from: '      await sync(rsm);\n    } finally {',
    to: '    } finally {',
    faults: ['power-loss', 'cluster-power-loss', 'forced-snapshot'],
  },
  {
    name: 'concurrent-state-captured-late',
    file: 'rsm/captures.ts',
    from: 'state = () => stateMachine.saveSnapshot(prepared, { signal });',
    to: 'state = () => stateMachine.saveSnapshot(stateMachine.prepareSnapshot() as typeof prepared, { signal });',
  },
  // Who one is.
  {
    name: 'start-counter-not-flushed',
    file: 'engine/record-file.ts',
    from: '  await fs.rename(temporary, path);\n  await fs.syncDirectory(dir);',
    to: '  await fs.rename(temporary, path);',
  },
  {
    name: 'wiped-replica-votes',
    file: 'engine/incarnation.ts',
    from: 'if (!sameDirectory || !remembersStart(identity, pin.startCounter)) {',
    to: 'if (sameDirectory && !sameDirectory) {',
    faults: ['lost-disk', 'rolled-back-disk', 'isolate-leader', 'crash', 'partition'],
  },
  // Several engines.
  {
    name: 'engine-is-chosen-anew-at-each-start',
    file: 'engine-threads.ts',
    from: 'for (const shardId of shardIds) this.place(shardId, number);',
    to: '',
  },
  {
    name: 'old-engines-do-not-run',
    file: 'engine/directory.ts',
    from: 'number < Math.max(record.engines, engineCount); number++',
    to: 'number < engineCount; number++',
  },
  {
    name: 'moved-shards-keep-their-old-way',
    file: 'transport/tcp.ts',
    from: 'if (moved.length > 0) this.handlers?.onRoutes?.(target, moved);',
    to: '',
  },
  // Exports and imports.
  {
    name: 'export-goes-on-for-ever',
    file: 'engine/snapshot-export.ts',
    from: '    replica.isSnapshotting = false;\n',
    to: '',
    faults: ['forced-snapshot', 'crash', 'isolate-leader'],
  },
  {
    name: 'import-keeps-an-entry-too-many',
    file: 'tools/import.ts',
    from: '    compactedIndex: index,\n',
    to: '    compactedIndex: index - 1,\n',
    faults: ['forced-snapshot'],
  },
  // Who belongs to a shard.
  {
    name: 'two-changes-at-once',
    file: 'raft/raft.ts',
    from: 'return this.canPropose && hasOwnCommit && this.appliedIndex >= this.pendingChangeIndex;',
    to: 'return this.canPropose && hasOwnCommit;',
    faults: ['membership', 'slow-network', 'isolate-leader'],
  },
  {
    name: 'change-before-a-commit-of-the-own-term',
    file: 'raft/raft.ts',
    from: 'return this.canPropose && hasOwnCommit && this.appliedIndex >= this.pendingChangeIndex;',
    to: 'return this.canPropose && this.appliedIndex >= this.pendingChangeIndex;',
    faults: ['membership', 'slow-network', 'isolate-leader', 'crash'],
  },
  {
    name: 'campaign-over-a-change-that-is-not-applied',
    file: 'raft/membership.ts',
    from: '    if (ref.isConfigChange) return true;\n',
    to: '',
    faults: ['membership', 'isolate-leader', 'leader-transfer', 'slow-disk', 'crash'],
  },
  {
    name: 'removed-id-comes-back',
    file: 'rsm/membership.ts',
    from: '  if (base.removed.has(replicaId)) return Refusal.RemovedId;\n',
    to: '',
    faults: ['membership'],
  },
  {
    name: 'witness-leads',
    file: 'raft/member.ts',
    from: 'return this.isVoter && !this.isWitness;',
    to: 'return this.isVoter;',
    faults: ['membership', 'isolate-leader'],
  },
  {
    name: 'members-that-do-not-vote-count',
    file: 'raft/membership.ts',
    from: 'const isVoter = !membership.nonVotings.has(id);',
    to: 'const isVoter = true;',
    faults: ['membership', 'crash'],
  },
  {
    name: 'quorum-of-the-old-membership',
    file: 'raft/membership.ts',
    from: 'raft.voterCount = raft.members.filter((member) => member.isVoter).length;',
    to: 'raft.voterCount ||= raft.members.filter((member) => member.isVoter).length;',
    faults: ['membership', 'crash', 'isolate-leader'],
  },
  {
    name: 'membership-missing-in-snapshots',
    file: 'rsm/captures.ts',
    from: '      rsm.membership = membership;\n      rsm.membershipIndex = rsm',
    to: '      rsm.membershipIndex = rsm',
    faults: ['membership', 'crash', 'forced-snapshot'],
  },
  {
    name: 'removed-replica-is-not-told',
    file: 'engine/incarnation.ts',
    from: 'if (replicaId !== replica.replicaId) tellRemoved(this.engine, replica, replicaId, session);',
    to: '',
    faults: ['membership', 'isolate-leader', 'crash'],
  },
  {
    name: 'leader-leaves-nobody-who-could-lead',
    file: 'raft/leading.ts',
    from: 'if (index >= raft.leaveIndex && raft.isLeaving && !hasHeir(raft)) index = raft.leaveIndex - 1;',
    to: '',
    faults: ['membership', 'frame-loss', 'crash', 'pause', 'isolate-leader', 'power-loss'],
  },
  {
    name: 'lease-of-a-leader-that-is-gone',
    file: 'raft/election.ts',
    from: "  else if (raft.role === 'follower') changeLeader(raft, 0);\n",
    to: '',
    faults: ['membership', 'isolate-leader', 'crash', 'pause'],
  },
  // Upgrades.
  {
    name: 'writes-a-format-that-others-have-not-enabled',
    file: 'engine/formats.ts',
    from: 'format = Math.min(format, this.enabledOn(peer));',
    to: 'format = Math.max(format, this.enabledOn(peer));',
    faults: ['upgrade', 'enable-format'],
  },
  {
    name: 'enabled-format-is-forgotten',
    file: 'engine/directory.ts',
    from: 'format: known?.format ?? FORMAT_OLDEST,',
    to: 'format: FORMAT_OLDEST,',
    faults: ['upgrade', 'enable-format'],
  },
  {
    name: 'refused-group-counts-for-the-end-of-the-log',
    file: 'wal/wal.ts',
    from: '      this.end = this.endBefore;\n',
    to: '',
    faults: ['no-room', 'crash', 'power-loss'],
  },
];
