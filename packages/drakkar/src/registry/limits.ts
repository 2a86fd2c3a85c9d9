/** Named bounds of the gossip between hosts. */

/** A datagram that passes every network without being cut (IPv6's least MTU, less headers, nonce and tag). */
export const DATAGRAM_MAX_BYTES = 1180;
/** Hosts that one host remembers; more are ignored and counted. */
export const HOSTS_MAX = 4096;
/** Free text that a host tells of itself. */
export const META_MAX_BYTES = 512;
/** Seeds that a host may name. */
export const SEEDS_MAX = 64;
/** Pings under way on behalf of others. */
export const RELAYS_MAX = 256;
/** Shards of which one host knows who leads them and who belongs to them; more are ignored and counted. */
export const SHARD_VIEWS_MAX = 16_384;
/** Datagrams with news of shards that one host sends in a period, each to some others. */
export const SHARD_DATAGRAMS_PER_PERIOD = 16;
/** Shards that an exchange of everything tells of; the next exchange goes on with others. */
export const SHARDS_PER_SYNC = 256;
