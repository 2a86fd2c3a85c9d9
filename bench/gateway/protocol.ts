/** How the generator speaks to a key-value server over one connection, without a library: it must be cheaper than what it measures. */

export interface Protocol {
  /** What opens a connection. */
  hello(): Buffer;
  /** A put; undefined when the server must first take what it was sent. */
  put(key: string, value: Buffer): Buffer | undefined;
  /**
   * Takes what arrived; gives how many puts it answered. `onAnswer` gets the number of each, counted from 0 on this connection. Throws
   * on any answer that is not a success.
   */
  receive(chunk: Buffer, onAnswer: (sequence: number) => void): void;
  /** What must be sent back beside puts; empty for nothing. */
  takeReply(): Buffer;
}

export const NOTHING: Buffer = Buffer.alloc(0);
