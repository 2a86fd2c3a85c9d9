/**
 * Values that many shards of a host have in common, kept once: members, pins and settings are the same for all shards of the same hosts. They
 * are never changed in place, so that sharing them is safe. Bounded: what finds no room is simply not shared.
 */
import type { ReplicaPin } from '../wal/logdb.ts';
import type { ReplicaSettings } from './replica.ts';
import { decodeBootstrap, encodeBootstrap, type Bootstrap } from './bootstrap-record.ts';

const KEPT_MAX = 4096;

export interface SharedBootstrap extends Bootstrap {
  readonly bytes: Uint8Array;
}

export class Interned {
  private readonly bootstraps = new Map<string, SharedBootstrap>();
  private readonly pins = new Map<string, ReplicaPin>();
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
    const known = this.pins.get(key);
    if (known !== undefined) return known;
    if (this.pins.size < KEPT_MAX) this.pins.set(key, pin);
    return pin;
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
