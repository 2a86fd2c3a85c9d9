/** All there is to compare with, by the name that `--against` takes. */
import type { Contender } from './contender.ts';
import { ceiling } from './ceiling.ts';
import { dragonboat } from './dragonboat.ts';

export const PEERS = ['dragonboat', 'dragonboat-default', 'ceiling'] as const;
export type PeerName = (typeof PEERS)[number];

export function peer(name: PeerName, ceilingDir: string | undefined): Contender {
  switch (name) {
    case 'dragonboat':
      return dragonboat('tuned');
    case 'dragonboat-default':
      return dragonboat('default');
    case 'ceiling':
      return ceiling(ceilingDir);
  }
}
