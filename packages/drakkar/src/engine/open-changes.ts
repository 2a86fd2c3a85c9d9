/** Config changes of one shard on their way into the log: here when this replica leads, to the leader otherwise. One at a time is made. */
import { DrakkarError } from '../errors.ts';
import { configChangeFlags } from '../wire/block.ts';
import { encodeConfigChange, type ConfigChange } from '../wire/config-change.ts';
import { EntryType } from '../wire/entry.ts';
import type { Raft } from '../raft/raft.ts';
import { Refusal, changeMembership, errorOfRefusal } from '../rsm/membership.ts';
import { OPEN_CHANGES_MAX } from './limits.ts';
import { OpenBlock, type BlockBuffer } from './open-block.ts';
import type { Replica } from './replica.ts';
import { forward, seal } from './sealing.ts';

interface OpenChange {
  readonly change: ConfigChange;
  /** Who waits for it: a caller here when the nonce is the replica's own, nobody when both are 0. */
  readonly sequence: number;
  readonly nonce: number;
}

export class OpenChanges {
  private readonly replica: Replica;
  private waiting: OpenChange[] = [];

  constructor(replica: Replica) {
    this.replica = replica;
  }

  get isEmpty(): boolean {
    return this.waiting.length === 0;
  }

  /** Why the caller of a change is refused at once. Only a leader knows. */
  refusal(change: ConfigChange): DrakkarError | undefined {
    const { raft, shardId } = this.replica;
    if (this.waiting.length >= OPEN_CHANGES_MAX) return errorOfRefusal(Refusal.Pending, shardId);
    const refusal = raft.canPropose ? this.judge(change) : 0;
    return refusal === 0 ? undefined : errorOfRefusal(refusal, shardId);
  }

  add(open: OpenChange): void {
    if (this.waiting.length >= OPEN_CHANGES_MAX) return;
    this.waiting.push(open);
    this.replica.engine.markReady(this.replica);
  }

  /** The leader found that a member is ready to vote. */
  promote(replicaId: number): void {
    if (!this.isEmpty) return;
    const change: ConfigChange = {
      kind: 'promote',
      replicaId,
      address: '',
      role: 'voter',
      autoPromote: false,
      configChangeIndex: 0,
    };
    this.add({ change, sequence: 0, nonce: 0 });
  }

  /** The guards of design §4, and what applying it would say. */
  private judge(change: ConfigChange): Refusal | 0 {
    const { raft } = this.replica;
    if (!raft.mayChangeMembership) return Refusal.Pending;
    const changed = changeMembership(raft.membership, change, raft.log.lastIndex + 1);
    if (typeof changed === 'number') return changed;
    if (change.kind === 'remove' && change.replicaId === this.replica.replicaId && !hasHeir(raft)) {
      return Refusal.NotCaughtUp;
    }
    if (change.kind !== 'promote') return 0;
    return raft.memberOf(change.replicaId)?.isCaughtUp === true ? 0 : Refusal.NotCaughtUp;
  }

  /** In the replica's turn. */
  go(): void {
    const { raft } = this.replica;
    if (raft.isLeader && !raft.canPropose) return; // until the transfer ends
    const { waiting } = this;
    this.waiting = [];
    for (const open of waiting) {
      if (raft.isLeader) this.make(open);
      else this.passOn(open);
    }
  }

  private make({ change, sequence, nonce }: OpenChange): void {
    const { replica } = this;
    const refusal = this.judge(change);
    if (refusal === 0) {
      const payload = encodeConfigChange(change, replica.raft.membership);
      const removedId = change.kind === 'remove' ? change.replicaId : 0;
      seal(replica, this.blockOf(EntryType.ConfigChange, sequence, nonce, payload), configChangeFlags(removedId));
    } else if (nonce === replica.nonce) replica.pending.fail(sequence, errorOfRefusal(refusal, replica.shardId));
    // Its caller is at another host and learns of it like of everything else: from the log.
    else if (nonce !== 0) seal(replica, this.blockOf(EntryType.Noop, sequence, nonce, Uint8Array.of(refusal)), 0);
  }

  /** To the leader, once, like every proposal (design §7.6). */
  private passOn({ change, sequence, nonce }: OpenChange): void {
    const { replica } = this;
    if (nonce !== replica.nonce) return;
    const { leaderId } = replica.raft;
    const leader = leaderId === 0 ? undefined : replica.peerOf(leaderId);
    const block = this.blockOf(EntryType.ConfigChange, sequence, nonce, encodeConfigChange(change));
    forward(replica, leader, block);
  }

  /** A config change has a block of its own: whoever sees the block knows what is in it. */
  private blockOf(type: EntryType, sequence: number, nonce: number, payload: Uint8Array): BlockBuffer {
    const open = new OpenBlock(this.replica.engine.blockBuffers);
    open.put(type, sequence, nonce, payload);
    return open.take()!;
  }

  /** Those who wait are told by whoever ends the replica. */
  clear(): void {
    this.waiting = [];
  }
}

/** Whether somebody could lead in this leader's place. */
function hasHeir({ members, config, commitIndex }: Raft): boolean {
  return members.some((member) => {
    const isAlive = member.silentTicks <= config.electionTicks && !member.hasRegressed;
    return member.replicaId !== config.replicaId && member.mayLead && isAlive && member.matchIndex >= commitIndex;
  });
}
