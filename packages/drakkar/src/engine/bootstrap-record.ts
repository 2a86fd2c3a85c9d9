/** What a replica's first start wrote down of it, for ever: how it began, and, later, that it has ended. */
import { imageOf, membershipOf, readJson, type Membership } from '../wire/membership.ts';

export interface Bootstrap {
  /** The first members of the shard; unknown to a replica that joined. */
  readonly initial: Membership;
  /** It was started to be added to a shard that runs already. */
  readonly hasJoined: boolean;
  readonly isWitness: boolean;
  /** It was removed from its shard: it neither runs nor votes again, and its data may go. */
  readonly isRemoved: boolean;
  /** Its operator gave it up, whatever the shard thinks of it: this much is remembered, so that it never comes back. Set only with `isRemoved`. */
  readonly isGivenUp: boolean;
}

/** JSON, as UTF-8: a membership with flags. Those that are not set are left out. */
export function encodeBootstrap({ initial, hasJoined, isWitness, isRemoved, isGivenUp }: Bootstrap): Uint8Array {
  const flags = {
    ...(hasJoined ? { j: true } : {}),
    ...(isWitness ? { o: true } : {}),
    ...(isRemoved ? { x: true } : {}),
    ...(isGivenUp ? { g: true } : {}),
  };
  return new TextEncoder().encode(JSON.stringify({ ...imageOf(initial), ...flags }));
}

/** Throws `ERR_FRAME` on anything that `encodeBootstrap` could not have made. */
export function decodeBootstrap(bytes: Uint8Array): Bootstrap {
  const image = readJson(bytes);
  const initial = membershipOf(image);
  const { j, o, x, g } = image as { j?: unknown; o?: unknown; x?: unknown; g?: unknown };
  return { initial, hasJoined: j === true, isWitness: o === true, isRemoved: x === true, isGivenUp: g === true };
}
