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
