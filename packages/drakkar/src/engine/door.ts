/**
 * What stands in for a failed engine 0 (design §5). Whoever dials the host's address learns there where its engines are and what lives in them:
 * without it hosts that begin later, and those that lose what they were told, would never find the engines that live on. Says that,
 * and takes nothing: what is sent to the shards of engine 0 is for nobody.
 */
import type { Env } from '../env/env.ts';
import { DrakkarError } from '../errors.ts';
import type { Transport, TransportHandlers } from '../transport/transport.ts';
import { DOOR_RETRY_MS } from './limits.ts';

const DEAF: TransportHandlers = {
  onFrame() {},
  onSessionEnd() {},
  onPeerUp() {},
  onPeerDown() {},
  onSnapshot: () =>
    Promise.reject(new DrakkarError('ERR_ENGINE_FAILED', 'engine 0 of this host failed: its shards take no snapshots')),
};

export class Door {
  private readonly env: Env;
  private readonly make: () => Transport;
  /** The newest try to open. */
  private starting: Promise<Transport> | undefined;
  /** Set once it is open. */
  private transport: Transport | undefined;
  /** By engine: told when it opens. */
  private readonly known = new Map<number, { address: string; readonly shardIds: Set<number> }>();
  private isClosed = false;

  /** Opens as soon as the address is free. `make` gives what listens there in the name of engine 0. */
  constructor(env: Env, make: () => Transport) {
    this.env = env;
    this.make = make;
    this.open().catch((error: unknown) => env.logger.error({ err: error }, 'nobody stands in for engine 0'));
  }

  private async open(): Promise<void> {
    for (let isFirst = true; !this.isClosed; isFirst = false) {
      const transport = this.make();
      this.starting = transport.start(DEAF).then(() => transport);
      try {
        await this.starting;
      } catch (error) {
        // Engine 0 may not have let go of it yet.
        if (isFirst) this.env.logger.warn({ err: error }, 'nobody listens at the address of the host; trying again');
        await new Promise<void>((resolve) => void this.env.scheduler.after(DOOR_RETRY_MS, resolve));
        continue;
      }
      this.transport = transport;
      for (const [engine, { address, shardIds }] of this.known) transport.announce?.(engine, address, [...shardIds]);
      return;
    }
  }

  /** See `Transport.announce`. */
  announce(engine: number, address: string, shardIds: readonly number[]): void {
    let known = this.known.get(engine);
    if (known === undefined) this.known.set(engine, (known = { address, shardIds: new Set() }));
    known.address = address;
    for (const shardId of shardIds) {
      for (const other of this.known.values()) other.shardIds.delete(shardId);
      known.shardIds.add(shardId);
    }
    this.transport?.announce?.(engine, address, shardIds);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    const transport = await this.starting?.catch(() => undefined);
    await transport?.close();
  }
}
