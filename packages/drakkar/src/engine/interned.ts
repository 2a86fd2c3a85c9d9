/**
 * Values that many shards of a host have in common, kept once: members, pins, ways and settings are the same for all shards of the same
 * hosts. They are never changed in place, so that sharing them is safe. Bounded: what finds no room is simply not shared.
 */
import type { RaftConfig } from '../raft/config.ts';
import type { Peer } from '../transport/transport.ts';
import type { ReplicaPin } from '../wal/logdb.ts';
import type { Membership } from '../wire/membership.ts';
import type { ReplicaSettings } from './replica.ts';
import { decodeBootstrap, encodeBootstrap, type Bootstrap } from './bootstrap-record.ts';

const KEPT_MAX = 4096;

export interface SharedBootstrap extends Bootstrap {
  readonly bytes: Uint8Array;
}

export class Interned {
  private readonly bootstraps = new Map<string, SharedBootstrap>();
  private readonly knownPins = new Map<string, ReplicaPin>();
  private readonly pinLists = new Map<string, readonly ReplicaPin[]>();
  private readonly raftConfigs = new Map<string, RaftConfig>();
  private readonly peerLists = new WeakMap<Membership, readonly (Peer | undefined)[]>();
  private readonly known = new Map<string, ReplicaSettings>();

  bootstrapOf(record: Bootstrap): SharedBootstrap {
    return this.bootstrap(encodeBootstrap(record));
  }

  /** A bootstrap record as it was written; throws `ERR_FRAME` when it is none. */
  bootstrap(bytes: Uint8Array): SharedBootstrap {
    const key = String.fromCharCode(...bytes.subarray(0, KEPT_MAX));
    let known = bytes.length > KEPT_MAX ? undefined : this.bootstraps.get(key);
    if (known === undefined) {
      known = { bytes, ...decodeBootstrap(bytes) };
      if (this.bootstraps.size < KEPT_MAX && bytes.length <= KEPT_MAX) this.bootstraps.set(key, known);
    }
    return known;
  }

  pin(pin: ReplicaPin): ReplicaPin {
    const key = `${pin.replicaId}/${pin.directoryHigh}/${pin.directoryLow}/${pin.startCounter}`;
    const known = this.knownPins.get(key);
    if (known !== undefined) return known;
    if (this.knownPins.size < KEPT_MAX) this.knownPins.set(key, pin);
    return pin;
  }

  pins(list: readonly ReplicaPin[]): readonly ReplicaPin[] {
    const pins = list.map((pin) => this.pin(pin));
    const key = JSON.stringify(pins);
    const known = this.pinLists.get(key);
    if (known !== undefined) return known;
    if (this.pinLists.size < KEPT_MAX) this.pinLists.set(key, pins);
    return pins;
  }

  raftConfig(config: RaftConfig): RaftConfig {
    const key = JSON.stringify(config); // all but `random`, of which an engine has one
    const known = this.raftConfigs.get(key);
    if (known !== undefined) return known;
    if (this.raftConfigs.size < KEPT_MAX) this.raftConfigs.set(key, config);
    return config;
  }

  /** The newest list is kept for each membership: shards of one may still be reached in different ways. */
  peers(membership: Membership, list: readonly (Peer | undefined)[]): readonly (Peer | undefined)[] {
    const known = this.peerLists.get(membership);
    if (known?.length === list.length && known.every((peer, slot) => peer === list[slot])) return known;
    this.peerLists.set(membership, list);
    return list;
  }

  settings(given: ReplicaSettings): ReplicaSettings {
    const { snapshotEntries, compactionOverhead, electionTicks, maxPayloadBytes, isWitness } = given;
    const settings = { snapshotEntries, compactionOverhead, electionTicks, maxPayloadBytes, isWitness };
    const key = JSON.stringify(settings);
    const known = this.known.get(key);
    if (known !== undefined) return known;
    if (this.known.size < KEPT_MAX) this.known.set(key, settings);
    return settings;
  }
}
