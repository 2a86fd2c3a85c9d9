/**
 * A transport that is watched and disturbed: every frame that leaves is shown to `onSend`, and frames that arrive may be lost, repeated,
 * delayed past others, or replayed much later. What it wraps is the real one. Forwarded proposals are never repeated: no transport may
 * do that (design §7.6).
 */
import type { Env } from '../env/env.ts';
import { FrameType, frameType } from '../inspect.ts';
import type { InboundSession, Peer, SnapshotHeader, Transport, TransportHandlers } from '../transport/transport.ts';
import { Slab } from '../wire/slab.ts';
import type { Dice } from './dice.ts';

/** Probabilities for each frame that arrives; changed while the run goes on. */
export class Disturbance {
  loss = 0;
  duplicate = 0;
  reorder = 0;
  replay = 0;
}

const REORDER_MS = 30;
const REPLAY_MS = 2000;

export interface TransportWatch {
  readonly env: Env;
  readonly dice: Dice;
  readonly disturbance: Disturbance;
  onSend(address: string, slab: Slab, offset: number, lengthBytes: number): void;
  onSnapshotOffer(header: SnapshotHeader): void;
  count(name: string): void;
}

export function watchTransport(inner: Transport, watch: TransportWatch): Transport {
  const peers = new Set<Peer>();
  return {
    name: inner.name,
    get address() {
      return inner.address;
    },
    counters: inner.counters,
    start: (handlers) => inner.start(disturbed(handlers, watch)),
    peer(address, shardId) {
      const peer = inner.peer(address, shardId);
      if (!peers.has(peer)) peers.add(watchPeer(peer, watch));
      return peer;
    },
    addressChanged: (target) => inner.addressChanged(target),
    announce: (...args) => inner.announce?.(...args),
    release(target, engine) {
      inner.release(target, engine);
    },
    sendSnapshot(target, header, ...rest) {
      watch.onSnapshotOffer(header);
      return inner.sendSnapshot(target, header, ...rest);
    },
    close: () => inner.close(),
  };
}

/** The same peer, not a copy: what it says of itself changes. */
function watchPeer(peer: Peer, watch: TransportWatch): Peer {
  const send = peer.send.bind(peer);
  return Object.assign(peer, {
    send(slab: Slab, offset: number, lengthBytes: number): boolean {
      watch.onSend(peer.address, slab, offset, lengthBytes);
      return send(slab, offset, lengthBytes);
    },
  });
}

function disturbed(handlers: TransportHandlers, watch: TransportWatch): TransportHandlers {
  const { dice, disturbance, env } = watch;
  const ended = new WeakSet<InboundSession>();
  const later = (from: InboundSession, slab: Slab, offset: number, lengthBytes: number, delayMs: number): void => {
    const copy = new Slab(lengthBytes);
    copy.u8.set(slab.u8.subarray(offset, offset + lengthBytes));
    copy.usedBytes = lengthBytes;
    env.scheduler.after(delayMs, () => {
      if (!ended.has(from)) handlers.onFrame(from, copy, 0, lengthBytes);
      copy.release();
    });
  };
  return {
    ...handlers,
    onFrame(from, slab, offset, lengthBytes) {
      const isForward = frameType(slab.u32, offset >>> 2) === FrameType.Forward;
      if (disturbance.loss > 0 && dice.chance(disturbance.loss)) {
        watch.count('framesLost');
        return;
      }
      if (!isForward && disturbance.replay > 0 && dice.chance(disturbance.replay)) {
        watch.count('framesReplayed');
        later(from, slab, offset, lengthBytes, dice.unit() * REPLAY_MS);
      }
      if (!isForward && disturbance.duplicate > 0 && dice.chance(disturbance.duplicate)) {
        watch.count('framesRepeated');
        later(from, slab, offset, lengthBytes, dice.unit() * REORDER_MS);
      }
      if (disturbance.reorder > 0 && dice.chance(disturbance.reorder)) {
        watch.count('framesReordered');
        later(from, slab, offset, lengthBytes, dice.unit() * REORDER_MS);
        return;
      }
      handlers.onFrame(from, slab, offset, lengthBytes);
    },
    onSessionEnd(from) {
      ended.add(from);
      handlers.onSessionEnd(from);
    },
  };
}
