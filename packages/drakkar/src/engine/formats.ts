/**
 * Which format a host writes (design §7.8). What leaves it is in the newest format that it has enabled itself and that every host it
 * talks to has said to have enabled: nobody is sent what it could not keep, and nothing stands in a directory that the release before
 * cannot read until somebody says so.
 *
 * `enable` is that word, said once on any host when all are upgraded. The others hear of it and follow, each as soon as all hosts that it
 * talks to read the format. Nothing rests on their agreement but the way back; it may come late, or not at all.
 */
import { DrakkarError } from '../errors.ts';
import { FORMAT_OLDEST, type FormatRange } from '../wire/formats.ts';
import { Message, MessageType } from '../wire/message.ts';
import { meansHost } from '../transport/target.ts';
import type { InboundSession, Peer } from '../transport/transport.ts';
import type { Engine } from './engine.ts';
import { FORMAT_TELL_TICKS } from './limits.ts';

/** What the host's directory may hold; all its engines share it. */
export interface FormatDirectory {
  readonly format: number;
  /** Writes, for ever, that it may hold this format. */
  enableFormat(format: number): Promise<void>;
}

/** The range of a host that runs: what is enabled grows. Shared with its log. */
export interface OpenFormats extends FormatRange {
  enabled: number;
}

export class Formats {
  readonly range: FormatRange;
  private readonly engine: Engine;
  private readonly own: OpenFormats;
  private readonly directory: FormatDirectory;
  /** What is enabled on other hosts, as they say since they were last met; whoever has said nothing has enabled nothing. */
  private readonly heardOf = new Map<Peer, number>();
  private readonly message = new Message();
  private enabling: Promise<void> | undefined;

  constructor(engine: Engine, own: OpenFormats, directory: FormatDirectory) {
    this.engine = engine;
    this.range = this.own = own;
    this.directory = directory;
    this.message.type = MessageType.Alive;
  }

  /** What a host has enabled, as it says. */
  enabledOn(peer: Peer): number {
    return this.heardOf.get(peer) ?? FORMAT_OLDEST;
  }

  /** Everyone's word that counts: decides what the next frames are in. */
  settle(): void {
    let format = this.own.enabled;
    if (format > FORMAT_OLDEST) {
      for (const peer of this.engine.ways.peers()) format = Math.min(format, this.enabledOn(peer));
    }
    this.engine.outbound.format = format;
  }

  /** It may be another process than before, of another release. */
  peerUp(peer: Peer): void {
    this.heardOf.delete(peer);
    this.settle();
    this.tell(peer);
  }

  forget(peer: Peer): void {
    this.heardOf.delete(peer);
  }

  /** `Alive` says what is enabled on its sender; 0 from one that has nothing to say. */
  heard(session: InboundSession, enabled: number): void {
    if (enabled <= FORMAT_OLDEST) return;
    for (const peer of this.engine.ways.peers()) {
      const isSame = (peer.engine ?? 0) === (session.engine ?? 0);
      if (isSame && meansHost(peer.address, session.identity)) this.heardOf.set(peer, enabled);
    }
    this.settle();
    if (enabled > this.own.enabled && enabled <= this.own.newest) this.follow(enabled);
  }

  private follow(format: number): void {
    if (this.enabling !== undefined || this.behind(format).length > 0) return;
    this.enable(format).catch((error: unknown) => {
      this.engine.env.logger.warn({ format, err: error }, 'a format that is enabled elsewhere could not be enabled');
    });
  }

  /** Hosts that do not read `format`, or of which that is not known because they are away. */
  private behind(format: number): string[] {
    const found: string[] = [];
    for (const { address, connected, identity } of this.engine.ways.peers()) {
      if (!connected || identity === undefined) found.push(`${address} is away`);
      else if (!(identity.newestFormat >= format))
        found.push(`${address} reads formats up to ${identity.newestFormat}`);
    }
    return found;
  }

  /** There is no way back. Throws `ERR_FORMAT_NOT_AGREED`, and what writing to the directory throws. */
  async enable(format: number): Promise<void> {
    while (this.enabling !== undefined) await this.enabling.catch(() => {});
    if (format <= this.own.enabled) return;
    this.checkAgreed(format);
    const isNews = format > this.directory.format;
    this.enabling = this.directory.enableFormat(format).finally(() => {
      this.enabling = undefined;
    });
    await this.enabling;
    if (this.engine.failure !== undefined) throw this.engine.failure;
    // Durable first: what is written in it from now on must not be met by a release that does not expect it.
    this.own.enabled = format;
    this.settle();
    if (isNews) this.engine.events.emit('formatEnabled', { format });
    for (const peer of this.engine.ways.peers()) this.tell(peer);
  }

  /** Throws `ERR_FORMAT_NOT_AGREED`. */
  checkAgreed(format: number): void {
    const behind = this.behind(format);
    if (behind.length > 0) {
      throw new DrakkarError(
        'ERR_FORMAT_NOT_AGREED',
        `format ${format} cannot be enabled: ${behind.join(', ')}; upgrade or remove these hosts, and try again when all are up`,
      );
    }
  }

  tick(tickCount: number): void {
    if (tickCount % FORMAT_TELL_TICKS !== 0) return;
    // Another engine of this host has.
    if (this.directory.format > this.own.enabled) this.follow(this.directory.format);
    for (const peer of this.engine.ways.peers()) this.tell(peer);
  }

  private tell(peer: Peer): void {
    if (this.own.enabled === FORMAT_OLDEST || !peer.connected) return;
    this.message.hint = this.own.enabled;
    this.engine.outbound.addMessage(peer, this.message);
    this.engine.scheduleTurn();
  }
}
