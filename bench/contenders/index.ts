/** All there is to compare with, by the name that `--against` takes. */
import type { Contender } from './contender.ts';
import { ceiling } from './ceiling.ts';
import { dragonboat } from './dragonboat.ts';
import { drakkar } from './drakkar.ts';
import { etcd } from './etcd.ts';
import { server } from './server.ts';

export const PEERS = ['dragonboat', 'dragonboat-default', 'etcd', 'ceiling'] as const;
export type PeerName = (typeof PEERS)[number];

export interface Pair {
  readonly ours: Contender;
  readonly theirs: Contender;
}

/** A peer, and the form of the library that it is fair to compare with it. */
export function pairFor(name: PeerName, ceilingDir: string | undefined): Pair {
  switch (name) {
    case 'dragonboat':
      return { ours: drakkar(), theirs: dragonboat('tuned') };
    case 'dragonboat-default':
      return { ours: drakkar(), theirs: dragonboat('default') };
    case 'etcd':
      return { ours: server(), theirs: etcd() };
    case 'ceiling':
      return { ours: drakkar(), theirs: ceiling(ceilingDir) };
  }
}
