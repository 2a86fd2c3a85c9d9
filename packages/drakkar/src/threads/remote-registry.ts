/**
 * The host's registry as a thread sees it: what the host said last, and a question to it at every try. News comes with the answer, or when
 * the registry hears of it.
 */
import type { KnownHost, Registry } from '../registry/registry.ts';
import type { ShardView } from '../registry/shard-views.ts';

export class RemoteRegistry implements Registry {
  /** Set when the host's registry wants to be told. */
  tellShard?: (view: ShardView) => void;
  private readonly ask: (target: string) => void;
  private readonly addresses = new Map<string, string>();
  private onChange: (target: string) => void = () => {};

  constructor(ask: (target: string) => void) {
    this.ask = ask;
  }

  resolve(target: string): string | undefined {
    this.ask(target);
    return this.addresses.get(target);
  }

  learn(target: string, address: string | undefined): void {
    if (address === undefined || address === this.addresses.get(target)) return;
    this.addresses.set(target, address);
    this.onChange(target);
  }

  start(onChange: (target: string) => void): Promise<void> {
    this.onChange = onChange;
    return Promise.resolve();
  }

  /** The host knows them. */
  hosts(): readonly KnownHost[] {
    return [];
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
