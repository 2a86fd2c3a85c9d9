/**
 * Accepted connections that have not said who they are: bounded in all and for each address. When one too many comes, the oldest gives
 * way, not the newest: a handshake takes milliseconds, so a peer gets through a flood that would keep every place taken.
 */
import { CONNECTIONS_MAX_BEFORE_HELLO, CONNECTIONS_MAX_BEFORE_HELLO_IN_ALL } from './limits.ts';

export class Admission<T> {
  private readonly evict: (connection: T) => void;
  /** With what counts as their addresses; oldest first, as maps keep their order. */
  private readonly all = new Map<T, string>();
  private readonly byAddress = new Map<string, Set<T>>();

  constructor(evict: (connection: T) => void) {
    this.evict = evict;
  }

  get count(): number {
    return this.all.size;
  }

  /** `evict` runs inside the call, for at most one other connection, which has left by then. */
  enter(connection: T, remoteAddress: string): void {
    const key = addressKey(remoteAddress);
    const same = this.byAddress.get(key);
    if (same !== undefined && same.size >= CONNECTIONS_MAX_BEFORE_HELLO) this.giveUpFirst(same.values());
    else if (this.all.size >= CONNECTIONS_MAX_BEFORE_HELLO_IN_ALL) this.giveUpFirst(this.all.keys());
    this.all.set(connection, key);
    const others = this.byAddress.get(key);
    if (others === undefined) this.byAddress.set(key, new Set([connection]));
    else others.add(connection);
  }

  private giveUpFirst(connections: Iterator<T>): void {
    const first = connections.next();
    if (first.done === true) return;
    this.leave(first.value);
    this.evict(first.value);
  }

  /** It is known now, or gone. Fine when it was not there. */
  leave(connection: T): void {
    const key = this.all.get(connection);
    if (key === undefined) return;
    this.all.delete(connection);
    const same = this.byAddress.get(key)!;
    same.delete(connection);
    if (same.size === 0) this.byAddress.delete(key);
  }
}

/** What counts as one address: an IPv4 address, or the 64 bits of an IPv6 network, in which a single machine has all it wants. */
export function addressKey(remoteAddress: string): string {
  const host = remoteAddress.slice(0, remoteAddress.lastIndexOf(':'));
  if (!host.startsWith('[')) return host;
  const text = host.slice(1, -1).replace(/%.*$/, '');
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text);
  if (mapped !== null) return mapped[1];
  const [front, back] = text.split('::') as [string, string | undefined];
  const head = front === '' ? [] : front.split(':');
  const tail = back === undefined || back === '' ? [] : back.split(':');
  const zeros = back === undefined ? 0 : Math.max(0, 8 - head.length - tail.length);
  const groups = [...head, ...Array.from({ length: zeros }, () => '0'), ...tail];
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}
