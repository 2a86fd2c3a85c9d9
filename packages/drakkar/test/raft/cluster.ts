/**
 * Protocol cores of one shard with nothing around them: the test holds the network and the disks, says what arrives and what becomes
 * durable, and can crash a replica to what was durable.
 */
import assert from 'node:assert/strict';
import { seededRandom } from '../../src/testing.ts';
import type { RaftConfig } from '../../src/raft/config.ts';
import type { Outbox, TransferOutcome } from '../../src/raft/outbox.ts';
import type { WakeCause } from '../../src/raft/quiesce.ts';
import { BlockVerdict, Raft } from '../../src/raft/raft.ts';
import { BlockHeader } from '../../src/wire/block.ts';
import { BlockRef, type BlockPlace } from '../../src/wire/block-ref.ts';
import { initialMembership } from '../../src/wire/membership.ts';
import { Message, MessageType } from '../../src/wire/message.ts';

const PLACE: BlockPlace = {
  segmentEpoch: 1,
  frameOffset: 0,
  frameBytes: 0,
  blockOffset: 0,
  orderEpoch: 1,
  orderOffset: 0,
};

interface StoredBlock {
  readonly firstIndex: number;
  readonly count: number;
  readonly term: number;
  readonly prevTerm: number;
}

interface Write {
  readonly block: StoredBlock | undefined;
  readonly state: { term: number; vote: number; commitIndex: number } | undefined;
}

export interface Parcel {
  readonly from: number;
  readonly to: number;
  readonly message: Message | undefined;
  readonly block: BlockHeader | undefined;
}

/** One replica: its core, what it wrote, and what of that a crash would leave. */
export class Node implements Outbox {
  readonly id: number;
  raft: Raft;
  private readonly cluster: RaftCluster;
  private durable: { term: number; vote: number; commitIndex: number; blocks: StoredBlock[] };
  pending: Write[] = [];
  private held: { after: number; message: Message }[] = [];
  private noopWanted = false;
  readonly served: { context: number; index: number }[] = [];
  readonly droppedReads: number[] = [];
  readonly transfers: [target: number, outcome: TransferOutcome][] = [];
  readonly snapshotsAsked: number[] = [];
  readonly regressed: number[] = [];
  /** Its state machine does not get beyond. */
  appliesUpTo = Number.POSITIVE_INFINITY;
  readonly silences: string[] = [];

  constructor(cluster: RaftCluster, id: number) {
    this.cluster = cluster;
    this.id = id;
    this.durable = { term: 0, vote: 0, commitIndex: 0, blocks: [] };
    this.raft = this.create();
  }

  private create(): Raft {
    const { blocks, term, vote, commitIndex } = this.durable;
    const refs = blocks.map(({ firstIndex, count, term: of, prevTerm }) => {
      const ref = new BlockRef(firstIndex, count, of, prevTerm, undefined, 0, 0);
      ref.place = PLACE;
      return ref;
    });
    const membership = initialMembership(this.cluster.ids.map((id) => [id, `host${id}:1`]));
    const start = {
      shardId: 1,
      term,
      vote,
      commitIndex,
      appliedIndex: 0,
      compactedIndex: 0,
      compactedTerm: 0,
      blocks: refs,
      membership,
    };
    return new Raft(this.cluster.configOf(this.id), start, this);
  }

  /** Back to what was durable. */
  crash(): void {
    this.pending = [];
    this.held = [];
    this.noopWanted = false;
    this.raft = this.create();
  }

  /** The first `count` writes become durable. */
  flush(count: number = this.pending.length): void {
    for (const write of this.pending.splice(0, count)) {
      if (write.state !== undefined) Object.assign(this.durable, write.state);
      if (write.block !== undefined) this.storeBlock(write.block);
      this.raft.writeDurable(write.block === undefined ? undefined : PLACE);
    }
    this.raft.afterFlush();
    const held = this.held;
    this.held = [];
    for (const { after, message } of held) this.post(message, after);
    this.work();
  }

  private storeBlock(block: StoredBlock): void {
    const { blocks } = this.durable;
    while (blocks.length > 0) {
      const last = blocks[blocks.length - 1];
      if (last.firstIndex + last.count <= block.firstIndex) break;
      blocks.pop();
      if (last.firstIndex < block.firstIndex) blocks.push({ ...last, count: block.firstIndex - last.firstIndex });
    }
    blocks.push(block);
  }

  /** Term of what a crash would leave at `index`. */
  durableTermAt(index: number): number | undefined {
    return this.durable.blocks.find((block) => index >= block.firstIndex && index < block.firstIndex + block.count)
      ?.term;
  }

  /** What an engine does after each input. */
  work(): void {
    if (this.noopWanted && this.raft.role === 'leader') {
      this.noopWanted = false;
      this.propose();
    }
    this.raft.flushReads();
    if (this.raft.needsCatchUp) this.raft.catchUp();
    this.raft.flushCommit();
    this.raft.applied(Math.max(this.raft.appliedIndex, Math.min(this.raft.applyLimit, this.appliesUpTo)));
  }

  /** Appends a block of `count` entries as the leader. */
  propose(count = 1): number {
    const { log, term } = this.raft;
    const ref = new BlockRef(log.lastIndex + 1, count, term, log.lastTerm, undefined, 0, this.cluster.wordsOf(count));
    const mask = this.raft.appendOwn(ref);
    this.pending.push({ block: { firstIndex: ref.firstIndex, count, term, prevTerm: ref.prevTerm }, state: undefined });
    for (let slot = 0; slot < this.raft.slots.length; slot++) {
      if ((mask & (1 << slot)) !== 0) this.sendBlock(slot, ref, 0, count, ref.prevTerm);
    }
    return ref.lastIndex;
  }

  receive(parcel: Parcel): void {
    if (parcel.message !== undefined) this.raft.step(parcel.message);
    else if (parcel.block !== undefined) this.receiveBlock(parcel.block);
    this.work();
  }

  private receiveBlock(header: BlockHeader): void {
    const verdict = this.raft.checkBlock(header);
    if (verdict !== BlockVerdict.Whole && verdict !== BlockVerdict.Suffix) return;
    const first = this.raft.acceptFrom;
    const count = header.lastIndex - first + 1;
    const prevTerm = first === header.firstIndex ? header.prevTerm : header.term;
    const words = this.cluster.wordsOf(count);
    this.raft.acceptBlock(new BlockRef(first, count, header.term, prevTerm, undefined, 0, words), header);
    this.pending.push({ block: { firstIndex: first, count, term: header.term, prevTerm }, state: undefined });
  }

  tick(count = 1): void {
    for (let left = count; left > 0; left--) {
      this.raft.tick();
      this.work();
    }
  }

  /** Terms of the entries from 1 on. */
  terms(): number[] {
    return Array.from({ length: this.raft.log.lastIndex }, (_, i) => this.raft.log.termAt(i + 1)!);
  }

  // What the core decides.

  send(message: Message, after: number): void {
    this.post(Object.assign(new Message(), message), after);
  }

  private post(message: Message, after: number): void {
    if (after > this.raft.durableWrite) this.held.push({ after, message });
    else this.cluster.post({ from: this.id, to: message.to, message, block: undefined });
  }

  sendBlock(slot: number, ref: BlockRef, skip: number, count: number, prevTerm: number): boolean {
    const block = Object.assign(new BlockHeader(), {
      count,
      term: ref.term,
      prevTerm,
      firstIndex: ref.firstIndex + skip,
      commitIndex: this.raft.commitIndex,
      senderId: this.id,
      senderTerm: this.raft.term,
    });
    // The term it speaks of is durable: a leader's always is.
    assert.ok(this.raft.maySpeak, 'a block left before its term was durable');
    this.cluster.post({ from: this.id, to: this.raft.slots[slot], message: undefined, block });
    return true;
  }

  sendProbe(slot: number, prevIndex: number, prevTerm: number): void {
    this.sendBlock(slot, new BlockRef(prevIndex + 1, 0, this.raft.term, prevTerm, undefined, 0, 0), 0, 0, prevTerm);
  }

  sendSnapshot(slot: number): void {
    this.snapshotsAsked.push(this.raft.slots[slot]);
  }

  saveState(): void {
    this.pending.push({ block: undefined, state: this.raft.hardState() });
  }

  appendNoop(): void {
    this.noopWanted = true;
  }

  readReady(context: number, index: number): void {
    this.served.push({ context, index });
  }

  readsDropped(context: number): void {
    this.droppedReads.push(context);
  }

  truncations = 0;

  truncated(): void {
    this.truncations++;
  }

  leaderChanged(leaderId: number, term: number): void {
    if (leaderId === this.id) this.cluster.elected(this.id, term);
  }

  quiesceChanged(wokenBy: WakeCause | undefined): void {
    this.silences.push(wokenBy ?? 'quiesced');
  }

  transferEnded(targetId: number, outcome: TransferOutcome): void {
    this.transfers.push([targetId, outcome]);
  }

  readonly promoted: number[] = [];

  promote(replicaId: number): void {
    this.promoted.push(replicaId);
  }

  memberRegressed(replicaId: number): void {
    this.regressed.push(replicaId);
  }
}

export class RaftCluster {
  readonly ids: readonly number[];
  readonly nodes: ReadonlyMap<number, Node>;
  readonly parcels: Parcel[] = [];
  /** Leader of each term, as they came. */
  readonly leaders = new Map<number, number>();
  private readonly cut = new Set<string>();
  private readonly random: ReturnType<typeof seededRandom>;
  private readonly overrides: Partial<RaftConfig>;
  private readonly entryBytes: number;

  /** `entryBytes`: size of every entry. */
  constructor(
    size = 3,
    seed = 1,
    { entryBytes = 0, ...overrides }: Partial<RaftConfig> & { entryBytes?: number } = {},
  ) {
    this.entryBytes = entryBytes;
    this.ids = Array.from({ length: size }, (_, i) => i + 1);
    this.random = seededRandom(seed);
    this.overrides = overrides;
    this.nodes = new Map(this.ids.map((id) => [id, new Node(this, id)]));
  }

  configOf(replicaId: number): RaftConfig {
    return {
      replicaId,
      electionTicks: 10,
      heartbeatTicks: 1,
      preVote: true,
      checkQuorum: true,
      quiesce: false,
      maxInflightBlocks: 16,
      maxInflightBytes: 1 << 20,
      maxSendBytes: 1 << 20,
      maxUnappliedBytes: 1 << 20,
      random: () => this.random.u32(),
      ...this.overrides,
    };
  }

  node(id: number): Node {
    return this.nodes.get(id)!;
  }

  wordsOf(count: number): number {
    return (count * this.entryBytes) >>> 2;
  }

  post(parcel: Parcel): void {
    if (!this.cut.has(`${parcel.from}>${parcel.to}`)) this.parcels.push(parcel);
  }

  elected(id: number, term: number): void {
    assert.ok(!this.leaders.has(term) || this.leaders.get(term) === id, `two leaders in term ${term}`);
    this.leaders.set(term, id);
  }

  /** Nothing passes between `id` and the others. */
  isolate(id: number): void {
    for (const other of this.ids) {
      this.cut.add(`${id}>${other}`);
      this.cut.add(`${other}>${id}`);
    }
  }

  cutOneWay(from: number, to: number): void {
    this.cut.add(`${from}>${to}`);
  }

  heal(): void {
    this.cut.clear();
  }

  /** Delivers and flushes until nothing is under way; `keep` names parcels that are lost. */
  settle(isLost: (parcel: Parcel) => boolean = () => false): void {
    for (let round = 0; round < 10_000; round++) {
      let isIdle = true;
      for (const node of this.nodes.values()) {
        if (node.pending.length === 0) continue;
        node.flush();
        isIdle = false;
      }
      const parcel = this.parcels.shift();
      if (parcel !== undefined) {
        isIdle = false;
        if (!isLost(parcel)) this.node(parcel.to).receive(parcel);
      }
      if (isIdle) return;
    }
    throw new Error('the cluster does not come to rest');
  }

  timeoutNow(from: number, to: number): Message {
    return messageOf({ type: MessageType.TimeoutNow, from, to });
  }

  /** Ticks everybody, settling in between. */
  run(ticks: number): void {
    for (let left = ticks; left > 0; left--) {
      for (const node of this.nodes.values()) node.tick();
      this.settle();
    }
  }

  /** Makes `id` the leader and lets its first entry commit. */
  elect(id: number): Node {
    const node = this.node(id);
    node.raft.campaign();
    node.work();
    this.settle();
    assert.equal(node.raft.role, 'leader', `replica ${id} was not elected`);
    return node;
  }

  get leader(): Node | undefined {
    return [...this.nodes.values()]
      .filter((node) => node.raft.role === 'leader')
      .sort((a, b) => b.raft.term - a.raft.term)[0];
  }
}

export function messageOf(fields: Partial<Message> & { type: MessageType }): Message {
  return Object.assign(new Message(), { shardId: 1, to: 1 }, fields);
}

/** A replica whose durable log has these terms, whose newest term is `term`, and who voted for `vote` in it. */
export function withLog(node: Node, terms: readonly number[], term: number, vote = 0, commitIndex = 0): void {
  const blocks = terms.map((of, i) => ({ firstIndex: i + 1, count: 1, term: of, prevTerm: terms[i - 1] ?? 0 }));
  Object.assign(node['durable'], { term, vote, commitIndex, blocks });
  node.crash();
}

export function blockOf(fields: Partial<BlockHeader>): BlockHeader {
  const header = Object.assign(new BlockHeader(), { shardId: 1 }, fields);
  header.senderTerm ||= header.term;
  return header;
}
